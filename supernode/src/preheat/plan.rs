//! Who of a job's nodes works when: so many at once, so often, so long. Pure: time is passed in.
//!
//! # Invariants
//! - No more nodes are at work than the job allows, and none while it is paused or over.
//! - A node begins at most `backoff_limit + 1` attempts, those that a pause broke off not counted.
//! - An attempt's time counts from when it is the node's turn: other jobs may be at work there.
//! - Once no event is missing and time goes on, every plan ends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::node::NodeId;
use peer::errand::Seen;

use super::job::{NodeState, Spec};

/// A node's first wait after a failure; the next is twice as long, and so on.
const BACKOFF: Duration = Duration::from_secs(1);
/// The longest such wait.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// What a plan keeps to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nodes at work at once.
    pub parallelism: usize,
    /// Attempts of a node beyond the first.
    pub backoff_limit: u32,
    /// The longest attempt.
    pub timeout: Duration,
    /// When all ends.
    pub deadline: Option<Instant>,
    /// Nodes begin from this one on, and round: not all jobs queue at the same.
    pub first: NodeId,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is the node's turn.
    Began(NodeId),
    /// A node is so far.
    Progress(NodeId, Seen),
    /// A node has all, so many bytes.
    Done(NodeId, u64),
    /// A node's attempt failed.
    Failed {
        /// Who.
        node: NodeId,
        /// Why.
        why: String,
        /// Whether it may go better another time.
        passing: bool,
    },
    /// Nobody is to work for now.
    Pause,
    /// All go on.
    Resume,
    /// Time went by.
    Tick,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Begin an attempt.
    Start(NodeId),
    /// Break the attempt off.
    Stop(NodeId),
}

/// A node's part.
#[derive(Clone, Debug)]
pub struct Leg {
    turn: Turn,
    /// Attempts begun.
    pub attempts: u32,
    /// Bytes that are there.
    pub bytes: u64,
    /// Parts that are there, as far as the node says.
    pub done: u32,
    /// Parts that have begun, with their bytes; none where it is not at work.
    pub under_way: Vec<(u32, u64)>,
    /// What went wrong the last time.
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Waiting {
        from: Instant,
    },
    /// Until then; none while others are at work there.
    Active {
        until: Option<Instant>,
    },
    Succeeded,
    Failed,
}

/// A job's nodes.
#[derive(Debug)]
pub struct Plan {
    limits: Limits,
    legs: BTreeMap<NodeId, Leg>,
    paused: bool,
    /// When it must be asked again at the latest: looked up far more often than it changes.
    wake: Option<Instant>,
}

// === impl Limits ===

impl Limits {
    /// A job's.
    pub fn of(spec: &Spec, deadline: Option<Instant>, first: NodeId) -> Self {
        Self {
            parallelism: spec.parallelism as usize,
            backoff_limit: spec.backoff_limit,
            timeout: spec.timeout(),
            deadline,
            first,
        }
    }
}

// === impl Leg ===

impl Leg {
    /// How it is.
    pub fn state(&self) -> NodeState {
        match self.turn {
            Turn::Waiting { .. } => NodeState::Waiting,
            Turn::Active { .. } => NodeState::Active,
            Turn::Succeeded => NodeState::Succeeded,
            Turn::Failed => NodeState::Failed,
        }
    }
}

// === impl Plan ===

