//! Looks at the folders of a content store: which whole blobs lie there now. For the [watcher](super).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use common::task::TaskId;

use crate::store::Foreign;

/// Where containerd keeps whole blobs below its root.
const CONTAINERD: &str = "io.containerd.content.v1.content/blobs/sha256";
/// A folder whose names have not changed is read anew after so many looks all the same: a file may have.
const FULL_LOOK: u32 = 12;
/// A folder that changed within this before it was read may have changed again without showing it: clocks of file
/// systems are coarse.
const COARSE: Duration = Duration::from_secs(2);
/// A blob's name.
const HEX: usize = 64;

/// The folders, and when they were read.
#[derive(Default)]
pub(super) struct Scan {
    folders: Vec<PathBuf>,
    /// The folders' times of change when they were last read, and when that was.
    last: Option<(Vec<Option<SystemTime>>, SystemTime)>,
    skipped: u32,
    /// Said once, and again when it comes back.
    unreadable: BTreeSet<PathBuf>,
}

// === impl Scan ===

impl Scan {
    pub(super) fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders, ..Self::default() }
    }

    /// All whole blobs; of one that lies in several folders the first. `None` when there is no news, or a folder cannot
    /// be read now. A folder that is not there is an empty one.
    pub(super) fn look(&mut self) -> Option<BTreeMap<TaskId, Foreign>> {
        let folders: Vec<PathBuf> = self.folders.iter().map(|folder| blobs_in(folder)).collect();
        let (now, times) = (SystemTime::now(), folders.iter().map(|folder| changed(folder)).collect());
        if self.is_old_news(&times) && self.skipped < FULL_LOOK {
            self.skipped += 1;
            return None;
        }
        let mut found = BTreeMap::new();
        for folder in &folders {
            match read(folder, &mut found) {
                Ok(()) => drop(self.unreadable.remove(folder)),
                Err(error) => {
                    if self.unreadable.insert(folder.clone()) {
                        tracing::warn!(
                            folder = %folder.display(), %error,
                            "the content store cannot be read: give this user read access to it"
                        );
                    }
                    return None;
                }
            }
        }
        (self.last, self.skipped) = (Some((times, now)), 0);
        Some(found)
    }

    fn is_old_news(&self, times: &Vec<Option<SystemTime>>) -> bool {
        let Some((before, read_at)) = &self.last else { return false };
        let settled = |time: &Option<SystemTime>| time.is_none_or(|time| time + COARSE < *read_at);
        before == times && times.iter().all(settled)
    }
}

/// The folder of blobs that is meant: below containerd's root, or the one that was named.
fn blobs_in(named: &Path) -> PathBuf {
    let below = named.join(CONTAINERD);
    if below.is_dir() { below } else { named.to_owned() }
}

fn changed(folder: &Path) -> Option<SystemTime> {
    fs::metadata(folder).and_then(|meta| meta.modified()).ok()
}

fn read(folder: &Path, found: &mut BTreeMap<TaskId, Foreign>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let task =
            name.to_str().filter(|name| name.len() == HEX).and_then(|name| name.parse::<TaskId>().ok());
        let Some(task) = task else { continue };
        if let Some(foreign) = Foreign::look(&entry.path())? {
            found.entry(task).or_insert(foreign);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u8) -> String {
        TaskId([n; 32]).hex()
    }

    #[test]
    fn only_regular_files_with_the_name_of_a_digest_are_blobs() {
        let dir = tempfile::tempdir().unwrap();
        for file in [name(1), name(0xab).to_uppercase(), format!("{}x", name(2)), "ingest".into()] {
            fs::write(dir.path().join(file), b"x").unwrap();
        }
        fs::create_dir(dir.path().join(name(3))).unwrap();
        std::os::unix::fs::symlink(dir.path().join(name(1)), dir.path().join(name(4))).unwrap();
        let found = Scan::new(vec![dir.path().into()]).look().unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), [&TaskId([1; 32])]);
    }

    #[test]
    fn containerds_root_stands_for_its_blobs_and_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("containerd");
        let mut scan = Scan::new(vec![root.clone(), dir.path().into()]);
        assert!(scan.look().unwrap().is_empty());
        let blobs = root.join(CONTAINERD);
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(name(1)), b"first").unwrap();
        fs::write(dir.path().join(name(1)), b"second").unwrap();
        let found = scan.look().unwrap();
        assert_eq!(found[&TaskId([1; 32])].path(), blobs.join(name(1)), "the first folder goes before");
        fs::remove_file(blobs.join(name(1))).unwrap();
        assert_eq!(scan.look().unwrap()[&TaskId([1; 32])].path(), dir.path().join(name(1)));
    }

    #[test]
    fn a_folder_without_news_is_read_now_and_then_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name(1)), b"x").unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(60);
        fs::File::open(dir.path()).unwrap().set_modified(long_ago).unwrap();
        let mut scan = Scan::new(vec![dir.path().into()]);
        assert_eq!(scan.look().unwrap().len(), 1);
        assert!((0..FULL_LOOK).all(|_| scan.look().is_none()));
        assert_eq!(scan.look().unwrap().len(), 1);
        fs::write(dir.path().join(name(2)), b"x").unwrap();
        assert_eq!(scan.look().unwrap().len(), 2, "a new name is news");
        assert_eq!(scan.look().unwrap().len(), 2, "and so fresh that there may be more of it");
    }
}
