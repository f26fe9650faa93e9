//! Properties of the scheduler under random swarms. The test keeps its own picture of the edges, made from nothing
//! but the commands, and holds it against the promises after every event; then it lets pieces flow along those
//! edges and sees that everybody finishes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::node::{Contact, Labels, NodeId};
use common::task::TaskId;
use common::wire::swarm::Fault;
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use supernode::scheduler::{
    Command, Event, Member, MemberView, Scheduler, SeedView, Settings, StageView, Standing, TaskView,
};

const NODES: u8 = 40;
const PIECES: u32 = 20;

fn node(number: u32) -> NodeId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    NodeId(id)
}

fn seed() -> NodeId {
    NodeId([255; 16])
}

fn task(number: u8) -> TaskId {
    TaskId([number; 32])
}

fn contact(id: NodeId) -> Contact {
    Contact { id, address: SocketAddr::from(([0, 0, 0, 0], 7710)) }
}

fn member(number: u32, zones: u32, slots: u16) -> Member {
    let zone = number.checked_rem(zones).map(|zone| format!("z{zone}")).unwrap_or_default();
    let labels = Labels { zone, rack: String::new(), host: format!("h{}", number / 2) };
    Member { contact: contact(node(number)), labels, slots }
}

/// The scheduler beside what its commands say.
struct World {
    scheduler: Scheduler,
    settings: Settings,
    now: Instant,
    up: BTreeSet<NodeId>,
    edges: BTreeMap<(TaskId, NodeId), BTreeSet<NodeId>>,
    /// With blame about, the room at the accused counts for nothing.
    blamed: bool,
}

// === impl World ===

impl World {
    fn new(seed_slots: usize, blamed: bool, rng_seed: u64) -> Self {
        let settings = Settings { seed_slots, ..Settings::default() };
        let scheduler = Scheduler::new(contact(seed()), settings.clone(), rng_seed);
        let now = Instant::now();
        Self { scheduler, settings, now, up: BTreeSet::new(), edges: BTreeMap::new(), blamed }
    }

    /// Applies an event, follows the commands and checks all promises.
    fn apply(&mut self, event: Event) -> Vec<Command> {
        let commands = self.follow(event);
        for task in self.scheduler.view(self.now).tasks {
            self.check(&task);
        }
        commands
    }

    fn follow(&mut self, event: Event) -> Vec<Command> {
        match &event {
            Event::PeerUp(member) => {
                self.edges.retain(|(_, child), _| *child != member.contact.id);
                self.up.insert(member.contact.id);
            }
            Event::PeerDown(node) => {
                self.edges.retain(|(_, child), _| child != node);
                self.up.remove(node);
            }
            Event::Leave { task, node } => drop(self.edges.remove(&(*task, *node))),
            Event::SeedFailed(task) => self.edges.retain(|(other, _), _| other != task),
            _ => {}
        }
        let commands = self.scheduler.apply(event, self.now);
        for Command::Parents { to, task, add, remove } in &commands {
            assert!(self.up.contains(to), "{to} is not connected and was told something");
            let parents = self.edges.entry((*task, *to)).or_default();
            for parent in remove {
                assert!(parents.remove(parent), "{to} lets {parent} go, which it has not");
            }
            parents.extend(add.iter().map(|contact| contact.id));
        }
        commands
    }

    fn parents(&self, task: TaskId, child: NodeId) -> BTreeSet<NodeId> {
        self.edges.get(&(task, child)).cloned().unwrap_or_default()
    }

