//! The cluster's folder of its own: shared by supernodes, and read-only like a mounted Kubernetes Secret.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::cluster::{Node, longshore};
use crate::support::process::{Process, succeed};
use crate::support::{eventually, need};

const LISTEN: [&str; 4] = ["--quic-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn supernode(name: &str, root: &Path, folder: &str) -> Node {
    Node::spawn(name, words(&[&["supernode", "--cluster-dir", folder], &LISTEN[..]].concat()), root, None)
}

fn peer(name: &str, root: &Path, supernode: &str, token: &str) -> Node {
    let flags =
        ["peer", "--supernode", supernode, "--join-token-file", token, "--proxy-listen", "127.0.0.1:0"];
    Node::spawn(name, words(&[&flags, &LISTEN[..]].concat()), root, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn supernodes_of_one_folder_are_one_cluster() {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("cluster").display().to_string();
    let (mut one, mut two) = (supernode("one", root.path(), &folder), supernode("two", root.path(), &folder));
    one.ready().await;
    two.ready().await;
    let created = succeed(longshore(root.path()).args(["token", "create", "--cluster-dir", &folder])).await;
    let token = root.path().join("token");
    std::fs::write(&token, created).unwrap();
    let token = token.display().to_string();
    let mut first = peer("first", root.path(), &one.at.quic, &token);
    first.ready().await;
    peer("second", root.path(), &two.at.quic, &token).ready().await;

    // Certified by one, welcome at the other; turned out at one, turned out at the other.
    first.kill().await;
    let id = super::identity(&first).node().to_string();
    succeed(longshore(root.path()).args(["node", "revoke", &id, "--cluster-dir", &folder])).await;
    let mut moved = Node::spawn(
        "moved",
        words(
            &[&["peer", "--supernode", &two.at.quic, "--proxy-listen", "127.0.0.1:0"], &LISTEN[..]].concat(),
        ),
        root.path(),
        Some(&first.data),
    );
    moved.process().says("was revoked").await;
    succeed(longshore(root.path()).args(["node", "allow", &id, "--cluster-dir", &folder])).await;
    moved.ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_folder_with_a_token_in_words_is_enough() {
    need!("root", "unshare", "mount");
    let root = TempDir::new().unwrap();
    let folder = root.path().join("cluster");
    let shown = folder.display().to_string();
    let mut maker = supernode("maker", root.path(), &shown);
    maker.ready().await;
    let create = async |more: &[&str]| {
        succeed(longshore(root.path()).args(["token", "create", "--cluster-dir", &shown]).args(more)).await
    };
    let (plain, limited) = (create(&[]).await, create(&["--uses", "3"]).await);
    maker.terminate().await;
    std::fs::write(folder.join("join-token"), &plain).unwrap();
    let limited_file = root.path().join("limited");
    std::fs::write(&limited_file, limited).unwrap();
    // The book keeps only the token with a limit: the other is known by its words alone.
    let mut book: Value =
        serde_json::from_slice(&std::fs::read(folder.join("tokens.json")).unwrap()).unwrap();
    book["tokens"].as_array_mut().unwrap().retain(|token| !token["uses"].is_null());
    std::fs::write(folder.join("tokens.json"), book.to_string()).unwrap();

    let data = root.path().join("supernode");
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" && shift && exec \"$@\"";
    let binary = longshore(root.path());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", &shown]).arg(binary.get_program());
    command.args(["supernode", "--cluster-dir", &shown, "--data-dir"]).arg(&data).args(LISTEN);
    for (name, value) in binary.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut process = Process::spawn("supernode", &mut command, &root.path().join("supernode.log"));
    let quic = eventually("the supernode's addresses", async || {
        assert!(process.ended().is_none(), "{}", process.said());
        let at: Value = serde_json::from_slice(&std::fs::read(data.join("addresses.json")).ok()?).ok()?;
        at["quic"].as_str().map(str::to_owned)
    })
    .await;
    assert!(!data.join("join-token").exists(), "it brought its own");
    let token = folder.join("join-token").display().to_string();
    peer("welcome", root.path(), &quic, &token).ready().await;
    let mut counted = peer("counted", root.path(), &quic, &limited_file.display().to_string());
    assert_eq!(counted.process().end().await.code(), Some(1));
    assert!(counted.said().contains("read-only"), "{}", counted.said());
    process.stop();
}
