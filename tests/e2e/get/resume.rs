//! A `get` that was broken off goes on from what is there, and never from what was something else.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use common::digest::Digest;
use rustix::process::Signal;
use tempfile::TempDir;

use super::{alone, files};
use crate::support::cluster::longshore;
use crate::support::eventually;
use crate::support::faulty::{Fault, Origin};
use crate::support::image::noise;
use crate::support::process::Process;

const MIB: u64 = 1 << 20;

/// A `get` that runs while the origin stands still in the middle.
async fn halfway(origin: &Origin, url: &str, home: &Path, more: &[&str]) -> Process {
    origin.hold_at(16 * MIB);
    let (to, nobody) = (home.join("out").display().to_string(), home.display().to_string());
    let mut command = longshore(home);
    command.args(["get", url, "-o", &to, "--data-dir", &nobody]).args(more);
    let log = home.parent().unwrap().join(format!("{}.log", home.file_name().unwrap().display()));
    let process = Process::spawn("get", &mut command, &log);
    let notes = home.join("out.part.pieces");
    // Each of four readers holds at most one unfinished piece, and there are 64 pieces in 16 MiB.
    eventually("most of what came being written", async || {
        let lines = std::fs::read_to_string(&notes).ok()?.lines().count();
        (lines > 56).then_some(())
    })
    .await;
    process
}

/// A home in a folder of its own, so that logs lie beside it.
fn home_in(root: &TempDir, name: &str) -> std::path::PathBuf {
    let home = root.path().join(name);
    std::fs::create_dir(&home).unwrap();
    home
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_that_was_killed_or_interrupted_goes_on_where_it_was() {
    let root = TempDir::new().unwrap();
    let content = noise(32 << 20, 61);
    let digest = Digest::of(&content).to_string();
    let checked = ["--digest", digest.as_str()];
    for (name, signal, more) in [
        ("killed", Signal::KILL, &[] as &[&str]),
        ("interrupted", Signal::INT, &[]),
        ("checked", Signal::TERM, &checked),
    ] {
        let (home, origin) = (home_in(&root, name), Origin::start().await);
        let url = origin.add_file("file", content.clone());
        let mut first = halfway(&origin, &url, &home, more).await;
        first.signal(signal);
        let status = first.end().await;
        let code = if signal == Signal::KILL { status.signal() } else { status.code() };
        assert_eq!(code, Some(if signal == Signal::KILL { 9 } else { 130 }), "{name}: {}", first.said());
        assert_eq!(files(&home), ["out.part", "out.part.pieces"], "{name}");
        origin.release();
        let (code, said) = alone(&url, &home.join("out"), more).await;
        assert_eq!(code, Some(0), "{name}: {said}");
        assert!(std::fs::read(home.join("out")).unwrap() == content, "{name}");
        assert_eq!(files(&home), ["out"], "{name}");
        let copies = origin.copies_of("/files/file");
        assert!(copies < 1.2, "{name}: {copies:.2} copies left the origin");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_changed_meanwhile_begins_anew() {
    let root = TempDir::new().unwrap();
    let (home, origin) = (home_in(&root, "home"), Origin::start().await);
    let url = origin.add_file("file", noise(32 << 20, 62));
    halfway(&origin, &url, &home, &[]).await.kill().await;
    origin.release();
    let after = noise(32 << 20, 63);
    origin.add_file("file", after.clone());
    let (code, said) = alone(&url, &home.join("out"), &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(std::fs::read(home.join("out")).unwrap() == after, "two revisions are mixed");
    assert_eq!(files(&home), ["out"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_changes_under_way_is_never_mixed() {
    let root = TempDir::new().unwrap();
    for tags in [true, false] {
        let (home, origin) = (home_in(&root, &format!("tags-{tags}")), Origin::start().await);
        origin.tags(tags);
        origin.date("/files/file", "Mon, 16 Nov 2026 08:00:00 GMT");
        let url = origin.add_file("file", noise(64 << 20, 64));
        let mut first = halfway(&origin, &url, &home, &[]).await;
        origin.add_file("file", noise(64 << 20, 65));
        origin.date("/files/file", "Tue, 17 Nov 2026 08:00:00 GMT");
        origin.release();
        let status = first.end().await;
        assert_eq!(status.code(), Some(1), "{}", first.said());
        assert!(first.said().contains("changed"), "{}", first.said());
        assert!(files(&home).is_empty(), "{:?}", files(&home));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_leaves_what_came_and_retries_go_on_from_it() {
    let root = TempDir::new().unwrap();
    let (home, origin) = (home_in(&root, "home"), Origin::start().await);
    let content = noise(5 << 20, 66);
    let url = origin.add_file("file", content.clone());
    origin.fault("/files/file", Fault::Status(503), usize::MAX);
    let out = home.join("out");
    let (code, said) = alone(&url, &out, &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(files(&home).is_empty(), "{:?}", files(&home));
    // more failures than the requests' own retries bear
    origin.fault("/files/file", Fault::Status(503), 7);
    let (code, said) = alone(&url, &out, &["--retry", "5"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(std::fs::read(&out).unwrap() == content);
}
