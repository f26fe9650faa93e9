//! A hostile neighbour, with a certificate of the cluster's own: whatever it sends, the daemons stay up, small and
//! healthy, honest nodes pull what is right meanwhile, and it is told, counted and limited. Each attack has a member of its
//! own, and all of them attack at once.

mod attacks;
mod errands;
mod villain;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::identity::{self, JoinToken};
use common::node::NodeId;
use common::piece::Geometry;
use common::task::TaskId;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::support::client;
use crate::support::cluster::{Cluster, World, sample};
use crate::support::faulty::Origin;
use crate::support::image::Image;
use crate::support::registry::Registry;
use crate::support::{LIMIT, machine, need};
use villain::{Target, Villain};

const REGISTRY: &str = "quay.test";
const LAYER: usize = 8 << 20;
/// What a dozen hostile members together may cost a daemon. 57 to 67 MiB have been seen at a supernode: some 15 for the honest
/// pulls meanwhile and buffers that are first touched then; the rest for strangers' connections (some tens of KiB each), 64
/// tasks a member at origins that do not answer (70 KiB each), a thousand joins that wait behind these, and datagrams that
/// wait for their connection. Windows take nothing until they are filled. The 16,384 tasks that a member says it holds are 2.
const MOST: u64 = 100 << 20;
/// How often memory and health are looked at.
const LOOK: Duration = Duration::from_millis(100);

const GIANT: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 8796093022208\r\n\r\n";

type Attack = fn(Arc<Field>) -> BoxFuture<'static, String>;

macro_rules! attacks {
    ($($name:ident),+ $(,)?) => {
        [$((stringify!($name), (|field| Box::pin(attacks::$name(field))) as Attack)),+]
    };
}

/// What is attacked, and what an attack needs.
struct Field {
    supernode: Target,
    peer: Target,
    /// All honest peers.
    nodes: Vec<NodeId>,
    /// The supernode's HTTP address.
    api: String,
    token: JoinToken,
    /// A blob that the peer holds.
    task: TaskId,
    geometry: Geometry,
    /// An origin that takes connections and never answers.
    hung: String,
    /// One that answers.
    origin: Origin,
    _hanging: AbortOnDropHandle<()>,
}

/// What a daemon's memory came to.
#[derive(Default)]
struct Memory {
    before: u64,
    most: AtomicU64,
}

// === impl Field ===

impl Field {
    async fn villain(&self) -> Villain {
        Villain::enrol(&self.supernode, &self.token).await
    }

    async fn peers(api: &str) -> Vec<Value> {
        let answer = client::http().get(format!("http://{api}/api/v1/status")).send().await.unwrap();
        let status: Value = answer.json().await.unwrap();
        status["peers"].as_array().unwrap().clone()
    }

    /// How many tasks the supernode believes a node to hold.
    async fn tasks_of(&self, node: NodeId) -> u64 {
        let peers = Self::peers(&self.api).await;
        let seen = peers.iter().find(|peer| peer["node"] == node.to_string());
        seen.and_then(|peer| peer["tasks"].as_u64()).unwrap_or_default()
    }
}

// === impl Memory ===

impl Memory {
    fn of(process: u32) -> Self {
        Self { before: resident(process), most: AtomicU64::new(0) }
    }

    fn look(&self, process: u32) {
        self.most.fetch_max(resident(process), Ordering::Relaxed);
    }

    fn grown(&self) -> u64 {
        self.most.load(Ordering::Relaxed).saturating_sub(self.before)
    }
}

/// Bytes of a process that are in memory.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// An origin that takes every connection and says nothing, or promises eight tebibytes and gives none of them.
async fn hung() -> (String, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let holding = tokio::spawn(async move {
        let mut held = JoinSet::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            held.spawn(async move {
                let mut request = [0; 64];
                let read = connection.read(&mut request).await.unwrap_or_default();
                if request[..read].windows(6).any(|part| part == b"/giant") {
                    let _ = connection.write_all(GIANT).await;
                }
                std::future::pending::<()>().await;
            });
        }
    });
    (address, AbortOnDropHandle::new(holding))
}

/// All peers pull an image that nobody has.
async fn pull_fresh(registry: &Registry, cluster: &Cluster, number: u64) -> Image {
    let image = Image::single(&format!("team/app{number}"), LAYER, number * 10);
    registry.push(&image).await;
    let mut pulls = JoinSet::new();
    for proxy in cluster.proxies() {
        pulls.spawn(client::pull(proxy, REGISTRY.to_owned(), image.clone()));
    }
    while let Some(pull) = pulls.join_next().await {
        pull.unwrap();
    }
    image
}

