//! The file system below a root, as the planners and the journal see it: links are followed as a process whose root
//! that is would follow them, so nothing outside is ever read or written.
//!
//! # Invariants
//! A [`Spot`] holds no symbolic link, no `..`, and lies below the root.
//!
//! # Crash safety
//! A file is replaced by a rename of a synced copy beside it: after a kill it has its old or its new content, and at
//! most a copy with a name of its own is left, which the next write or an undo takes away.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Component, Path, PathBuf};

use rustix::process::{getegid, geteuid};
use serde::{Deserialize, Serialize};

use super::SetupError;

/// No runtime's settings come near this.
const MAX_TEXT: u64 = 4 * 1024 * 1024;
/// What Linux follows, too.
const MAX_LINKS: usize = 40;
/// What a new file is: everybody may read a runtime's settings.
const PUBLIC: u32 = 0o644;

/// A tree of files: the machine's, or one that is to become a machine's.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

/// A place in the tree, relative to its root, with all links followed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Spot(PathBuf);

/// A text file as it is: what an undo restores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Text {
    pub(super) text: String,
    mode: u32,
    owner: u32,
    group: u32,
}

// === impl Tree ===

impl Tree {
    /// The tree below a directory.
    ///
    /// # Errors
    /// When that is no directory.
    pub fn open(root: &Path) -> Result<Self, SetupError> {
        let real =
            root.canonicalize().map_err(|error| SetupError::io("cannot be used as --root", root, error))?;
        if !real.is_dir() {
            let error = io::Error::from(ErrorKind::NotADirectory);
            return Err(SetupError::io("cannot be used as --root", root, error));
        }
        Ok(Self { root: real })
    }

    /// Where a spot is on this machine, for people.
    pub fn shown(&self, spot: &Spot) -> PathBuf {
        self.root.join(&spot.0)
    }

