//! A job as the clerk keeps it, from the wish to its end: what is known, and what follows from what happens. Time is passed in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::digest::Digest;
use common::node::NodeId;
use common::task::Credentials;
use peer::errand::Failed;
use time::OffsetDateTime;

use super::choice::Candidate;
use super::contents::Load;
use super::job::{Contents, JobId, NodeState, NodeView, Part, PartProgress, Spec, State, Target, View};
use super::keep::Kept;
use super::plan::{self, Command, Event, Leg, Limits, Plan};

/// Letters of a node's reason that outlive a restart.
const LONGEST_REASON: usize = 300;
/// Failed nodes that a view names; of a job in a list, also files and wanted nodes.
const MAX_NAMED: usize = 100;
/// What a job says whose credentials are gone.
pub(super) const FORGOTTEN: &str =
    "the supernode was restarted, and the job's credentials were in its memory only: start it again";

const LATE: &str =
    "the job's deadline was reached (active_deadline_seconds) before it was known what it comes to";

/// A job.
pub(super) struct Job {
    pub(super) id: JobId,
    pub(super) spec: Spec,
    /// For finding out what the image is; the load has its own.
    pub(super) credentials: Credentials,
    pub(super) load: Option<Load>,
    state: State,
    message: Option<String>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    /// When it was first not paused.
    started_at: Option<OffsetDateTime>,
    finished_at: Option<OffsetDateTime>,
    /// When it ends, done or not.
    deadline: Option<Instant>,
    /// How often it was asked in vain what it comes to, and when it may be asked again.
    tries: u32,
    next_try: Option<Instant>,
    /// It was wished for once more since it was found out what it comes to: that is asked again at its end.
    again: bool,
    contents: Option<Contents>,
    /// The first of its parts.
    parts: Vec<Part>,
    /// Of what its nodes have, or are to have ([`Load::meaning`]).
    meaning: Option<String>,
    plan: Option<Plan>,
    /// How nodes are called.
    names: BTreeMap<NodeId, String>,
    /// Names that no node has.
    missing: Vec<String>,
    /// The nodes of an earlier run, or of one that is over.
    before: Vec<NodeView>,
    secret: bool,
    /// When it was written down last.
    pub(super) written: Option<Instant>,
    /// Whether its end was told.
    told: bool,
}

/// The wall clock and the other one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// For deadlines.
    pub(super) instant: Instant,
    /// For people.
    pub(super) date: OffsetDateTime,
}

// === impl Now ===

impl Now {
    /// Now.
    pub(super) fn read() -> Self {
        Self { instant: Instant::now(), date: OffsetDateTime::now_utc() }
    }
}

// === impl Job ===

impl Job {
    /// A new one.
    pub(super) fn new(id: JobId, spec: Spec, credentials: Credentials, now: Now) -> Self {
        let state = if spec.paused { State::Paused } else { State::Pending };
        let mut job = Self {
            id,
            spec,
            secret: !credentials.is_empty(),
            credentials,
            load: None,
            state,
            message: None,
            created_at: now.date,
            updated_at: now.date,
            started_at: None,
            finished_at: None,
            deadline: None,
            tries: 0,
            next_try: None,
            again: false,
            contents: None,
            parts: Vec::new(),
            meaning: None,
            plan: None,
            names: BTreeMap::new(),
            missing: Vec::new(),
            before: Vec::new(),
            written: None,
            told: false,
        };
        if state == State::Pending {
            job.start(now);
        }
        job
    }

    /// Its time runs from now on, or has run for a while.
    fn start(&mut self, now: Now) {
        let started = *self.started_at.get_or_insert(now.date);
        let Some(seconds) = self.spec.active_deadline_seconds else { return };
        let gone = Duration::try_from(now.date - started).unwrap_or_default();
        self.deadline = now.instant.checked_add(Duration::from_secs(seconds).saturating_sub(gone));
    }

