//! One scene for each promise about quality; that the promises about safety hold in any history is shown by
//! `tests/scheduler_properties.rs`.

use std::time::Duration;

use common::node::Labels;

use super::*;

const TASK: TaskId = TaskId([7; 32]);
const PIECES: u32 = 100;

struct Scene {
    scheduler: Scheduler,
    now: Instant,
}

fn node(number: u16) -> NodeId {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    NodeId(id)
}

fn contact(id: NodeId) -> Contact {
    Contact { id, address: ([0, 0, 0, 0], 7710).into() }
}

fn seed() -> NodeId {
    NodeId([255; 16])
}

fn labels(zone: &str, rack: &str) -> Labels {
    Labels { zone: zone.into(), rack: rack.into(), host: String::new() }
}

// === impl Scene ===

impl Scene {
    fn new() -> Self {
        let scheduler = Scheduler::new(contact(seed()), Settings::default(), 42);
        Self { scheduler, now: Instant::now() }
    }

    fn fetching() -> Self {
        let mut scene = Self::new();
        scene.apply(Event::SeedMeta { task: TASK, pieces: PIECES });
        scene
    }

    fn apply(&mut self, event: Event) -> Vec<Command> {
        self.scheduler.apply(event, self.now)
    }

    fn up(&mut self, number: u16, labels: Labels) {
        self.apply(Event::PeerUp(Member { contact: contact(node(number)), labels, slots: 8 }));
    }

    fn join(&mut self, number: u16, labels: Labels) -> Vec<Command> {
        self.up(number, labels);
        self.apply(Event::Join { task: TASK, node: node(number), held: 0 })
    }

    fn plain(&mut self, numbers: std::ops::Range<u16>) {
        numbers.for_each(|number| drop(self.join(number, Labels::default())));
    }

    fn progress(&mut self, number: u16, held: u32) {
        self.apply(Event::Progress { task: TASK, node: node(number), held });
    }

    fn blame(&mut self, by: NodeId, about: NodeId, fault: Fault) -> Vec<Command> {
        self.apply(Event::Blame { task: TASK, by, about, fault })
    }

    fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.now += Duration::from_secs(1);
            self.apply(Event::Tick);
        }
    }

    fn members(&self) -> BTreeMap<NodeId, MemberView> {
        let view = self.scheduler.task(TASK).unwrap();
        view.members.into_iter().map(|member| (member.node, member)).collect()
    }

    fn children_of(&self, parent: NodeId) -> Vec<NodeId> {
        let members = self.members().into_values();
        members.filter(|member| member.parents.contains(&parent)).map(|member| member.node).collect()
    }
}

#[test]
fn the_first_joiners_get_the_seed_and_the_tree_stays_flat() {
    let mut scene = Scene::fetching();
    scene.plain(0..144);
    let members = scene.members();
    assert_eq!(scene.children_of(seed()), (0..16).map(node).collect::<Vec<_>>());
    assert!(members.values().all(|member| member.depth.is_some_and(|depth| depth <= 3)), "{members:?}");
    let full = members.values().filter(|member| member.parents.len() == 5).count();
    assert!(full > 130, "{full} of 144 have all their parents");
}

#[test]
fn joiners_wait_for_the_length_and_then_all_get_parents() {
    let mut scene = Scene::new();
    for number in 0..20 {
        assert_eq!(scene.join(number, Labels::default()), []);
    }
    let commands = scene.apply(Event::SeedMeta { task: TASK, pieces: PIECES });
    let told: Vec<NodeId> = commands.iter().map(|Command::Parents { to, .. }| *to).collect();
    assert_eq!(told, (0..20).map(node).collect::<Vec<_>>());
}

/// Edges into a zone from other zones and from the seed.
fn crossings(scene: &Scene, zone_of: impl Fn(NodeId) -> Option<u16>) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for member in scene.members().values() {
        let own = zone_of(member.node);
        let outside = member.parents.iter().filter(|&&parent| zone_of(parent) != own).count();
        *counts.entry(own.unwrap()).or_default() += outside;
    }
    counts
}

#[test]
fn a_blob_crosses_into_a_zone_about_once() {
    let zone_of = |node: NodeId| (node != seed()).then(|| u16::from_be_bytes([node.0[0], node.0[1]]) % 3);
    let mut scene = Scene::fetching();
    (0..180).for_each(|number| scene.up(number, labels(["a", "b", "c"][usize::from(number % 3)], "")));
    for number in 0..180 {
        scene.apply(Event::Join { task: TASK, node: node(number), held: 0 });
    }
    let counts = crossings(&scene, zone_of);
    assert!(counts.values().all(|&count| (1..=4).contains(&count)), "{counts:?}");
    // The ways in go, again and again.
    for _ in 0..10 {
        for gateway in scene.children_of(seed()) {
            scene.apply(Event::PeerDown(gateway));
        }
        scene.ticks(3);
    }
    let counts = crossings(&scene, zone_of);
    assert!(counts.values().all(|&count| (1..=6).contains(&count)), "{counts:?}");
}

