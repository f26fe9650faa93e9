//! A partial file beside its output: `NAME.part` has the bytes, `NAME.part.pieces` says of which content they are, and which
//! pieces of it are there. The next `get` of the same content goes on from it. Used by the way straight from the origin.
//!
//! # Invariants
//! - A partial file belongs to one task, whose id has the digest or the revision in it: content that changed is another task,
//!   and begins anew.
//! - A piece counts as there only if it has the checksum (CRC-32) that was noted for it when it was written. So nothing that a
//!   kill or a loss of power did to the file gets into the output. Against more than accidents there is the digest of the whole.
//!
//! # Crash safety
//! A note is one line, written after its piece; half a line notes nothing.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use common::digest::Hasher;
use common::piece::{ByteRange, Geometry, PieceIndex, PieceSet};
use common::task::TaskId;
use rustix::fs::OFlags;

use super::output::Finish;

/// What the notes begin with; another number is another form, and not read.
const FORM: &str = "longshore part 2";
/// Free space that is left alone: what else is written meanwhile.
const MARGIN: u64 = 1024 * 1024;

/// A file on its way.
pub struct Part {
    data: File,
    /// Appended to.
    notes: File,
    path: PathBuf,
    geometry: Geometry,
    /// The bytes of the content that the file is to have.
    window: ByteRange,
    pieces: AtomicU32,
    /// Nothing of it is worth keeping, or it is the output by now.
    over: AtomicBool,
}

/// What there is of a file, before its origin has been asked for the rest.
pub struct Rest {
    pub part: Part,
    pub have: PieceSet,
}

fn with_ending(output: &Path, ending: &str) -> PathBuf {
    let mut name = output.file_name().map(OsString::from).unwrap_or_default();
    name.push(ending);
    output.with_file_name(name)
}

/// Where the bytes lie.
pub fn data_path(output: &Path) -> PathBuf {
    with_ending(output, ".part")
}

fn notes_path(output: &Path) -> PathBuf {
    with_ending(output, ".part.pieces")
}

/// Opens a file of ours by a name that others can guess: no link, and nobody else's.
fn open_own(path: &Path, options: &mut OpenOptions) -> anyhow::Result<File> {
    let failed = || format!("cannot write {}", path.display());
    let nofollow = OFlags::NOFOLLOW.bits().cast_signed();
    let file = options.read(true).create(true).custom_flags(nofollow).open(path);
    let file = file.with_context(failed)?;
    let metadata = file.metadata().with_context(failed)?;
    if !metadata.is_file() || metadata.uid() != rustix::process::geteuid().as_raw() || metadata.nlink() > 1 {
        bail!("{} is somebody else's: remove it, or write elsewhere", path.display());
    }
    Ok(file)
}

/// Opens both files, which are then this process's until it ends.
fn open_both(output: &Path) -> anyhow::Result<(File, File)> {
    let data = open_own(&data_path(output), File::options().write(true).truncate(false))?;
    match data.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!("another get is writing {}", output.display()),
        // A file system without locks.
        Err(TryLockError::Error(_)) => {}
    }
    Ok((data, open_own(&notes_path(output), File::options().append(true))?))
}

/// What is there of this task, if anything is. Reads it: blocks.
///
/// # Errors
/// When the files cannot be read, or another process is writing them.
pub fn resume(output: &Path, task: TaskId) -> anyhow::Result<Option<Rest>> {
    if !notes_path(output).exists() || !data_path(output).exists() {
        return Ok(None);
    }
    let (data, notes) = open_both(output)?;
    let Some((geometry, claims)) = read_notes(&notes, task) else { return Ok(None) };
    let mut have = PieceSet::new(geometry.pieces());
    let mut buffer = vec![0; geometry.piece_length() as usize];
    for (index, sum) in claims {
        let range = geometry.range(index);
        let bytes = &mut buffer[..range.len() as usize];
        if !range.is_empty()
            && data.read_exact_at(bytes, range.start).is_ok()
            && crc32fast::hash(bytes) == sum
        {
            have.insert(index);
        }
    }
    if have.is_empty() {
        return Ok(None);
    }
    let part = Part {
        data,
        notes,
        path: data_path(output),
        geometry,
        window: ByteRange::new(0, geometry.length()),
        pieces: AtomicU32::new(have.count()),
        over: AtomicBool::new(false),
    };
    part.has_room(geometry.length() - held(geometry, &have))?;
    Ok(Some(Rest { part, have }))
}

