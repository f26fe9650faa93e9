//! Real runtimes pull through a peer: right digests, containers that start, and one copy out of the registry.
//! The tests named `support_…` do the same without Longshore, so that a failure shows whose it is.

use tempfile::TempDir;

use crate::support::cluster::{Cluster, World};
use crate::support::image::{Image, TAG};
use crate::support::need;
use crate::support::registry::Registry;
use crate::support::runtimes::{Containerd, Dockerd, skopeo};

/// What the container prints.
const MESSAGE: &str = "all hands ashore\n";

/// A registry that holds one image that runs.
async fn stocked() -> (Registry, Image) {
    let registry = Registry::start().await;
    let image = Image::runnable("library/app", MESSAGE);
    registry.push(&image).await;
    (registry, image)
}

/// The same, and a peer for which that registry is Docker Hub.
async fn behind_a_peer() -> (Registry, Image, Cluster, String) {
    let (registry, image) = stocked().await;
    let cluster = Cluster::start(1, World::registry("docker.io", &registry.url())).await;
    let mirror = format!("http://{}", cluster.peers[0].at.proxy);
    (registry, image, cluster, mirror)
}

#[tokio::test(flavor = "multi_thread")]
async fn support_pulls_with_containerd_straight_from_the_registry() {
    need!("docker-registry", "busybox", "containerd", "ctr", "runc", "root");
    let (registry, image) = stocked().await;
    let containerd = Containerd::start().await;
    let got = containerd.pull("docker.io", &registry.url(), &format!("library/app:{TAG}")).await;
    assert_eq!(got, image.manifest.digest);
    assert_eq!(containerd.run(&format!("docker.io/library/app:{TAG}")).await, MESSAGE);
    registry.served_once(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn support_pulls_with_dockerd_straight_from_the_registry() {
    need!("docker-registry", "busybox", "dockerd", "docker", "runc", "root");
    let (registry, image) = stocked().await;
    let dockerd = Dockerd::start(&registry.url()).await;
    assert_eq!(dockerd.pull(&format!("app:{TAG}")).await, image.manifest.digest);
    assert_eq!(dockerd.run(&format!("app:{TAG}")).await, MESSAGE);
    registry.served_once(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn support_pulls_with_skopeo_straight_from_the_registry() {
    need!("docker-registry", "busybox", "skopeo");
    let (registry, image) = stocked().await;
    let to = TempDir::new().unwrap();
    let got = skopeo(&format!("{}/library/app:{TAG}", registry.address), to.path(), None).await;
    assert_eq!(got, image.manifest.digest);
    registry.served_once(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_pulls_through_a_peer_and_the_container_starts() {
    need!("docker-registry", "busybox", "containerd", "ctr", "runc", "root");
    let (registry, image, cluster, mirror) = behind_a_peer().await;
    let containerd = Containerd::start().await;
    let got = containerd.pull("docker.io", &mirror, &format!("library/app:{TAG}")).await;
    assert_eq!(got, image.manifest.digest);
    assert_eq!(containerd.run(&format!("docker.io/library/app:{TAG}")).await, MESSAGE);
    registry.served_once(&image).await;
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_pulls_another_registry_by_its_ns_parameter() {
    need!("docker-registry", "busybox", "containerd", "ctr", "root");
    let (hub, _) = stocked().await;
    let other = Registry::start().await;
    // the same name on both registries: only `?ns=` tells them apart
    let image = Image::runnable("library/app", "from the other quay\n");
    other.push(&image).await;
    let world = World::registry("docker.io", &hub.url()).and("other.test", &other.url());
    let cluster = Cluster::start(1, world).await;
    let mirror = format!("http://{}", cluster.peers[0].at.proxy);
    let containerd = Containerd::start().await;
    let got = containerd.pull("other.test", &mirror, &format!("library/app:{TAG}")).await;
    assert_eq!(got, image.manifest.digest);
    other.served_once(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dockerd_pulls_through_a_peer_and_the_container_starts() {
    need!("docker-registry", "busybox", "dockerd", "docker", "runc", "root");
    let (registry, image, cluster, mirror) = behind_a_peer().await;
    let dockerd = Dockerd::start(&mirror).await;
    assert_eq!(dockerd.pull(&format!("app:{TAG}")).await, image.manifest.digest);
    assert_eq!(dockerd.run(&format!("app:{TAG}")).await, MESSAGE);
    registry.served_once(&image).await;
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_pulls_through_a_peer_and_again_from_its_store() {
    need!("docker-registry", "busybox", "skopeo");
    let (registry, image, cluster, _) = behind_a_peer().await;
    let source = format!("{}/library/app:{TAG}", cluster.peers[0].at.proxy);
    for _ in 0..2 {
        let to = TempDir::new().unwrap();
        assert_eq!(skopeo(&source, to.path(), None).await, image.manifest.digest);
    }
    registry.served_once(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_reached_by_its_address_where_plain_http_is_allowed() {
    need!("docker-registry", "busybox", "containerd", "ctr", "root");
    let (registry, image) = stocked().await;
    let cluster = Cluster::start(1, World::default().insecure(&registry.address)).await;
    let mirror = format!("http://{}", cluster.peers[0].at.proxy);
    let containerd = Containerd::start().await;
    let got = containerd.pull(&registry.address, &mirror, &format!("library/app:{TAG}")).await;
    assert_eq!(got, image.manifest.digest);
    registry.served_once(&image).await;
}
