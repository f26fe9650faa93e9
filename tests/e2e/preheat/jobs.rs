//! What a job brings, and to whom.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::notifications::{asking, supernode};
use super::{MIB, REGISTRY, begin, job, job_that_is, longshore};
use crate::support::client;
use crate::support::cluster::{Cluster, World, run};
use crate::support::faulty::Origin;
use crate::support::image::{Image, TAG};
use crate::support::registry::{Registry, User};
use crate::support::{eventually, need};

fn name(image: &Image) -> String {
    format!("{REGISTRY}/{}:{TAG}", image.repository)
}

/// What `preheat --plan` says.
async fn plan(cluster: &Cluster, arguments: &[&str]) -> serde_json::Value {
    let (status, said) = longshore(cluster, &[&["preheat", "--plan", "--json"], arguments].concat()).await;
    assert_eq!(status, Some(0), "{said}");
    serde_json::from_str(&said).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_preheated_to_peers_is_pulled_without_a_byte_from_anybody() {
    need!("docker-registry");
    let registry = Registry::start().await;
    let cluster = Cluster::start(3, World::registry(REGISTRY, &registry.url())).await;
    let image = Image::of_sizes("team/app", &[6 * MIB, 64 * 1024, 3 * MIB], 7100);
    registry.push(&image).await;

    let plan = plan(&cluster, &[&name(&image)]).await;
    let bytes = plan["contents"]["bytes"].as_u64().unwrap();
    assert!(bytes as usize > 9 * MIB, "{plan:#}");
    assert_eq!((&plan["desired"], &plan["ready"]), (&3.into(), &0.into()), "{plan:#}");
    assert_eq!(plan["node_bytes"], 3 * bytes, "{plan:#}");
    // To find out what the image is, its manifest was read, and stayed.
    let manifest = bytes - plan["origin_bytes"].as_u64().unwrap();
    assert!((100..10_000).contains(&manifest), "{plan:#}");
    assert_eq!(
        plan["seconds"],
        serde_json::Value::Null,
        "nothing was moved that would tell a speed: {plan:#}"
    );

    let (status, said) = longshore(&cluster, &["preheat", &name(&image), "--wait"]).await;
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("3 of 3 nodes have it"), "{said}");
    registry.served_once(&image).await;
    eventually("the supernode knowing that nothing is left to bring", async || {
        let plan = self::plan(&cluster, &[&name(&image)]).await;
        let left = ["ready", "origin_bytes", "node_bytes", "seconds"].map(|name| plan[name].as_u64());
        (left == [Some(3), Some(0), Some(0), Some(0)]).then_some(())
    })
    .await;
    let mut before = Vec::new();
    for peer in &cluster.peers {
        let received = peer.received().await;
        assert_eq!(received.origin, 0, "{received:?}");
        assert!(received.network() as usize > 9 * MIB, "{received:?}");
        before.push(received.network());
    }

    for proxy in cluster.proxies() {
        client::pull(proxy, REGISTRY.to_owned(), image.clone()).await;
    }
    for (peer, before) in cluster.peers.iter().zip(before) {
        assert_eq!(peer.received().await.network(), before, "all of it was there");
    }
    registry.served_once(&image).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_is_filled_without_any_peer_and_a_file_goes_to_some() {
    let origin = Origin::start().await;
    let world = World::registry(REGISTRY, &origin.url()).allowing(&origin.address);
    let cluster = Cluster::start(3, world).await;
    let image = Image::single("team/app", 5 * MIB, 7200);
    origin.add(&image);
    let id = begin(&cluster, &[&name(&image), "--to", "cache"]).await;
    let done = job_that_is(&cluster, id, "succeeded").await;
    assert_eq!((&done["desired"], &done["succeeded"]), (&1.into(), &1.into()), "{done:#}");
    assert_eq!(done["contents"]["tasks"], 3, "a manifest, a config and a layer: {done:#}");
    let layer = image.layer();
    let part =
        done["parts"].as_array().unwrap().iter().find(|part| part["digest"] == layer.digest.to_string());
    assert_eq!(part.unwrap()["size"], layer.size(), "{done:#}");
    assert_eq!(done["nodes"][0]["parts_done"], 3);
    for peer in &cluster.peers {
        assert_eq!(peer.received().await.network(), 0);
    }
    // The origin is asked for no blob any more.
    for proxy in cluster.proxies() {
        client::pull(proxy, REGISTRY.to_owned(), image.clone()).await;
    }
    assert!((origin.copies(&image, image.layer().digest) - 1.0).abs() < f64::EPSILON);

    let url = origin.add_file("model.bin", vec![7; 2 * MIB]);
    let plan = plan(&cluster, &[&url, "--count", "2"]).await;
    assert_eq!(
        (&plan["origin_bytes"], &plan["node_bytes"]),
        (&(2 * MIB).into(), &(4 * MIB).into()),
        "{plan:#}"
    );
    let (status, said) = longshore(&cluster, &["preheat", &(url.clone() + "x"), "--plan"]).await;
    assert!(status == Some(1) && said.contains("404"), "{said}");
    let id = begin(&cluster, &[&url, "--count", "2"]).await;
    let done = job_that_is(&cluster, id, "succeeded").await;
    let nodes = done["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 2);
    assert!(nodes.iter().all(|node| node["bytes"] == 2 * MIB as u64), "{done:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preheated_file_is_the_one_that_is_fetched_then_and_its_key_is_written_down_nowhere() {
    let origin = Origin::start().await;
    let cluster = Cluster::start(1, World::registry(REGISTRY, &origin.url())).await;
    let url = origin.add_file("model.bin", vec![7; 2 * MIB]);
    let signed = format!("{url}?X-Amz-Signature=opensesame-7350");
    let id = begin(&cluster, &[&signed]).await;
    let done = job_that_is(&cluster, id, "succeeded").await;
    assert_eq!(
        (&done["contents"]["bytes"], &done["parts"][0]["size"]),
        (&(2 * MIB).into(), &(2 * MIB).into())
    );
    let peer = &cluster.peers[0];
    let moved = peer.received().await.network();
    assert!(moved as usize >= 2 * MIB, "it is there: {moved}");
    let data = peer.data.display().to_string();
    let to = cluster.root().join("model.bin").display().to_string();
    for url in [&url, &signed] {
        let (code, said) =
            run(cluster.root(), &["get", url, "-o", &to, "--overwrite", "--data-dir", &data]).await;
        assert_eq!(code, Some(0), "{said}");
    }
    assert_eq!(peer.received().await.network(), moved, "another task was fetched than was brought");

    // It changes, and the same wish brings the new one.
    origin.add_file("model.bin", vec![8; 2 * MIB]);
    let again = begin(&cluster, &[&url]).await;
    job_that_is(&cluster, again, "succeeded").await;
    let moved = peer.received().await.network();
    let (code, said) =
        run(cluster.root(), &["get", &url, "-o", &to, "--overwrite", "--data-dir", &data]).await;
    assert_eq!((code, peer.received().await.network()), (Some(0), moved), "{said}");
    assert_eq!(std::fs::read(&to).unwrap(), vec![8; 2 * MIB]);

    let (_, listed) = longshore(&cluster, &["preheats", "--json"]).await;
    assert!(listed.contains("model.bin") && !listed.contains("opensesame-7350"), "{listed}");
    for file in crate::support::files_below(cluster.root()) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let key = b"opensesame-7350";
        assert!(!bytes.windows(key.len()).any(|part| part == key), "{} holds the key", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_image_wants_a_login_and_no_trace_of_it_stays() {
    need!("docker-registry", "htpasswd");
    let user = User { name: "ada", password: "opensesame-7300" };
    let registry = Registry::private(user).await;
    let cluster = Cluster::start(1, World::registry(REGISTRY, &registry.url())).await;
    let image = Image::single("team/secret", MIB, 7300);
    registry.push(&image).await;

    let (status, said) = longshore(&cluster, &["preheat", &name(&image), "--wait"]).await;
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("401"), "{said}");
    let word = user.basic();
    let login = format!("Authorization: Basic {word}");
    let (status, said) = longshore(&cluster, &["preheat", &name(&image), "--wait", "-H", &login]).await;
    assert_eq!(status, Some(0), "{said}");
    let (_, said) = longshore(&cluster, &["preheats", "--json"]).await;
    let log = cluster.supernode.said() + &cluster.peers[0].said() + &said;
    assert!(!log.contains(user.password) && !log.contains(&word), "the password is shown");
    for file in crate::support::files_below(cluster.root()) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let holds = |word: &str| bytes.windows(word.len()).any(|part| part == word.as_bytes());
        assert!(!holds(user.password) && !holds(&word), "{} holds the password", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_job_twice_is_one_and_jobs_pause_go_on_and_end() {
    let origin = Origin::start().await;
    let cluster = Cluster::start(2, World::registry(REGISTRY, &origin.url())).await;
    let image = Image::single("team/app", 4 * MIB, 7400);
    origin.add(&image);
    origin.hold_at(1 << 20);
    let id = begin(&cluster, &[&name(&image)]).await;
    assert_eq!(begin(&cluster, &[&name(&image)]).await, id);
    job_that_is(&cluster, id, "running").await;
    let held = eventually("both nodes at their layer", async || {
        let job = job(&cluster, id).await;
        let nodes = job["nodes"].as_array().unwrap();
        nodes.iter().all(|node| node["under_way"][0]["part"] == 2).then_some(job)
    })
    .await;
    let digest = image.layer().digest.to_string();
    assert_eq!((&held["parts"][2]["digest"], &held["nodes"][0]["parts_done"]), (&digest.into(), &2.into()));
    let (_, said) = longshore(&cluster, &["preheats", "show", &id.to_string()]).await;
    assert!(said.contains("2/3 parts, now #2"), "{said}");
    let word = id.to_string();
    for (deed, state) in [("pause", "paused"), ("resume", "running"), ("pause", "paused")] {
        let (status, said) = longshore(&cluster, &["preheats", deed, &word]).await;
        assert_eq!(status, Some(0), "{said}");
        assert_eq!(job(&cluster, id).await["state"], state);
    }
    assert_eq!(job(&cluster, id).await["active"], 0, "nobody works while it is paused");
    origin.release();
    longshore(&cluster, &["preheats", "resume", &word]).await;
    job_that_is(&cluster, id, "succeeded").await;

    let other = Image::single("team/other", 4 * MIB, 7500);
    origin.add(&other);
    origin.hold_at(1 << 20);
    let id = begin(&cluster, &[&name(&other)]).await;
    job_that_is(&cluster, id, "running").await;
    longshore(&cluster, &["preheats", "cancel", &id.to_string()]).await;
    let cancelled = job(&cluster, id).await;
    assert_eq!((&cancelled["state"], &cancelled["active"]), (&"cancelled".into(), &0.into()));
    origin.release();
    let (_, said) = longshore(&cluster, &["preheats"]).await;
    assert!(said.contains("cancelled") && said.contains("succeeded"), "{said}");
    longshore(&cluster, &["preheats", "remove", &id.to_string()]).await;
    let (status, said) = longshore(&cluster, &["preheats", "show", &id.to_string()]).await;
    assert!(status == Some(1) && said.contains("there is no preheat job"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_may_name_thousands_of_nodes_and_a_thousand_files() {
    let (origin, root) = (Origin::start().await, TempDir::new().unwrap());
    let mut node = supernode(root.path(), 0, &["--insecure-registry", &origin.address]);
    node.ready().await;
    let image = Image::single("team/app", MIB, 7900);
    origin.add(&image);
    let names: Vec<String> =
        (0..5000).map(|number| format!("node-{number}.rack-{}.example", number % 40)).collect();
    let nodes = json!({"image": format!("{}/team/app:{TAG}", origin.address), "nodes": {"names": names}, "paused": true});
    let file = |number: usize| json!({"url": format!("http://{}/files/{number}?{}", origin.address, "k".repeat(100))});
    let files = json!({"files": (0..1000).map(file).collect::<Vec<_>>(), "paused": true});
    let post = async |path: &str, body: &Value| {
        let answer = asking(&node, Method::POST, path).json(body).send().await.unwrap();
        (answer.status(), answer.json::<Value>().await.unwrap())
    };
    assert!(nodes.to_string().len() > 128 * 1024 && files.to_string().len() > 128 * 1024);
    for spec in [&nodes, &files] {
        let (status, job) = post("/api/v1/preheats", spec).await;
        assert_eq!(status, StatusCode::CREATED, "{job}");
        let mut schedule = json!({"preheat": spec, "schedule": "@yearly"});
        schedule["preheat"]["paused"] = false.into();
        let (status, schedule) = post("/api/v1/preheat-schedules", &schedule).await;
        assert_eq!(status, StatusCode::CREATED, "{schedule}");
    }
    let (status, plan) = post("/api/v1/preheats/plan", &nodes).await;
    assert_eq!((status, &plan["contents"]["tasks"]), (StatusCode::OK, &3.into()), "{plan}");
    let large = json!({"files": [{"url": format!("http://h.example/{}", "x".repeat(MIB))}]});
    assert_eq!(post("/api/v1/preheats", &large).await.0, StatusCode::PAYLOAD_TOO_LARGE);
}
