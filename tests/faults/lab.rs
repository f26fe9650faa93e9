//! What all schedules share: the hosts, the images, and a folder that is gone afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::content::{Image, Shelf};
use crate::disk::unmount;
use crate::net::{Network, Plan, is_left_over};

pub(crate) const ORIGIN: &str = "origin";
pub(crate) const SUPERNODE: &str = "supernode";
/// Hosts for peers; most schedules use six.
pub(crate) const NODES: usize = 12;
/// What each host sends and receives at most, in bits a second: an image then takes some seconds.
const RATE: u64 = 200_000_000;
/// Of folders; the process's id follows.
const PREFIX: &str = "faults-";
/// Logs of what failed are kept here, below cargo's folder for such things.
const KEPT: &str = "faults-kept";
/// Images that the rolling restart goes through.
const STREAM: usize = 12;
const MIB: usize = 1 << 20;

pub(crate) struct Lab {
    pub(crate) network: Network,
    pub(crate) shelf: Shelf,
    /// What is pulled while something goes wrong: 1 KB to 48 MB.
    pub(crate) image: Arc<Image>,
    /// What is pulled once all is well again.
    pub(crate) after: Arc<Image>,
    /// One layer of 64 MB.
    pub(crate) large: Arc<Image>,
    /// One after the other, while everything is restarted.
    pub(crate) stream: Vec<Arc<Image>>,
    folder: TempDir,
}

// === impl Lab ===

impl Lab {
    pub(crate) fn make() -> anyhow::Result<Self> {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        remove_leftovers(parent)?;
        let folder = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .tempdir_in(parent)?;
        let shelf = Shelf::new(folder.path().join("registry"));
        let add = |name: &str, sizes: &[usize], seed| shelf.add(name, sizes, seed).map(Arc::new);
        let image = add("faults/image", &[1000, 200_000, 5 * MIB + 17, 48 * MIB], 1)?;
        let after = add("faults/after", &[3000, 4 * MIB], 2)?;
        let large = add("faults/large", &[64 * MIB], 3)?;
        let stream = (0..STREAM).map(|n| add(&format!("faults/stream{n}"), &[6 * MIB], 10 + n as u64));
        let stream = stream.collect::<anyhow::Result<_>>()?;
        let names = [ORIGIN.to_owned(), SUPERNODE.to_owned()].into_iter().chain((1..=NODES).map(node));
        let plans: Vec<Plan> = names.map(|name| Plan { name, rate: RATE, zone: None }).collect();
        let network = Network::make(&plans, 0, RATE)?;
        Ok(Self { network, shelf, image, after, large, stream, folder })
    }

    /// A fresh folder for one schedule.
    pub(crate) fn folder(&self) -> anyhow::Result<TempDir> {
        Ok(tempfile::tempdir_in(self.folder.path())?)
    }

    /// Puts a failed schedule's logs where they stay; gives the folder.
    pub(crate) fn keep(&self, logs: &Path, name: &str) -> anyhow::Result<PathBuf> {
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(KEPT).join(name.trim_matches('-'));
        if kept.exists() {
            fs::remove_dir_all(&kept)?;
        }
        fs::create_dir_all(&kept)?;
        for entry in fs::read_dir(logs)?.flatten().filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), kept.join(entry.file_name()))?;
        }
        Ok(kept)
    }

    /// Gives a host the line that it had in the beginning.
    pub(crate) fn normal() -> u64 {
        RATE
    }
}

/// The name of the host of a peer, from 1.
pub(crate) fn node(number: usize) -> String {
    format!("node{number}")
}

/// Folders and file systems of runs that were killed.
fn remove_leftovers(parent: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(parent)?.flatten() {
        if entry.file_name().to_str().is_some_and(|name| is_left_over(name, PREFIX)) {
            let mounts = fs::read_to_string("/proc/self/mountinfo")?;
            let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
            points.filter(|point| point.starts_with(entry.path())).try_for_each(unmount)?;
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
