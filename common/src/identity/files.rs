//! The files that identities live in: read with a limit, written whole. Called by everything in this room that
//! keeps something, and by the daemons for the join token.
//!
//! # Crash safety
//! A file is written beside its target, synced, renamed over it, and the folder is synced: after a kill or a
//! power loss there is the old file or the new one. A leftover `.NAME.*.tmp` is harmless.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::IdentityError;

/// Far above any file of this room; keeps a wrong path such as `/dev/zero` from filling the memory.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Writes a file that only its owner may read, whole or not at all.
///
/// # Errors
/// When the folder is missing, full or not ours to write.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let folder = folder_of(path);
    let name = path.file_name().unwrap_or(OsStr::new("secret")).to_string_lossy();
    let temporary = folder.join(format!(".{name}.{:08x}.tmp", rand::random::<u32>()));
    let written = write_and_rename(&temporary, path, &folder, bytes);
    if written.is_err() {
        // Best effort: the error that is reported is the one that matters.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|cause| IdentityError::File { action: "write", path: path.to_owned(), cause })
}

/// Reads a file that only its owner should read, and warns when others may; `None` when there is no such file. A file of
/// somebody else's can be read by its group at best: so a mounted Kubernetes Secret is.
///
/// # Errors
/// When it cannot be read, or is absurdly long.
pub fn read_secret(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    if let Ok(metadata) = fs::metadata(path) {
        let mode = metadata.permissions().mode() & 0o777;
        let own = metadata.uid() == geteuid().as_raw();
        if metadata.is_file() && mode & for_others(own) != 0 {
            tracing::warn!(path = %path.display(), mode = format!("{mode:o}"),
                "others than its owner may read this secret: set its mode to 600");
        }
    }
    read(path)
}

/// Reads a file; `None` when there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    let failed = |cause| IdentityError::File { action: "read", path: path.to_owned(), cause };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LONGEST {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 4 MiB")));
    }
    Ok(Some(bytes))
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), IdentityError> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
            Err(IdentityError::File { action: "remove", path: path.to_owned(), cause })
        }
        _ => Ok(()),
    }
}

/// Makes a folder and those above it, where missing.
pub(super) fn make_folder(dir: &Path) -> Result<(), IdentityError> {
    fs::create_dir_all(dir).map_err(|cause| IdentityError::File {
        action: "make the folder",
        path: dir.to_owned(),
        cause,
    })
}

/// Waits for a lock between processes; dropping the file, or dying, gives it back.
pub(super) fn lock(path: &Path) -> Result<File, IdentityError> {
    let locked =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).and_then(|file| {
            give_to_owner(&file, &folder_of(path));
            file.lock()?;
            Ok(file)
        });
    locked.map_err(|cause| IdentityError::File { action: "lock", path: path.to_owned(), cause })
}

fn write_and_rename(temporary: &Path, path: &Path, folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(temporary)?;
    give_to_owner(&file, if path.exists() { path } else { folder });
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    File::open(folder)?.sync_all()
}

/// Hands a new file to whom the file it replaces belongs, or else the folder: `sudo longshore token` must not
/// take the book away from a supernode that runs as another user. Only root can, so failing is no error.
fn give_to_owner(file: &File, model: &Path) {
    let (Ok(mine), Ok(model)) = (file.metadata(), fs::metadata(model)) else { return };
    if mine.uid() != model.uid() {
        let _ = fchown(file, Some(model.uid()), Some(model.gid()));
    }
}

/// The permissions that a secret should not give.
fn for_others(own: bool) -> u32 {
    if own { 0o077 } else { 0o007 }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_private_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert_eq!(read_secret(&path).unwrap(), None);
        write_secret(&path, b"one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_secret(&path, b"two").unwrap();
        assert_eq!(read_secret(&path).unwrap().unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn root_writes_for_whom_the_folder_or_the_old_file_belongs_to() {
        let dir = tempfile::tempdir().unwrap();
        if std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).is_err() {
            return; // only root gives files away
        }
        let path = dir.path().join("tokens.json");
        write_secret(&path, b"new").unwrap();
        lock(&dir.path().join("tokens.lock")).unwrap();
        for file in [&path, &dir.path().join("tokens.lock")] {
            assert_eq!(fs::metadata(file).unwrap().uid(), 65534);
        }
        std::os::unix::fs::chown(&path, Some(65533), Some(65533)).unwrap();
        write_secret(&path, b"old").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().gid(), 65533);
    }

    #[test]
    fn a_secret_of_somebody_else_is_read_as_its_group() {
        let warns = |mode: u32, own| mode & for_others(own) != 0;
        assert_eq!([0o600, 0o440, 0o644].map(|mode| warns(mode, true)), [false, true, true]);
        assert_eq!([0o600, 0o440, 0o644].map(|mode| warns(mode, false)), [false, false, true]);
    }

    #[test]
    fn what_cannot_be_read_or_written_is_named_on_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let below = file.join("below");
        let endless = Path::new("/dev/zero");
        for (error, path) in [
            (write_secret(&below, b"x").unwrap_err(), &*below),
            (write_secret(dir.path(), b"x").unwrap_err(), dir.path()),
            (read_secret(dir.path()).unwrap_err(), dir.path()),
            (read_secret(endless).unwrap_err(), endless),
            (make_folder(&file).unwrap_err(), &file),
            (lock(&below).unwrap_err(), &below),
        ] {
            let text = error.to_string();
            assert!(text.contains(&path.display().to_string()) && !text.contains('\n'), "{text}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
