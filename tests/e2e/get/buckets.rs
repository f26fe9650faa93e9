//! Objects of a real S3 server, alone and through a peer, and the wrong ways to ask for them.

use common::digest::Digest;
use tempfile::TempDir;

use super::files;
use crate::support::bucket::{S3, SECRET};
use crate::support::cluster::{Cluster, World, longshore, run};
use crate::support::files_below;
use crate::support::image::noise;
use crate::support::need;
use crate::support::process::output;

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_fetched_by_a_signature_that_stays_nowhere() {
    need!("s3s-fs");
    let server = S3::start().await;
    let content = noise(5 << 20, 81);
    let source = server.add("models/a b+c.bin", &content);
    let mut cluster = Cluster::start(2, World::default().allowing(&server.address)).await;
    let home = TempDir::new().unwrap();
    let (endpoint, file) = (format!("http://{}", server.address), server.credentials(SECRET));
    let (nobody, file) = (home.path().display().to_string(), file.display().to_string());
    let peers: Vec<_> = cluster.peers.iter().map(|peer| peer.data.display().to_string()).collect();
    let digest = Digest::of(&content).to_string();
    for (at, data, more) in
        [(1, &nobody, vec![]), (2, &peers[0], vec!["--digest", &digest]), (3, &peers[1], vec![])]
    {
        let to = home.path().join(at.to_string()).display().to_string();
        let get = ["get", &source, "-o", &to, "--data-dir", data, "--s3-endpoint", &endpoint];
        let (code, said) =
            run(home.path(), &[&get, &["--s3-credentials-file", &file] as &[&str], &more].concat()).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(std::fs::read(&to).unwrap() == content, "other bytes than the bucket's");
        assert!(!said.contains("X-Amz"), "{said}");
    }
    // By the environment, as Amazon's own command.
    let to = home.path().join("environment").display().to_string();
    let mut get = longshore(home.path());
    get.args(["get", &source, "-o", &to, "--data-dir", &nobody, "--s3-endpoint", &endpoint]);
    get.env("AWS_ACCESS_KEY_ID", "AKIDE2E").env("AWS_SECRET_ACCESS_KEY", SECRET);
    let ended = output(&get).await;
    assert!(ended.status.success(), "{ended:?}");
    assert!(std::fs::read(&to).unwrap() == content);
    for node in cluster.peers.iter_mut().chain([&mut cluster.supernode]) {
        let text = node.process().said();
        assert!(!text.contains("X-Amz-Signature") && !text.contains(SECRET), "a signature is in a log");
    }
    for file in cluster.peers.iter().flat_map(|peer| files_below(&peer.data)) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let signed = bytes.windows(15).any(|bytes| bytes == b"X-Amz-Signature");
        assert!(!signed, "a signature is in {}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_fetched_with_all_that_is_picked_below_it() {
    need!("s3s-fs");
    let server = S3::start().await;
    for (at, key) in ["set/one.bin", "set/deep/two.bin", "set/deep/three.txt", "set/a/b/four.bin", "settings"]
        .iter()
        .enumerate()
    {
        server.add(key, &noise(100_000, at as u64));
    }
    let home = TempDir::new().unwrap();
    let (endpoint, file) = (format!("http://{}", server.address), server.credentials(SECRET));
    let nobody = home.path().display().to_string();
    let to = TempDir::new().unwrap();
    let folder = to.path().display().to_string();
    let file = file.display().to_string();
    let (code, said) = run(
        home.path(),
        &[
            "get",
            "-r",
            "s3://cache/set",
            "-O",
            &folder,
            "--include",
            "*.bin",
            "--depth",
            "1",
            "--data-dir",
            &nobody,
        ]
        .into_iter()
        .chain(["--s3-endpoint", &endpoint, "--s3-credentials-file", &file])
        .collect::<Vec<_>>(),
    )
    .await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1 folders are deeper"), "{said}");
    assert_eq!(
        (files(to.path()), files(&to.path().join("deep"))),
        (vec!["deep".to_owned(), "one.bin".into()], vec!["two.bin".to_owned()])
    );
    assert!(std::fs::read(to.path().join("deep/two.bin")).unwrap() == noise(100_000, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bucket_does_not_give_is_said_with_its_reason() {
    need!("s3s-fs");
    let server = S3::start().await;
    let source = server.add("x", b"content");
    let home = TempDir::new().unwrap();
    let endpoint = format!("http://{}", server.address);
    let (right, wrong) = (server.credentials(SECRET), server.credentials("not the secret"));
    let (right, wrong) = (right.display().to_string(), wrong.display().to_string());
    let (to, nobody) = (home.path().join("out").display().to_string(), home.path().display().to_string());
    let open = home.path().join("open");
    std::fs::write(&open, "[default]\n").unwrap();
    let open = open.display().to_string();
    for (source, more, expected) in [
        (source.as_str(), vec!["--s3-credentials-file", &wrong], 4),
        (&source, vec![], 4),
        ("s3://cache/none", vec!["--s3-credentials-file", &right], 4),
        ("s3://other/x", vec!["--s3-credentials-file", &right], 4),
        (&source, vec!["--s3-credentials-file", &open], 2),
        (&source, vec!["--s3-credentials-file", "/nowhere"], 2),
    ] {
        let get = ["get", source, "-o", &to, "--data-dir", &nobody, "--s3-endpoint", &endpoint];
        let (code, said) = run(home.path(), &[&get as &[&str], &more].concat()).await;
        assert_eq!(code, Some(expected), "{source} {more:?}: {said}");
        assert!(!said.contains("Signature=") && !said.contains(SECRET), "{said}");
        assert_eq!(files(home.path()), ["open"]);
    }
}