    /// One of an earlier life of the supernode: what is not over begins anew, for the nodes that it was for.
    pub(super) fn of_kept(kept: Kept, now: Now) -> Self {
        let Kept { id, spec, state, message, secret, created_at, updated_at, finished_at, .. } = kept;
        let mut job = Self::new(id, spec, Credentials::none(), now);
        job.told = state.is_over();
        (job.state, job.message, job.secret) = (state, message, secret);
        (job.created_at, job.updated_at, job.finished_at) = (created_at, updated_at, finished_at);
        (job.contents, job.parts, job.before, job.meaning) =
            (kept.contents, kept.parts, kept.nodes, kept.meaning);
        for view in job.before.iter_mut().filter(|view| view.state == NodeState::Active) {
            // Broken off by us.
            (view.state, view.attempts) = (NodeState::Waiting, view.attempts.saturating_sub(1));
        }
        (job.started_at, job.deadline) = (kept.started_at, None);
        if matches!(state, State::Pending | State::Running) {
            job.started_at.get_or_insert(created_at);
            job.start(now);
        }
        if !state.is_over() && secret {
            job.end(State::Failed, Some(FORGOTTEN.to_owned()), now);
        } else if state == State::Running {
            job.state = State::Pending;
        }
        job
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Whether it is to be found out now what it comes to.
    pub(super) fn is_to_be_found(&self, now: Instant) -> bool {
        let rests = self.next_try.is_some_and(|at| at > now);
        self.state == State::Pending && self.load.is_none() && !rests
    }

    /// Whether this is the same wish: one that waits to be resumed is another than one that is to begin.
    pub(super) fn is_for(&self, spec: &Spec) -> bool {
        let paused = self.spec.paused;
        // Both may name thousands of nodes: what differs mostly is looked at first.
        (self.state == State::Paused) == spec.paused
            && (&self.spec.image, self.spec.to) == (&spec.image, spec.to)
            && self.spec == Spec { paused, ..spec.clone() }
    }

    /// Somebody wishes the same, perhaps by other credentials. What a tag means is asked again, at the latest at the end.
    pub(super) fn wish_again(&mut self, credentials: Credentials) {
        // Who asks just now does so by the former ones.
        self.again = self.load.is_some() || !credentials.is_empty();
        if !credentials.is_empty() {
            (self.credentials, self.secret, self.next_try) = (credentials, true, None);
        }
    }

    /// Whether it is over, and that is news.
    pub(super) fn is_over_now(&mut self) -> bool {
        self.state.is_over() && !std::mem::replace(&mut self.told, true)
    }

    /// When it is forgotten.
    pub(super) fn expires(&self) -> Option<OffsetDateTime> {
        let ttl = Duration::from_secs(self.spec.ttl_seconds_after_finished);
        self.finished_at.map(|at| at + ttl)
    }

    /// When it must be looked at again at the latest.
    pub(super) fn wake(&self) -> Option<Instant> {
        match self.state {
            State::Pending => self.deadline.into_iter().chain(self.next_try).min(),
            State::Running => self.plan.as_ref()?.wake(),
            State::Paused | State::Succeeded | State::Failed | State::Cancelled => None,
        }
    }

    /// It is known what it comes to: its nodes begin. `seed` is the supernode's own node.
    pub(super) fn found(
        &mut self,
        load: Load,
        seed: NodeId,
        candidates: &[Candidate],
        now: Now,
    ) -> Vec<Command> {
        (self.contents, self.parts) = (Some(load.contents), load.parts.to_vec());
        (self.tries, self.next_try, self.message) = (0, None, None);
        let meaning = load.meaning();
        let moved = self.meaning.replace(meaning.clone()).is_some_and(|before| before != meaning);
        self.load = Some(load);
        let before = std::mem::take(&mut self.before);
        let earlier: BTreeMap<NodeId, &NodeView> =
            before.iter().filter_map(|view| Some((view.node.parse().ok()?, view))).collect();
        let (mut nodes, missing) = match self.spec.to {
            Target::Cache => (vec![seed], Vec::new()),
            Target::Peers | Target::Runtime => self.spec.nodes.among(candidates),
        };
        self.missing = missing;
        if !before.is_empty() {
            // Chosen is chosen: not all may be connected again yet.
            nodes = earlier.keys().copied().collect();
            self.missing =
                before.iter().filter(|view| view.node.is_empty()).map(|view| view.name.clone()).collect();
        }
        self.names = candidates.iter().map(|one| (one.node, one.labels.host.clone())).collect();
        self.names.extend(earlier.iter().map(|(&node, view)| (node, view.name.clone())));
        self.names.retain(|node, _| nodes.contains(node));
        if nodes.is_empty() {
            let why = match candidates.is_empty() {
                true => "no node is connected to this supernode",
                false => "no connected node matches: see `longshore peers` for their names, zones and racks",
            };
            self.end(State::Failed, Some(why.to_owned()), now);
            return Vec::new();
        }
        let mut plan = Plan::new(nodes, Limits::of(&self.spec, self.deadline, first(self.id)), now.instant);
        // What nodes have of something else does not count.
        for (node, view) in earlier.into_iter().filter(|_| !moved) {
            match view.state {
                NodeState::Succeeded => plan.has(node, view.bytes),
                NodeState::Failed => plan.cannot(node, view.reason.as_deref().unwrap_or_default()),
                NodeState::Waiting | NodeState::Active => {
                    plan.tried(node, view.attempts, view.reason.as_deref());
                }
            }
        }
        self.plan = Some(plan);
        self.state = State::Running;
        self.apply(Event::Tick, now)
    }

    /// It cannot be found out what it comes to, for now or at all.
    pub(super) fn lost(&mut self, Failed { why, passing }: Failed, now: Now) {
        if std::mem::take(&mut self.again) {
            // There are other credentials by now.
            return;
        }
        self.tries += 1;
        if !passing || self.tries > self.spec.backoff_limit {
            return self.end(State::Failed, Some(why), now);
        }
        (self.message, self.updated_at) = (Some(why), now.date);
        self.next_try = now.instant.checked_add(plan::backoff(self.tries));
    }

    /// Something happened to one of its nodes, or time went by.
    pub(super) fn apply(&mut self, event: Event, now: Now) -> Vec<Command> {
        self.next_try = self.next_try.filter(|at| *at > now.instant);
        if self.state == State::Pending && self.deadline.is_some_and(|deadline| deadline <= now.instant) {
            let why = self.message.take().map_or_else(String::new, |why| format!("; before that: {why}"));
            self.end(State::Failed, Some(format!("{LATE}{why}")), now);
        }
        let Some(plan) = self.plan.as_mut().filter(|_| self.state == State::Running) else {
            return Vec::new();
        };
        let commands = plan.apply(event, now.instant);
        self.updated_at = now.date;
        if plan.is_over() && std::mem::take(&mut self.again) {
            self.look_again(now);
        } else if self.plan.as_ref().is_some_and(Plan::is_over) {
            let nodes = self.nodes();
            match self.count(NodeState::Failed) {
                0 => self.end(State::Succeeded, None, now),
                _ => self.end(State::Failed, View::reasons(&nodes), now),
            }
        }
        commands
    }

    /// Its nodes are through, and it may mean something else by now. Who failed tries again.
    fn look_again(&mut self, now: Now) {
        self.before = self.nodes();
        for view in self.before.iter_mut().filter(|view| view.state == NodeState::Failed) {
            if !view.node.is_empty() {
                (view.state, view.attempts) = (NodeState::Waiting, 0);
            }
        }
        self.missing.clear();
        (self.plan, self.load) = (None, None);
        self.set(State::Pending, now);
    }

    /// Nobody works on it for now.
    pub(super) fn pause(&mut self, now: Now) -> Vec<Command> {
        if self.state.is_over() || self.state == State::Paused {
            return Vec::new();
        }
        let commands = self.apply(Event::Pause, now);
        // Its deadline may have come just now.
        if !self.state.is_over() {
            self.set(State::Paused, now);
        }
        commands
    }

    /// It goes on.
    pub(super) fn resume(&mut self, now: Now) -> Vec<Command> {
        if self.state != State::Paused {
            return Vec::new();
        }
        self.start(now);
        self.set(if self.plan.is_some() { State::Running } else { State::Pending }, now);
        self.apply(Event::Resume, now)
    }

    /// It ends.
    pub(super) fn cancel(&mut self, now: Now) -> Vec<Command> {
        if self.state.is_over() {
            return Vec::new();
        }
        let commands = self.plan.as_mut().map_or_else(Vec::new, |plan| plan.apply(Event::Pause, now.instant));
        self.end(State::Cancelled, None, now);
        commands
    }

    /// What an attempt at a node is begun with.
    pub(super) fn attempts(&self, node: NodeId) -> u32 {
        self.plan.as_ref().and_then(|plan| plan.leg(node)).map_or(0, |leg| leg.attempts)
    }

    /// As it is shown among others.
    pub(super) fn glimpse(&self) -> View {
        self.seen(self.spec.short(MAX_NAMED), false)
    }

    /// As it is shown.
    pub(super) fn view(&self, with_nodes: bool) -> View {
        self.seen(self.spec.clone(), with_nodes)
    }

    fn seen(&self, spec: Spec, with_nodes: bool) -> View {
        let count = |state: NodeState| self.count(state) as u32;
        let failed = count(NodeState::Failed);
        View {
            id: self.id,
            spec,
            state: self.state,
            message: self.message.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            finished_at: self.finished_at,
            contents: self.contents,
            parts: if with_nodes { self.parts.clone() } else { Vec::new() },
            desired: self.len() as u32,
            active: count(NodeState::Active),
            succeeded: count(NodeState::Succeeded),
            failed,
            failed_nodes: if failed > 0 { self.failed_nodes() } else { Vec::new() },
            nodes: if with_nodes { self.nodes() } else { Vec::new() },
        }
    }

    /// As it is written down.
    pub(super) fn kept(&self) -> Kept {
        Kept {
            id: self.id,
            spec: self.spec.clone(),
            state: self.state,
            message: self.message.clone(),
            secret: self.secret,
            created_at: self.created_at,
            updated_at: self.updated_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            contents: self.contents,
            parts: self.parts.clone(),
            meaning: self.meaning.clone(),
            nodes: self.nodes().into_iter().map(noted).collect(),
        }
    }

    /// How much of it is to be remembered: its nodes, and what it names.
    pub(super) fn weight(&self) -> usize {
        self.len() + self.spec.nodes.names.len() + self.spec.files.len()
    }

    /// Number of its nodes.
    pub(super) fn len(&self) -> usize {
        self.plan.as_ref().map_or(self.before.len(), Plan::len) + self.missing.len()
    }

    /// Number of nodes that are so; those that nobody is called by have failed.
    fn count(&self, state: NodeState) -> usize {
        let missing = if state == NodeState::Failed { self.missing.len() } else { 0 };
        let before = || self.before.iter().filter(|node| node.state == state).count();
        missing + self.plan.as_ref().map_or_else(before, |plan| plan.count(state))
    }

    /// The first of the nodes that failed, by name where they have one.
    fn failed_nodes(&self) -> Vec<String> {
        let called = |node: NodeId| match self.names.get(&node).filter(|name| !name.is_empty()) {
            Some(name) => name.clone(),
            None => node.to_string(),
        };
        let legs = self.plan.iter().flat_map(Plan::legs);
        let failed = legs.filter(|(_, leg)| leg.state() == NodeState::Failed).map(|(node, _)| called(node));
        let before = self.before.iter().filter(|view| view.state == NodeState::Failed && self.plan.is_none());
        let before = before.map(|view| if view.name.is_empty() { &view.node } else { &view.name }.clone());
        failed.chain(before).chain(self.missing.iter().cloned()).take(MAX_NAMED).collect()
    }

    fn nodes(&self) -> Vec<NodeView> {
        let Some(plan) = &self.plan else { return self.before.clone() };
        let all = self.contents.map_or(0, |contents| contents.tasks);
        let seen = |(node, leg): (NodeId, &Leg)| NodeView {
            node: node.to_string(),
            name: self.names.get(&node).cloned().unwrap_or_default(),
            state: leg.state(),
            attempts: leg.attempts,
            bytes: leg.bytes,
            parts_done: if leg.state() == NodeState::Succeeded { all } else { leg.done.min(all) },
            under_way: leg.under_way.iter().map(|&(part, bytes)| PartProgress { part, bytes }).collect(),
            reason: leg.reason.clone(),
        };
        let missing = self.missing.iter().map(|name| NodeView {
            node: String::new(),
            name: name.clone(),
            state: NodeState::Failed,
            attempts: 0,
            bytes: 0,
            parts_done: 0,
            under_way: Vec::new(),
            reason: Some("no node of this name is connected to this supernode".to_owned()),
        });
        plan.legs().map(seen).chain(missing).collect()
    }

    fn set(&mut self, state: State, now: Now) {
        (self.state, self.updated_at) = (state, now.date);
    }

    fn end(&mut self, state: State, message: Option<String>, now: Now) {
        self.set(state, now);
        (self.message, self.finished_at) = (message, Some(now.date));
        // What opens an origin is not kept longer than it is needed.
        (self.credentials, self.load) = (Credentials::none(), None);
    }
}

/// A node as it is written down: a note of thousands of them has an end.
fn noted(mut node: NodeView) -> NodeView {
    node.under_way.clear();
    node.reason = node.reason.map(|reason| reason.chars().take(LONGEST_REASON).collect());
    node
}

/// At which node a job begins.
fn first(id: JobId) -> NodeId {
    let hashed = Digest::of(&id.0.to_le_bytes()).0;
    NodeId(std::array::from_fn(|at| hashed[at]))
}

#[cfg(test)]
mod tests;
