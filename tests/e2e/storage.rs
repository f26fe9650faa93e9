//! What daemons do with their disk: full, too small, with an index gone bad, with a quota, and with what somebody wants
//! kept.

use std::fs;
use std::path::Path;
use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::client::{self, blob_url};
use crate::support::cluster::{Cluster, Node, World, gauge, run, sample};
use crate::support::disk::SmallDisk;
use crate::support::faulty::Origin;
use crate::support::image::Image;
use crate::support::process::succeed;
use crate::support::{eventually, machine, need};

const MIB: usize = 1 << 20;
/// With the index goes where a blob came from: the registry is asked for parts of it, to show that it has it.
const PROOFS: u64 = 1 << 20;
/// What a daemon says of a full disk.
const FULL: &str = "streamed through and not kept";

/// Pulls all blobs of the image at once through `peer`, and looks at every byte.
async fn pull(peer: &Node, image: &Image) {
    let pulls: Vec<_> = image
        .blobs()
        .map(|blob| {
            let url = blob_url(&peer.at.proxy, "quay.test", &image.repository, blob.digest);
            (blob.digest, tokio::spawn(async move { client::get(&url).await }))
        })
        .collect();
    for (digest, pull) in pulls {
        pull.await.unwrap().is(digest);
    }
}

/// Waits until the peer gives the image without a byte from the origin.
async fn keeps(origin: &Origin, peer: &Node, image: &Image) {
    eventually("an image that is kept", async || {
        pull(peer, image).await;
        let before = origin.left();
        pull(peer, image).await;
        (origin.left() == before).then_some(())
    })
    .await;
}