    fn check(&mut self, view: &TaskView) {
        let task = view.summary.task;
        for member in view.members.iter().filter(|member| member.stage == StageView::Complete) {
            self.edges.remove(&(task, member.node));
        }
        let known = by_node(view);
        let mut children = BTreeMap::<NodeId, usize>::new();
        for (&(_, child), parents) in self.edges.iter().filter(|((of, _), _)| *of == task) {
            assert!(parents.is_empty() || known.contains_key(&child), "{child} is no member and has parents");
            for &parent in parents {
                assert_ne!(parent, child);
                assert!(
                    parent == seed() || known.contains_key(&parent),
                    "{parent} is no member and has children"
                );
                assert!(parent == seed() || self.up.contains(&parent), "{parent} is not connected");
                *children.entry(parent).or_default() += 1;
            }
        }
        for member in &view.members {
            let count = children.get(&member.node).copied().unwrap_or(0);
            assert!(count <= member.slots, "{} has {count} children and {} slots", member.node, member.slots);
            let listed: BTreeSet<NodeId> = member.parents.iter().copied().collect();
            assert_eq!(listed, self.parents(task, member.node), "told and meant differ for {}", member.node);
            let outcast = member.standing == Standing::Outcast;
            assert!(!outcast || count == 0, "the outcast {} has children", member.node);
        }
        let on_seed = children.get(&seed()).copied().unwrap_or(0);
        if on_seed > self.settings.seed_slots && !self.blamed {
            assert!(!room(view), "the seed is overcrowded while others have room");
        }
        self.check_ways(view, &known);
    }

    /// Everybody who wants has a way to a source: along the edges that it was told of, and along trunks.
    fn check_ways(&self, view: &TaskView, known: &BTreeMap<NodeId, &MemberView>) {
        let wanting = || view.members.iter().filter(|member| member.stage == StageView::Wanting);
        if view.summary.pieces.is_none() {
            assert_eq!(wanting().count(), 0);
            return;
        }
        let complete = view.members.iter().filter(|member| member.stage == StageView::Complete);
        let mut reached: BTreeSet<NodeId> = complete.map(|member| member.node).collect();
        let serves = |member: &&MemberView| member.slots > 0 && member.standing != Standing::Outcast;
        let others_serve = reached.iter().any(|node| known.get(node).is_some_and(serves));
        if view.summary.seed != SeedView::None || !others_serve || self.blamed || !room(view) {
            reached.insert(seed());
        }
        let mut left: Vec<&MemberView> = wanting().collect();
        loop {
            let before = left.len();
            left.retain(|member| {
                let parents = self.parents(view.summary.task, member.node);
                let found = parents.iter().any(|parent| reached.contains(parent));
                if found {
                    reached.insert(member.node);
                }
                !found
            });
            if left.len() == before {
                break;
            }
        }
        assert!(left.is_empty(), "no way to a source for {left:?}");
        for member in wanting() {
            let trunk = member.trunk.expect("a trunk");
            let above = known.get(&trunk).map_or(Some(0), |parent| parent.depth).expect("a trunk that hangs");
            assert_eq!(member.depth, Some(above + 1));
        }
    }
}

fn by_node(view: &TaskView) -> BTreeMap<NodeId, &MemberView> {
    view.members.iter().map(|member| (member.node, member)).collect()
}

/// Whether a member whose way leads to a source, and not to a seed without a copy, has room for a trunk child.
fn room(view: &TaskView) -> bool {
    let mut trunks = BTreeMap::<NodeId, usize>::new();
    let mut above = BTreeMap::<NodeId, NodeId>::new();
    for (member, trunk) in view.members.iter().filter_map(|member| Some((member, member.trunk?))) {
        *trunks.entry(trunk).or_default() += 1;
        above.insert(member.node, trunk);
    }
    let hangs_well = |mut node: NodeId| {
        while let Some(&next) = above.get(&node) {
            node = next;
        }
        view.summary.seed != SeedView::None || node != seed()
    };
    let open = |member: &&MemberView| trunks.get(&member.node).copied().unwrap_or(0) < member.slots;
    let members = view.members.iter().filter(|member| member.depth.is_some());
    members.filter(open).any(|member| hangs_well(member.node))
}

/// Something that may happen, in small numbers.
#[derive(Clone, Debug)]
struct Step {
    kind: u8,
    who: u8,
    other: u8,
    amount: u32,
    task: u8,
    millis: u64,
}

/// A cluster and what happens in it.
#[derive(Clone, Debug)]
struct Story {
    steps: Vec<Step>,
    slots: Vec<u16>,
    zones: u32,
    seed_slots: usize,
    blame: bool,
    rng_seed: u64,
}