impl Plan {
    /// A plan for these nodes. Nothing begins before the first event.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>, limits: Limits, now: Instant) -> Self {
        let leg = Leg {
            turn: Turn::Waiting { from: now },
            attempts: 0,
            bytes: 0,
            done: 0,
            under_way: Vec::new(),
            reason: None,
        };
        let legs = nodes.into_iter().map(|node| (node, leg.clone())).collect();
        Self { limits, legs, paused: false, wake: None }
    }

    /// Nodes that had it before this plan began, by an earlier life of the job.
    pub fn has(&mut self, node: NodeId, bytes: u64) {
        if let Some(leg) = self.legs.get_mut(&node) {
            (leg.turn, leg.bytes) = (Turn::Succeeded, bytes);
        }
    }

    /// A node that tried so often before this plan began.
    pub fn tried(&mut self, node: NodeId, attempts: u32, why: Option<&str>) {
        if let Some(leg) = self.legs.get_mut(&node) {
            (leg.attempts, leg.reason) = (attempts.min(self.limits.backoff_limit), why.map(str::to_owned));
        }
    }

    /// A node that was to have it and cannot.
    pub fn cannot(&mut self, node: NodeId, why: &str) {
        if let Some(leg) = self.legs.get_mut(&node) {
            (leg.turn, leg.reason) = (Turn::Failed, Some(why.to_owned()));
        }
    }

    /// Takes an event in; gives what is to be done.
    pub fn apply(&mut self, event: Event, now: Instant) -> Vec<Command> {
        let mut commands = Vec::new();
        match event {
            // What comes often, and nothing follows from.
            Event::Progress(node, Seen { held, done, under_way, .. }) => {
                if let Some(leg) = self.active(node) {
                    (leg.bytes, leg.done, leg.under_way) = (held, done, under_way);
                }
                return commands;
            }
            Event::Began(node) => {
                let until = now.checked_add(self.limits.timeout);
                if let Some(leg) = self.active(node) {
                    leg.turn = Turn::Active { until };
                    self.wake = self.wake.into_iter().chain(until).min();
                }
                return commands;
            }
            Event::Done(node, bytes) => {
                if let Some(leg) = self.active(node) {
                    (leg.turn, leg.bytes, leg.reason) = (Turn::Succeeded, bytes, None);
                }
            }
            Event::Failed { node, why, passing } => self.failed(node, why, passing, now),
            Event::Pause => {
                self.paused = true;
                for (&node, leg) in &mut self.legs {
                    if let Turn::Active { .. } = leg.turn {
                        leg.turn = Turn::Waiting { from: now };
                        leg.attempts -= 1;
                        commands.push(Command::Stop(node));
                    }
                }
            }
            Event::Resume => self.paused = false,
            Event::Tick => {}
        }
        self.end_late(now, &mut commands);
        self.start(now, &mut commands);
        let idle = self.legs.values_mut().filter(|leg| !matches!(leg.turn, Turn::Active { .. }));
        idle.for_each(|leg| leg.under_way.clear());
        self.wake = self.next();
        commands
    }

    /// When it must be asked again at the latest; nothing before the first event.
    pub fn wake(&self) -> Option<Instant> {
        self.wake
    }

    fn next(&self) -> Option<Instant> {
        let due = |leg: &Leg| match leg.turn {
            Turn::Active { until } => until,
            // It may be somebody's turn who waits for a place; then an end wakes it.
            Turn::Waiting { from } if leg.attempts > 0 && !self.paused => Some(from),
            Turn::Waiting { .. } | Turn::Succeeded | Turn::Failed => None,
        };
        let open = (!self.is_over()).then_some(self.limits.deadline).flatten();
        self.legs.values().filter_map(due).chain(open).min()
    }

    /// Whether all nodes have it or have failed.
    pub fn is_over(&self) -> bool {
        self.legs.values().all(|leg| matches!(leg.turn, Turn::Succeeded | Turn::Failed))
    }

    /// The nodes' parts, by node.
    pub fn legs(&self) -> impl Iterator<Item = (NodeId, &Leg)> {
        self.legs.iter().map(|(&node, leg)| (node, leg))
    }

    /// A node's part.
    pub fn leg(&self, node: NodeId) -> Option<&Leg> {
        self.legs.get(&node)
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.legs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.legs.is_empty()
    }

    /// Number of nodes that are so.
    pub fn count(&self, state: NodeState) -> usize {
        self.legs.values().filter(|leg| leg.state() == state).count()
    }

    fn active(&mut self, node: NodeId) -> Option<&mut Leg> {
        self.legs.get_mut(&node).filter(|leg| matches!(leg.turn, Turn::Active { .. }))
    }

    fn failed(&mut self, node: NodeId, why: String, passing: bool, now: Instant) {
        let most = self.limits.backoff_limit;
        let Some(leg) = self.active(node) else { return };
        leg.reason = Some(why);
        leg.turn = match passing && leg.attempts <= most {
            true => Turn::Waiting { from: now + backoff(leg.attempts) },
            false => Turn::Failed,
        };
    }

    /// Ends attempts that take too long, and everything at the deadline.
    fn end_late(&mut self, now: Instant, commands: &mut Vec<Command>) {
        let over = self.limits.deadline.is_some_and(|deadline| deadline <= now);
        let late: Vec<NodeId> = self
            .legs
            .iter()
            .filter(|(_, leg)| matches!(leg.turn, Turn::Active { until } if over || until.is_some_and(|until| until <= now)))
            .map(|(&node, _)| node)
            .collect();
        for node in late {
            commands.push(Command::Stop(node));
            let why = format!("it took longer than {} s (timeout_seconds)", self.limits.timeout.as_secs());
            self.failed(node, why, !over, now);
        }
        if over {
            for leg in
                self.legs.values_mut().filter(|leg| matches!(leg.turn, Turn::Waiting { .. } | Turn::Failed))
            {
                if let Turn::Waiting { .. } = leg.turn {
                    let deadline = "the job's deadline was reached (active_deadline_seconds)";
                    let before = leg.reason.take().map(|reason| format!("; before that: {reason}"));
                    leg.reason = Some(format!("{deadline}{}", before.unwrap_or_default()));
                }
                leg.turn = Turn::Failed;
            }
        }
    }

    fn start(&mut self, now: Instant, commands: &mut Vec<Command>) {
        if self.paused {
            return;
        }
        let room = self.limits.parallelism.saturating_sub(self.count(NodeState::Active));
        let first = self.limits.first;
        let waits = |leg: &Leg| matches!(leg.turn, Turn::Waiting { from } if from <= now);
        let round = self.legs.range(first..).chain(self.legs.range(..first));
        let due: Vec<NodeId> =
            round.filter(|(_, leg)| waits(leg)).map(|(&node, _)| node).take(room).collect();
        for node in due {
            let Some(leg) = self.legs.get_mut(&node) else { continue };
            leg.turn = Turn::Active { until: None };
            leg.attempts += 1;
            commands.push(Command::Start(node));
        }
    }
}

