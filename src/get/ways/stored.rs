//! Content that lies in the local peer's store, whole, taken from there instead of through the socket. The kernel copies it
//! (`copy_file_range`), and where the file system can, both files then share their blocks until one is written to: on btrfs
//! and XFS that takes no time and no room. Called by the way through the peer.
//!
//! It is never a hard link. That would be one file with two names: what the receiver did to it, a byte, a mode, a date, would
//! be done to a blob that the peer has proven and hands to others.
//!
//! # Invariants
//! - What is kept was read back and hashed: a disk may have forgotten what the peer once proved.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use common::digest::{Digest, Hasher};
use hyper::HeaderMap;
use peer::local_api::{FILE, LENGTH};
use rustix::fs::OFlags;

use crate::get::output::{self, Draft, Finish, settle};
use crate::get::report::Transfer;

/// Copied at once, between two looks at the progress; whole blocks of any file system.
const STEP: u64 = 64 * 1024 * 1024;
/// Hashed at once.
const BUFFER: usize = 256 * 1024;

/// A file of the store.
pub(super) struct Stored {
    path: PathBuf,
    length: u64,
}

// === impl Stored ===

impl Stored {
    /// The file that an answer names.
    pub(super) fn told_of(headers: &HeaderMap) -> Option<Self> {
        let path = PathBuf::from(OsStr::from_bytes(headers.get(FILE)?.as_bytes()));
        let length = headers.get(LENGTH)?.to_str().ok()?.parse().ok()?;
        path.is_absolute().then_some(Self { path, length })
    }

    /// Copies it, if it has this digest.
    ///
    /// # Errors
    /// When it cannot be read or is not what it should be, or the output cannot be written; nothing is left then.
    pub(super) async fn copy(
        &self,
        digest: Digest,
        (output, finish): (&Path, Finish),
        modified: Option<SystemTime>,
        transfer: &mut Transfer<'_>,
    ) -> anyhow::Result<u64> {
        let draft = Draft(output::beside(output));
        let (path, length) = (self.path.clone(), self.length);
        let to = draft.0.clone();
        let open = move || open_both(&path, &to, length);
        let files = Arc::new(tokio::task::spawn_blocking(open).await??);
        transfer.knows(length, 0);
        let (mut hasher, mut at) = (Hasher::new(), 0);
        while at < length {
            let (files, step) = (files.clone(), STEP.min(length - at));
            hasher = tokio::task::spawn_blocking(move || copy_step(&files, (at, step), hasher)).await??;
            at += step;
            transfer.add(step);
        }
        if hasher.finish() != digest {
            bail!("{} is not {digest} any more", self.path.display());
        }
        let (from, to) = (draft.0.clone(), output.to_owned());
        tokio::task::spawn_blocking(move || settle(&from, &to, finish, modified)).await??;
        Ok(length)
    }
}

fn open_both(from: &Path, to: &Path, length: u64) -> anyhow::Result<(File, File)> {
    let failed = || format!("cannot read {}", from.display());
    let nofollow = OFlags::NOFOLLOW.bits().cast_signed();
    let mut options = File::options();
    let stored = std::os::unix::fs::OpenOptionsExt::custom_flags(options.read(true), nofollow).open(from);
    let stored = stored.with_context(failed)?;
    let metadata = stored.metadata().with_context(failed)?;
    if !metadata.is_file() || metadata.len() != length {
        bail!("{} is not the file that was meant", from.display());
    }
    let new = File::options().read(true).write(true).create_new(true).open(to);
    Ok((stored, new.with_context(|| format!("cannot write {}", to.display()))?))
}

/// Copies the next bytes, and hashes them as they are now read from the copy.
fn copy_step(
    (from, to): &(File, File),
    (at, step): (u64, u64),
    mut hasher: Hasher,
) -> anyhow::Result<Hasher> {
    let copied =
        std::io::copy(&mut { from }.take(step), &mut { to }).context("cannot copy from the peer's store")?;
    if copied != step {
        bail!("the peer's file was cut while it was copied");
    }
    let mut buffer = vec![0; BUFFER.min(step as usize)];
    let mut done = 0;
    while done < step {
        let length = (step - done).min(buffer.len() as u64) as usize;
        to.read_exact_at(&mut buffer[..length], at + done).context("cannot read the copy")?;
        hasher.update(&buffer[..length]);
        done += length as u64;
    }
    Ok(hasher)
}