    /// Follows all links on the way to `path`, which need not be there.
    pub(super) fn resolve(&self, path: impl AsRef<Path>) -> Result<Spot, SetupError> {
        let mut ahead: VecDeque<OsString> = parts(path.as_ref()).collect();
        let (mut at, mut links) = (PathBuf::new(), 0);
        while let Some(part) = ahead.pop_front() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            let here = self.root.join(&next);
            let target = match fs::symlink_metadata(&here) {
                Ok(metadata) if metadata.is_symlink() => fs::read_link(&here),
                Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    Err(error)
                }
                _ => {
                    at = next;
                    continue;
                }
            };
            let target = target.map_err(|error| SetupError::io("cannot be followed", &here, error))?;
            links += 1;
            if links > MAX_LINKS {
                return Err(SetupError::refused(&here, "it is a link that leads round in circles"));
            }
            if target.is_absolute() {
                at = PathBuf::new();
            }
            parts(&target).collect::<Vec<_>>().into_iter().rev().for_each(|part| ahead.push_front(part));
        }
        Ok(Spot(at))
    }

    /// The text at a path; `None` where there is no file.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> Result<Option<Text>, SetupError> {
        self.read_at(&self.resolve(path)?)
    }

    pub(super) fn read_at(&self, spot: &Spot) -> Result<Option<Text>, SetupError> {
        let path = self.shown(spot);
        let failed = |error| SetupError::io("cannot be read", &path, error);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        if !metadata.is_file() || metadata.len() > MAX_TEXT {
            return Err(SetupError::refused(&path, "it is not a text file of a usual size"));
        }
        let mut bytes = Vec::new();
        File::open(&path).and_then(|file| file.take(MAX_TEXT).read_to_end(&mut bytes)).map_err(failed)?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(Text::new(text, &metadata))),
            Err(_) => Err(SetupError::refused(&path, "it is not UTF-8 text; correct it first")),
        }
    }

    /// Whether there is anything at a path.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.resolve(path).is_ok_and(|spot| self.shown(&spot).exists())
    }

    /// Whether a directory is at a path.
    pub(super) fn has_dir(&self, path: impl AsRef<Path>) -> bool {
        self.resolve(path).is_ok_and(|spot| self.shown(&spot).is_dir())
    }

    /// The names in a directory, in order; none where there is no directory.
    pub(super) fn list(&self, path: impl AsRef<Path>) -> Result<Vec<String>, SetupError> {
        let dir = self.shown(&self.resolve(path)?);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(vec![]);
            }
            Err(error) => return Err(SetupError::io("cannot be listed", &dir, error)),
        };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    /// The paths that a pattern names: in each of its parts `*` stands for any characters, `?` for one.
    pub(super) fn glob(&self, pattern: &str) -> Result<Vec<String>, SetupError> {
        let mut found = vec![String::new()];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            let mut next = Vec::new();
            for dir in &found {
                if part.contains(['*', '?']) {
                    let names =
                        self.list(dir)?.into_iter().filter(|name| fits(part.as_bytes(), name.as_bytes()));
                    next.extend(names.map(|name| format!("{dir}/{name}")));
                } else {
                    next.push(format!("{dir}/{part}"));
                }
            }
            found = next;
        }
        Ok(found.into_iter().filter(|path| self.has(path)).collect())
    }

    /// The directories above a spot that are not there yet, the uppermost first.
    pub(super) fn missing_dirs(&self, spot: &Spot) -> Vec<Spot> {
        let above = spot.0.ancestors().skip(1).take_while(|dir| !self.root.join(dir).exists());
        let mut missing: Vec<Spot> = above.map(|dir| Spot(dir.to_owned())).collect();
        missing.reverse();
        missing
    }

    pub(super) fn make_dir(&self, dir: &Spot, mode: u32) -> Result<(), SetupError> {
        let path = self.shown(dir);
        match fs::DirBuilder::new().mode(mode).create(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(SetupError::io("cannot be made", &path, error))
            }
            _ => Ok(()),
        }
    }

    /// Takes a directory away if it is empty: what somebody put into it is not setup's to remove.
    pub(super) fn remove_dir(&self, dir: &Spot) {
        let _ = fs::remove_dir(self.shown(dir));
    }

    pub(super) fn remove_file(&self, spot: &Spot) -> Result<(), SetupError> {
        let path = self.shown(spot);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(SetupError::io("cannot be removed", &path, error))
            }
            _ => sync_above(&path),
        }
    }

    /// Puts a text in a file's place.
    pub(super) fn write(&self, spot: &Spot, file: &Text) -> Result<(), SetupError> {
        let path = self.shown(spot);
        let copy = self.shown(&spot.copy());
        let write = || -> io::Result<()> {
            let _ = fs::remove_file(&copy);
            let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&copy)?;
            out.write_all(file.text.as_bytes())?;
            let made = out.metadata()?;
            if (made.uid(), made.gid()) != (file.owner, file.group) {
                fchown(&out, Some(file.owner), Some(file.group))?;
            }
            out.set_permissions(fs::Permissions::from_mode(file.mode))?;
            out.sync_all()?;
            fs::rename(&copy, &path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&copy);
            SetupError::io("cannot be written", &path, error)
        })?;
        sync_above(&path)
    }

    /// Puts a text in a new file, and makes the directories that are missing above it, for their owner alone. They appear
    /// together with the file or not at all, so that a kill leaves none of which nobody knows.
    pub(super) fn write_in_new_dirs(&self, spot: &Spot, file: &Text) -> Result<(), SetupError> {
        let missing = self.missing_dirs(spot);
        let Some(top) = missing.first() else { return self.write(spot, file) };
        let stage = top.copy();
        let staged = |spot: &Spot| match spot.0.strip_prefix(&top.0) {
            Ok(below) if below.as_os_str().is_empty() => stage.clone(),
            Ok(below) => Spot(stage.0.join(below)),
            Err(_) => spot.clone(),
        };
        self.sweep(top);
        missing.iter().try_for_each(|dir| self.make_dir(&staged(dir), 0o700))?;
        self.write(&staged(spot), file)?;
        let path = self.shown(top);
        fs::rename(self.shown(&stage), &path)
            .map_err(|error| SetupError::io("cannot be made", &path, error))?;
        sync_above(&path)
    }

    /// Takes away what [`Tree::write_in_new_dirs`] may have left when it was killed.
    pub(super) fn sweep_above(&self, spot: &Spot) {
        spot.0
            .ancestors()
            .filter(|dir| dir.file_name().is_some())
            .for_each(|dir| self.sweep(&Spot(dir.into())));
    }

    /// Takes away what a write that was killed may have left beside a file.
    pub(super) fn sweep(&self, spot: &Spot) {
        let copy = self.shown(&spot.copy());
        if fs::remove_file(&copy).is_err_and(|error| error.kind() != ErrorKind::NotFound) {
            let _ = fs::remove_dir_all(copy);
        }
    }
}

