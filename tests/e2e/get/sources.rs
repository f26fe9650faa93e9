//! Many sources, names, standard output, ranges, signed URLs, permissions and dates, and what programs are told.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use common::digest::Digest;
use tempfile::TempDir;

use super::{alone, files};
use crate::support::cluster::{Cluster, World, longshore, run};
use crate::support::eventually;
use crate::support::faulty::Origin;
use crate::support::image::noise;
use crate::support::process::output;

const DATE: &str = "Mon, 16 Nov 2026 08:00:00 GMT";
const SECONDS: i64 = 1_794_816_000;

#[tokio::test(flavor = "multi_thread")]
async fn sources_of_a_list_get_the_names_of_their_urls_and_fail_each_by_itself() {
    let home = TempDir::new().unwrap();
    let origin = Origin::start().await;
    let (one, two) = (noise(300_000, 71), noise(3 << 20, 72));
    let (first, second) = (origin.add_file("one", one.clone()), origin.add_file("two%20words", two.clone()));
    let list = home.path().join("list");
    let digest = Digest::of(&two);
    std::fs::write(
        &list,
        format!("# two, and one that is not there\n{}/nothing\n\n{second} {digest}\n", origin.url()),
    )
    .unwrap();
    let to = home.path().join("to");
    std::fs::create_dir(&to).unwrap();
    let (list, folder, nobody) =
        (list.display().to_string(), to.display().to_string(), home.path().display().to_string());
    let (code, said) =
        run(home.path(), &["get", &first, "-i", &list, "-O", &folder, "--data-dir", &nobody]).await;
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("/nothing") && said.contains("404") && said.contains("1 of 3"), "{said}");
    assert_eq!(files(&to), ["one", "two words"]);
    assert!(
        std::fs::read(to.join("one")).unwrap() == one && std::fs::read(to.join("two words")).unwrap() == two
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_output_and_ranges_get_just_their_bytes() {
    let home = TempDir::new().unwrap();
    let origin = Origin::start().await;
    let content = noise(5 << 20, 73);
    let url = origin.add_file("file", content.clone());
    let cluster = Cluster::start(1, World::default().allowing(&origin.address)).await;
    let nobody = home.path().display().to_string();
    let peer = cluster.peers[0].data.display().to_string();
    for data in [&nobody, &peer] {
        for (range, expected) in [
            (None, &content[..]),
            (Some("0-0"), &content[..1]),
            (Some("262143-262144"), &content[262_143..262_145]),
            (Some("-1000"), &content[content.len() - 1000..]),
            (Some("4000000-"), &content[4_000_000..]),
        ] {
            let mut command = longshore(home.path());
            command.args(["get", &url, "-o", "-", "--data-dir", data]);
            command.args(range.map(|range| format!("--range={range}")));
            let ended = output(&command).await;
            assert!(ended.status.success(), "{range:?}: {}", String::from_utf8_lossy(&ended.stderr));
            assert!(ended.stdout == expected, "{range:?} through {data}: other bytes");
            let Some(range) = range else { continue };
            let out = home.path().join("part");
            let to = out.display().to_string();
            let range = format!("--range={range}");
            let (code, said) =
                run(home.path(), &["get", &url, "-o", &to, "--data-dir", data, &range, "--overwrite"]).await;
            assert_eq!(code, Some(0), "{said}");
            assert!(std::fs::read(&out).unwrap() == expected, "{range} through {data}: other bytes");
        }
        let (code, said) =
            run(home.path(), &["get", &url, "-o", "-", "--data-dir", data, "--range", "9999999-"]).await;
        assert_eq!(code, Some(1), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_signatures_of_one_object_are_one_task_and_none_stays_on_the_disk() {
    let origin = Origin::start().await;
    let content = noise(3 << 20, 74);
    let url = origin.add_file("file", content.clone());
    let cluster = Cluster::start(1, World::default().allowing(&origin.address)).await;
    let (home, data) = (cluster.root(), cluster.peers[0].data.display().to_string());
    for (name, signature) in [("one", "X-Amz-Signature=s3cretone"), ("two", "X-Amz-Signature=s3crettwo")] {
        origin.lock("/files/file", signature);
        let out = home.join(name);
        let (to, signed) = (out.display().to_string(), format!("{url}?X-Amz-Date=1&{signature}"));
        let (code, said) = run(home, &["get", &signed, "-o", &to, "--data-dir", &data]).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(std::fs::read(&out).unwrap() == content);
        assert!(!said.contains("s3cret"), "{said}");
    }
    let copies = origin.copies_of("/files/file");
    assert!(copies < 1.01, "{copies:.2} copies left the origin");
    let (code, said) =
        run(home, &["get", &format!("{url}?X-Amz-Signature=forged"), "-o", "-", "--data-dir", &data]).await;
    assert_eq!(code, Some(4), "a copy is no permission: {said}");
    for file in crate::support::files_below(home) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(!bytes.windows(6).any(|part| part == b"s3cret"), "a signature stands in {file:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_have_the_origins_date_and_the_permissions_that_were_asked_for() {
    let origin = Origin::start().await;
    let url = origin.add_file("file", noise(300_000, 75));
    origin.date("/files/file", DATE);
    let cluster = Cluster::start(1, World::default().allowing(&origin.address)).await;
    let home = cluster.root();
    let nobody = home.join("nobody").display().to_string();
    let peer = cluster.peers[0].data.display().to_string();
    for (name, data) in [("alone", &nobody), ("through", &peer)] {
        let out = home.join(name);
        let to = out.display().to_string();
        let (code, said) = run(home, &["get", &url, "-o", &to, "--data-dir", data, "--mode", "0640"]).await;
        assert_eq!(code, Some(0), "{said}");
        let metadata = out.metadata().unwrap();
        assert_eq!((metadata.mtime(), metadata.permissions().mode() & 0o777), (SECONDS, 0o640), "{name}");
    }
    let copy = home.join("copy");
    let (from, to) = (format!("file://{}", home.join("alone").display()), copy.display().to_string());
    let (code, said) = run(home, &["get", &from, "-o", &to]).await;
    assert_eq!(code, Some(0), "{said}");
    let metadata = copy.metadata().unwrap();
    assert_eq!((metadata.mtime(), metadata.permissions().mode() & 0o777), (SECONDS, 0o640));
    assert!(std::fs::read(&copy).unwrap() == noise(300_000, 75));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_peer_has_is_copied_from_its_store_and_never_shared_with_it() {
    let origin = Origin::start().await;
    let content = noise(5 << 20, 78);
    let (digest, url) = (Digest::of(&content).to_string(), origin.add_file("file", content.clone()));
    let cluster = Cluster::start(1, World::default().allowing(&origin.address)).await;
    let (home, data) = (cluster.root(), cluster.peers[0].data.display().to_string());
    for (name, through) in
        [("one", "the local peer"), ("two", "the local peer's store"), ("three", "the local peer's store")]
    {
        let out = home.join(name);
        let to = out.display().to_string();
        let get = ["get", &url, "--digest", &digest, "-o", &to, "--data-dir", &data];
        // A peer's store knows a moment later than its clients that a task is whole.
        let said = eventually("the content coming as it should", async || {
            let (code, said) = run(home, &[&get[..], &["--overwrite"]].concat()).await;
            assert_eq!(code, Some(0), "{said}");
            (name == "one" || said.contains(through)).then_some(said)
        })
        .await;
        assert!(said.contains("digest verified"), "{said}");
        assert!(std::fs::read(&out).unwrap() == content, "{name}");
        // what becomes of one copy is nothing to the store
        std::fs::write(&out, "something else").unwrap();
    }
    let copies = origin.copies_of("/files/file");
    assert!(copies < 1.05, "{copies:.2} copies left the origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_told_what_happens_line_by_line() {
    let home = TempDir::new().unwrap();
    let origin = Origin::start().await;
    let url = origin.add_file("file", noise(300_000, 76));
    let out = home.path().join("out");
    let (code, said) = alone(&url, &out, &["--json"]).await;
    assert_eq!(code, Some(0), "{said}");
    let events: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!((names.first(), names.last()), (Some(&"start"), Some(&"done")), "{said}");
    let done = events.last().unwrap();
    assert_eq!((done["bytes"].as_u64(), done["through"].as_str()), (Some(300_000), Some("the origin")));
    let (code, said) =
        alone(&format!("{}/nothing", origin.url()), &home.path().join("none"), &["--json"]).await;
    assert_eq!(code, Some(4), "{said}");
    let mut failed = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let failed = failed.next_back().expect("an event");
    assert_eq!((failed["event"].as_str(), failed["code"].as_u64()), (Some("failed"), Some(4)), "{said}");
    let (code, said) = alone(&url, &home.path().join("quiet"), &["--quiet"]).await;
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_origin_only_what_the_peer_has_is_given() {
    let origin = Origin::start().await;
    let content = noise(300_000, 77);
    let url = origin.add_file("file", content.clone());
    let cluster = Cluster::start(1, World::default().allowing(&origin.address)).await;
    let (home, data) = (cluster.root(), cluster.peers[0].data.display().to_string());
    let nobody = home.join("nobody").display().to_string();
    let (out, asked) = (home.join("out"), ["--no-origin", "--overwrite"]);
    let get = async |data: &str, more: &[&str]| {
        let to = out.display().to_string();
        run(home, &[&["get", &url, "-o", &to, "--data-dir", data], more].concat()).await
    };
    assert_eq!(get(&nobody, &asked).await.0, Some(2));
    let (code, said) = get(&data, &asked).await;
    assert_eq!((code, origin.answers("/files/file")), (Some(4), 0), "{said}");
    assert_eq!(get(&data, &[]).await.0, Some(0));
    let before = origin.answers("/files/file");
    let (code, said) = get(&data, &asked).await;
    assert_eq!((code, origin.answers("/files/file")), (Some(0), before), "{said}");
    assert!(std::fs::read(&out).unwrap() == content);
}
