//! What users get wrong and machines do to them: the right exit code, a sentence that helps, and no debris.

use std::io::Read as _;
use std::process::Stdio;

use common::digest::Digest;
use rustix::process::Signal;
use tempfile::TempDir;

use super::{alone, files};
use crate::support::cluster::{Cluster, World, longshore, run};
use crate::support::disk::SmallDisk;
use crate::support::eventually;
use crate::support::faulty::{Fault, Origin};
use crate::support::image::noise;
use crate::support::process::Process;

#[tokio::test]
async fn nonsense_in_any_flag_exits_with_2_and_is_named() {
    let home = TempDir::new().unwrap();
    let out = home.path().join("out").display().to_string();
    let url = "http://127.0.0.1:9/x";
    let cases: [(&[&str], &str); 16] = [
        (&[], "SOURCE"),
        (&[url, "--range", "5-2"], "5-2"),
        (&[url, "--range", "x"], "--range"),
        (&[url, "--range", "0-1", "--digest", "sha256:00"], "--digest"),
        (&[url, "--limit", "fast"], "--limit"),
        (&[url, "--timeout", "soon"], "--timeout"),
        (&[url, "--retry=-1"], "--retry"),
        (&[url, "--mode", "4755"], "--mode"),
        (&[url, "--mode", "rw"], "--mode"),
        (&[url, "--filter-query", "a=b"], "--filter-query"),
        (&[url, "-H", "no colon"], "Name: value"),
        (&[url, "-o", &out, "-O", "."], "--output-dir"),
        (&["ftp://127.0.0.1/x"], "ftp://"),
        (&["http://127.0.0.1:9/"], "-o"),
        (&[url, "http://127.0.0.1:9/y", "-o", &out], "-o"),
        (&[url, "http://127.0.0.1:8/x"], "x"),
    ];
    for (arguments, named) in cases {
        let (code, said) = run(home.path(), &[&["get"], arguments].concat()).await;
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(named), "{arguments:?} is not told what is wrong: {said}");
    }
    assert!(files(home.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_written_it_is_said_and_nothing_is_left() {
    let home = TempDir::new().unwrap();
    let origin = Origin::start().await;
    let url = origin.add_file("file", noise(300_000, 81));
    let nobody = home.path().display().to_string();
    // not even root may write there
    for out in ["/proc/out", "/no/such/folder/out"] {
        let (code, said) = run(home.path(), &["get", &url, "-o", out, "--data-dir", &nobody]).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(out), "{said}");
    }
    let list = home.path().join("none").display().to_string();
    let (code, said) = run(home.path(), &["get", "-i", &list]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&list), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_has_no_debris_on_it() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a_full_disk_is_named_and_has_no_debris_on_it: root is missing");
        return;
    }
    let disk = SmallDisk::new(24).await;
    let home = TempDir::new().unwrap();
    let origin = Origin::start().await;
    let url = origin.add_file("file", noise(64 << 20, 82));
    let (out, nobody) = (disk.path().join("out"), home.path().display().to_string());
    let to = out.display().to_string();
    let before = files(disk.path());
    let (code, said) = run(home.path(), &["get", &url, "-o", &to, "--data-dir", &nobody]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no room") && said.contains("out"), "{said}");
    assert_eq!(files(disk.path()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_origin_does_not_give_exits_with_4_and_another_content_with_3() {
    let origin = Origin::start().await;
    let url = origin.add_file("file", noise(5 << 20, 83));
    origin.add_file("closed", noise(300_000, 84));
    origin.lock("/files/closed", "key=1");
    let cluster = Cluster::start(1, World::default().allowing(&origin.address)).await;
    let home = cluster.root();
    let data = cluster.peers[0].data.display().to_string();
    let nobody = home.join("nobody").display().to_string();
    let other = Digest::of(b"something else").to_string();
    let (out, gone, closed) =
        (home.join("out"), format!("{}/files/no", origin.url()), format!("{}/files/closed", origin.url()));
    let to = out.display().to_string();
    for data in [&nobody, &data] {
        for (url, more, expected) in
            [(&gone, vec![], 4), (&closed, vec![], 4), (&url, vec!["--digest", &other], 3)]
        {
            let (code, said) =
                run(home, &[vec!["get", url, "-o", &to, "--data-dir", data], more].concat()).await;
            assert_eq!(code, Some(expected), "{url} through {data}: {said}");
            assert!(!out.exists() && !home.join("out.part").exists());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_byte_under_a_digest_exits_with_3() {
    let home = TempDir::new().unwrap();
    let origin = Origin::start().await;
    let content = noise(5 << 20, 85);
    let (digest, url) = (Digest::of(&content).to_string(), origin.add_file("file", content));
    origin.fault("/files/file", Fault::Flip(4_000_000), usize::MAX);
    let out = home.path().join("out");
    let (code, said) = alone(&url, &out, &["--digest", &digest]).await;
    assert_eq!(code, Some(3), "{said}");
    assert!(files(home.path()).is_empty(), "{:?}", files(home.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn time_that_is_up_exits_with_5() {
    let home = TempDir::new().unwrap();
    let origin = Origin::start().await;
    let url = origin.add_file("file", noise(5 << 20, 86));
    origin.hold_at(1);
    let (code, said) = alone(&url, &home.path().join("out"), &["--timeout", "2s"]).await;
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("--timeout"), "{said}");
    assert!(files(home.path()).is_empty(), "{:?}", files(home.path()));
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_twice_ends_at_once() {
    let root = TempDir::new().unwrap();
    let home = root.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let origin = Origin::start().await;
    let url = origin.add_file("file", noise(5 << 20, 87));
    origin.hold_at(1);
    let (to, nobody) = (home.join("out").display().to_string(), home.display().to_string());
    let mut command = longshore(&home);
    command.args(["get", &url, "-o", &to, "--data-dir", &nobody]);
    let mut get = Process::spawn("get", &mut command, &root.path().join("log"));
    eventually("the origin standing still", async || (origin.left() == 1).then_some(())).await;
    get.signal(Signal::INT);
    get.signal(Signal::INT);
    assert_eq!(get.end().await.code(), Some(130), "{}", get.said());
    assert!(!home.join("out").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_is_closed_early_ends_it_without_a_word() {
    let home = TempDir::new().unwrap();
    let origin = Origin::start().await;
    let url = origin.add_file("file", noise(16 << 20, 88));
    let mut command = longshore(home.path());
    command.args(["get", &url, "-o", "-", "--quiet", "--data-dir"]).arg(home.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let read_a_little = move || {
        let mut child = command.spawn().unwrap();
        // Dropped with the thousand bytes read: nobody reads any more.
        child.stdout.take().unwrap().read_exact(&mut [0; 1000]).unwrap();
        child.wait_with_output().unwrap()
    };
    let ended = tokio::task::spawn_blocking(read_a_little).await.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}
