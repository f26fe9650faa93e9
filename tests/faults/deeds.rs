//! How each fault is done to a node, and undone.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::process::Signal;

use crate::cluster::{Node, REGISTRY};
use crate::lab::Lab;
use crate::net::{Place, batch, limit};
use crate::schedule::Fault;

/// A crawl, in bits a second.
const CRAWL: u64 = 100_000;
/// Bytes that are flipped in one file.
const FLIPS: u64 = 8;
/// Where Debian puts libfaketime, below a folder named after the machine.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The library that tells a program another time, if it is installed.
pub(crate) fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    folders.map(|folder| folder.path().join(LIBRARY)).find(|library| library.exists())
}

/// Does it to `node`, the `index`th of its cluster.
pub(crate) async fn inflict(lab: &Lab, node: &mut Node, index: usize, fault: Fault) -> anyhow::Result<()> {
    match fault {
        Fault::Kill => node.process.signal(Signal::KILL),
        Fault::Restart => {
            node.process.signal(Signal::TERM);
            node.process.end().await?;
            node.start()?;
        }
        Fault::Stop => node.process.signal(Signal::STOP),
        Fault::Cut => {
            silence(&node.host.place, "eth0")?;
            silence(&lab.network.switch, &node.host.cable())?;
        }
        Fault::Deafen => silence(&lab.network.switch, &node.host.cable())?,
        Fault::Mute => silence(&node.host.place, "eth0")?,
        Fault::Slow => lines(lab, node, CRAWL)?,
        Fault::Corrupt if index == REGISTRY => flip(&lab.shelf.file(lab.image.largest().digest))?,
        Fault::Corrupt => largest(&node.data().join("blobs")).map_or(Ok(()), |file| flip(&file))?,
        Fault::Fill => node.disk.fill()?,
        Fault::Ahead => under_clock(node, Some("+3600s")).await?,
        Fault::Behind => under_clock(node, Some("-3600s")).await?,
    }
    Ok(())
}

/// Undoes it, as far as it can be undone.
pub(crate) async fn mend(lab: &Lab, node: &mut Node, index: usize, fault: Fault) -> anyhow::Result<()> {
    match fault {
        Fault::Kill => {
            node.process.end().await?;
            node.start()?;
        }
        Fault::Stop => node.process.signal(Signal::CONT),
        Fault::Cut | Fault::Deafen | Fault::Mute | Fault::Slow => lines(lab, node, Lab::normal())?,
        // What was flipped is flipped back. A node of ours has to find out by itself.
        Fault::Corrupt if index == REGISTRY => flip(&lab.shelf.file(lab.image.largest().digest))?,
        Fault::Fill => node.disk.clear()?,
        Fault::Ahead | Fault::Behind => under_clock(node, None).await?,
        Fault::Corrupt | Fault::Restart => {}
    }
    Ok(())
}

async fn under_clock(node: &mut Node, clock: Option<&'static str>) -> anyhow::Result<()> {
    node.process.signal(Signal::TERM);
    node.process.end().await?;
    node.clock = clock;
    node.start()
}

/// Lets nothing more through this end of a cable. Not a firewall's rule: that would tell the sender.
fn silence(place: &Place, card: &str) -> anyhow::Result<()> {
    batch("tc", Some(place), &format!("qdisc replace dev {card} root blackhole\n"))
}

/// Limits both ends of a host's cable.
fn lines(lab: &Lab, node: &Node, rate: u64) -> anyhow::Result<()> {
    batch("tc", Some(&node.host.place), &limit("eth0", rate))?;
    let cable = node.host.cable();
    batch("tc", Some(&lab.network.switch), &limit(&cable, rate))
}

/// Flips bytes all over a file; done twice, it is as it was. Where nothing is written yet, nothing is flipped.
fn flip(file: &Path) -> anyhow::Result<()> {
    let open = OpenOptions::new().read(true).write(true).open(file);
    let open = open.with_context(|| format!("cannot open {}", file.display()))?;
    let length = open.metadata()?.len();
    for place in (0..FLIPS).map(|part| length * (2 * part + 1) / (2 * FLIPS)) {
        let mut here = [0; 64];
        open.read_exact_at(&mut here, place)?;
        if here.iter().any(|byte| *byte != 0) {
            open.write_all_at(&[here[0] ^ 1], place)?;
        }
    }
    Ok(())
}

/// The largest file below a folder.
fn largest(folder: &Path) -> Option<PathBuf> {
    let folders = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let files = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let sized = files.filter_map(|file| Some((file.metadata().ok()?.len(), file.path())));
    sized.max().map(|(_, path)| path)
}
