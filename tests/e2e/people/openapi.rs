//! The supernode's API against its own description, by a program that knows neither: schemathesis asks every operation with what
//! the description allows and with what it forbids, and complains of each answer that is not as described.

use std::path::Path;
use std::process::Command;

use peer::local_api::stored::StoredTask;
use tempfile::TempDir;

use crate::support::client;
use crate::support::cluster::{Cluster, World};
use crate::support::faulty::Origin;
use crate::support::image::Image;
use crate::support::process::output;
use crate::support::{need, program};

const MIB: usize = 1 << 20;
const TOKEN: &str = "a-token-for-schemathesis";
/// For each operation and phase.
const EXAMPLES: &str = "60";

#[tokio::test(flavor = "multi_thread")]
async fn the_api_does_what_its_description_says_and_nothing_else() {
    need!("schemathesis");
    let home = TempDir::new().unwrap();
    let token = home.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let origin = Origin::start().await;
    let world = World::registry("quay.test", &origin.url())
        .set("LONGSHORE_SUPERNODE_API_TOKEN_FILE", token.to_str().unwrap());
    let cluster = Cluster::start(1, world).await;
    for seed in [420, 421] {
        let image = Image::single(&format!("team/app{seed}"), MIB, seed);
        origin.add(&image);
        client::pull(cluster.peers[0].at.proxy.clone(), "quay.test".to_owned(), image).await;
    }

    let settings = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/people/schemathesis.toml");
    let said = schemathesis(&cluster, home.path(), &settings, &[]).await;
    let operations = said.lines().find_map(|line| line.trim().strip_prefix("Tested: "));
    assert!(
        operations.is_some_and(|count| count.parse::<u32>().unwrap() >= 7),
        "too little was asked: {said}"
    );
    // Once more about a task that is there, which no made-up id names.
    let listed = client::http().get(cluster.supernode.url("/api/v1/tasks")).bearer_auth(TOKEN);
    let listed: Vec<StoredTask> = listed.send().await.unwrap().json().await.unwrap();
    let known = home.path().join("known.toml");
    std::fs::write(&known, format!("[parameters]\nid = \"{}\"\n", listed[0].task)).unwrap();
    let about = ["--include-path", "/api/v1/tasks/{id}/pin", "--phases", "fuzzing", "--mode", "positive"];
    let said = schemathesis(&cluster, home.path(), &known, &about).await;
    assert!(!said.contains("Missing test data"), "it was not found: {said}");
    assert!(!cluster.supernode.said().contains(TOKEN), "the token is in the log");
}

/// What it says, if it finds nothing.
async fn schemathesis(cluster: &Cluster, home: &Path, settings: &Path, more: &[&str]) -> String {
    let mut command = Command::new(program("schemathesis").unwrap());
    // It keeps what it found in the folder that it runs in.
    command.current_dir(home).env("HOME", home);
    command.arg("--config-file").arg(settings);
    command.args(["run", &cluster.supernode.url("/api/v1/openapi.json")]);
    command.args(["--header", &format!("Authorization: Bearer {TOKEN}"), "--request-timeout", "60"]);
    command.args(["--checks", "all", "--max-examples", EXAMPLES, "--workers", "1"]);
    // The same questions in every run.
    command.args(["--generation-deterministic", "--no-color"]).args(more);
    let result = output(&command).await;
    let said = String::from_utf8_lossy(&[result.stdout, result.stderr].concat()).into_owned();
    assert!(result.status.success(), "{said}");
    said
}