fn step() -> impl Strategy<Value = Step> {
    (0..24u8, 0..NODES, 0..NODES, 0..=PIECES + 2, 0..2u8, 0..5_000u64)
        .prop_map(|(kind, who, other, amount, task, millis)| Step { kind, who, other, amount, task, millis })
}

fn story(most_slots: u16, most_seed_slots: usize, blame: bool) -> impl Strategy<Value = Story> {
    let steps = prop::collection::vec(step(), 1..250);
    let slots = prop::collection::vec(0..=most_slots, usize::from(NODES));
    (steps, slots, 0..4u32, 1..=most_seed_slots, any::<u64>()).prop_map(
        move |(steps, slots, zones, seed_slots, rng_seed)| Story {
            steps,
            slots,
            zones,
            seed_slots,
            blame,
            rng_seed,
        },
    )
}

// === impl Story ===

impl Story {
    fn event(&self, step: &Step) -> Event {
        let (task, node) = (task(step.task), node(u32::from(step.who)));
        match step.kind {
            0..=3 => Event::PeerUp(self.member(step.who)),
            4 => Event::PeerDown(node),
            5..=10 => Event::Join { task, node, held: step.amount / 8 },
            11 => Event::Hold { task, node, pieces: PIECES + u32::from(step.amount == 0) },
            12..=14 => Event::Progress { task, node, held: step.amount },
            15 => Event::Leave { task, node },
            16 => Event::MoreParents { task, node },
            17 | 18 if self.blame => {
                let about = if step.other == 0 { seed() } else { self::node(u32::from(step.other)) };
                let fault = [Fault::WrongBytes, Fault::FalseClaim, Fault::Silent][step.amount as usize % 3];
                Event::Blame { task, by: node, about, fault }
            }
            19 if step.amount < 4 => Event::SeedFailed(task),
            19 => Event::SeedProven(task),
            20 => Event::SeedProgress { task, held: step.amount },
            21 => Event::SeedDropped(task),
            22 => Event::SeedMeta { task, pieces: PIECES },
            _ => Event::Tick,
        }
    }

    fn member(&self, who: u8) -> Member {
        member(u32::from(who), self.zones, self.slots[usize::from(who)])
    }

    fn run(&self) -> Vec<Command> {
        let mut world = World::new(self.seed_slots, self.blame, self.rng_seed);
        let mut all = Vec::new();
        // Half of the cluster is there already, so that the steps are mostly about swarms.
        for who in (0..NODES).step_by(2) {
            all.extend(world.apply(Event::PeerUp(self.member(who))));
        }
        for step in &self.steps {
            world.now += Duration::from_millis(step.millis);
            all.extend(world.apply(self.event(step)));
        }
        all
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_after_every_event(story in story(8, 6, false)) {
        story.run();
    }

    #[test]
    fn promises_hold_under_blame(story in story(8, 6, true)) {
        story.run();
    }

    #[test]
    fn promises_hold_where_slots_are_scarce(story in story(2, 1, false)) {
        story.run();
    }

    #[test]
    fn the_same_history_gives_the_same_commands(story in story(8, 3, true)) {
        prop_assert_eq!(story.run(), story.run());
    }
}

/// Pieces that flow along the edges: each round everybody takes a piece from each neighbour that has one for it.
struct Flow {
    world: World,
    rng: SmallRng,
    zones: u32,
    held: BTreeMap<NodeId, BTreeSet<u32>>,
    /// They claim to have all and give nothing.
    liars: BTreeSet<NodeId>,
    idle: BTreeMap<NodeId, u32>,
}

// === impl Flow ===

impl Flow {
    fn join(&mut self, number: u32, slots: u16) {
        self.world.apply(Event::PeerUp(member(number, self.zones, slots)));
        self.world.apply(Event::Join { task: task(0), node: node(number), held: 0 });
        self.held.insert(node(number), BTreeSet::new());
    }

