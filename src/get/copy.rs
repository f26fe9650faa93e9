//! A file of this machine (`file://`) that nodes do not share, or where no daemon runs: it is copied; where the file system can,
//! the copy shares its blocks (the kernel's `copy_file_range`). With a digest it is read and checked instead.

use std::fs::{File, Metadata};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use common::piece::ByteRange;
use futures_util::StreamExt as _;
use tokio_util::io::ReaderStream;

use super::output::{self, Draft, Finish, cannot_write, receive, settle};
use super::report::{Done, Transfer};
use super::wanted::Target;
use super::ways::Job;

/// Read at once, where it is read.
const CHUNK: usize = 256 * 1024;

/// What is copied.
struct Part {
    from: PathBuf,
    file: File,
    metadata: Metadata,
    range: ByteRange,
}

/// Copies it, with its time of change.
///
/// # Errors
/// When it cannot be read or written, or is not what the digest promises.
pub async fn bring(from: &Path, job: &Job<'_>, transfer: &mut Transfer<'_>) -> anyhow::Result<Done> {
    let (path, excerpt, finish) = (from.to_owned(), job.settings.excerpt, job.settings.finish);
    let part = tokio::task::spawn_blocking(move || {
        Part::open(path, |length| {
            excerpt.map_or(Some(ByteRange::new(0, length)), |excerpt| excerpt.within(length))
        })
    });
    let part = part.await??;
    let (length, digest) = (part.range.len(), job.remote.source.digest);
    if digest.is_some() {
        let modified = part.metadata.modified().ok();
        let content = tokio::io::AsyncReadExt::take(tokio::fs::File::from_std(part.file), length);
        let body = ReaderStream::with_capacity(content, CHUNK);
        let body = body.map(|chunk| chunk.with_context(|| format!("cannot read {}", from.display())));
        receive(job, (length, modified), body, transfer).await?;
    } else {
        let to = job.target.clone();
        tokio::task::spawn_blocking(move || part.copy(&to, finish)).await??;
        transfer.knows(length, 0);
        transfer.add(length);
    }
    Ok(Done { length, through: "this machine", digest })
}

// === impl Part ===

impl Part {
    fn open(from: PathBuf, part: impl Fn(u64) -> Option<ByteRange>) -> anyhow::Result<Self> {
        let failed = || format!("cannot read {}", from.display());
        let mut file = File::open(&from).with_context(failed)?;
        let metadata = file.metadata().with_context(failed)?;
        if !metadata.is_file() {
            bail!("{} is no file that can be copied", from.display());
        }
        let length = metadata.len();
        let range = part(length).with_context(|| format!("it has {length} bytes, and none in that range"))?;
        file.seek(SeekFrom::Start(range.start)).with_context(failed)?;
        Ok(Self { from, file, metadata, range })
    }

    fn copy(self, target: &Target, finish: Finish) -> anyhow::Result<()> {
        let mut content = self.file.take(self.range.len());
        let failed = |error| cannot_write(error, target);
        let path = match target {
            Target::File(path) => path,
            Target::Stdout => {
                return std::io::copy(&mut content, &mut std::io::stdout()).map(drop).map_err(failed);
            }
        };
        let draft = Draft(output::beside(path));
        let mut new = File::create_new(&draft.0).map_err(failed)?;
        if std::io::copy(&mut content, &mut new).map_err(failed)? != self.range.len() {
            bail!("{} was cut while it was copied", self.from.display());
        }
        settle(&draft.0, path, finish, self.metadata.modified().ok())
    }
}