async fn field(
    cluster: &Cluster,
    image: &Image,
    origin: Origin,
    hung: (String, AbortOnDropHandle<()>),
) -> Field {
    identity::install_crypto_provider();
    let (supernode, api) = (Target::supernode(&cluster.supernode.at.quic), cluster.supernode.at.http.clone());
    let victim = &cluster.peers[0].at.quic;
    let peers = Field::peers(&api).await;
    let node = |peer: &Value| peer["node"].as_str().unwrap().parse::<NodeId>().unwrap();
    let of_victim = peers.iter().find(|peer| peer["address"] == victim.as_str()).map(node);
    let layer = image.layer();
    Field {
        supernode,
        peer: Target::peer(victim, of_victim.expect("the supernode knows the victim")),
        nodes: peers.iter().map(node).collect(),
        api,
        token: JoinToken::read(&cluster.join_token()).unwrap(),
        task: TaskId::of_digest(layer.digest),
        geometry: Geometry::of(layer.size()).unwrap(),
        hung: hung.0,
        origin,
        _hanging: hung.1,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_hostile_members_do_the_daemons_stay_small_and_honest_nodes_pull() {
    need!("docker-registry");
    let _machine = machine().await;
    let registry = Registry::start().await;
    let (origin, hanging) = (Origin::start().await, hung().await);
    let world = World::registry(REGISTRY, &registry.url()).allowing(&hanging.0).allowing(&origin.address);
    let cluster = Cluster::start(3, world).await;
    let mut image = pull_fresh(&registry, &cluster, 0).await;
    for number in 1..4 {
        image = pull_fresh(&registry, &cluster, number).await;
    }
    let field = Arc::new(field(&cluster, &image, origin, hanging).await);

    let daemons = [&cluster.supernode, &cluster.peers[0]];
    let memories = daemons.map(|daemon| Memory::of(daemon.id()));
    let all = attacks![
        joins,
        abandoned,
        drips,
        giants,
        pieces,
        claims,
        inquiries,
        testimonies,
        enrolments,
        hellos,
        connections,
        strangers
    ];
    let mut attacking = JoinSet::new();
    for (name, attack) in all {
        let field = field.clone();
        attacking.spawn(async move { (name, attack(field).await) });
    }
    let over = AtomicBool::new(false);
    let watching = async {
        let mut slowest = Duration::ZERO;
        while !over.load(Ordering::Relaxed) {
            for (daemon, memory) in daemons.iter().zip(&memories) {
                memory.look(daemon.id());
                let begun = Instant::now();
                let answer = client::http().get(daemon.url("/healthz")).timeout(LIMIT).send().await;
                assert!(answer.is_ok_and(|answer| answer.status().is_success()), "it is not well");
                slowest = slowest.max(begun.elapsed());
            }
            tokio::time::sleep(LOOK).await;
        }
        slowest
    };
    let pulling = async {
        let mut rounds = 4;
        while !over.load(Ordering::Relaxed) {
            pull_fresh(&registry, &cluster, rounds).await;
            rounds += 1;
        }
        rounds - 4
    };
    let attacked = async {
        while let Some(attack) = attacking.join_next().await {
            let (name, came) = attack.unwrap();
            println!("{name}: {came}");
        }
        over.store(true, Ordering::Relaxed);
    };
    let (slowest, rounds, ()) = tokio::join!(watching, pulling, attacked);
    println!("{rounds} images pulled by all meanwhile; the slowest answer on health took {slowest:?}");
    assert!(rounds > 0, "nobody pulled anything");
    for (name, memory) in ["supernode", "peer"].iter().zip(&memories) {
        println!("{name}: {} MiB before, {} MiB more at most", memory.before >> 20, memory.grown() >> 20);
        assert!(memory.grown() < MOST, "the {name} grew by {} bytes", memory.grown());
    }
    let metrics = cluster.supernode.metrics().await;
    for reason in ["malformed", "busy", "identity"] {
        let counted = sample(&metrics, "longshore_turned_away_total", &format!("reason=\"{reason}\""));
        println!("turned away by the supernode, {reason}: {counted}");
        assert!(counted > 0, "nothing was turned away as {reason}");
    }
    pull_fresh(&registry, &cluster, 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_host_that_takes_all_places_for_strangers_keeps_no_other_out() {
    need!("docker-registry");
    let _machine = machine().await;
    let registry = Registry::start().await;
    let (origin, hanging) = (Origin::start().await, hung().await);
    let cluster = Cluster::start(1, World::registry(REGISTRY, &registry.url())).await;
    let image = pull_fresh(&registry, &cluster, 0).await;
    let field = Arc::new(field(&cluster, &image, origin, hanging).await);
    let memory = Memory::of(cluster.supernode.id());
    println!("crowd: {}", attacks::crowd(field).await);
    memory.look(cluster.supernode.id());
    println!("supernode: {} MiB more", memory.grown() >> 20);
    assert!(memory.grown() < MOST, "the supernode grew by {} bytes", memory.grown());
}
