//! The routing table against a model of what each supernode was told: by example, and under random comings and goings.

use proptest::prelude::*;
use rand::SeedableRng as _;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn node(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn task(number: u8) -> TaskId {
    TaskId(common::digest::Digest::of(&[number]).0)
}

fn geometry() -> Geometry {
    Geometry::of(1024 * 1024).unwrap()
}

/// A fleet, a clock, and what the supernodes know by what they were told.
struct World {
    fleet: Fleet,
    now: Instant,
    /// Of each connected supernode: what is joined there, and what is held.
    known: BTreeMap<NodeId, (BTreeSet<TaskId>, BTreeSet<TaskId>)>,
    /// What the downloads heard.
    alone: Vec<Command>,
    /// Where each was last joined.
    chosen: BTreeMap<TaskId, NodeId>,
    /// What a supernode was too busy for.
    refused: BTreeSet<TaskId>,
}

// === impl World ===

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let fleet = Fleet::new(now, SmallRng::seed_from_u64(7));
        Self {
            fleet,
            now,
            known: BTreeMap::new(),
            alone: Vec::new(),
            chosen: BTreeMap::new(),
            refused: BTreeSet::new(),
        }
    }

    /// A world that has settled with these supernodes.
    fn of(supernodes: &[u8]) -> Self {
        let mut world = Self::new();
        supernodes.iter().for_each(|number| world.fleet.expect(number.to_string()));
        for number in supernodes {
            world.up(*number);
            world.tell(|fleet, now| fleet.answered(&number.to_string(), now));
        }
        world
    }

    fn tell(&mut self, deed: impl FnOnce(&mut Fleet, Instant) -> Vec<Command>) -> Vec<Command> {
        let commands = deed(&mut self.fleet, self.now);
        for command in &commands {
            self.carry_out(command.clone());
        }
        commands
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Join { task, at } => {
                let first = rendezvous::first(&task.0, self.known.keys().copied());
                assert!(first == Some(at) || self.refused.contains(&task), "joined at the wrong supernode");
                let (joined, held) = self.known.get_mut(&at).expect("a connected supernode");
                joined.insert(task);
                // Who joins says that it has less than all.
                held.remove(&task);
                self.chosen.insert(task, at);
            }
            Command::Leave { task, at } => {
                let (joined, held) = self.known.get_mut(&at).expect("a connected supernode");
                let knew = joined.remove(&task) | held.remove(&task);
                assert!(knew, "it left what it was not in");
            }
            Command::Hold { at, tasks } => {
                assert!(!tasks.is_empty() && tasks.len() <= MAX_ENTRIES);
                let (joined, held) = self.known.get_mut(&at).expect("a connected supernode");
                for (task, _) in tasks {
                    joined.remove(&task);
                    assert!(held.insert(task), "it was announced twice to one session");
                }
            }
            Command::Lost(_) | Command::Alone(_) => self.alone.push(command),
        }
    }

    fn up(&mut self, number: u8) -> Vec<Command> {
        self.known.insert(node(number), Default::default());
        self.tell(|fleet, now| fleet.up(node(number), Vec::new(), now))
    }

    fn down(&mut self, number: u8) -> Vec<Command> {
        self.known.remove(&node(number));
        self.tell(|fleet, now| fleet.down(node(number), now))
    }

    fn want(&mut self, number: u8) -> Vec<Command> {
        self.tell(|fleet, now| fleet.want(task(number), now))
    }

    fn prove(&mut self, number: u8) {
        self.tell(|fleet, now| fleet.proven(task(number), geometry(), now).into_iter().collect());
    }

    fn pass(&mut self, time: Duration) -> Vec<Command> {
        self.now += time;
        self.tell(Fleet::tick)
    }

    fn joined_at(&self, task: TaskId) -> Vec<NodeId> {
        self.known.iter().filter(|(_, (joined, _))| joined.contains(&task)).map(|(node, _)| *node).collect()
    }

    fn holders(&self, task: TaskId) -> Vec<NodeId> {
        self.known.iter().filter(|(_, (_, held))| held.contains(&task)).map(|(node, _)| *node).collect()
    }

    /// The supernodes in the order of a task.
    fn order(&self, number: u8) -> Vec<u8> {
        rendezvous::order(&task(number).0, self.fleet.connected()).iter().map(|node| node.0[0]).collect()
    }
}