/// The geometry and the claims, if they are of this task.
fn read_notes(notes: &File, task: TaskId) -> Option<(Geometry, Vec<(PieceIndex, u32)>)> {
    let mut lines = BufReader::new(notes).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.strip_prefix(FORM)?.split_whitespace();
    let (of, length, piece) = (words.next()?, words.next()?, words.next()?);
    let geometry = Geometry::with(length.parse().ok()?, piece.parse().ok()?).ok()?;
    let claim = |line: String| {
        let (index, sum) = line.split_once(' ')?;
        let sum = u32::from_str_radix(sum, 16).ok().filter(|_| sum.len() == 8)?;
        Some((PieceIndex(index.parse().ok()?), sum))
    };
    (of == task.hex()).then(|| (geometry, lines.map_while(Result::ok).map_while(claim).collect()))
}

/// The bytes of the pieces in a set.
pub fn held(geometry: Geometry, have: &PieceSet) -> u64 {
    have.iter().map(|index| geometry.range(index).len()).sum()
}

// === impl Part ===

impl Part {
    /// Begins anew. With a task it can be resumed; without, or of a window only, it is gone when it is dropped.
    ///
    /// # Errors
    /// When it cannot be written, or has no room.
    pub fn create(
        output: &Path,
        task: Option<TaskId>,
        geometry: Geometry,
        window: ByteRange,
    ) -> anyhow::Result<Self> {
        let (data, notes) = open_both(output)?;
        let path = data_path(output);
        data.set_len(0)
            .and_then(|()| notes.set_len(0))
            .with_context(|| format!("cannot write {}", path.display()))?;
        let pieces = AtomicU32::new(0);
        let part = Self { data, notes, path, geometry, window, pieces, over: AtomicBool::new(false) };
        part.has_room(window.len())?;
        match task.filter(|_| window.len() == geometry.length()) {
            Some(task) => part.note(format!(
                "{FORM} {} {} {}\n",
                task.hex(),
                geometry.length(),
                geometry.piece_length()
            ))?,
            None => part.over.store(true, Ordering::Relaxed),
        }
        Ok(part)
    }

    fn has_room(&self, bytes: u64) -> anyhow::Result<()> {
        let Ok(disk) = rustix::fs::fstatvfs(&self.data) else { return Ok(()) };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if disk.f_blocks > 0 && free < bytes.saturating_add(MARGIN) {
            let (bytes, free) = (crate::progress::bytes(bytes), crate::progress::bytes(free));
            bail!("no room for {}: it takes {bytes} more, and {free} are free", self.path.display());
        }
        Ok(())
    }

    /// How the content is cut.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Writes a piece, or what of it lies in the window. Blocks.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, index: PieceIndex, chunks: &[Bytes]) -> anyhow::Result<()> {
        let failed = || format!("cannot write {}", self.path.display());
        let mut at = self.geometry.range(index).start;
        for chunk in chunks {
            let end = at + chunk.len() as u64;
            let (from, to) = (at.max(self.window.start), end.min(self.window.end));
            if from < to {
                let bytes = &chunk[(from - at) as usize..(to - at) as usize];
                self.data.write_all_at(bytes, from - self.window.start).with_context(failed)?;
            }
            at = end;
        }
        if !self.over.load(Ordering::Relaxed) {
            let mut sum = crc32fast::Hasher::new();
            chunks.iter().for_each(|chunk| sum.update(chunk));
            self.note(format!("{} {:08x}\n", index.0, sum.finalize()))?;
            self.pieces.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn note(&self, line: String) -> anyhow::Result<()> {
        let written = (&self.notes).write_all(line.as_bytes());
        written.with_context(|| format!("cannot write {}.pieces", self.path.display()))
    }

    /// Feeds a stretch of the file to a hasher. Blocks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn hash(&self, range: ByteRange, hasher: &mut Hasher) -> anyhow::Result<()> {
        let mut buffer = vec![0; (256 * 1024).min(range.len() as usize)];
        let mut at = range.start;
        while at < range.end {
            let length = (range.end - at).min(buffer.len() as u64) as usize;
            let read = self.data.read_exact_at(&mut buffer[..length], at);
            read.with_context(|| format!("cannot read {}", self.path.display()))?;
            hasher.update(&buffer[..length]);
            at += length as u64;
        }
        Ok(())
    }