    fn go(&mut self, node: NodeId) {
        self.world.apply(Event::PeerDown(node));
        self.held.remove(&node);
    }

    fn wanting(&self) -> Vec<NodeId> {
        let honest = self.held.iter().filter(|(node, _)| !self.liars.contains(node));
        honest.filter(|(_, held)| held.len() < PIECES as usize).map(|(node, _)| *node).collect()
    }

    fn round(&mut self, seed_held: u32) {
        self.world.now += Duration::from_secs(1);
        let before = self.held.clone();
        self.swap(&before, seed_held);
        for taker in self.wanting() {
            let grown = self.held[&taker].len() > before.get(&taker).map_or(0, BTreeSet::len);
            let idle = self.idle.entry(taker).or_default();
            *idle = if grown { 0 } else { *idle + 1 };
            if *idle > 3 {
                self.complain(taker);
            }
        }
        for (node, held) in self.held.clone() {
            if !self.liars.contains(&node) {
                self.world.apply(Event::Progress { task: task(0), node, held: held.len() as u32 });
            }
        }
        self.world.apply(Event::Tick);
    }

    fn swap(&mut self, before: &BTreeMap<NodeId, BTreeSet<u32>>, seed_held: u32) {
        let at_seed: BTreeSet<u32> = (0..seed_held).collect();
        let edges = self.world.edges.iter();
        let links = edges.flat_map(|((_, child), parents)| parents.iter().map(|parent| (*child, *parent)));
        for (taker, giver) in links.flat_map(|(child, parent)| [(child, parent), (parent, child)]) {
            let liars = self.liars.contains(&giver) || self.liars.contains(&taker);
            let gives = if giver == seed() { &at_seed } else { &before[&giver] };
            let Some(takes) = self.held.get_mut(&taker).filter(|_| !liars) else { continue };
            let new: Vec<u32> = gives.difference(takes).copied().collect();
            if !new.is_empty() {
                takes.insert(new[self.rng.random_range(0..new.len())]);
            }
        }
    }

    fn complain(&mut self, taker: NodeId) {
        let parents = self.world.parents(task(0), taker);
        let lying = parents.into_iter().find(|parent| self.liars.contains(parent));
        self.world.apply(match lying {
            Some(about) => Event::Blame { task: task(0), by: taker, about, fault: Fault::FalseClaim },
            None => Event::MoreParents { task: task(0), node: taker },
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn everybody_that_stays_finishes(
        rng_seed: u64,
        count in 2..40u32,
        zones in 0..4u32,
        liars in 0..4u32,
        seed_slots in 1..17usize,
    ) {
        let (world, rng) = (World::new(seed_slots, true, rng_seed), SmallRng::seed_from_u64(rng_seed));
        let (held, idle) = (BTreeMap::new(), BTreeMap::new());
        let mut flow = Flow { world, rng, zones, held, liars: BTreeSet::new(), idle };
        for number in 0..count {
            let slots = flow.rng.random_range(0..9);
            flow.join(number, slots);
        }
        flow.world.apply(Event::SeedMeta { task: task(0), pieces: PIECES });
        for number in 0..liars.min(count - 1) {
            flow.liars.insert(node(number));
            flow.world.apply(Event::Progress { task: task(0), node: node(number), held: PIECES });
        }
        for round in 1..=PIECES {
            flow.world.apply(Event::SeedProgress { task: task(0), held: round });
            flow.round(round);
            let (comes, goes) = (flow.rng.random_range(0..count), flow.rng.random_range(0..count));
            if flow.rng.random_bool(0.3) && !flow.liars.contains(&node(goes)) {
                flow.go(node(goes));
            }
            if !flow.held.contains_key(&node(comes)) {
                flow.join(comes, 4);
            }
        }
        flow.world.apply(Event::SeedProven(task(0)));
        let mut rounds = 0;
        while !flow.wanting().is_empty() {
            rounds += 1;
            prop_assert!(rounds <= 3 * PIECES, "still wanting after {rounds} quiet rounds: {:?}", flow.wanting());
            flow.round(PIECES);
        }
    }
}