#[test]
fn near_parents_are_preferred_but_not_the_only_ones() {
    let mut scene = Scene::fetching();
    let rack_of = |node: NodeId| node.0[1] % 20;
    for number in 0..200 {
        scene.join(number, labels("", &format!("r{}", number % 20)));
    }
    let members = scene.members();
    let mesh = members.values().flat_map(|member| {
        let beside = member.parents.iter().filter(|&&parent| Some(parent) != member.trunk);
        beside.map(|&parent| (member.node, parent))
    });
    let (near, far): (Vec<_>, Vec<_>) = mesh.partition(|&(child, parent)| rack_of(child) == rack_of(parent));
    // At random it would be one in twenty.
    assert!(
        near.len() * 3 > far.len() && far.len() * 3 > near.len(),
        "{} near, {} far",
        near.len(),
        far.len()
    );
}

#[test]
fn late_comers_spare_the_seed_where_complete_peers_abound() {
    let mut scene = Scene::fetching();
    scene.plain(0..60);
    (0..60).for_each(|number| scene.progress(number, PIECES));
    scene.apply(Event::SeedProven(TASK));
    assert_eq!(scene.children_of(seed()), []);
    scene.plain(60..120);
    assert_eq!(scene.children_of(seed()), []);
    let members = scene.members();
    let late: Vec<_> = members.values().filter(|member| member.stage == StageView::Wanting).collect();
    assert_eq!(late.len(), 60);
    assert!(late.iter().all(|member| member.depth == Some(1)), "all hang on a complete peer");
}

#[test]
fn the_guilty_are_isolated_and_served_on() {
    let mut scene = Scene::fetching();
    scene.plain(0..40);
    let guilty = node(0);
    let children = scene.children_of(guilty);
    let commands = scene.blame(children[0], guilty, Fault::WrongBytes);
    let let_go =
        |Command::Parents { to, remove, .. }: &Command| *to == children[0] && remove.contains(&guilty);
    assert!(commands.iter().any(let_go), "{commands:?}");
    scene.plain(40..80);
    assert_eq!(scene.children_of(guilty), children[1..], "one accuser: no new children, the others stay");
    scene.blame(children[1], guilty, Fault::WrongBytes);
    assert_eq!(scene.children_of(guilty), []);
    assert!(!scene.members()[&guilty].parents.is_empty());
    // It cannot wash itself by coming anew, but time heals.
    scene.apply(Event::PeerDown(guilty));
    scene.plain(0..1);
    assert_eq!(scene.members()[&guilty].standing, Standing::Outcast);
    scene.now += Duration::from_secs(3600);
    scene.apply(Event::Tick);
    assert_eq!(scene.members()[&guilty].standing, Standing::Good);
}

#[test]
fn a_slanderer_hurts_few_and_never_the_seed() {
    let mut scene = Scene::fetching();
    scene.plain(0..60);
    for number in (0..60).filter(|&number| number != 20) {
        for fault in [Fault::WrongBytes, Fault::FalseClaim, Fault::Silent].repeat(3) {
            scene.blame(node(20), node(number), fault);
            scene.blame(node(20), seed(), fault);
        }
    }
    let members = scene.members();
    let doubted = members.values().filter(|member| member.standing != Standing::Good).count();
    assert!(doubted <= 8, "{doubted} are doubted for one accuser's word");
    assert!(members.values().all(|member| member.standing != Standing::Outcast && member.trunk.is_some()));
    assert_eq!(scene.children_of(seed()).len(), 16);
}

#[test]
fn more_parents_are_others_and_only_now_and_then() {
    let mut scene = Scene::fetching();
    scene.plain(0..60);
    let before = scene.members()[&node(50)].parents.clone();
    let more = Event::MoreParents { task: TASK, node: node(50) };
    let commands = scene.apply(more.clone());
    let [Command::Parents { to, add, remove, .. }] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(*to, node(50));
    assert!(!add.is_empty() && add.iter().all(|contact| !before.contains(&contact.id)));
    assert!(remove.iter().all(|parent| before.contains(parent)));
    assert!(scene.members()[&node(50)].parents.len() <= 5);
    assert_eq!(scene.apply(more.clone()), []);
    scene.now += Duration::from_secs(3);
    assert_ne!(scene.apply(more), []);
}

