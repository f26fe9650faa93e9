//! The seed's cache in a bucket: what one supernode fetched, another one has; and a bucket that is away, wrong or cut fails
//! no pull. The S3 server is a real one.

use crate::support::bucket::{Gate, S3, SECRET, flip};
use crate::support::client;
use crate::support::cluster::{Cluster, World};
use crate::support::faulty::Origin;
use crate::support::image::Image;
use crate::support::registry::Registry;
use crate::support::{eventually, machine, need};

const MIB: usize = 1 << 20;

/// An origin with one image, in front of which an S3 server stands.
struct Lab {
    origin: Origin,
    image: Image,
    s3: S3,
}

// === impl Lab ===

impl Lab {
    async fn start(size: usize, seed: u64) -> Self {
        Self::with(S3::start().await, size, seed).await
    }

    async fn with(s3: S3, size: usize, seed: u64) -> Self {
        let origin = Origin::start().await;
        let image = Image::single("team/app", size, seed);
        origin.add(&image);
        Self { origin, image, s3 }
    }

    fn world(&self) -> World {
        World::registry("quay.test", &self.origin.url())
    }

    async fn pull(&self, cluster: &Cluster) {
        let proxy = cluster.peers[0].at.proxy.clone();
        client::pull(proxy, "quay.test".to_owned(), self.image.clone()).await;
    }

    /// A cluster that has brought the image to the bucket.
    async fn warmed(&self) -> Cluster {
        let cluster = Cluster::start(1, self.s3.behind(self.world())).await;
        self.pull(&cluster).await;
        self.s3.holds(&self.image).await;
        cluster
    }

    fn copies(&self) -> f64 {
        self.origin.copies(&self.image, self.image.layer().digest)
    }
}