/// A rename lasts once its directory is on the disk.
fn sync_above(path: &Path) -> Result<(), SetupError> {
    let dir = path.parent().unwrap_or(path);
    match File::open(dir).and_then(|dir| dir.sync_all()) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(SetupError::io("cannot be synced", dir, error))
        }
        _ => Ok(()),
    }
}

/// A path's names, `..` among them.
fn parts(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    })
}

/// Whether a name fits a pattern. A `*` first takes nothing, and one character more at each failure behind it.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut of, mut retry) = (0, 0, None);
    while of < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, of));
                at += 1;
            }
            Some(one) if *one == b'?' || *one == name[of] => (at, of) = (at + 1, of + 1),
            _ => {
                let Some((after, taken)) = retry else { return false };
                retry = Some((after, taken + 1));
                (at, of) = (after, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

// === impl Spot ===

impl Spot {
    /// What a new content is written to before it takes the file's place. No runtime reads such a name.
    fn copy(&self) -> Self {
        let name = self.0.file_name().unwrap_or(OsStr::new("file")).to_string_lossy();
        Self(self.0.with_file_name(format!(".{name}.longshore")))
    }

    /// Whether it is below the root, as a journal that was tampered with might not have it.
    pub(super) fn is_sound(&self) -> bool {
        self.0.components().all(|part| matches!(part, Component::Normal(_)))
    }
}

// === impl Text ===

impl Text {
    fn new(text: String, metadata: &Metadata) -> Self {
        Self { text, mode: metadata.mode() & 0o7777, owner: metadata.uid(), group: metadata.gid() }
    }

    /// A file that is to be made, owned by whoever makes it.
    pub(super) fn made(text: String) -> Self {
        Self { text, mode: PUBLIC, owner: geteuid().as_raw(), group: getegid().as_raw() }
    }

    /// The same, for its maker alone.
    pub(super) fn secret(text: String) -> Self {
        Self { mode: 0o600, ..Self::made(text) }
    }

    /// The same file with another content.
    pub(super) fn with(&self, text: String) -> Self {
        Self { text, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        fs::create_dir_all(dir.path().join("etc/a")).unwrap();
        symlink("/etc/a", dir.path().join("absolute")).unwrap();
        symlink("../../../../../etc", dir.path().join("etc/up")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let at = |path: &str| tree.resolve(path).unwrap().0;
        assert_eq!(at("/absolute/x"), Path::new("etc/a/x"));
        assert_eq!(at("/etc/up/a/./../new"), Path::new("etc/new"));
        assert_eq!(at("../../x"), Path::new("x"));
        assert!(tree.resolve("loop").is_err());
    }

    #[test]
    fn patterns_are_read_part_by_part() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        for name in ["b.toml", "a.toml", "c.conf"] {
            fs::create_dir_all(dir.path().join("etc/conf.d")).unwrap();
            fs::write(dir.path().join("etc/conf.d").join(name), "").unwrap();
        }
        assert_eq!(tree.glob("/etc/*.d/*.toml").unwrap(), ["/etc/conf.d/a.toml", "/etc/conf.d/b.toml"]);
        assert_eq!(tree.glob("/etc/conf.d/?.conf").unwrap(), ["/etc/conf.d/c.conf"]);
        assert!(tree.glob("/nowhere/*").unwrap().is_empty());
    }

    #[test]
    fn writing_keeps_the_mode_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let file = dir.path().join("x");
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(dir.path().join(".x.longshore"), "left by a kill").unwrap();
        let spot = tree.resolve("x").unwrap();
        let old = tree.read_at(&spot).unwrap().unwrap();
        tree.write(&spot, &old.with("new".into())).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(tree.list("").unwrap(), ["x"]);
    }
}
