//! The data directory: whether it is there and can be written, whose its contents are, and how much fits in.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{Access, access, statvfs};
use rustix::process::geteuid;

use super::Finding;
use crate::progress::bytes;

const GIB: u64 = 1024 * 1024 * 1024;
/// An image of a usual size does not fit.
const LITTLE: u64 = 5 * GIB;
/// Nothing much does.
const NOTHING: u64 = GIB / 2;

/// Whether daemons can live there.
pub(super) fn directory(dir: &Path) -> Finding {
    const CHECK: &str = "data directory";
    let shown = dir.display();
    let metadata = match fs::metadata(dir) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return missing(dir),
        Err(error) => {
            return Finding::fail(
                CHECK,
                format!("{shown} cannot be read: {error}"),
                "run as the daemon's user",
            );
        }
    };
    if !metadata.is_dir() {
        let mend = "move it away, or choose another with --data-dir";
        return Finding::fail(CHECK, format!("{shown} is not a directory"), mend);
    }
    if let Err(error) = access(dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        let (owner, user) = (metadata.uid(), geteuid().as_raw());
        let mend = if owner == user {
            format!("chmod u+rwx {shown}, or mount the disk for writing")
        } else {
            format!("run as user {owner}, or chown -R {user} {shown}")
        };
        return Finding::fail(CHECK, format!("{shown} cannot be written by user {user}: {error}"), mend);
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let what =
            format!("{shown} is open to other users (mode {mode:o}), and blobs of private images are in it");
        return Finding::warn(CHECK, what, format!("chmod 700 {shown}"));
    }
    Finding::ok(CHECK, format!("{shown} can be written"))
}

fn missing(dir: &Path) -> Finding {
    const CHECK: &str = "data directory";
    let shown = dir.display();
    if dir.parent().is_some_and(Path::is_dir) {
        let what = format!("{shown} is not there yet");
        return Finding::warn(
            CHECK,
            what,
            "a daemon makes it at its first start; or name another with --data-dir",
        );
    }
    let what = format!("{shown} is not there, nor is the directory above it");
    Finding::fail(
        CHECK,
        what,
        "mount its disk, create the directory above it, or name another with --data-dir",
    )
}

/// What lies in a daemon's directory and is somebody else's: left by a start as another user, most often as root.
pub(super) fn owner(dir: &Path) -> Option<Finding> {
    let owner = fs::metadata(dir).ok()?.uid();
    let strange = fs::read_dir(dir)
        .ok()?
        .flatten()
        // `longshore setup` is root's, and so is its journal.
        .filter(|entry| entry.file_name() != "setup")
        .find(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() != owner))?;
    let what = format!("{} is another user's than the directory it is in", strange.path().display());
    Some(Finding::fail("ownership", what, format!("chown -R {owner} {}", dir.display())))
}

/// How much the disk still takes.
pub(super) fn space(dir: &Path) -> Finding {
    // A directory that is to be made lies on the disk of the one above it.
    let there = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    match statvfs(there) {
        Ok(disk) => judge_space(disk.f_bavail.saturating_mul(disk.f_frsize)),
        Err(error) => Finding::warn("disk space", format!("not known: {error}"), "look at the disk's mount"),
    }
}

pub(super) fn judge_space(free: u64) -> Finding {
    const CHECK: &str = "disk space";
    const MEND: &str =
        "free some, move --data-dir to a larger disk, or set --quota so that old blobs go in time";
    let what = format!("{} are free", bytes(free));
    match free {
        ..NOTHING => Finding::fail(CHECK, what, MEND),
        NOTHING..LITTLE => Finding::warn(CHECK, what, MEND),
        _ => Finding::ok(CHECK, what),
    }
}
