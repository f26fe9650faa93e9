//! Whole folders of a real web server.

use std::path::Path;

use tempfile::TempDir;

use super::files;
use crate::support::cluster::run;
use crate::support::files_below;
use crate::support::image::noise;
use crate::support::need;
use crate::support::nginx::Nginx;

/// All paths below a folder, sorted.
fn paths(folder: &Path) -> Vec<String> {
    let path = |file: std::path::PathBuf| file.strip_prefix(folder).unwrap().display().to_string();
    let mut paths: Vec<_> = files_below(folder).into_iter().map(path).collect();
    paths.sort();
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_fetched_with_all_that_is_picked_of_it() {
    need!("nginx");
    let server = Nginx::start().await;
    let tree = [
        "a.iso",
        "b.txt",
        "two words & a%.iso",
        "deep/c.iso",
        "deep/deeper/d.iso",
        "deep/deeper/deepest/e.iso",
    ];
    for (at, path) in tree.iter().enumerate() {
        let file = server.files().join("pub").join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, noise(200_000, at as u64)).unwrap();
    }
    std::fs::write(server.files().join("elsewhere.iso"), "not asked for").unwrap();
    let home = TempDir::new().unwrap();
    let nobody = home.path().display().to_string();
    let get = async |folder: &str, more: &[&str]| {
        let to = home.path().join(folder);
        std::fs::create_dir_all(&to).unwrap();
        let (shown, source) = (to.display().to_string(), format!("{}/pub/", server.url));
        let all = ["get", "-r", &source, "-O", &shown, "--data-dir", &nobody];
        (run(home.path(), &[&all, more].concat()).await, paths(&to))
    };
    let sorted = |mut paths: Vec<&str>| {
        paths.sort_unstable();
        paths.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let ((code, said), all) = get("all", &[]).await;
    assert_eq!((code, all), (Some(0), sorted(tree.to_vec())), "{said}");
    for (at, path) in tree.iter().enumerate() {
        assert!(
            std::fs::read(home.path().join("all").join(path)).unwrap() == noise(200_000, at as u64),
            "{path}"
        );
    }
    let ((code, said), some) =
        get("some", &["--include", "*.iso", "--exclude", "deep/deeper/**", "-j", "1"]).await;
    assert_eq!((code, some), (Some(0), sorted(vec![tree[0], tree[2], tree[3]])), "{said}");
    let ((code, said), flat) = get("flat", &["--depth", "0"]).await;
    assert_eq!((code, flat), (Some(0), sorted(tree[..3].to_vec())), "{said}");
    assert!(said.contains("1 folders are deeper than 0"), "{said}");
    // What is here stays, and what is missing comes.
    std::fs::write(home.path().join("all/a.iso"), "mine").unwrap();
    std::fs::remove_file(home.path().join("all/b.txt")).unwrap();
    let ((code, said), again) = get("all", &[]).await;
    assert_eq!((code, again), (Some(0), sorted(tree.to_vec())), "{said}");
    assert_eq!(std::fs::read(home.path().join("all/a.iso")).unwrap(), b"mine");
    assert!(said.contains("5 are here already"), "{said}");
    let ((code, said), _) = get("all", &["--overwrite", "--quiet"]).await;
    assert_eq!((code, said.as_str()), (Some(0), ""));
    assert!(std::fs::read(home.path().join("all/a.iso")).unwrap() == noise(200_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_folder_is_said_and_makes_nothing() {
    need!("nginx");
    let server = Nginx::start().await;
    std::fs::create_dir(server.files().join("empty")).unwrap();
    std::fs::write(server.files().join("file.bin"), noise(1000, 1)).unwrap();
    let home = TempDir::new().unwrap();
    let to = TempDir::new().unwrap();
    let (nobody, folder) = (home.path().display().to_string(), to.path().display().to_string());
    let at = |path: &str| format!("{}/{path}", server.url);
    for (source, more, expected, word) in [
        (at("none/"), vec![], 4, "404"),
        (at("file.bin"), vec![], 4, "404"),
        (at("empty/"), vec![], 1, "nothing to fetch"),
        (at(""), vec!["--include", "*.iso"], 1, "nothing to fetch"),
        (at(""), vec!["--include", "[a"], 2, "[a"),
        (at(""), vec!["--depth", "deep"], 2, "depth"),
        (at(""), vec!["--digest", "sha256:00"], 2, "--digest"),
        ("file:///etc/".to_owned(), vec![], 2, "no folder of a server"),
        ("oci://127.0.0.1:1/a/b:c".to_owned(), vec![], 2, "no folder of a server"),
    ] {
        let get = ["get", "-r", &source, "-O", &folder, "--data-dir", &nobody];
        let (code, said) = run(home.path(), &[&get as &[&str], &more].concat()).await;
        assert_eq!(code, Some(expected), "{source} {more:?}: {said}");
        assert!(said.contains(word), "{source} {more:?}: {said}");
        assert!(files(to.path()).is_empty());
    }
}
