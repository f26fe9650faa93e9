//! A peer's client of a container runtime asks a real containerd to pull over CRI: what it pulled is unpacked and starts without
//! its registry, logins are shown to registries and proxies, and each no comes as what it is.

use std::time::Duration;

use common::config::ByteSize;
use common::digest::Digest;
use peer::runtime::{Login, Refusal, Runtime, RuntimeError};

use crate::support::cluster::{Cluster, World};
use crate::support::faulty::Origin;
use crate::support::image::{Image, TAG};
use crate::support::registry::{Registry, User};
use crate::support::runtimes::Containerd;
use crate::support::{LIMIT, eventually, need};

/// A name that only a mirror makes sense of.
const REGISTRY: &str = "quay.test";
/// What the container prints.
const MESSAGE: &str = "stowed below\n";
const USER: User = User { name: "purser", password: "s3cret-of-the-purser" };

fn login(password: &str) -> Login {
    Login::Password { user: USER.name.to_owned(), password: password.to_owned() }
}

fn name(image: &Image) -> String {
    format!("{REGISTRY}/{}:{TAG}", image.repository)
}

/// A containerd with CRI for which [`REGISTRY`] is at `url`, or behind a mirror there, and the client of its socket.
async fn containerd_behind(url: &str) -> (Containerd, Runtime) {
    let containerd = Containerd::with_cri().await;
    // it asks a host that is named twice twice, and a registry's word counts only when all its hosts have answered
    containerd.mirror_before(url, REGISTRY, &format!("[host.\"{url}\"]"));
    let runtime = Runtime::new(containerd.socket());
    (containerd, runtime)
}

