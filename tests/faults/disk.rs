//! The disk of one node: a file system of its own, that can be filled to the last byte without harm to anybody else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// Room for everything that is pulled here, and for the index.
const DISK: &str = "size=400m";
/// What takes all the room when the disk is to be full.
const BALLAST: &str = "ballast";

/// A file system in memory; gone when this is dropped.
pub(crate) struct Disk(PathBuf);

// === impl Disk ===

impl Disk {
    pub(crate) fn mount(at: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&at)?;
        run(Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(&at))?;
        Ok(Self(at))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all the room that is left. Others write meanwhile, so it is taken in ever smaller parts.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let ballast = fs::File::create(self.0.join(BALLAST))?;
        let room = rustix::fs::statvfs(&self.0)?;
        let (mut taken, mut part) = (0, room.f_bavail * room.f_frsize);
        while part >= room.f_frsize {
            match fallocate(&ballast, FallocateFlags::empty(), taken, part) {
                Ok(()) => taken += part,
                Err(Errno::NOSPC) => part /= 2,
                Err(error) => return Err(error).context("cannot fill the disk"),
            }
        }
        Ok(())
    }

    /// Gives it back.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.0.join(BALLAST))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.0) {
            eprintln!("{error:#}");
        }
    }
}

/// Unmounts it, whoever still looks at it.
pub(crate) fn unmount(at: &Path) -> anyhow::Result<()> {
    run(Command::new("umount").arg("-l").arg(at))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
