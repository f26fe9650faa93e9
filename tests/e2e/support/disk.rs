//! A file system of some megabytes, for tests of what happens when it is full.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::succeed;

/// What ext4 needs for itself.
const JOURNAL: usize = 8;

/// A small ext4 of its own, in a file, or where there are no loop devices a tmpfs; gone when this is dropped.
pub(crate) struct SmallDisk {
    folder: TempDir,
    at: PathBuf,
}

// === impl SmallDisk ===

impl SmallDisk {
    /// Makes and mounts it; takes root.
    pub(crate) async fn new(megabytes: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let (image, at) = (folder.path().join("image"), folder.path().join("disk"));
        std::fs::create_dir(&at).unwrap();
        File::create(&image).unwrap().set_len(((megabytes + JOURNAL) << 20) as u64).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).status();
        let looped = || Command::new("mount").args(["-o", "loop"]).args([&image, &at]).status();
        if !made.and_then(|_| looped()).is_ok_and(|status| status.success()) {
            println!("no loop device: the small disk is a tmpfs");
            let size = format!("size={megabytes}m");
            succeed(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at)).await;
        }
        Self { folder, at }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Takes its last free byte, as another program may; the file that did.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = File::create(&path).unwrap();
        for chunk in [1 << 16, 1 << 12, 1] {
            while file.write_all(&vec![7; chunk]).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Before the folder goes, or what is in the disk would go with it, file by file.
        let unmounted = Command::new("umount").arg("-l").arg(&self.at).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.folder.path().display());
        }
    }
}
