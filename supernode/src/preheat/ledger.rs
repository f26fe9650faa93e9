//! A job as the clerk keeps it, from the wish to its end: what is known, and what follows from what happens. Time is passed in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::node::NodeId;
use common::task::Credentials;
use time::OffsetDateTime;

use super::choice::Candidate;
use super::contents::Load;
use super::job::{Contents, JobId, NodeState, NodeView, Part, PartProgress, Spec, State, Target, View};
use super::keep::Kept;
use super::plan::{Command, Event, Leg, Limits, Plan};

/// Failed nodes that a view names.
const MAX_NAMED: usize = 100;
/// What a job says whose credentials are gone.
pub(super) const FORGOTTEN: &str =
    "the supernode was restarted, and the job's credentials were in its memory only: start it again";

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
    finished_at: Option<OffsetDateTime>,
    contents: Option<Contents>,
    /// The first of its parts.
    parts: Vec<Part>,
    plan: Option<Plan>,
    /// How nodes are called.
    names: BTreeMap<NodeId, String>,
    /// Names that no node has.
    missing: Vec<String>,
    /// The nodes of an earlier run, or of one that is over.
    before: Vec<NodeView>,
    secret: bool,
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
        Self {
            id,
            spec,
            secret: !credentials.is_empty(),
            credentials,
            load: None,
            state,
            message: None,
            created_at: now.date,
            updated_at: now.date,
            finished_at: None,
            contents: None,
            parts: Vec::new(),
            plan: None,
            names: BTreeMap::new(),
            missing: Vec::new(),
            before: Vec::new(),
        }
    }

    /// One of an earlier life of the supernode: what is not over begins anew, for the nodes that it was for.
    pub(super) fn of_kept(kept: Kept, now: Now) -> Self {
        let Kept { id, spec, state, message, secret, created_at, updated_at, finished_at, .. } = kept;
        let mut job = Self::new(id, spec, Credentials::none(), now);
        (job.state, job.message, job.secret) = (state, message, secret);
        (job.created_at, job.updated_at, job.finished_at) = (created_at, updated_at, finished_at);
        (job.contents, job.parts, job.before) = (kept.contents, kept.parts, kept.nodes);
        for view in job.before.iter_mut().filter(|view| view.state == NodeState::Active) {
            view.state = NodeState::Waiting;
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

    /// Whether it is to be found out what it comes to.
    pub(super) fn is_to_be_found(&self) -> bool {
        self.state == State::Pending && self.load.is_none()
    }

    /// When it is forgotten.
    pub(super) fn expires(&self) -> Option<OffsetDateTime> {
        let ttl = Duration::from_secs(self.spec.ttl_seconds_after_finished);
        self.finished_at.map(|at| at + ttl)
    }

    /// When it must be looked at again at the latest.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.plan.as_ref().filter(|_| self.state == State::Running)?.wake()
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
        let mut plan = Plan::new(nodes, Limits::of(&self.spec, now.instant), now.instant);
        for (node, view) in earlier {
            match view.state {
                NodeState::Succeeded => plan.has(node, view.bytes),
                NodeState::Failed => plan.cannot(node, view.reason.as_deref().unwrap_or_default()),
                NodeState::Waiting | NodeState::Active => {}
            }
        }
        self.plan = Some(plan);
        self.state = State::Running;
        self.apply(Event::Tick, now)
    }

    /// It cannot be found out what it comes to.
    pub(super) fn lost(&mut self, why: String, now: Now) {
        self.end(State::Failed, Some(why), now);
    }

    /// Something happened to one of its nodes, or time went by.
    pub(super) fn apply(&mut self, event: Event, now: Now) -> Vec<Command> {
        let Some(plan) = self.plan.as_mut().filter(|_| self.state == State::Running) else {
            return Vec::new();
        };
        let commands = plan.apply(event, now.instant);
        self.updated_at = now.date;
        if plan.is_over() {
            let failed = plan.count(NodeState::Failed) + self.missing.len();
            let nodes = self.nodes();
            match failed {
                0 => self.end(State::Succeeded, None, now),
                _ => self.end(State::Failed, View::reasons(&nodes), now),
            }
        }
        commands
    }

    /// Nobody works on it for now.
    pub(super) fn pause(&mut self, now: Now) -> Vec<Command> {
        if self.state.is_over() || self.state == State::Paused {
            return Vec::new();
        }
        let commands = self.apply(Event::Pause, now);
        self.set(State::Paused, now);
        commands
    }

    /// It goes on.
    pub(super) fn resume(&mut self, now: Now) -> Vec<Command> {
        if self.state != State::Paused {
            return Vec::new();
        }
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

    /// As it is shown.
    pub(super) fn view(&self, with_nodes: bool) -> View {
        let count = |state: NodeState| self.count(state) as u32;
        let failed = count(NodeState::Failed);
        View {
            id: self.id,
            spec: self.spec.clone(),
            state: self.state,
            message: self.message.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            finished_at: self.finished_at,
            contents: self.contents,
            parts: if with_nodes { self.parts.clone() } else { Vec::new() },
            desired: (self.plan.as_ref().map_or(self.before.len(), Plan::len) + self.missing.len()) as u32,
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
            finished_at: self.finished_at,
            contents: self.contents,
            parts: self.parts.clone(),
            nodes: self.nodes().into_iter().map(|node| NodeView { under_way: Vec::new(), ..node }).collect(),
        }
    }

    /// Number of nodes that are so; those that nobody is called by have failed.
    fn count(&self, state: NodeState) -> usize {
        let missing = if state == NodeState::Failed { self.missing.len() } else { 0 };
        let before = || self.before.iter().filter(|node| node.state == state).count();
        missing + self.plan.as_ref().map_or_else(before, |plan| plan.count(state))
    }

    /// The first of the nodes that failed, by name where they have one.
    fn failed_nodes(&self) -> Vec<String> {
        let failed = self.nodes().into_iter().filter(|node| node.state == NodeState::Failed);
        let called = |view: NodeView| if view.name.is_empty() { view.node } else { view.name };
        failed.take(MAX_NAMED).map(called).collect()
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

#[cfg(test)]
mod tests {
    use common::node::Labels;
    use peer::errand::Seen;

    use super::super::choice::Choice;
    use super::super::job::File;
    use super::*;

    const SEED: NodeId = NodeId([255; 16]);

    fn node(number: u8) -> NodeId {
        NodeId([number; 16])
    }

    fn candidates(count: u8) -> Vec<Candidate> {
        let labels = |number: u8| Labels { host: format!("node-{number}"), ..Labels::default() };
        (0..count).map(|number| Candidate { node: node(number), labels: labels(number) }).collect()
    }

    fn load() -> Load {
        let file = File { url: "https://origin.example/a".into(), digest: None, tag: String::new() };
        Load::of_files(&[file], Credentials::none())
    }

    fn job(names: &[&str]) -> Job {
        let mut spec = Spec::image("quay.test/team/app:1", Target::Peers);
        spec.nodes =
            Choice { names: names.iter().map(|&name| name.to_owned()).collect(), ..Choice::default() };
        Job::new(JobId(7), spec, Credentials::none(), Now::read())
    }

    #[test]
    fn a_job_ends_when_all_its_nodes_have_it_and_names_those_that_have_not() {
        let now = Now::read();
        let mut all = job(&[]);
        assert_eq!(all.found(load(), SEED, &candidates(2), now).len(), 2);
        for number in 0..2 {
            all.apply(Event::Done(node(number), 5), now);
        }
        let view = all.view(true);
        assert_eq!((view.state, view.succeeded, view.nodes.len()), (State::Succeeded, 2, 2));
        assert!(all.load.is_none() && all.expires().is_some());

        let mut some = job(&["node-1", "ghost"]);
        some.found(load(), SEED, &candidates(2), now);
        some.apply(Event::Done(node(1), 5), now);
        let view = some.view(false);
        assert_eq!((view.state, view.desired, view.succeeded, view.failed), (State::Failed, 2, 1, 1));
        assert_eq!((view.failed_nodes, view.nodes.len()), (vec!["ghost".to_owned()], 0));
        assert!(view.message.unwrap().contains("no node of this name"));

        let mut none = job(&["ghost"]);
        assert_eq!(none.found(load(), SEED, &candidates(2), now), []);
        assert_eq!(none.view(false).state, State::Failed);
    }

    #[test]
    fn a_node_tells_which_parts_it_has_and_which_it_fetches() {
        let now = Now::read();
        let mut job = job(&[]);
        job.found(load(), SEED, &candidates(1), now);
        let seen = Seen { held: 7, total: 9, done: 99, under_way: vec![(0, 7)] };
        job.apply(Event::Progress(node(0), seen), now);
        let view = job.view(true);
        assert_eq!((view.parts.len(), view.nodes[0].bytes), (1, 7));
        assert_eq!(view.nodes[0].parts_done, 1, "no more than there are");
        assert_eq!(view.nodes[0].under_way, [PartProgress { part: 0, bytes: 7 }]);
        assert!(job.view(false).parts.is_empty());
        assert!(job.kept().nodes[0].under_way.is_empty(), "a restart begins anew");
        job.pause(now);
        assert!(job.view(true).nodes[0].under_way.is_empty());
        job.resume(now);
        job.apply(Event::Done(node(0), 9), now);
        let view = job.view(true);
        assert_eq!((view.nodes[0].parts_done, view.parts.len()), (1, 1));
        assert_eq!(Job::of_kept(job.kept(), now).view(true).parts, view.parts);
    }

    #[test]
    fn after_a_restart_it_goes_on_with_the_nodes_that_it_was_for() {
        let now = Now::read();
        let mut before = job(&["node-0", "node-1", "ghost"]);
        before.found(load(), SEED, &candidates(3), now);
        before.apply(Event::Done(node(0), 5), now);
        let mut after = Job::of_kept(before.kept(), now);
        let view = after.view(false);
        assert_eq!((view.state, view.desired, view.active), (State::Pending, 3, 0));
        assert!(after.is_to_be_found());
        assert_eq!(after.found(load(), SEED, &[], now), [Command::Start(node(1))]);
        after.apply(Event::Done(node(1), 5), now);
        let view = after.view(false);
        assert_eq!((view.state, view.succeeded), (State::Failed, 2));
        assert_eq!(view.failed_nodes, ["ghost"]);
        // What is over stays as it was.
        assert_eq!(Job::of_kept(after.kept(), now).view(true), after.view(true));
    }

    #[test]
    fn credentials_that_are_gone_end_a_job() {
        let now = Now::read();
        let spec = Spec::image("quay.test/team/app:1", Target::Cache);
        let secret = Job::new(JobId(1), spec, Credentials::authorization("Basic x"), now);
        let view = Job::of_kept(secret.kept(), now).view(false);
        assert_eq!((view.state, view.lost_credentials()), (State::Failed, true));
        assert!(!Job::new(JobId(2), view.spec, Credentials::none(), now).view(false).lost_credentials());
    }
}