/// How long to wait after so many attempts.
pub(super) fn backoff(attempts: u32) -> Duration {
    let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    BACKOFF.saturating_mul(doubled).min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 16])
    }

    fn plan(nodes: u8, parallelism: usize, now: Instant) -> Plan {
        let timeout = Duration::from_secs(10);
        let deadline = now.checked_add(timeout * 10);
        let limits = Limits { parallelism, backoff_limit: 1, timeout, deadline, first: node(0) };
        Plan::new((0..nodes).map(node), limits, now)
    }

    fn failed(number: u8, passing: bool) -> Event {
        Event::Failed { node: node(number), why: "no".into(), passing }
    }

    #[test]
    fn some_work_at_once_and_who_fails_tries_again_later() {
        let now = Instant::now();
        let mut plan = plan(3, 2, now);
        assert_eq!(plan.apply(Event::Tick, now), [Command::Start(node(0)), Command::Start(node(1))]);
        assert_eq!(plan.apply(Event::Done(node(0), 7), now), [Command::Start(node(2))]);
        assert_eq!(plan.apply(failed(1, true), now), []);
        assert_eq!(plan.apply(failed(2, false), now), []);
        assert_eq!(plan.wake(), Some(now + BACKOFF));
        assert_eq!(plan.apply(Event::Tick, now + BACKOFF), [Command::Start(node(1))]);
        assert_eq!(plan.apply(failed(1, true), now + BACKOFF), [], "it tried as often as it may");
        assert!(plan.is_over());
        assert_eq!((plan.count(NodeState::Succeeded), plan.count(NodeState::Failed)), (1, 2));
    }

    #[test]
    fn an_attempt_that_takes_too_long_is_broken_off_and_the_deadline_ends_all() {
        let now = Instant::now();
        let mut plan = plan(3, 2, now);
        plan.apply(Event::Tick, now);
        let late = now + Duration::from_secs(10);
        assert_eq!(plan.apply(Event::Tick, late), [], "it is not their turn yet");
        for number in 0..2 {
            assert_eq!(plan.apply(Event::Began(node(number)), late), []);
        }
        assert_eq!(plan.wake(), Some(late + Duration::from_secs(10)));
        let late = late + Duration::from_secs(10);
        let commands = plan.apply(Event::Tick, late);
        assert_eq!(commands, [Command::Stop(node(0)), Command::Stop(node(1)), Command::Start(node(2))]);
        let end = now + Duration::from_secs(100);
        assert_eq!(plan.apply(Event::Tick, end), [Command::Stop(node(2))]);
        assert!(plan.is_over() && plan.wake().is_none());
        assert!(plan.legs().all(|(_, leg)| leg.reason.is_some()));
    }

    #[test]
    fn a_pause_breaks_off_and_costs_no_attempt() {
        let now = Instant::now();
        let mut plan = plan(1, 1, now);
        plan.apply(Event::Tick, now);
        for _ in 0..5 {
            assert_eq!(plan.apply(Event::Pause, now), [Command::Stop(node(0))]);
            assert_eq!(plan.apply(Event::Done(node(0), 7), now), [], "it comes too late");
            assert_eq!(plan.apply(Event::Resume, now), [Command::Start(node(0))]);
        }
        assert_eq!(plan.legs().map(|(_, leg)| leg.attempts).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn jobs_begin_at_different_nodes_and_attempts_of_before_count() {
        let now = Instant::now();
        let mut plan = plan(3, 2, now);
        plan.limits.first = node(2);
        plan.tried(node(2), 9, Some("no"));
        assert_eq!(plan.apply(Event::Tick, now), [Command::Start(node(2)), Command::Start(node(0))]);
        assert_eq!(plan.leg(node(2)).map(|leg| leg.attempts), Some(2), "its last one");
        plan.apply(failed(2, true), now);
        assert_eq!(plan.count(NodeState::Failed), 1);
    }

    #[derive(Clone, Debug)]
    enum Deed {
        Began(u8),
        Done(u8),
        Failed(u8, bool),
        Pause,
        Resume,
        Wait(u64),
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        let deed = prop_oneof![
            (0..6_u8).prop_map(Deed::Began),
            (0..6_u8).prop_map(Deed::Done),
            (0..6_u8, any::<bool>()).prop_map(|(node, passing)| Deed::Failed(node, passing)),
            Just(Deed::Pause),
            Just(Deed::Resume),
            (0..30_000_u64).prop_map(Deed::Wait),
        ];
        proptest::collection::vec(deed, 0..60)
    }

    proptest! {
        #[test]
        fn the_limits_hold_and_every_plan_ends(nodes in 0..6_u8, parallelism in 1..4_usize, deeds in deeds()) {
            let mut now = Instant::now();
            let mut plan = plan(nodes, parallelism, now);
            let mut working = std::collections::BTreeSet::new();
            let mut begun = BTreeMap::<NodeId, u32>::new();
            let ends = [Deed::Resume, Deed::Wait(101_000)];
            for deed in deeds.into_iter().chain(ends) {
                let event = match deed {
                    Deed::Began(number) => Event::Began(node(number)),
                    Deed::Done(number) => { working.remove(&node(number)); Event::Done(node(number), 1) }
                    Deed::Failed(number, passing) => { working.remove(&node(number)); failed(number, passing) }
                    Deed::Pause => Event::Pause,
                    Deed::Resume => Event::Resume,
                    Deed::Wait(millis) => { now += Duration::from_millis(millis); Event::Tick }
                };
                let paused = matches!(event, Event::Pause);
                for command in plan.apply(event, now) {
                    match command {
                        Command::Start(node) => {
                            prop_assert!(!paused && working.insert(node));
                            *begun.entry(node).or_default() += 1;
                        }
                        Command::Stop(node) => {
                            prop_assert!(working.remove(&node));
                            if paused {
                                *begun.entry(node).or_default() -= 1;
                            }
                        }
                    }
                    prop_assert!(working.len() <= parallelism);
                }
                prop_assert!(begun.values().all(|&attempts| attempts <= 2));
            }
            prop_assert!(plan.is_over() && working.is_empty());
        }
    }
}
