//! The files that a fetch leaves. While it runs there is a draft beside the output; the output gets its name when it is
//! whole, right and on the disk.
//!
//! # Invariants
//! - The file appears under its name only when it is whole and, where a digest is given, right.
//! - A file that was not there when the command began, and is now, is not overwritten.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use common::digest::Hasher;
use futures_util::{Stream, StreamExt as _};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::behind::Behind;
use super::exit::Stop;
use super::report::Transfer;
use super::wanted::Target;
use super::ways::Job;

/// A file or folder beside the output, removed when dropped.
pub struct Draft(pub PathBuf);

/// How the finished file is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Finish {
    /// Its permissions, if they are not the usual ones.
    pub mode: Option<u32>,
    /// What is there may go.
    pub overwrite: bool,
}

/// Whether there is something by this name, be it a link that leads nowhere.
pub fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Makes a draft the output. Blocks.
pub fn settle(
    draft: &Path,
    output: &Path,
    finish: Finish,
    modified: Option<SystemTime>,
) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", output.display());
    let file = File::options().write(true).open(draft).with_context(failed)?;
    if let Some(mode) = finish.mode {
        file.set_permissions(std::fs::Permissions::from_mode(mode)).with_context(failed)?;
    }
    if let Some(modified) = modified {
        file.set_modified(modified).with_context(failed)?;
    }
    file.sync_all().with_context(failed)?;
    if finish.overwrite {
        return std::fs::rename(draft, output).with_context(failed);
    }
    match renameat_with(CWD, draft, CWD, output, RenameFlags::NOREPLACE) {
        // A file system that knows no such rename.
        Err(rustix::io::Errno::INVAL) if !is_there(output) => {
            std::fs::rename(draft, output).with_context(failed)
        }
        renamed => renamed.map_err(std::io::Error::from).with_context(failed),
    }
}

/// Takes content that comes in order to where it is to go.
///
/// # Errors
/// When it breaks off, cannot be written, or is not what the digest promises.
pub async fn receive(
    job: &Job<'_>,
    (length, modified): (u64, Option<SystemTime>),
    body: impl Stream<Item = anyhow::Result<Bytes>> + Unpin,
    transfer: &mut Transfer<'_>,
) -> anyhow::Result<()> {
    transfer.knows(length, 0);
    let path = match job.target {
        Target::File(path) => path,
        Target::Stdout => return pour(job, length, body, (stdout()?, None), transfer).await,
    };
    let draft = Draft(beside(path));
    let file = tokio::fs::File::create_new(&draft.0).await;
    let file = file.with_context(|| format!("cannot write {}", draft.0.display()))?;
    let behind = Behind::of(&draft.0)?;
    pour(job, length, body, (file, Some(behind)), transfer).await?;
    let (from, to, finish) = (draft.0.clone(), path.clone(), job.settings.finish);
    tokio::task::spawn_blocking(move || settle(&from, &to, finish, modified)).await?
}

/// Standard output as a file: what is written there is bytes, and no lines that somebody waits for.
fn stdout() -> anyhow::Result<tokio::fs::File> {
    let own = std::io::stdout().as_fd().try_clone_to_owned().context("there is no standard output")?;
    Ok(tokio::fs::File::from_std(File::from(own)))
}

/// Writes the content down. Where a digest is given, the last of it waits until that is right.
async fn pour(
    job: &Job<'_>,
    length: u64,
    mut body: impl Stream<Item = anyhow::Result<Bytes>> + Unpin,
    (mut to, mut behind): (impl AsyncWrite + Unpin, Option<Behind>),
    transfer: &mut Transfer<'_>,
) -> anyhow::Result<()> {
    let digest = job.remote.source.digest;
    let failed = |error| cannot_write(error, job.target);
    let (mut hasher, mut received, mut last) = (Hasher::new(), 0, Bytes::new());
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        job.settings.pace.pass(chunk.len() as u64).await;
        if digest.is_some() {
            hasher.update(&chunk);
        }
        received += chunk.len() as u64;
        transfer.add(chunk.len() as u64);
        behind.as_mut().map_or(Ok(()), |behind| behind.wrote(chunk.len() as u64))?;
        to.write_all(&std::mem::replace(&mut last, chunk)).await.map_err(failed)?;
    }
    if received != length {
        bail!("the transfer ended after {received} of {length} bytes");
    }
    if let Some(digest) = digest.filter(|digest| hasher.finish() != *digest) {
        return Err(Stop::OtherContent(digest).into());
    }
    to.write_all(&last).await.map_err(failed)?;
    to.flush().await.map_err(failed)?;
    match behind {
        Some(behind) => behind.end().await,
        None => Ok(()),
    }
}

/// What a failed write means.
pub fn cannot_write(error: std::io::Error, target: &Target) -> anyhow::Error {
    if *target == Target::Stdout && error.kind() == std::io::ErrorKind::BrokenPipe {
        return Stop::NobodyReads.into();
    }
    anyhow::Error::from(error).context(format!("cannot write {}", target.shown()))
}

// === impl Draft ===

impl Draft {
    /// A folder in this one, so that a finished file is only renamed.
    pub fn folder(within: &Path) -> anyhow::Result<Self> {
        let path = beside(&within.join("get"));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ =
            if self.0.is_dir() { std::fs::remove_dir_all(&self.0) } else { std::fs::remove_file(&self.0) };
    }
}

/// A hidden name beside the output that nobody has.
pub fn beside(output: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(output.file_name().unwrap_or_default());
    // Random: containers share process ids, and whoever can guess a name in a shared folder can be there first.
    name.push(format!(".longshore-{:016x}", rand::random::<u64>()));
    output.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_came_to_be_there_meanwhile_is_kept_unless_it_may_go() {
        let home = tempfile::TempDir::new().unwrap();
        let (draft, output) = (home.path().join("draft"), home.path().join("out"));
        std::fs::write(&draft, "new").unwrap();
        std::fs::write(&output, "old").unwrap();
        assert!(settle(&draft, &output, Finish::default(), None).is_err());
        assert_eq!(std::fs::read(&output).unwrap(), b"old");
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let finish = Finish { mode: Some(0o640), overwrite: true };
        settle(&draft, &output, finish, Some(changed)).unwrap();
        let metadata = output.metadata().unwrap();
        assert_eq!(std::fs::read(&output).unwrap(), b"new");
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.modified().unwrap()), (0o640, changed));
        assert!(!draft.exists());
    }
}
