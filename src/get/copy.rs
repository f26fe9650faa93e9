//! A file of this machine (`file://`). It makes no swarm: a swarm needs an origin that every node can ask, and another node
//! cannot ask this one for its files. So it is copied; where the file system can, the copy shares its blocks (the kernel's
//! `copy_file_range`).

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use common::piece::ByteRange;
use peer::local_api::Excerpt;

use super::output::{self, Draft, Finish, cannot_write, settle};
use super::report::{Done, Transfer};
use super::wanted::Target;

/// Copies it, with its permissions and its time of change.
pub async fn bring(
    from: &Path,
    target: &Target,
    how: (Option<Excerpt>, Finish),
    transfer: &mut Transfer<'_>,
) -> anyhow::Result<Done> {
    let (from, to) = (from.to_owned(), target.clone());
    let length = tokio::task::spawn_blocking(move || copy(&from, &to, how)).await??;
    transfer.knows(length, 0);
    transfer.add(length);
    Ok(Done { length, through: "this machine", digest: None })
}

fn copy(
    from: &PathBuf,
    target: &Target,
    (excerpt, finish): (Option<Excerpt>, Finish),
) -> anyhow::Result<u64> {
    let failed = || format!("cannot read {}", from.display());
    let mut file = File::open(from).with_context(failed)?;
    let metadata = file.metadata().with_context(failed)?;
    if !metadata.is_file() {
        bail!("{} is no file that can be copied", from.display());
    }
    let whole = ByteRange::new(0, metadata.len());
    let part = excerpt.map_or(Some(whole), |excerpt| excerpt.within(metadata.len()));
    let range = part.with_context(|| format!("it has {} bytes, and none in that range", metadata.len()))?;
    file.seek(SeekFrom::Start(range.start)).with_context(failed)?;
    let mut content = std::io::Read::take(file, range.len());
    let path = match target {
        Target::File(path) => path,
        Target::Stdout => {
            return std::io::copy(&mut content, &mut std::io::stdout())
                .map_err(|error| cannot_write(error, target));
        }
    };
    let draft = Draft(output::beside(path));
    let mut new = File::create_new(&draft.0).map_err(|error| cannot_write(error, target))?;
    let copied = std::io::copy(&mut content, &mut new).map_err(|error| cannot_write(error, target))?;
    if copied != range.len() {
        bail!("{} was cut while it was copied", from.display());
    }
    let mode = finish.mode.or(Some(metadata.permissions().mode() & 0o777));
    settle(&draft.0, path, Finish { mode, ..finish }, metadata.modified().ok())?;
    Ok(copied)
}
