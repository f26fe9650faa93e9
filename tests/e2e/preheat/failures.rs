//! What a job says when it cannot be done, and what it survives.

use super::{MIB, REGISTRY, begin, job, job_that_is, longshore};
use crate::support::cluster::{Cluster, World};
use crate::support::eventually;
use crate::support::faulty::{Fault, Origin};
use crate::support::image::{Image, TAG};

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_says_why() {
    let origin = Origin::start().await;
    let cluster = Cluster::start(1, World::registry(REGISTRY, &origin.url())).await;
    let image = Image::single("team/app", MIB, 8100);
    origin.add(&image);
    let name = format!("{REGISTRY}/team/app:{TAG}");
    for (arguments, status, word) in [
        (vec!["quay.test/team/none:1"], 1, "404"),
        (vec![&name, "--zone", "nowhere"], 1, "no connected node matches"),
        (vec![&name, "--nodes", "ghost"], 1, "no connected node matches"),
        (vec![&name, "--to", "runtime", "--retries", "0"], 1, "container runtime"),
        (vec!["http://127.0.0.1:9/a", "--retries", "0"], 1, "allow"),
        (vec!["A B"], 2, "names no image"),
        (vec![&name, "--platform", "linux"], 2, "no platform"),
        (vec![&name, "--percent", "101"], 2, "101"),
        (vec![&name, "--count", "0"], 2, "count"),
        (vec!["file:///etc/passwd", "--to", "runtime"], 2, "names no image"),
        (vec![&name, "quay.test/team/b"], 2, "one image at a time"),
    ] {
        let (ended, said) = longshore(&cluster, &[&["preheat", "--wait"], &*arguments].concat()).await;
        assert_eq!(ended, Some(status), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_after_a_restart_of_the_supernode() {
    let origin = Origin::start().await;
    let mut cluster = Cluster::start(2, World::registry(REGISTRY, &origin.url())).await;
    let image = Image::single("team/app", 8 * MIB, 8200);
    origin.add(&image);
    origin.hold_at(2 << 20);
    let name = format!("{REGISTRY}/team/app:{TAG}");
    let id = begin(&cluster, &[&name]).await;
    let secret = begin(&cluster, &[&name, "--to", "cache", "-H", "Authorization: Basic eDp5"]).await;
    job_that_is(&cluster, id, "running").await;
    job_that_is(&cluster, secret, "running").await;
    // Written down within a second or so: which nodes it is for.
    eventually("both nodes at work", async || (job(&cluster, id).await["active"] == 2).then_some(())).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    cluster.supernode.kill().await;
    cluster.supernode.restart().await;
    origin.release();
    let done = job_that_is(&cluster, id, "succeeded").await;
    assert_eq!(done["succeeded"], 2, "{done:#}");
    let lost = job(&cluster, secret).await;
    assert_eq!(lost["state"], "failed");
    assert!(lost["message"].as_str().unwrap().contains("credentials"), "{lost:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_vanishes_fails_alone_and_is_named() {
    let origin = Origin::start().await;
    let mut cluster = Cluster::start(2, World::registry(REGISTRY, &origin.url())).await;
    let image = Image::single("team/app", 8 * MIB, 8300);
    origin.add(&image);
    origin.hold_at(2 << 20);
    let id = begin(&cluster, &[&format!("{REGISTRY}/team/app:{TAG}"), "--retries", "1"]).await;
    eventually("both nodes at work", async || (job(&cluster, id).await["active"] == 2).then_some(())).await;
    cluster.peers[1].kill().await;
    origin.release();
    let failed = job_that_is(&cluster, id, "failed").await;
    assert_eq!((&failed["succeeded"], &failed["failed"]), (&1.into(), &1.into()), "{failed:#}");
    assert!(failed["message"].as_str().unwrap().contains("not connected"), "{failed:#}");
    assert_eq!(failed["failed_nodes"].as_array().unwrap().len(), 1);
}

/// Longer than any other answer may take.
const BUSY: u32 = 32;

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_waits_for_a_registry_longer_than_other_answers_wait() {
    let origin = Origin::start().await;
    let cluster = Cluster::start(0, World::registry(REGISTRY, &origin.url())).await;
    let image = Image::single("team/app", MIB, 8400);
    origin.add(&image);
    origin.fault(&format!("/v2/team/app/manifests/{TAG}"), Fault::Busy(BUSY), 1);
    let (status, said) =
        longshore(&cluster, &["preheat", &format!("{REGISTRY}/team/app:{TAG}"), "--plan"]).await;
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("in 3 parts"), "{said}");
}