/// What it said no with.
fn refused(error: RuntimeError) -> (Refusal, String) {
    let text = error.to_string();
    assert!(!text.contains('\n') && !text.contains(USER.password), "{text:?}");
    assert!(text.contains("/c.sock"), "{text}");
    match error {
        RuntimeError::Refused { refusal, .. } => {
            assert_eq!(error.is_worth_another_try(), refusal == Refusal::Unavailable, "{text}");
            (refusal, text)
        }
        other => panic!("it should have refused, and it is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pulled_is_unpacked_and_starts_without_its_registry() {
    need!("docker-registry", "busybox", "containerd", "ctr", "runc", "root");
    let mut registry = Registry::start().await;
    let image = Image::runnable("team/app", MESSAGE);
    registry.push(&image).await;
    let (containerd, runtime) = containerd_behind(&registry.url()).await;
    let name = name(&image);
    assert_eq!(runtime.has(&name).await.unwrap(), None);

    let ready = runtime.pull(&name, None, LIMIT).await.unwrap();
    assert_eq!(ready.id.parse::<Digest>().unwrap(), image.config.digest);
    assert!(ready.size > ByteSize(5 << 20), "{ready:?}");
    assert_eq!(runtime.has(&name).await.unwrap(), Some(ready.clone()));
    assert!(containerd.digests().contains(&image.manifest.digest));
    assert!(containerd.is_unpacked(&name).await);

    // again: nothing moves
    assert_eq!(runtime.pull(&name, None, LIMIT).await.unwrap(), ready);
    registry.served_once(&image).await;
    registry.kill().await;
    assert_eq!(containerd.run(&name).await, MESSAGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_pulls_through_the_nodes_proxy_with_a_login() {
    need!("docker-registry", "busybox", "containerd", "ctr", "htpasswd", "root");
    let registry = Registry::private(USER).await;
    let image = Image::runnable("team/private", MESSAGE);
    registry.push(&image).await;
    let cluster = Cluster::start(1, World::registry(REGISTRY, &registry.url())).await;
    let (containerd, runtime) = containerd_behind(&format!("http://{}", cluster.peers[0].at.proxy)).await;
    let name = name(&image);
    assert_eq!(refused(runtime.pull(&name, None, LIMIT).await.unwrap_err()).0, Refusal::Unauthorized);
    runtime.pull(&name, Some(&login(USER.password)), LIMIT).await.unwrap();
    assert!(containerd.is_unpacked(&name).await);
    registry.served_once(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_a_login_is_shown_it_and_no_other() {
    need!("docker-registry", "busybox", "containerd", "ctr", "htpasswd", "root");
    let registry = Registry::private(USER).await;
    let image = Image::runnable("team/private", MESSAGE);
    registry.push(&image).await;
    let (_containerd, runtime) = containerd_behind(&registry.url()).await;
    let name = name(&image);
    let pull = async |login: Option<Login>| runtime.pull(&name, login.as_ref(), LIMIT).await;
    let (refusal, text) = refused(pull(None).await.unwrap_err());
    assert_eq!(refusal, Refusal::Unauthorized, "{text}");
    let (refusal, text) = refused(pull(Some(login("another"))).await.unwrap_err());
    assert_eq!(refusal, Refusal::Unauthorized, "{text}");
    // to containerd that is none
    let token = Login::RegistryToken(USER.password.to_owned());
    let (refusal, text) = refused(pull(Some(token)).await.unwrap_err());
    assert_eq!(refusal, Refusal::Unauthorized, "{text}");
    pull(Some(login(USER.password))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_had_is_an_honest_no() {
    need!("docker-registry", "busybox", "containerd", "ctr", "root");
    let mut registry = Registry::start().await;
    let image = Image::runnable("team/app", MESSAGE);
    registry.push(&image).await;
    let (_containerd, runtime) = containerd_behind(&registry.url()).await;
    let pull = async |name: &str| refused(runtime.pull(name, None, LIMIT).await.unwrap_err());
    for unknown in ["team/none:latest", "team/app:none"] {
        let (refusal, text) = pull(&format!("{REGISTRY}/{unknown}")).await;
        assert_eq!(refusal, Refusal::NotFound, "{text}");
        assert!(text.contains(unknown), "{text}");
    }
    let (refusal, text) = pull(&format!("{REGISTRY}/Team/App:{TAG}")).await;
    assert_eq!(refusal, Refusal::Invalid, "{text}");
    registry.kill().await;
    let (refusal, text) = pull(&name(&image)).await;
    assert_eq!(refusal, Refusal::Unavailable, "{text}");
    assert_eq!(runtime.has(&name(&image)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_given_up_ends_at_the_runtime_too() {
    need!("busybox", "containerd", "ctr", "root");
    let origin = Origin::start().await;
    let image = Image::single("team/slow", 8 << 20, 7);
    origin.add(&image);
    origin.hold_at(4 << 20);
    let (containerd, runtime) = containerd_behind(&origin.url()).await;
    let name = name(&image);
    let error = runtime.pull(&name, None, Duration::from_secs(3)).await.unwrap_err();
    assert!(matches!(error, RuntimeError::TimedOut { .. }) && error.is_worth_another_try(), "{error}");
    // the same pull once more, and dropped
    let pulling = tokio::spawn({
        let (runtime, name) = (runtime.clone(), name.clone());
        async move { runtime.pull(&name, None, LIMIT).await }
    });
    let logged = async |what: &str, words: &[&str], times: usize| {
        eventually(what, async || (containerd.lines(words) >= times).then_some(())).await;
    };
    logged("containerd asked again", &["PullImage", &name, "level=info"], 2).await;
    pulling.abort();
    logged("containerd giving up twice", &["PullImage", &name, "level=error", "context"], 2).await;
    origin.release();
    assert_eq!(runtime.has(&name).await.unwrap(), None);
    runtime.pull(&name, None, LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containerd_whose_cri_is_off_is_told_from_one_that_is_away() {
    need!("containerd", "ctr", "root");
    let containerd = Containerd::start().await;
    let socket = containerd.socket();
    let runtime = Runtime::new(socket.clone());
    let error = runtime.has("docker.io/library/app:1").await.unwrap_err();
    assert!(matches!(error, RuntimeError::NoCri { .. }) && !error.is_worth_another_try(), "{error}");
    assert!(error.to_string().contains("disabled_plugins"), "{error}");
    drop(containerd);
    let error = runtime.has("docker.io/library/app:1").await.unwrap_err();
    assert!(error.to_string().contains(&socket.display().to_string()), "{error}");
    assert!(error.to_string().contains("--runtime-socket") && error.is_worth_another_try(), "{error}");
}