/// How often a supernode has said something.
fn said(cluster: &mut Cluster, text: &str) -> usize {
    cluster.supernode.process().said().matches(text).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_supernode_fetched_another_takes_from_the_bucket() {
    need!("s3s-fs", "docker-registry");
    let _machine = machine().await;
    let (registry, s3) = (Registry::start().await, S3::start().await);
    let image = Image::of_sizes("team/app", &[24 * MIB, MIB, 2048], 301);
    registry.push(&image).await;
    let world = s3.behind(World::registry("quay.test", &registry.url()));
    let first = Cluster::start(1, world.clone()).await;
    client::pull(first.peers[0].at.proxy.clone(), "quay.test".to_owned(), image.clone()).await;
    s3.holds(&image).await;
    registry.served_once(&image).await;

    let mut second = first.beside(1, world.clone()).await;
    client::pull(second.peers[0].at.proxy.clone(), "quay.test".to_owned(), image.clone()).await;
    let received = second.supernode.received().await;
    assert_eq!(received.origin, 0, "{received:?}");
    let all: u64 = image.blobs().chain([&image.manifest]).map(|blob| blob.size()).sum();
    assert_eq!(received.cache, all, "{received:?}");

    // and a supernode that lost its disk is warm again
    second.supernode.kill().await;
    for kept in ["blobs", "index"] {
        std::fs::remove_dir_all(second.supernode.data.join(kept)).unwrap();
    }
    second.supernode.restart().await;
    let mut newcomer = second.spawn_peer("newcomer", &[], None);
    newcomer.ready().await;
    client::pull(newcomer.at.proxy.clone(), "quay.test".to_owned(), image.clone()).await;
    registry.served_once(&image).await;
    assert!(s3.leftovers().is_empty(), "{:?}", s3.leftovers());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_dies_in_mid_pull_leaves_the_rest_to_the_origin() {
    need!("s3s-fs");
    let _machine = machine().await;
    let mut lab = Lab::start(48 * MIB, 302).await;
    let first = lab.warmed().await;
    let gate = Gate::before(&lab.s3.address).await;
    gate.down.hold_after(20 * MIB as u64);
    let second = first.beside(1, lab.s3.behind_at(lab.world(), &gate.address, SECRET)).await;
    let proxy = second.peers[0].at.proxy.clone();
    let pull = tokio::spawn(client::pull(proxy, "quay.test".to_owned(), lab.image.clone()));
    gate.down.holding().await;
    lab.s3.kill().await;
    gate.down.release();
    pull.await.unwrap();
    let received = second.supernode.received().await;
    assert!(received.cache > 0 && received.origin > 0, "{received:?}");
    assert!(lab.copies() < 1.9, "{:.2} copies: what the bucket gave is not asked for again", lab.copies());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_away_fails_no_pull_and_gets_what_it_missed_once_it_is_back() {
    need!("s3s-fs");
    let _machine = machine().await;
    let mut lab = Lab::with(S3::absent(), 8 * MIB, 303).await;
    let mut cluster = Cluster::start(1, lab.s3.behind(lab.world())).await;
    lab.pull(&cluster).await;
    assert!(lab.copies() < 1.005, "{:.3} copies", lab.copies());
    assert_eq!(said(&mut cluster, "bucket cannot be read"), 1, "one cause is told once");
    lab.s3.restart().await;
    lab.s3.holds(&lab.image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_told_without_themselves_and_fail_no_pull() {
    need!("s3s-fs");
    let lab = Lab::start(MIB, 304).await;
    let wrong = "wrong-hunter2";
    let world = lab.s3.behind_at(lab.world(), &lab.s3.address, wrong);
    let mut cluster = Cluster::start(1, world).await;
    lab.pull(&cluster).await;
    eventually("a word on the credentials", async || {
        (said(&mut cluster, "check the credentials") > 0).then_some(())
    })
    .await;
    assert_eq!(said(&mut cluster, wrong) + said(&mut cluster, SECRET), 0);
    assert!(!lab.s3.has(lab.image.layer().digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_shortened_object_is_not_believed_and_is_replaced() {
    need!("s3s-fs");
    let _machine = machine().await;
    let lab = Lab::start(24 * MIB, 305).await;
    let first = lab.warmed().await;
    let object = lab.s3.object(lab.image.layer().digest);

    flip(&object);
    let second = first.beside(1, lab.s3.behind(lab.world())).await;
    lab.pull(&second).await;
    let received = second.supernode.received().await;
    assert!(received.origin > 0 && received.origin <= 4 * MIB as u64, "the one wrong piece: {received:?}");
    lab.s3.holds(&lab.image).await;

    std::fs::OpenOptions::new().write(true).open(&object).unwrap().set_len(10 * MIB as u64).unwrap();
    let third = first.beside(1, lab.s3.behind(lab.world())).await;
    lab.pull(&third).await;
    let received = third.supernode.received().await;
    assert!(received.origin >= 14 * MIB as u64, "{received:?}");
    lab.s3.holds(&lab.image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_cut_by_kill_looks_like_nothing_and_is_made_anew_after_the_restart() {
    need!("s3s-fs");
    let _machine = machine().await;
    let lab = Lab::start(40 * MIB, 306).await;
    let gate = Gate::before(&lab.s3.address).await;
    gate.up.hold_after(20 * MIB as u64);
    let mut cluster = Cluster::start(1, lab.s3.behind_at(lab.world(), &gate.address, SECRET)).await;
    // the pull does not wait for the upload
    lab.pull(&cluster).await;
    gate.up.holding().await;
    let notes = cluster.supernode.data.join("cache-uploads");
    eventually("an upload that is noted", async || notes.read_dir().ok()?.next().map(drop)).await;
    cluster.supernode.kill().await;
    assert!(!lab.s3.has(lab.image.layer().digest));
    assert!(!lab.s3.leftovers().is_empty(), "the cut upload is there");
    gate.up.release();
    cluster.supernode.restart().await;
    lab.s3.holds(&lab.image).await;
    eventually("no parts left behind", async || lab.s3.leftovers().is_empty().then_some(())).await;
    assert!(notes.read_dir().unwrap().next().is_none());
    assert!(lab.copies() < 1.005, "{:.3} copies", lab.copies());
}