#[test]
fn joins_wait_until_all_had_time_to_answer() {
    let mut world = World::new();
    ["name", "a", "b"].into_iter().for_each(|one| world.fleet.expect(one.into()));
    assert_eq!(world.want(1), []);
    assert_eq!(world.tell(|fleet, now| fleet.answered("name", now)), []);
    assert_eq!(world.up(1), []);
    assert_eq!(world.tell(|fleet, now| fleet.answered("a", now)), []);
    assert_eq!(world.up(2), []);
    let first = node(rendezvous::first(&task(1).0, [node(1), node(2)]).unwrap().0[0]);
    let joined = world.tell(|fleet, now| fleet.answered("b", now));
    assert_eq!(joined, [Command::Join { task: task(1), at: first }]);
}

#[test]
fn they_wait_for_a_second_at_most_and_then_hear_that_nobody_is_there() {
    let mut world = World::new();
    world.fleet.expect("a".into());
    assert_eq!(world.want(1), []);
    assert_eq!(world.fleet.wake(), Some(world.now + SECOND));
    assert_eq!(world.pass(SECOND), [Command::Lost(task(1))]);
    assert_eq!(world.want(2), [Command::Lost(task(2))]);
    world.pass(4 * SECOND);
    assert_eq!(world.want(3), [Command::Alone(task(3))]);
    // All of them are joined at the first that comes.
    let joined: BTreeSet<_> =
        world.up(1).into_iter().map(|command| matches!(command, Command::Join { .. })).collect();
    assert!(joined == [true].into() && (1..=3).all(|number| world.joined_at(task(number)) == [node(1)]));
}

#[test]
fn after_a_time_alone_not_everything_begins_at_the_first_that_is_back() {
    let mut world = World::of(&[1, 2]);
    let number = (0..).find(|number| world.order(*number)[0] == 2).unwrap();
    world.want(number);
    world.down(1);
    assert_eq!(world.down(2), [Command::Lost(task(number))]);
    world.known.insert(node(1), Default::default());
    assert_eq!(world.tell(|fleet, now| fleet.up(node(1), vec!["two".into()], now)), []);
    world.up(2);
    world.tell(|fleet, now| fleet.answered("two", now));
    assert_eq!(world.joined_at(task(number)), [node(2)]);
}

#[test]
fn a_lost_supernodes_tasks_are_at_the_next_at_once_and_nothing_else_moves() {
    let mut world = World::of(&[1, 2, 3]);
    (0..60).for_each(|number| drop(world.want(number)));
    let orders: Vec<_> = (0..60).map(|number| world.order(number)).collect();
    world.down(2);
    for (number, order) in (0..60).zip(orders) {
        let expected = order.into_iter().find(|number| *number != 2).map(node);
        assert_eq!(world.joined_at(task(number)), Vec::from_iter(expected));
    }
    assert_eq!(world.alone, [], "no download heard of it");
}

#[test]
fn what_runs_stays_when_a_supernode_comes_and_new_wishes_go_to_it() {
    let mut world = World::of(&[1]);
    (0..40).for_each(|number| drop(world.want(number)));
    assert_eq!(world.up(2), []);
    assert_eq!(world.pass(2 * SECOND), []);
    assert!((0..40).all(|number| world.joined_at(task(number)) == [node(1)]));
    let newly = (40..80).find(|number| world.order(*number)[0] == 2).unwrap();
    world.want(newly);
    assert_eq!(world.joined_at(task(newly)), [node(2)]);
    // A new download of a task that ran at the old one.
    let again = (0..40).find(|number| world.order(*number)[0] == 2).unwrap();
    world.want(again);
    assert_eq!(world.joined_at(task(again)), [node(2)]);
}

#[test]
fn what_is_held_is_told_to_its_new_owner_within_two_seconds_and_taken_back_from_the_old_one() {
    let mut world = World::of(&[1]);
    let held: BTreeMap<_, _> = (0..40).map(|number| (task(number), geometry())).collect();
    world.tell(|fleet, _| fleet.holds(held.clone()));
    assert_eq!(world.known[&node(1)].1.len(), 40);
    let running =
        (0..40).find(|number| rendezvous::first(&task(*number).0, [node(1), node(2)]) == Some(node(2)));
    let running = running.unwrap();
    world.want(running);
    assert_eq!(world.up(2), []);
    world.pass(2 * SECOND);
    for number in 0..40 {
        let owner = node(world.order(number)[0]);
        let running = number == running;
        assert!(running || world.holders(task(number)) == [owner]);
    }
    assert_eq!(world.joined_at(task(running)), [node(1)], "what runs is not left");
    world.down(2);
    world.pass(2 * SECOND);
    assert!((0..40).all(|number| number == running || world.holders(task(number)) == [node(1)]));
}

