//! Sends a file to the disk while more of it comes. A finished file has its name only when it is on the disk ([`super::output`]);
//! without this the wait for that would begin when all is here, and be a third of a fetch from a fast origin. Used by the
//! ways that write a file.
//!
//! # Invariants
//! - One flush at a time: a disk that is slower than the network is not asked for more than it does.
//! - The kernel tells of a failed write once. Whoever hears it here ends the fetch.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::task::{JoinError, JoinSet};

/// What is sent at once: so little that what is left for the end takes no time to speak of, so much that a disk that turns writes
/// in long runs.
const STRETCH: u64 = 32 * 1024 * 1024;

/// A file that is being written, and what of it the disk has not been asked for.
pub struct Behind {
    path: PathBuf,
    file: Arc<File>,
    gathered: u64,
    flush: JoinSet<io::Result<()>>,
}

// === impl Behind ===

impl Behind {
    /// Begins with a file that is there.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file), gathered: 0, flush: JoinSet::new() })
    }

    /// So much more was written. Does not wait.
    ///
    /// # Errors
    /// When the disk did not take what it was sent earlier.
    pub fn wrote(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.gathered += bytes;
        if self.gathered < STRETCH {
            return Ok(());
        }
        if let Some(flushed) = self.flush.try_join_next() {
            self.check(flushed)?;
        }
        if self.flush.is_empty() {
            self.gathered = 0;
            let file = self.file.clone();
            self.flush.spawn_blocking(move || file.sync_data());
        }
        Ok(())
    }

    /// Waits for what is under way.
    ///
    /// # Errors
    /// When the disk did not take it.
    pub async fn end(mut self) -> anyhow::Result<()> {
        match self.flush.join_next().await {
            Some(flushed) => self.check(flushed),
            None => Ok(()),
        }
    }

    fn check(&self, flushed: Result<io::Result<()>, JoinError>) -> anyhow::Result<()> {
        flushed?.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stretch_is_flushed_once_and_less_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut behind = Behind::of(file.path()).unwrap();
        behind.wrote(STRETCH - 1).unwrap();
        assert!(behind.flush.is_empty());
        behind.wrote(1).unwrap();
        assert_eq!((behind.flush.len(), behind.gathered), (1, 0));
        behind.end().await.unwrap();
    }

    #[tokio::test]
    async fn what_a_disk_refuses_is_told_at_the_next_stretch_or_at_the_end() {
        // A pipe cannot be flushed.
        let refusing = || {
            let (reader, _writer) = io::pipe().unwrap();
            let file = Arc::new(File::from(std::os::fd::OwnedFd::from(reader)));
            Behind { path: "out".into(), file, gathered: 0, flush: JoinSet::new() }
        };
        let mut behind = refusing();
        behind.wrote(STRETCH).unwrap();
        assert!(behind.end().await.is_err());
        let mut behind = refusing();
        behind.wrote(STRETCH).unwrap();
        while behind.wrote(STRETCH).is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