    /// Nothing of it is worth keeping.
    pub fn discard(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Makes it the output. Blocks.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn settle(
        &self,
        output: &Path,
        finish: Finish,
        modified: Option<std::time::SystemTime>,
    ) -> anyhow::Result<()> {
        // Whatever somebody may have put behind its end.
        self.data
            .set_len(self.window.len())
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        super::output::settle(&self.path, output, finish, modified)?;
        self.discard();
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.over.load(Ordering::Relaxed) || self.pieces.load(Ordering::Relaxed) == 0 {
            let mut notes = self.path.clone().into_os_string();
            notes.push(".pieces");
            let _ = std::fs::remove_file(&self.path);
            let _ = std::fs::remove_file(notes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    const PIECE: usize = 256 * 1024;

    fn task(of: u8) -> TaskId {
        TaskId([of; 32])
    }

    fn piece(index: u32) -> Bytes {
        vec![index as u8 + 1; PIECE].into()
    }

    /// A partial file of six pieces with these, dropped as a kill would.
    fn partial(output: &Path, pieces: &[u32]) {
        let geometry = Geometry::of(6 * PIECE as u64).unwrap();
        let part =
            Part::create(output, Some(task(1)), geometry, ByteRange::new(0, geometry.length())).unwrap();
        for index in pieces {
            part.write(PieceIndex(*index), &[piece(*index)]).unwrap();
        }
    }

    fn found(output: &Path, of: u8) -> Option<Vec<u32>> {
        let rest = resume(output, task(of)).unwrap()?;
        Some(rest.have.iter().map(|index| index.0).collect())
    }

    #[test]
    fn what_was_written_is_found_again_by_its_task_alone() {
        let home = TempDir::new().unwrap();
        let output = home.path().join("out");
        partial(&output, &[4, 0]);
        assert_eq!(found(&output, 2), None, "another revision");
        assert_eq!(found(&output, 1), Some(vec![0, 4]));
        partial(&output, &[]);
        assert!(std::fs::read_dir(home.path()).unwrap().next().is_none(), "nothing arrived: nothing stays");
    }

    #[test]
    fn a_piece_that_is_not_as_noted_is_fetched_again() {
        let home = TempDir::new().unwrap();
        let output = home.path().join("out");
        partial(&output, &[0, 1, 2]);
        let data = File::options().write(true).open(data_path(&output)).unwrap();
        data.write_all_at(b"x", PIECE as u64 + 7).unwrap();
        assert_eq!(found(&output, 1), Some(vec![0, 2]));
        data.set_len(PIECE as u64).unwrap();
        assert_eq!(found(&output, 1), Some(vec![0]));
    }

    #[test]
    fn two_cannot_write_one_file_and_links_are_not_followed() {
        let home = TempDir::new().unwrap();
        let output = home.path().join("out");
        let geometry = Geometry::of(9).unwrap();
        let create = || Part::create(&output, Some(task(1)), geometry, ByteRange::new(0, 9));
        let first = create().unwrap();
        assert!(create().err().expect("it is taken").to_string().contains("another get"));
        drop(first);
        std::fs::write(home.path().join("precious"), "precious").unwrap();
        std::os::unix::fs::symlink(home.path().join("precious"), data_path(&output)).unwrap();
        assert!(create().is_err());
        assert_eq!(std::fs::read(home.path().join("precious")).unwrap(), b"precious");
    }

    #[test]
    fn a_window_gets_its_bytes_and_leaves_nothing_unless_it_is_settled() {
        let home = TempDir::new().unwrap();
        let output = home.path().join("out");
        let geometry = Geometry::of(3 * PIECE as u64).unwrap();
        let window = ByteRange::new(PIECE as u64 - 1, PIECE as u64 + 2);
        for settled in [false, true] {
            let part = Part::create(&output, Some(task(1)), geometry, window).unwrap();
            for index in [1, 0] {
                let bytes = piece(index);
                let (one, two) = (bytes.slice(..9), bytes.slice(9..));
                part.write(PieceIndex(index), &[one, two]).unwrap();
            }
            if settled {
                part.settle(&output, Finish::default(), None).unwrap();
            }
            drop(part);
            let left: Vec<_> =
                std::fs::read_dir(home.path()).unwrap().flatten().map(|entry| entry.path()).collect();
            assert_eq!(left, if settled { vec![output.clone()] } else { vec![] });
        }
        assert_eq!(std::fs::read(&output).unwrap(), [1, 2, 2]);
    }

    proptest! {
        #[test]
        fn notes_cut_anywhere_claim_only_what_is_there(pieces in prop::collection::vec(0u32..6, 1..6), cut in 0usize..600, noise in "\\PC{0,20}") {
            let home = TempDir::new().unwrap();
            let output = home.path().join("out");
            partial(&output, &pieces);
            let mut notes = std::fs::read(notes_path(&output)).unwrap();
            notes.truncate(cut);
            notes.extend(noise.bytes());
            std::fs::write(notes_path(&output), notes).unwrap();
            for index in found(&output, 1).unwrap_or_default() {
                prop_assert!(pieces.contains(&index));
            }
        }
    }
}
