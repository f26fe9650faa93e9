//! Three supernodes over one bucket, of which one is killed in mid-pull: who takes over what it owned, after how long, and
//! how often each layer leaves the origin. What it prints is a table.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use common::node::NodeId;
use common::rendezvous;
use common::task::TaskId;
use tokio::task::JoinSet;

use super::MIB;
use super::fleet::{Fleet, PEERS, swarm};
use crate::support::bucket::S3;
use crate::support::client::{self, blob_url};
use crate::support::cluster::World;
use crate::support::faulty::Origin;
use crate::support::image::Image;
use crate::support::{eventually, machine, need};

const LAYER: usize = 96 * MIB;
/// Pieces of a layer of which the origin sends parts at once (four ranged requests side by side): what came of these when
/// the supernode was killed is gone with it.
const UNDER_WAY: f64 = 4.0 * 256.0 * 1024.0 / LAYER as f64;
/// What leaves the origin before the kill: half of everything.
const HELD: u64 = 3 * LAYER as u64 / 2;

/// A layer, and the supernodes that it belongs to, first to last.
struct Owned {
    image: Image,
    order: Vec<usize>,
    /// How long it took until all peers were at the next one, if the first was lost.
    moved: Option<Duration>,
}

// === impl Owned ===

impl Owned {
    fn new(image: Image, nodes: &[NodeId]) -> Self {
        let order = rendezvous::order(&task(&image).0, nodes.iter().copied());
        let place = |node| nodes.iter().position(|known| known == node).unwrap();
        Self { order: order.iter().map(place).collect(), image, moved: None }
    }

    fn row(&self, copies: f64) -> String {
        let after = if self.moved.is_some() { self.order[1] } else { self.order[0] };
        let took = self.moved.map_or_else(|| "-".to_owned(), |took| format!("{:.1}", took.as_secs_f64()));
        format!(
            "{:<10} supernode{} {:>11} {took:>8} {copies:>13.2}",
            self.image.repository,
            self.order[0],
            format!("supernode{after}")
        )
    }
}

fn task(image: &Image) -> TaskId {
    TaskId::of_digest(image.layer().digest)
}

/// A layer for each supernode.
fn one_each(nodes: &[NodeId]) -> Vec<Owned> {
    let mut owned: Vec<Owned> = Vec::new();
    for seed in 500.. {
        let name = format!("team/app{}", owned.len());
        let next = Owned::new(Image::single(&name, LAYER, seed), nodes);
        if owned.iter().all(|other| other.order[0] != next.order[0]) {
            owned.push(next);
        }
        if owned.len() == nodes.len() {
            break;
        }
    }
    owned
}

/// Every peer begins to pull every layer.
fn pull_all(fleet: &Fleet, owned: &[Owned]) -> JoinSet<()> {
    let mut pulls = JoinSet::new();
    for (peer, owned) in fleet.peers.iter().flat_map(|peer| owned.iter().map(move |owned| (peer, owned))) {
        let digest = owned.image.layer().digest;
        let url = blob_url(&peer.at.proxy, "quay.test", &owned.image.repository, digest);
        pulls.spawn(async move { client::get(&url).await.is(digest) });
    }
    pulls
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supernode_killed_over_a_shared_bucket_is_replaced_and_no_layer_leaves_the_origin_twice() {
    need!("s3s-fs");
    let _machine = machine().await;
    let (origin, s3) = (Origin::start().await, S3::start().await);
    origin.hold_at(HELD);
    let mut fleet = Fleet::start(s3.behind(World::registry("quay.test", &origin.url()))).await;
    let mut owned = one_each(&fleet.nodes().await);
    owned.iter().for_each(|owned| origin.add(&owned.image));
    let mut pulls = pull_all(&fleet, &owned);
    for peer in &fleet.peers {
        eventually("most of what has left the origin at a peer", async || {
            (peer.received().await.network() >= HELD * 3 / 4).then_some(())
        })
        .await;
    }

    let lost = &mut owned[0];
    fleet.supernodes[lost.order[0]].kill().await;
    let killed = Instant::now();
    eventually("the whole swarm at the next supernode", async || {
        let members = swarm(&fleet.supernodes[lost.order[1]], task(&lost.image), "members").await;
        (members >= PEERS as u64).then_some(())
    })
    .await;
    lost.moved = Some(killed.elapsed());
    origin.release();
    while let Some(pull) = pulls.join_next().await {
        pull.unwrap();
    }
    for owned in &owned {
        let digest = owned.image.layer().digest;
        eventually("the layer in the bucket", async || s3.has(digest).then_some(())).await;
    }

    // One that comes with an empty disk has all of it from the bucket.
    let reserved = fleet.reserved.clone();
    fleet.add_supernode(&reserved).await;
    let newcomer = fleet.newcomer().await;
    for owned in &owned {
        let digest = owned.image.layer().digest;
        let url = blob_url(&newcomer.at.proxy, "quay.test", &owned.image.repository, digest);
        client::get(&url).await.is(digest);
    }
    let cold = fleet.supernodes.last().unwrap().received().await;

    let mut table = format!(
        "{:<10} {:<10} {:>11} {:>8} {:>13}\n",
        "layer", "belongs to", "goes on at", "after s", "origin copies"
    );
    for owned in &owned {
        let _ = writeln!(table, "{}", owned.row(origin.copies(&owned.image, owned.image.layer().digest)));
    }
    println!("supernode{} of three was killed in mid-pull:\n{table}", owned[0].order[0]);
    println!(
        "a new one with an empty disk took {} MiB from the bucket, {} from the origin",
        cold.cache >> 20,
        cold.origin
    );
    for owned in &owned {
        let copies = origin.copies(&owned.image, owned.image.layer().digest);
        assert!(
            (0.9999..1.0001 + UNDER_WAY).contains(&copies),
            "{copies:.3} copies of {}",
            owned.image.repository
        );
    }
    assert_eq!((cold.origin, cold.cache), (0, 3 * LAYER as u64));
}
