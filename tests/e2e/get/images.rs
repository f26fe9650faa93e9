//! Images from real registries into OCI layouts, which skopeo reads.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::files;
use crate::support::cluster::{Cluster, World, run};
use crate::support::image::{Image, TAG, noise};
use crate::support::need;
use crate::support::process::succeed;
use crate::support::registry::{Door, Registry, User};
use crate::support::tokens::{Rule, TokenServer};

const OWNER: User = User { name: "pilot", password: "l0cks" };
const OWNER_BASIC: &str = "Authorization: Basic cGlsb3Q6bDBja3M=";

/// skopeo's word on the image of a layout: the digest of its manifest.
async fn digest_of(layout: &Path, home: &Path) -> String {
    let (from, to) = (format!("oci:{}:{TAG}", layout.display()), home.join("copy"));
    let mut copy = Command::new("skopeo");
    copy.env("HOME", home).args(["--insecure-policy", "copy", &from, &format!("dir:{}", to.display())]);
    succeed(&copy).await;
    let mut inspect = Command::new("skopeo");
    inspect.env("HOME", home).args(["inspect", "--format", "{{.Digest}}", &from]);
    succeed(&inspect).await.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_becomes_a_layout_that_skopeo_reads_alone_and_through_a_peer() {
    need!("docker-registry", "skopeo");
    let registry = Registry::start().await;
    let image = Image::of_sizes("team/app", &[3 << 20, 1 << 20, 64 << 10], 91);
    registry.push(&image).await;
    let cluster =
        Cluster::start(1, World::default().insecure(&registry.address).allowing(&registry.address)).await;
    let home = TempDir::new().unwrap();
    let (nobody, peer) = (home.path().display().to_string(), cluster.peers[0].data.display().to_string());
    let source = format!("oci://{}/team/app:{TAG}", registry.address);
    for (name, data) in [("alone", &nobody), ("through", &peer)] {
        let layout = home.path().join(name);
        let to = layout.display().to_string();
        let get = ["get", &source, "-o", &to, "--data-dir", data, "--insecure-registry", &registry.address];
        let (code, said) = run(home.path(), &get).await;
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(digest_of(&layout, home.path()).await, image.manifest.digest.to_string(), "{name}");
        assert_eq!(files(&layout), ["blobs", "index.json", "oci-layout"]);
        assert_eq!(files(&layout.join("blobs/sha256")).len(), 5, "manifest, config and three layers");
        // what is there is not fetched again
        let before = registry.accesses().len();
        let (code, said) = run(home.path(), &get).await;
        assert_eq!(code, Some(0), "{said}");
        let blobs = registry
            .accesses()
            .split_off(before)
            .into_iter()
            .filter(|access| access.path.contains("/blobs/"));
        assert_eq!(blobs.count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_of_ours_exits_with_4_and_leaves_nothing() {
    need!("docker-registry", "htpasswd");
    let registry = Registry::private(OWNER).await;
    let image = Image::single("team/app", 1 << 20, 92);
    registry.push(&image).await;
    let home = TempDir::new().unwrap();
    let nobody = home.path().display().to_string();
    let layout = home.path().join("layout");
    let to = layout.display().to_string();
    let get = async |name: &str, more: &[&str]| {
        let source = format!("oci://{}/{name}", registry.address);
        let all =
            ["get", &source, "-o", &to, "--data-dir", &nobody, "--insecure-registry", &registry.address];
        run(home.path(), &[&all, more].concat()).await
    };
    let good = format!("team/app:{TAG}");
    for (name, more) in [(good.as_str(), &[] as &[&str]), ("team/app:none", &["-H", OWNER_BASIC])] {
        let (code, said) = get(name, more).await;
        assert_eq!(code, Some(4), "{said}");
        assert!(files(home.path()).is_empty(), "{:?}", files(home.path()));
    }
    std::fs::create_dir(&layout).unwrap();
    std::fs::write(layout.join("mine"), noise(10, 1)).unwrap();
    let (code, said) = get(&good, &["-H", OWNER_BASIC]).await;
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(files(&layout), ["mine"]);
    std::fs::remove_file(layout.join("mine")).unwrap();
    let login = format!(r#"{{"auths":{{"{}":{{"auth":"cGlsb3Q6bDBja3M="}}}}}}"#, registry.address);
    let docker = home.path().join(".docker");
    std::fs::create_dir(&docker).unwrap();
    std::fs::write(docker.join("config.json"), login).unwrap();
    let (code, said) = get(&good, &[]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = get(&good, &["-H", OWNER_BASIC]).await;
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_a_token_is_given_one() {
    need!("docker-registry");
    let rules = vec![Rule { user: None, below: "public/" }, Rule { user: Some(OWNER), below: "team/" }];
    let tokens = TokenServer::start(&rules).await;
    let registry = Registry::with(Door::Token(Arc::new(tokens)), None).await;
    let home = TempDir::new().unwrap();
    let nobody = home.path().display().to_string();
    for (repository, more, expected) in
        [("public/app", &[] as &[&str], 0), ("team/app", &[], 4), ("team/app", &["-H", OWNER_BASIC], 0)]
    {
        let image = Image::single(repository, 1 << 20, 93);
        registry.push(&image).await;
        let source = format!("oci://{}/{repository}:{TAG}", registry.address);
        let to = home.path().join("layout").display().to_string();
        let all =
            ["get", &source, "-o", &to, "--data-dir", &nobody, "--insecure-registry", &registry.address];
        let (code, said) = run(home.path(), &[&all, more].concat()).await;
        assert_eq!(code, Some(expected), "{repository}: {said}");
    }
}
