//! `longshore get`: alone, through a local peer, and as a member for a moment. The file appears whole and right
//! under its name, or not at all.

mod bad_input;
mod buckets;
mod images;
mod resume;
mod shares;
mod sources;
mod trees;
mod users;

use std::path::Path;

use common::digest::Digest;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::support::cluster::{Cluster, World, longshore, run};
use crate::support::eventually;
use crate::support::faulty::{Fault, Origin};
use crate::support::image::noise;
use crate::support::process::{Process, succeed};

/// What lies in a folder, sorted.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// `get` of `url` into `out`, by itself: in a home where no peer runs.
async fn alone(url: &str, out: &Path, more: &[&str]) -> (Option<i32>, String) {
    let home = out.parent().expect("a file in the test's folder");
    let (to, nobody) = (out.display().to_string(), home.display().to_string());
    run(home, &[&["get", url, "-o", &to, "--data-dir", &nobody], more].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn get_writes_the_file_that_the_digest_names() {
    let home = TempDir::new().unwrap();
    let origin = Origin::start().await;
    let content = noise(5 << 20, 51);
    let (digest, url) = (Digest::of(&content).to_string(), origin.add_file("file", content.clone()));
    for (name, more) in [("plain", vec![]), ("checked", vec!["--digest", &digest])] {
        let out = home.path().join(name);
        let (code, said) = alone(&url, &out, &more).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(std::fs::read(&out).unwrap() == content, "{name}: other bytes than the origin's");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_leaves_no_file_behind_when_the_digest_is_another() {
    let home = TempDir::new().unwrap();
    let origin = Origin::start().await;
    let url = origin.add_file("file", noise(5 << 20, 52));
    let other = Digest::of(b"something else").to_string();
    let out = home.path().join("out");
    let (code, said) = alone(&url, &out, &["--digest", &other]).await;
    assert_eq!(code, Some(3), "{said}");
    let left: Vec<_> = std::fs::read_dir(home.path()).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn get_keeps_the_file_that_is_there_unless_told_and_able_to_replace_it() {
    let home = TempDir::new().unwrap();
    let origin = Origin::start().await;
    let content = noise(1 << 20, 53);
    let url = origin.add_file("file", content.clone());
    let out = home.path().join("out");
    std::fs::write(&out, "here before").unwrap();
    let other = Digest::of(b"something else").to_string();
    for (more, expected) in [(&[] as &[&str], 1), (&["--overwrite", "--digest", &other], 3)] {
        let (code, said) = alone(&url, &out, more).await;
        assert_eq!(code, Some(expected), "{said}");
        assert_eq!(std::fs::read(&out).unwrap(), b"here before");
    }
    let (code, said) = alone(&url, &out, &["--overwrite"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(std::fs::read(&out).unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn get_of_a_body_that_is_always_cut_leaves_no_file_behind() {
    let home = TempDir::new().unwrap();
    let origin = Origin::start().await;
    let url = origin.add_file("file", noise(5 << 20, 54));
    origin.ranges(false);
    origin.fault("/files/file", Fault::Truncate(1 << 20), usize::MAX);
    let out = home.path().join("out");
    let (code, said) = alone(&url, &out, &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(!out.exists());
}

#[tokio::test]
async fn an_unreachable_origin_exits_with_1_and_names_it() {
    let home = TempDir::new().unwrap();
    // bound and dropped: a port where nobody listens
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let out = home.path().join("out");
    let (code, said) = alone(&format!("http://{closed}/file"), &out, &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&closed.to_string()), "{said}");
    assert!(!out.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_get_leaves_no_file_and_the_next_one_is_right() {
    let home = TempDir::new().unwrap();
    let origin = Origin::start().await;
    let content = noise(32 << 20, 55);
    let url = origin.add_file("file", content.clone());
    origin.hold_at(16 << 20);
    let out = home.path().join("out");
    let (to, nobody) = (out.display().to_string(), home.path().display().to_string());
    let log = home.path().join("get.log");
    let mut command = longshore(home.path());
    let mut first =
        Process::spawn("get", command.args(["get", &url, "-o", &to, "--data-dir", &nobody]), &log);
    eventually("the origin standing still", async || (origin.left() == 16 << 20).then_some(())).await;
    first.kill().await;
    assert!(!out.exists(), "half a file stands under the final name");
    origin.release();
    let (code, said) = alone(&url, &out, &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(std::fs::read(&out).unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn get_through_peers_and_as_a_member_takes_one_copy_from_the_origin() {
    let origin = Origin::start().await;
    let content = noise(16 << 20, 56);
    let (digest, url) = (Digest::of(&content).to_string(), origin.add_file("file", content.clone()));
    let cluster = Cluster::start(2, World::default().allowing(&origin.address)).await;
    let home = cluster.root();
    let token = cluster.join_token().display().to_string();
    let member = ["--supernode", &cluster.supernode.at.quic, "--join-token-file", &token];
    let peers = cluster.peers.iter().map(|peer| vec!["--data-dir", peer.data.to_str().unwrap()]);
    let nobody = home.join("nobody").display().to_string();
    let ways = peers.chain([[vec!["--data-dir", nobody.as_str()], member.to_vec()].concat()]);
    for (number, way) in ways.enumerate() {
        let out = home.join(format!("out{number}"));
        let mut command = longshore(home);
        command.args(["get", &url, "--digest", &digest, "-o"]).arg(&out).args(&way);
        succeed(&command).await;
        assert!(std::fs::read(&out).unwrap() == content, "{way:?}");
    }
    let copies = origin.copies_of("/files/file");
    assert!((0.995..1.005).contains(&copies), "{copies:.3} copies left the origin");
}