#[test]
fn a_busy_supernode_is_asked_again_not_sooner_than_it_said_and_at_the_next_one() {
    let mut world = World::of(&[1, 2]);
    world.want(1);
    let order = world.order(1);
    for place in [1, 0, 1] {
        let now = world.now;
        assert!(world.fleet.busy(task(1), SECOND, now));
        world.refused.insert(task(1));
        // As the refusal told: it is joined nowhere now.
        world.known.values_mut().for_each(|(joined, _)| joined.clear());
        assert_eq!(world.pass(SECOND - Duration::from_millis(1)), []);
        let joined = world.pass(SECOND);
        assert_eq!(joined, [Command::Join { task: task(1), at: node(order[place]) }]);
    }
    let now = world.now;
    assert!(!world.fleet.busy(task(1), SECOND, now), "three times are enough");
    assert!(!world.fleet.busy(task(9), SECOND, now), "nobody wants it");
}

#[test]
fn nobody_waits_long_for_a_busy_supernode() {
    let mut world = World::of(&[1]);
    world.want(1);
    let now = world.now;
    assert!(!world.fleet.busy(task(1), 21 * SECOND, now));
    assert!(world.fleet.busy(task(1), 5 * SECOND, now), "it is joined there still");
}

#[derive(Clone, Debug)]
enum Deed {
    Up(u8),
    Down(u8),
    Want(u8),
    Unwant(u8),
    Prove(u8),
    Evict(u8),
    Busy(u8),
    Pass(u16),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        2 => (1u8..6).prop_map(Deed::Up),
        2 => (1u8..6).prop_map(Deed::Down),
        4 => (0u8..12).prop_map(Deed::Want),
        2 => (0u8..12).prop_map(Deed::Unwant),
        2 => (0u8..12).prop_map(Deed::Prove),
        1 => (0u8..12).prop_map(Deed::Evict),
        1 => (0u8..12).prop_map(Deed::Busy),
        2 => (0u16..3000).prop_map(Deed::Pass),
    ]
}

/// Does it, in as far as it can be.
fn happen(world: &mut World, deed: &Deed, wanted: &mut BTreeSet<u8>, held: &mut BTreeSet<u8>) {
    match *deed {
        Deed::Up(number) if !world.fleet.has(node(number)) => drop(world.up(number)),
        Deed::Down(number) if world.fleet.has(node(number)) => drop(world.down(number)),
        Deed::Want(number) if !held.contains(&number) => {
            wanted.insert(number);
            world.refused.remove(&task(number));
            world.want(number);
        }
        Deed::Unwant(number) if wanted.remove(&number) => {
            world.tell(|fleet, _| fleet.unwant(task(number)).into_iter().collect());
        }
        Deed::Prove(number) if wanted.remove(&number) => {
            held.insert(number);
            world.prove(number);
        }
        Deed::Evict(number) if held.remove(&number) => {
            let held = held.iter().map(|number| (task(*number), geometry())).collect();
            world.tell(|fleet, _| fleet.holds(held));
        }
        Deed::Busy(number) => {
            let now = world.now;
            let place = world.fleet.place(task(number));
            if world.fleet.busy(task(number), SECOND, now)
                && let Some((joined, _)) = place.and_then(|place| world.known.get_mut(&place))
            {
                joined.remove(&task(number));
                world.refused.insert(task(number));
            }
        }
        Deed::Pass(millis) => drop(world.pass(Duration::from_millis(u64::from(millis)))),
        _ => {}
    }
}

proptest! {
    #[test]
    fn every_wanted_task_is_at_one_supernode_and_what_is_held_comes_to_its_owner(
        deeds in proptest::collection::vec(deed(), 1..120),
    ) {
        let mut world = World::new();
        let (mut wanted, mut held) = (BTreeSet::new(), BTreeSet::new());
        world.tell(|fleet, now| fleet.answered("nobody", now));
        for deed in &deeds {
            happen(&mut world, deed, &mut wanted, &mut held);
            for number in 0..12 {
                let places = world.joined_at(task(number));
                prop_assert!(places.len() <= 1, "{number} is joined at {places:?} after {deed:?}");
                prop_assert_eq!(places.first().copied(), world.fleet.place(task(number)));
                prop_assert!(wanted.contains(&number) || places.is_empty());
            }
        }
        // Once nothing waits any more, all is where it belongs.
        for _ in 0..2 {
            world.pass(3 * SECOND);
        }
        if !world.known.is_empty() {
            for number in &wanted {
                let places = world.joined_at(task(*number));
                prop_assert_eq!(&places, &Vec::from_iter(world.chosen.get(&task(*number)).copied()));
            }
            for number in &held {
                prop_assert_eq!(world.holders(task(*number)), vec![node(world.order(*number)[0])]);
            }
        }
    }
}