#[test]
fn a_zone_whose_ways_out_do_not_help_gets_another() {
    let mut scene = Scene::fetching();
    scene.join(20, labels("a", ""));
    scene.join(1, labels("b", ""));
    // It has nothing, and counts as a way out of the zone until more complain.
    scene.up(9, labels("b", ""));
    scene.apply(Event::Hold { task: TASK, node: node(9), pieces: PIECES });
    scene.join(2, labels("b", ""));
    scene.join(3, labels("b", ""));
    scene.progress(1, 0);
    for by in [2, 3] {
        scene.blame(node(by), node(9), Fault::Silent);
    }
    let outside = |scene: &Scene| {
        let members = scene.members();
        [2, 3]
            .into_iter()
            .filter(|&number| {
                members[&node(number)].parents.iter().any(|parent| *parent == seed() || *parent == node(20))
            })
            .count()
    };
    assert_eq!(outside(&scene), 0);
    for _ in 0..3 {
        scene.now += Duration::from_secs(3);
        scene.apply(Event::MoreParents { task: TASK, node: node(2) });
    }
    assert_eq!(outside(&scene), 1);
}

#[test]
fn holders_are_parents_at_once_and_another_length_is_no_holder() {
    let mut scene = Scene::new();
    scene.up(1, Labels::default());
    scene.up(2, Labels::default());
    scene.apply(Event::Hold { task: TASK, node: node(1), pieces: PIECES });
    scene.apply(Event::Hold { task: TASK, node: node(2), pieces: PIECES + 1 });
    let commands = scene.join(3, Labels::default());
    let add = vec![contact(node(1))];
    assert_eq!(commands, [Command::Parents { to: node(3), task: TASK, add, remove: Vec::new() }]);
    assert_eq!(scene.scheduler.peers(scene.now).map(|peer| peer.tasks).collect::<Vec<_>>(), [1, 0, 1]);
}

#[test]
fn abandoned_swarms_are_forgotten() {
    let mut scene = Scene::fetching();
    scene.plain(0..5);
    scene.apply(Event::SeedDropped(TASK));
    (0..4).for_each(|number| drop(scene.apply(Event::Leave { task: TASK, node: node(number) })));
    assert_eq!(scene.scheduler.tasks().count(), 1);
    scene.apply(Event::PeerDown(node(4)));
    assert_eq!(scene.scheduler.tasks().count(), 0);
    scene.apply(Event::SeedMeta { task: TASK, pieces: PIECES });
    scene.plain(0..5);
    assert_eq!(scene.apply(Event::SeedFailed(TASK)), []);
    assert_eq!(scene.scheduler.tasks().count(), 0);
    assert!(scene.scheduler.peers(scene.now).all(|peer| peer.tasks == 0));
}

#[test]
fn what_one_peer_has_and_nobody_wants_is_no_swarm_until_somebody_does() {
    let mut scene = Scene::new();
    scene.up(1, Labels::default());
    scene.apply(Event::Hold { task: TASK, node: node(1), pieces: PIECES });
    let alone = |scene: &Scene| (scene.scheduler.counts().swarms, scene.scheduler.counts().lone);
    assert_eq!(alone(&scene), (0, 1));
    let asleep = scene.scheduler.task(TASK).unwrap();
    scene.apply(Event::Hold { task: TASK, node: node(1), pieces: PIECES + 1 });
    scene.apply(Event::Leave { task: TASK, node: node(2) });
    scene.apply(Event::Progress { task: TASK, node: node(1), held: PIECES });
    assert_eq!((alone(&scene), scene.scheduler.held(TASK, node(1))), ((0, 1), Some(PIECES)));

    let commands = scene.join(2, Labels::default());
    let add = vec![contact(node(1))];
    assert_eq!(commands, [Command::Parents { to: node(2), task: TASK, add, remove: Vec::new() }]);
    assert_eq!(alone(&scene), (1, 0));
    scene.apply(Event::Leave { task: TASK, node: node(2) });
    assert_eq!(alone(&scene), (0, 1));
    // It looks as it does to who knows of swarms only.
    assert_eq!(format!("{:?}", scene.scheduler.task(TASK).unwrap()), format!("{asleep:?}"));

    scene.apply(Event::Progress { task: TASK, node: node(1), held: PIECES - 1 });
    assert_eq!(alone(&scene), (1, 0), "it wants what it lost");
    scene.apply(Event::PeerDown(node(1)));
    assert_eq!((alone(&scene), scene.scheduler.held(TASK, node(1))), ((0, 0), None));
}

#[test]
fn a_lone_copy_goes_with_its_holder_and_is_no_secret_way_around_its_standing() {
    let mut scene = Scene::fetching();
    scene.plain(0..8);
    let (guilty, other) = (node(0), TaskId([8; 32]));
    scene.apply(Event::Hold { task: other, node: guilty, pieces: PIECES });
    for by in 1..8 {
        scene.blame(node(by), guilty, Fault::WrongBytes);
    }
    assert_eq!(scene.scheduler.task(other).unwrap().members[0].standing, Standing::Outcast);
    let commands = scene.apply(Event::Join { task: other, node: node(1), held: 0 });
    assert!(!format!("{commands:?}").contains(&format!("{:?}", contact(guilty))), "{commands:?}");
    scene.apply(Event::Leave { task: other, node: node(1) });
    scene.apply(Event::PeerDown(guilty));
    assert!(scene.scheduler.task(other).is_none());
}