/// Pulls through `puller` what the disk has no room for, while others fill it, and once there is room again.
async fn lives_through_a_full_disk(origin: &Origin, disk: &SmallDisk, puller: &Node) {
    let huge = Image::of_sizes("team/huge", &[64 * MIB; 3], 71);
    origin.add(&huge);
    pull(puller, &huge).await;
    let filler = disk.fill();
    for seed in 72..75 {
        let image = Image::of_sizes("team/full", &[4 * MIB, 300_032, 4096], seed);
        origin.add(&image);
        pull(puller, &image).await;
    }
    fs::remove_file(filler).unwrap();
    let image = Image::of_sizes("team/room", &[4 * MIB, 300_032], 76);
    origin.add(&image);
    keeps(origin, puller, &image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_room_fails_no_pull_and_keeps_again_once_there_is_room() {
    need!("root", "mount");
    let _machine = machine().await;
    let disk = SmallDisk::new(48).await;
    let origin = Origin::start().await;
    let cluster = Cluster::start(0, World::registry("quay.test", &origin.url())).await;
    let mut small = cluster.spawn_peer("small", &[], Some(&disk.path().join("data")));
    small.ready().await;
    lives_through_a_full_disk(&origin, &disk, &small).await;
    let said = small.process().said();
    assert_eq!(said.matches(FULL).count(), 1, "once, and not for every piece:\n{said}");
    assert!(small.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supernode_without_room_fails_no_pull() {
    need!("root", "mount");
    let _machine = machine().await;
    let disk = SmallDisk::new(48).await;
    let origin = Origin::start().await;
    let world = World::registry("quay.test", &origin.url());
    let mut cluster = Cluster::start_on(Some(&disk.path().join("data")), 1, world).await;
    lives_through_a_full_disk(&origin, &disk, &cluster.peers[0]).await;
    eventually("a supernode that keeps what there is room for", async || {
        let held = gauge(&cluster.supernode.metrics().await, "longshore_store_blob_bytes");
        (held >= 4 << 20).then_some(())
    })
    .await;
    let said = cluster.supernode.process().said();
    assert_eq!(said.matches(FULL).count(), 1, "once, and not for every piece:\n{said}");
    assert!(cluster.supernode.terminate().await.success());
}

/// What may become of an index.
type Harm = (&'static str, fn(&Path));

fn harms() -> [Harm; 4] {
    [
        ("garbage", |index| {
            let length = fs::metadata(index.join("db")).unwrap().len() as usize;
            fs::write(index.join("db"), crate::support::image::noise(length, 1)).unwrap();
        }),
        ("half of it", |index| {
            let db = fs::OpenOptions::new().write(true).open(index.join("db")).unwrap();
            db.set_len(db.metadata().unwrap().len() / 2).unwrap();
        }),
        ("nothing", |index| fs::remove_dir_all(index).unwrap()),
        ("a folder for a file", |index| {
            fs::remove_file(index.join("db")).unwrap();
            fs::create_dir(index.join("db")).unwrap();
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_blobs_outlive_whatever_becomes_of_the_index() {
    let origin = Origin::start().await;
    let image = Image::of_sizes("team/app", &[6 * MIB, 300_032, 4096], 77);
    origin.add(&image);
    let mut cluster = Cluster::start(1, World::registry("quay.test", &origin.url())).await;
    keeps(&origin, &cluster.peers[0], &image).await;
    for (name, harm) in harms() {
        let peer = &mut cluster.peers[0];
        assert!(peer.terminate().await.success());
        harm(&peer.data.join("index"));
        peer.restart().await;
        let before = origin.left();
        pull(peer, &image).await;
        assert_eq!(peer.received().await.network(), 0, "{name}");
        assert!(origin.left() - before <= PROOFS, "{name}");
    }
    cluster.peers[0].kill().await;
    for (name, harm) in harms() {
        assert!(cluster.supernode.terminate().await.success());
        harm(&cluster.supernode.data.join("index"));
        cluster.supernode.restart().await;
        let mut newcomer = cluster.spawn_peer(name, &[], None);
        newcomer.ready().await;
        pull(&newcomer, &image).await;
        newcomer.kill().await;
        let copies = origin.copies(&image, image.layer().digest);
        assert!(copies < 1.3, "{name}: {copies:.3} copies left the origin");
    }
}

/// A request to a peer's local API: the status and the body.
async fn ask(peer: &Node, request: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(&peer.at.socket).await.unwrap();
    let text = format!("{request} HTTP/1.1\r\nHost: longshore\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn on_disk(folder: &Path) -> u64 {
    let told = succeed(Command::new("du").args(["-s", "--block-size=1"]).arg(folder)).await;
    told.split_whitespace().next().unwrap().parse().unwrap()
}

/// Waits until what the peer tells of its disk is what `du` says, within a twentieth, and below the quota.
async fn agrees_with_du(peer: &Node, quota: u64) {
    eventually("numbers that agree with the disk", async || {
        let told = gauge(&peer.metrics().await, "longshore_store_bytes");
        let is = on_disk(&peer.data).await;
        (told.abs_diff(is) * 20 <= is && is <= quota).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_on_the_disk_and_what_is_pinned_stays() {
    need!("du");
    const QUOTA: u64 = 40 << 20;
    let origin = Origin::start().await;
    let cluster = Cluster::start(0, World::registry("quay.test", &origin.url())).await;
    let mut peer = cluster.spawn_peer("small", &["--quota", "40MiB", "--low-watermark", "60%"], None);
    peer.ready().await;
    let first = Image::single("team/first", 3 * MIB, 80);
    origin.add(&first);
    keeps(&origin, &peer, &first).await;
    let pinned = format!("/v1/tasks/{}", first.layer().digest.hex());
    tasks(&peer, "pin", &first).await;
    assert_eq!(ask(&peer, "POST /v1/tasks/12/pin").await.0, 400);
    assert_eq!(ask(&peer, &format!("POST /v1/tasks/{}/pin", "0".repeat(64))).await.0, 404);
    for seed in 81..93 {
        let image = Image::of_sizes("team/next", &[4 * MIB, 300_032, 5120, 2048, 700_416], seed);
        origin.add(&image);
        pull(&peer, &image).await;
    }
    agrees_with_du(&peer, QUOTA).await;
    let metrics = peer.metrics().await;
    assert!(sample(&metrics, "longshore_evictions_total", "reason=\"quota\"") > 0);
    assert!(sample(&metrics, "longshore_evicted_bytes_total", "reason=\"quota\"") > 0);
    assert_eq!(gauge(&metrics, "longshore_store_quota_bytes"), QUOTA);
    assert_eq!(gauge(&metrics, "longshore_store_pinned_bytes"), 3 << 20);

    assert!(peer.terminate().await.success());
    peer.restart().await;
    agrees_with_du(&peer, QUOTA).await;
    let (status, body) = ask(&peer, "GET /v1/tasks").await;
    assert!(
        status == 200 && body.contains(&first.layer().digest.hex()) && body.contains("\"pinned\":true"),
        "{body}"
    );
    assert_eq!(ask(&peer, &format!("DELETE {pinned}")).await.0, 409);
    tasks(&peer, "unpin", &first).await;
    tasks(&peer, "remove", &first).await;
    assert_eq!(ask(&peer, &format!("DELETE {pinned}")).await.0, 404);
    let metrics = peer.metrics().await;
    assert_eq!(sample(&metrics, "longshore_evictions_total", "reason=\"request\""), 1);
}

/// `longshore tasks` does something to the image's layer, named by its first digits, at a daemon.
async fn tasks(node: &Node, deed: &str, image: &Image) {
    let (id, dir) = (&image.layer().digest.hex()[..12], node.data.display().to_string());
    let (status, said) = run(&node.data, &["tasks", deed, id, "--data-dir", &dir]).await;
    assert_eq!(status, Some(0), "{deed} {id}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pinned_at_the_supernode_stays_there() {
    let origin = Origin::start().await;
    let image = Image::single("team/kept", MIB, 96);
    origin.add(&image);
    let world = World::registry("quay.test", &origin.url()).set("LONGSHORE_SUPERNODE_TTL", "1s");
    let mut cluster = Cluster::start(1, world).await;
    pull(&cluster.peers[0], &image).await;
    tasks(&cluster.supernode, "pin", &image).await;
    let only_what_is_pinned = async || {
        let dir = cluster.supernode.data.display().to_string();
        let (_, said) = run(&cluster.supernode.data, &["tasks", "--json", "--data-dir", &dir]).await;
        let stored: Vec<serde_json::Value> = serde_json::from_str(&said).unwrap();
        let left = stored.first().filter(|_| stored.len() == 1)?;
        (left["task"] == image.layer().digest.hex() && left["pinned"] == true).then_some(())
    };
    eventually("all but what is pinned gone", only_what_is_pinned).await;
    // Somebody else's goes, later: so it is looked who is to go, and what is pinned has been passed over.
    let later = Image::single("team/later", MIB, 97);
    origin.add(&later);
    pull(&cluster.peers[0], &later).await;
    eventually("the later one gone, too", only_what_is_pinned).await;
    assert!(cluster.supernode.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_uses_goes_in_time() {
    let origin = Origin::start().await;
    let cluster = Cluster::start(0, World::registry("quay.test", &origin.url())).await;
    let mut peer = cluster.spawn_peer("brief", &["--ttl", "1s"], None);
    peer.ready().await;
    let image = Image::single("team/brief", MIB, 95);
    origin.add(&image);
    pull(&peer, &image).await;
    eventually("an empty store", async || {
        let metrics = peer.metrics().await;
        let gone = sample(&metrics, "longshore_evictions_total", "reason=\"ttl\"");
        (gone > 0 && gauge(&metrics, "longshore_store_blob_bytes") == 0).then_some(())
    })
    .await;
}
