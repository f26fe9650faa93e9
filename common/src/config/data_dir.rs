//! The data directory: where it is by default, and whether it can be used. Called by every daemon before it opens
//! anything, so that a wrong directory is one clear line at start and not a failure in mid-pull.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::error::ConfigError;

const SYSTEM: &str = "/var/lib/longshore";

/// It holds keys, and blobs that not every user of the machine may read.
const OWNER_ONLY: u32 = 0o700;

/// Where data is kept unless told otherwise: the system's place for root, else the XDG data directory.
pub fn data_dir_default() -> PathBuf {
    choose(is_root(), std::env::var_os("XDG_DATA_HOME"), std::env::home_dir())
}

/// Makes the directory, for its owner only, and sees that it can be written. One that is there already keeps its
/// mode. Parents are made only for the default place (a fresh home has no `.local/share`): a path that somebody
/// typed may be misspelt, or lie on a disk that is not mounted.
///
/// # Errors
/// When the path is something else than a directory, its parent is missing, or it cannot be made or written.
pub fn prepare_data_dir(path: &Path) -> Result<(), ConfigError> {
    prepare(path, path == data_dir_default())
}

fn choose(root: bool, xdg: Option<OsString>, home: Option<PathBuf>) -> PathBuf {
    if root {
        return PathBuf::from(SYSTEM);
    }
    // The XDG specification says that a relative path is to be ignored.
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.filter(|path| path.is_absolute()).map(|home| home.join(".local/share"));
    xdg.or(home).map_or_else(|| PathBuf::from(SYSTEM), |base| base.join("longshore"))
}

/// Whether the effective user is root; where `/proc` does not say so, not.
fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| effective_uid(&status) == Some(0))
}

/// Out of `Uid: real effective saved filesystem`.
fn effective_uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

fn prepare(path: &Path, make_parents: bool) -> Result<(), ConfigError> {
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => return Err(ConfigError::NotADirectory(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => create(path, make_parents)?,
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            return Err(ConfigError::ParentMissing(path.to_owned()));
        }
        Err(source) => return Err(ConfigError::DataDir { path: path.to_owned(), deed: "read", source }),
    }
    probe(path).map_err(|source| ConfigError::DataDir { path: path.to_owned(), deed: "written", source })
}

fn create(path: &Path, make_parents: bool) -> Result<(), ConfigError> {
    match DirBuilder::new().mode(OWNER_ONLY).recursive(make_parents).create(path) {
        Ok(()) => Ok(()),
        // Another daemon made it in the same moment (`up`, or a peer beside its supernode).
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        // A dangling link, which `metadata` does not see.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(ConfigError::NotADirectory(path.to_owned()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Err(ConfigError::ParentMissing(path.to_owned())),
        Err(source) => Err(ConfigError::DataDir { path: path.to_owned(), deed: "made", source }),
    }
}

/// Makes a file and takes it away again. A full disk is no reason not to start: what is kept can be evicted, and
/// pulls stream through.
fn probe(directory: &Path) -> io::Result<()> {
    let file = directory.join(format!(".probe-{}", std::process::id()));
    match File::create_new(&file) {
        Ok(_) => {}
        // Left by a process of the same id that died here; removing it proves as much.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
        Err(error) => return Err(error),
    }
    match fs::remove_file(&file) {
        // A process of the same id in another container was quicker.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn root_keeps_data_with_the_system_and_others_at_home() {
        let home = Some(PathBuf::from("/home/ann"));
        assert_eq!(choose(true, Some("/x".into()), home.clone()), Path::new(SYSTEM));
        assert_eq!(choose(false, Some("/x".into()), home.clone()), Path::new("/x/longshore"));
        assert_eq!(
            choose(false, Some("x".into()), home.clone()),
            Path::new("/home/ann/.local/share/longshore")
        );
        assert_eq!(choose(false, None, home), Path::new("/home/ann/.local/share/longshore"));
        assert_eq!(choose(false, None, None), Path::new(SYSTEM));
    }

    #[test]
    fn the_effective_user_counts() {
        assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t0\t0\t0\nGid:\t1 1 1 1\n"), Some(0));
        assert_eq!(effective_uid("Uid:\t0\t1000\t0\t0\n"), Some(1000));
        assert_eq!(effective_uid("Uid: x"), None);
        assert!(effective_uid(&fs::read_to_string("/proc/self/status").unwrap()).is_some());
    }

    #[test]
    fn a_new_directory_is_its_owners_and_an_old_one_keeps_its_mode() {
        let place = tempfile::tempdir().unwrap();
        let new = place.path().join("new");
        prepare(&new, false).unwrap();
        assert_eq!(mode(&new), OWNER_ONLY);

        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        prepare(&new, false).unwrap();
        assert_eq!(mode(&new), 0o755);
        assert_eq!(fs::read_dir(&new).unwrap().count(), 0, "the probe stayed");
    }

    #[test]
    fn a_probe_left_by_a_dead_process_does_no_harm() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join(format!(".probe-{}", std::process::id())), "").unwrap();
        prepare(place.path(), false).unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_a_data_directory_is_said_clearly() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        let link = place.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();

        assert!(matches!(prepare(&file, false), Err(ConfigError::NotADirectory(_))));
        assert!(matches!(prepare(&link, false), Err(ConfigError::NotADirectory(_))));
        assert!(matches!(prepare(&file.join("below"), false), Err(ConfigError::ParentMissing(_))));
        let deep = place.path().join("a/b");
        let error = prepare(&deep, false).unwrap_err();
        assert!(error.to_string().contains("parent is missing"), "{error}");
        prepare(&deep, true).unwrap();
        assert_eq!(mode(&deep), OWNER_ONLY);
    }

    #[test]
    fn a_directory_that_refuses_files_is_refused() {
        // Nobody may make files here, root included.
        let error = prepare(Path::new("/proc/self"), false).unwrap_err();
        assert!(error.to_string().contains("cannot be written"), "{error}");
    }
}
