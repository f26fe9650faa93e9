//! Files of a folder that all nodes have: a swarm of their own.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use common::digest::Digest;
use tempfile::TempDir;

use super::run;
use crate::support::cluster::{Cluster, World};
use crate::support::image::noise;

/// A folder that nodes share, with a file in it.
struct Share {
    folder: TempDir,
    file: PathBuf,
    content: Vec<u8>,
}

impl Share {
    fn new() -> Self {
        let (folder, content) = (TempDir::new().unwrap(), noise(9 << 20, 91));
        let file = folder.path().join("model.bin");
        std::fs::write(&file, &content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o604)).unwrap();
        Self { folder, file, content }
    }

    fn world(&self) -> World {
        let folder = self.folder.path().display().to_string();
        let world = World::default().set("LONGSHORE_PEER_ORIGIN_FOLDER", &folder);
        world.set("LONGSHORE_SUPERNODE_ORIGIN_FOLDER", &folder)
    }
}

/// Fetches a file by its path through a node's peer; what it said.
async fn get(home: &Path, file: &Path, (out, data): (&Path, &Path), more: &[&str]) -> (Option<i32>, String) {
    let (url, out) = (format!("file://{}", file.display()), out.display().to_string());
    let data = data.display().to_string();
    run(home, &[&["get", &url, "-o", &out, "--data-dir", &data], more].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_shared_folder_is_read_once_for_all_nodes() {
    let share = Share::new();
    let cluster = Cluster::start(3, share.world()).await;
    let home = cluster.root();
    let gets = cluster.peers.iter().enumerate().map(|(number, peer)| {
        let out = home.join(format!("out{number}"));
        async {
            let (code, said) = get(home, &share.file, (&out, &peer.data), &[]).await;
            assert_eq!(code, Some(0), "{said}");
            assert!(said.contains("through the local peer"), "{said}");
            out
        }
    });
    for out in futures_util::future::join_all(gets).await {
        assert!(std::fs::read(&out).unwrap() == share.content, "other bytes than the share's");
        let (ours, theirs) = (out.metadata().unwrap(), share.file.metadata().unwrap());
        assert_eq!(ours.permissions().mode(), theirs.permissions().mode());
        let seconds =
            |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(seconds(ours.modified().unwrap()), seconds(theirs.modified().unwrap()));
    }
    let mut read = cluster.supernode.received().await.origin;
    for peer in &cluster.peers {
        read += peer.received().await.origin;
    }
    assert_eq!(read, share.content.len() as u64, "the share was not read once");
    // What is written anew is another file.
    let other = noise(1 << 20, 92);
    std::fs::write(&share.file, &other).unwrap();
    let digest = Digest::of(&other).to_string();
    let out = home.join("again");
    let (code, said) = get(home, &share.file, (&out, &cluster.peers[0].data), &["--digest", &digest]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(std::fs::read(&out).unwrap() == other, "yesterday's bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_for_all_is_copied_by_the_user_and_given_to_nobody() {
    let share = Share::new();
    let cluster = Cluster::start(1, share.world()).await;
    let (home, peer) = (cluster.root(), &cluster.peers[0].data);
    let private = share.folder.path().join("private");
    std::fs::write(&private, "mine").unwrap();
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o600)).unwrap();
    let elsewhere = home.join("elsewhere");
    std::fs::write(&elsewhere, "mine").unwrap();
    let link = share.folder.path().join("link");
    symlink(&elsewhere, &link).unwrap();
    for (number, file) in [private, elsewhere, link].iter().enumerate() {
        let out = home.join(format!("out{number}"));
        let (code, said) = get(home, file, (&out, peer), &[]).await;
        assert_eq!((code, std::fs::read(&out).unwrap_or_default()), (Some(0), b"mine".into()), "{said}");
        assert!(said.contains("through this machine"), "{said}");
    }
    let wrong = Digest::of(b"yours").to_string();
    let out = home.join("checked");
    let (code, said) = get(home, &home.join("elsewhere"), (&out, peer), &["--digest", &wrong]).await;
    assert!(code == Some(3) && !out.exists(), "{code:?}: {said}");
    assert_eq!(cluster.peers[0].received().await.origin, 0, "the peer read what is not for all");
}
