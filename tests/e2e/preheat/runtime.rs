//! Into a container runtime: unpacked, and started with no pull.

use super::{REGISTRY, begin, job_that_is, longshore};
use crate::support::cluster::{Cluster, World};
use crate::support::image::{Blob, Image, TAG};
use crate::support::need;
use crate::support::registry::{Registry, User};
use crate::support::runtimes::Containerd;

const MESSAGE: &str = "stowed before it was wanted\n";
const USER: User = User { name: "purser", password: "s3cret-of-the-hold" };

#[tokio::test(flavor = "multi_thread")]
async fn what_is_preheated_to_a_runtime_starts_with_the_network_cut() {
    need!("docker-registry", "busybox", "containerd", "ctr", "runc", "htpasswd", "root");
    let mut registry = Registry::private(USER).await;
    let image = Image::runnable("team/app", MESSAGE);
    registry.push(&image).await;
    let containerd = Containerd::with_cri().await;
    let mut cluster = Cluster::start(1, World::registry(REGISTRY, &registry.url())).await;
    let socket = containerd.socket().display().to_string();
    let mut node = cluster.spawn_peer("node", &["--runtime-socket", &socket], None);
    node.ready().await;
    let proxy = format!("http://{}", node.at.proxy);
    containerd.mirror_before(&proxy, REGISTRY, &format!("[host.\"{proxy}\"]"));
    let name = format!("{REGISTRY}/{}:{TAG}", image.repository);

    // The other peer has no runtime, and says so; this one has. Without a login neither gets anywhere.
    let id = begin(&cluster, &[&name, "--to", "runtime", "--retries", "0"]).await;
    let refused = job_that_is(&cluster, id, "failed").await;
    assert!(refused["message"].as_str().unwrap().contains("401"), "{refused:#}");
    let login = format!("Authorization: Basic {}", USER.basic());
    let (status, said) =
        longshore(&cluster, &["preheat", &name, "--to", "runtime", "--retries", "0", "--wait", "-H", &login])
            .await;
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("1 of 2 nodes have it") && said.contains("container runtime"), "{said}");
    assert!(containerd.is_unpacked(&name).await);
    registry.served_once(&image).await;

    registry.kill().await;
    node.kill().await;
    cluster.supernode.kill().await;
    assert_eq!(containerd.run(&name).await, MESSAGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runtime_is_to_pull_is_at_its_peer_before_as_anything_preheated_and_not_where_it_has_it() {
    need!("docker-registry", "busybox", "containerd", "ctr", "runc", "root");
    let registry = Registry::start().await;
    let image = Image::runnable("team/app", MESSAGE);
    registry.push(&image).await;
    let containerd = Containerd::with_cri().await;
    let cluster = Cluster::start(0, World::registry(REGISTRY, &registry.url())).await;
    let socket = containerd.socket().display().to_string();
    let mut node = cluster.spawn_peer("node", &["--runtime-socket", &socket], None);
    node.ready().await;
    let name = format!("{REGISTRY}/{}:{TAG}", image.repository);
    let bytes: u64 = image.blobs().map(Blob::size).sum();
    let job = ["preheat", &name, "--to", "runtime", "--retries", "0", "--wait"];

    // A runtime that cannot reach its peer asks it for nothing: what is there was brought before the pull.
    containerd.mirror(REGISTRY, "[host.\"http://127.0.0.1:9\"]");
    let (status, said) = longshore(&cluster, &job).await;
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("the container runtime at"), "{said}");
    let brought = node.received().await.network();
    assert!(brought >= bytes, "{brought} of {bytes} bytes");
    assert_eq!(node.received().await.cache, 0);

    // And so the pull moves no byte.
    let proxy = format!("http://{}", node.at.proxy);
    containerd.mirror_before(&proxy, REGISTRY, &format!("[host.\"{proxy}\"]"));
    let (status, said) = longshore(&cluster, &job).await;
    assert_eq!(status, Some(0), "{said}");
    assert!(containerd.is_unpacked(&name).await);
    assert_eq!(node.received().await.network(), brought, "all of it was there");
    registry.served_once(&image).await;

    // What the runtime has is not brought to a peer that has it not.
    assert!(node.terminate().await.success());
    for folder in ["blobs", "index"] {
        std::fs::remove_dir_all(node.data.join(folder)).unwrap();
    }
    node.restart().await;
    let (status, said) = longshore(&cluster, &job).await;
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("1 of 1 nodes have it"), "{said}");
    assert_eq!(node.received().await.network(), 0, "the runtime has all of it");
}
