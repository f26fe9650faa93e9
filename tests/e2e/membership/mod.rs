//! Who belongs to a cluster, and for how long: tokens of the cluster and of Kubernetes, revocations, renewals, and a change of the CA, with real daemons
//! and pulls going on.

mod folder;
mod kubernetes;
mod renewal;
mod revocation;
mod tokens;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::digest::Digest;
use common::identity::Identity;
use tokio::task::JoinHandle;

use crate::support::client;
use crate::support::cluster::{Cluster, Node, World, longshore};
use crate::support::eventually;
use crate::support::faulty::Origin;
use crate::support::image::Image;
use crate::support::process::succeed;

const MIB: usize = 1 << 20;

/// What a node keeps of itself.
fn identity(node: &Node) -> Identity {
    Identity::open(&node.data.join("identity")).unwrap()
}

fn ca_of(node: &Node) -> Digest {
    identity(node).certificate().unwrap().ca_fingerprint
}

/// Runs a command that works on the supernode's folder.
async fn beside(cluster: &Cluster, arguments: &[&str]) -> String {
    let data = cluster.supernode.data.display().to_string();
    succeed(longshore(cluster.root()).args(arguments).args(["--data-dir", &data])).await
}

/// Pulls one new image after another through all of some peers, until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    running: JoinHandle<()>,
}

// === impl Load ===

impl Load {
    /// Begins. A pull that fails, and an image that did not come through the swarm, end the test.
    fn start(origin: Arc<Origin>, proxies: Vec<String>) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (stop.clone(), done.clone());
        let running = tokio::spawn(async move {
            while !stopped.load(Ordering::SeqCst) {
                let number = counted.load(Ordering::SeqCst);
                let image = Image::single(&format!("team/app{number}"), MIB, 7000 + number as u64);
                origin.add(&image);
                let pulls: Vec<_> = proxies
                    .iter()
                    .map(|proxy| {
                        tokio::spawn(client::pull(proxy.clone(), "quay.test".to_owned(), image.clone()))
                    })
                    .collect();
                for pull in pulls {
                    pull.await.unwrap_or_else(|error| panic!("pull {number}: {error}"));
                }
                let copies = origin.copies(&image, image.layer().digest);
                assert!(copies < 1.01, "pull {number}: {copies:.2} copies left the origin");
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { stop, done, running }
    }

    /// Waits until so many more are done.
    async fn more(&self, count: usize) {
        let goal = self.done.load(Ordering::SeqCst) + count;
        eventually("more pulls", async || {
            assert!(!self.running.is_finished(), "the pulls have ended: one failed");
            (self.done.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await;
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.running.await.unwrap();
        self.done.load(Ordering::SeqCst)
    }
}

/// A cluster whose certificates last `life`, in front of an origin.
async fn short_lived(peers: usize, life: &str) -> (Arc<Origin>, Cluster) {
    let origin = Arc::new(Origin::start().await);
    let world = World::registry("quay.test", &origin.url()).set("LONGSHORE_TESTS_CERTIFICATE_LIFE", life);
    let cluster = Cluster::start(peers, world).await;
    (origin, cluster)
}

fn never_lost_its_session(node: &Node) {
    assert!(!node.said().contains("no session with the supernode"), "{}", node.said());
}
