//! The supernode's own logins: for what is preheated where nobody brings any, and for nobody's pull.

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{MIB, REGISTRY, begin, job, job_that_is, longshore};
use crate::support::cluster::{Cluster, World};
use crate::support::image::{Image, TAG};
use crate::support::registry::{Registry, User};
use crate::support::{client, eventually, need};

const USER: User = User { name: "bosun", password: "below-deck-9700" };

/// A file of logins, and the word in it.
fn logins(root: &TempDir, registry: &str, word: &str) -> String {
    let file = root.path().join("registry-logins.json");
    let text = json!({"auths": {registry: {"auth": word}, "other.test": {"auth": "eDp5"}}});
    std::fs::write(&file, text.to_string()).unwrap();
    file.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_image_is_preheated_by_the_supernodes_login_and_pulled_by_nobody_without_one() {
    need!("docker-registry", "htpasswd");
    let root = TempDir::new().unwrap();
    let file = logins(&root, "somewhere.test", &USER.basic());
    let registry = Registry::private(USER).await;
    let world = World::registry(REGISTRY, &registry.url());
    let world = world.set("LONGSHORE_SUPERNODE_REGISTRY_LOGINS", &file);
    let mut cluster = Cluster::start(1, world).await;
    let image = Image::single("team/secret", 3 * MIB, 9700);
    registry.push(&image).await;
    let name = format!("{REGISTRY}/{}:{TAG}", image.repository);

    // A login of another registry is none for this one.
    let (status, said) = longshore(&cluster, &["preheat", &name, "--wait"]).await;
    assert!(status == Some(1) && said.contains("401"), "{said}");
    // The file is read anew; no login is brought.
    logins(&root, REGISTRY, &USER.basic());
    let (status, said) = longshore(&cluster, &["preheat", &name, "--wait"]).await;
    assert_eq!(status, Some(0), "{said}");
    registry.served_once(&image).await;

    // What lies there is no permission: who shows nothing, or a wrong login, gets nothing of it.
    let proxy = &cluster.proxies()[0];
    let urls = [
        client::manifest_url(proxy, REGISTRY, &image.repository, TAG),
        client::manifest_url(proxy, REGISTRY, &image.repository, &image.manifest.digest.to_string()),
        client::blob_url(proxy, REGISTRY, &image.repository, image.layer().digest),
    ];
    for url in &urls {
        assert_eq!(client::get(url).await.status, StatusCode::UNAUTHORIZED, "{url}");
        let wrong = client::http().get(url).basic_auth(USER.name, Some("guess"));
        assert_eq!(client::fetch(wrong).await.status, StatusCode::UNAUTHORIZED, "{url}");
    }
    let before = cluster.peers[0].received().await.network();
    for url in &urls {
        let own = client::http().get(url).basic_auth(USER.name, Some(USER.password));
        assert_eq!(client::fetch(own).await.status, StatusCode::OK, "{url}");
    }
    assert_eq!(cluster.peers[0].received().await.network(), before, "all of it was there");

    // A schedule without a login of its own goes on after a restart, and so does a job.
    let made = ["preheat", &name, "--to", "cache", "--follow=30s", "--json"];
    let (status, said) = longshore(&cluster, &made).await;
    assert_eq!(status, Some(0), "{said}");
    let made: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(made["credentials"], "none");
    let show = ["preheats", "schedules", "show", &made["id"].to_string(), "--json"];
    let shown = async |cluster: &Cluster| -> Value {
        serde_json::from_str(&longshore(cluster, &show).await.1).unwrap()
    };
    eventually("a run", async || (shown(&cluster).await["runs"][0]["result"] == "succeeded").then_some(()))
        .await;
    cluster.supernode.kill().await;
    cluster.supernode.restart().await;
    let next = Image::single("team/secret", 3 * MIB, 9701);
    registry.push(&next).await;
    eventually("what the tag means now", async || {
        let shown = shown(&cluster).await;
        (shown["runs"][0]["result"] == "succeeded" && shown["digest"] == next.manifest.digest.to_string())
            .then_some(())
    })
    .await;

    let (_, said) = longshore(&cluster, &["preheats", "--json"]).await;
    let log = cluster.supernode.said() + &cluster.peers[0].said() + &said;
    assert!(!log.contains(USER.password) && !log.contains(&USER.basic()), "the password is shown");
    for file in crate::support::files_below(cluster.root()) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let holds = |word: &str| bytes.windows(word.len()).any(|part| part == word.as_bytes());
        assert!(!holds(USER.password) && !holds(&USER.basic()), "{} holds the password", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_brings_is_used_and_not_the_supernodes_login() {
    need!("docker-registry", "htpasswd");
    let root = TempDir::new().unwrap();
    let file = logins(&root, REGISTRY, &USER.basic());
    let registry = Registry::private(USER).await;
    let world = World::registry(REGISTRY, &registry.url());
    let cluster = Cluster::start(0, world.set("LONGSHORE_SUPERNODE_REGISTRY_LOGINS", &file)).await;
    let image = Image::single("team/secret", MIB, 9710);
    registry.push(&image).await;
    let name = format!("{REGISTRY}/{}:{TAG}", image.repository);
    let id = begin(&cluster, &[&name, "--to", "cache", "-H", "Authorization: Basic eDp5"]).await;
    let failed = job_that_is(&cluster, id, "failed").await;
    assert!(failed["message"].as_str().unwrap().contains("401"), "{failed:#}");
    let id = begin(&cluster, &[&name, "--to", "cache"]).await;
    job_that_is(&cluster, id, "succeeded").await;
    assert_eq!(job(&cluster, id).await["succeeded"], 1);

    // A file that is none is said at the start.
    std::fs::write(&file, "hello").unwrap();
    let dir = root.path().join("other");
    let arguments = ["supernode", "--data-dir", dir.to_str().unwrap(), "--registry-logins", &file];
    let (status, said) = crate::support::cluster::run(root.path(), &arguments).await;
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("registry-logins.json") && said.contains("docker login"), "{said}");
}
