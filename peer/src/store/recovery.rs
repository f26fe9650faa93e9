//! What is believed after a restart. [`super::Store::open`] gets its index and its books from here.
//!
//! # Crash safety
//! - Killed, same boot: the kernel kept every byte that was written, so the claims hold.
//! - Not closed cleanly and another boot (loss of power): bytes may be missing under claims. Every claimed piece of
//!   every unproven blob is hashed again and false claims are dropped; proven blobs were synced before they were
//!   called so.
//! - An adopted task needs no file of ours: it stays while the foreign file is the one that was hashed.
//! - Records without a file, proven ones whose file has another length, and claims past a file's end are dropped.
//! - A file without a record is kept when its SHA-256 is its name, since then it proves itself, and deleted when not.
//! - An index that met a full disk and was opened anew is as after a kill, with the process still running: the books
//!   are drawn up again.
//! - A damaged index may have lost claims of a whole blob, or that it was proven. The file is then hashed: where its
//!   SHA-256 is its name it is whole, whatever the index says.
//! - An index that cannot be opened is set aside and a new one begun. All files are then without a record, so the
//!   rule above rebuilds it.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use common::digest::{Digest, Hasher};
use common::piece::{Geometry, PieceIndex};
use common::task::TaskId;

use super::adopted;
use super::blobs::{BlobInner, read_range};
use super::error::{IndexError, StoreError};
use super::folder::{Folder, Found, remove_if_there};
use super::index::memory::MemoryIndex;
use super::index::sled::SledIndex;
use super::index::{Index, Record, Run};
use super::shelf::{Slot, Stage};
use super::{Inner, unix_seconds};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

type Slots = HashMap<TaskId, Slot<BlobInner>>;

/// How the last run ended.
#[derive(Clone, Copy)]
struct End {
    clean: bool,
    lost_power: bool,
}

/// What a start put right.
#[derive(Debug, Default)]
struct Tally {
    kept: u64,
    rebuilt: u64,
    dropped_tasks: u64,
    dropped_claims: u64,
    deleted_files: u64,
}

/// The kernel's boot id; empty where it is not told, which counts as a new boot every time.
pub(super) fn boot_id() -> String {
    std::fs::read_to_string(BOOT_ID).map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Opens the index, puts it in accord with the files, and says what is there.
pub(super) fn open_index(
    folder: &Folder,
    durable: bool,
    boot_id: &str,
) -> Result<(Box<dyn Index>, Slots), StoreError> {
    if !durable {
        return accord(Box::new(MemoryIndex::default()), folder, boot_id);
    }
    // sled meets some kinds of damage with a panic.
    let attempt = || {
        catch_unwind(AssertUnwindSafe(|| {
            accord(Box::new(SledIndex::open(&folder.index())?), folder, boot_id)
        }))
        .unwrap_or_else(|_| Err(damaged(folder, "it made the database panic")))
    };
    match attempt() {
        Err(StoreError::Index(error @ IndexError::Damaged { .. })) => {
            let aside = folder
                .set_index_aside(unix_seconds())
                .map_err(|source| StoreError::io(&folder.index(), "set aside", source))?;
            tracing::warn!(%error, aside = %aside.display(), "the index is rebuilt from the blobs");
            attempt()
        }
        // The index has given up its spare room, which may be just enough.
        Err(error) if error.is_full() => attempt(),
        other => other,
    }
}

fn damaged(folder: &Folder, reason: &str) -> StoreError {
    IndexError::Damaged { path: folder.index(), reason: reason.to_owned() }.into()
}

/// Syncs every blob that is not proven yet, before the end of a run is called clean.
pub(super) fn settle(index: &dyn Index, folder: &Folder) -> Result<(), StoreError> {
    for (task, record) in index.records()? {
        if record.is_some_and(|record| !record.proven) {
            let path = folder.blob(task);
            let synced = File::open(&path).and_then(|file| Ok(rustix::fs::fdatasync(&file)?));
            match synced {
                // Its record is dropped at the next start.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|error| StoreError::io(&path, "sync", error))?,
            }
        }
    }
    Ok(())
}

fn accord(
    index: Box<dyn Index>,
    folder: &Folder,
    boot_id: &str,
) -> Result<(Box<dyn Index>, Slots), StoreError> {
    let Run { boot_id: last_boot, clean } = index.run()?;
    let lost_power = !clean && (boot_id.is_empty() || last_boot != boot_id);
    let end = End { clean, lost_power };
    let mut files: HashMap<TaskId, Found> =
        folder.found()?.into_iter().map(|found| (found.task, found)).collect();
    let mut tally = Tally::default();
    let mut slots = Slots::new();
    for (task, record) in index.records()? {
        let file = files.remove(&task);
        match (record, file) {
            (Some(record), file) if adopted::holds(&*index, task, &record)? => {
                let slot = Slot::adopted(record.geometry.length(), record.last_used * 1000);
                slots.insert(task, Slot { pinned: record.pinned, ..slot });
                tally.kept += 1;
                // Our own copy was to go when the last run ended.
                if let Some(file) = file {
                    discard(&file, &mut tally)?;
                }
            }
            (Some(record), Some(file))
                if record.adopted.is_none()
                    && (file.length == record.geometry.length() || !record.proven) =>
            {
                let bytes = check_claims(&*index, &record, &file, end, &mut tally)?;
                let slot = Slot::new(bytes, record.last_used * 1000);
                slots.insert(task, Slot { pinned: record.pinned, ..slot });
                tally.kept += 1;
            }
            (_, file) => {
                tally.dropped_tasks += 1;
                index.remove_task(task)?;
                // Perhaps it proves itself.
                files.extend(file.map(|file| (task, file)));
            }
        }
    }
    drop_stray_claims(&*index, &slots, &mut tally)?;
    for file in files.into_values() {
        match take_in(&*index, &file)? {
            Some(slot) => {
                tally.rebuilt += 1;
                slots.insert(file.task, slot);
            }
            None => discard(&file, &mut tally)?,
        }
    }
    // From here on the disk may hold less than the index claims.
    index.set_run(&Run { boot_id: boot_id.to_owned(), clean: false })?;
    index.flush()?;
    tally.tell(folder, lost_power);
    Ok((index, slots))
}

fn discard(file: &Found, tally: &mut Tally) -> Result<(), StoreError> {
    tally.deleted_files += 1;
    remove_if_there(&file.path).map_err(|source| StoreError::io(&file.path, "remove", source))
}

/// Checks the claims of one task and returns the bytes that are there.
fn check_claims(
    index: &dyn Index,
    record: &Record,
    found: &Found,
    end: End,
    tally: &mut Tally,
) -> Result<u64, StoreError> {
    let claims = index.claims(found.task)?;
    let length = record.geometry.length();
    if found.length != length {
        let resized = OpenOptions::new().write(true).open(&found.path).and_then(|file| file.set_len(length));
        resized.map_err(|error| StoreError::io(&found.path, "resize", error))?;
    }
    let file = match end.lost_power && !record.proven && !claims.is_empty() {
        true => Some(File::open(&found.path).map_err(|error| StoreError::io(&found.path, "open", error))?),
        false => None,
    };
    let (mut bytes, mut held, mut buffer) = (0, 0, Vec::new());
    for (piece, digest) in claims {
        let range = record.geometry.range(piece);
        let holds = !range.is_empty()
            && range.end <= found.length
            && file.as_ref().is_none_or(|file| {
                read_range(file, range, &mut buffer).is_ok() && Digest::of(&buffer) == digest
            });
        if holds {
            bytes += range.len();
            held += 1;
        } else {
            index.disclaim(found.task, piece)?;
            tally.dropped_claims += 1;
        }
    }
    let doubtful = match record.proven {
        true => held != record.geometry.pieces(),
        // No hole is left, so nothing was missing any more when the run ended.
        false => !end.clean && found.length == length && found.taken >= length,
    };
    if doubtful && made_whole(index, record, found)? {
        tally.rebuilt += 1;
        return Ok(length);
    }
    if record.proven && doubtful {
        index.put_record(found.task, &Record { proven: false, ..record.clone() })?;
    }
    Ok(bytes)
}

/// Claims all of a task whose file proves itself.
fn made_whole(index: &dyn Index, record: &Record, found: &Found) -> Result<bool, StoreError> {
    let Ok(Some(digests)) = proof(found, record.geometry) else { return Ok(false) };
    for (piece, digest) in (0..).map(PieceIndex).zip(digests) {
        index.claim(found.task, piece, digest)?;
    }
    index.put_record(found.task, &Record { proven: true, ..record.clone() })?;
    Ok(true)
}

/// Drops claims that belong to no task, or whose value is unreadable.
fn drop_stray_claims(index: &dyn Index, slots: &Slots, tally: &mut Tally) -> Result<(), StoreError> {
    let mut stray = HashSet::new();
    index.each_claim(&mut |claim| {
        if claim.digest.is_none() || !slots.contains_key(&claim.task) {
            stray.insert((claim.task, claim.index));
        }
    })?;
    for (task, piece) in stray {
        index.disclaim(task, piece)?;
        tally.dropped_claims += 1;
    }
    Ok(())
}

/// Takes in a file without a record, if it proves itself.
fn take_in(index: &dyn Index, found: &Found) -> Result<Option<Slot<BlobInner>>, StoreError> {
    let Ok(geometry) = Geometry::of(found.length) else { return Ok(None) };
    let last_used = unix_seconds();
    let record = Record {
        geometry,
        source_url: String::new(),
        proven: true,
        media_type: None,
        last_used,
        pinned: false,
        adopted: None,
    };
    let whole = made_whole(index, &record, found)?;
    Ok(whole.then(|| Slot::new(found.length, last_used * 1000)))
}

/// The digests of a file's pieces, if the digest of the whole is its name.
fn proof(found: &Found, geometry: Geometry) -> io::Result<Option<Vec<Digest>>> {
    let file = File::open(&found.path)?;
    let (mut whole, mut digests, mut buffer) = (Hasher::new(), Vec::new(), Vec::new());
    for piece in (0..geometry.pieces()).map(PieceIndex) {
        read_range(&file, geometry.range(piece), &mut buffer)?;
        whole.update(&buffer);
        digests.push(Digest::of(&buffer));
    }
    if TaskId::of_digest(whole.finish()) != found.task {
        return Ok(None);
    }
    rustix::fs::fdatasync(&file)?;
    Ok(Some(digests))
}

// === impl Inner ===

impl Inner {
    /// Draws the books up anew after the index lost what was not flushed: claims are gone, and perhaps records.
    pub(super) fn balance(&self) -> Result<(), StoreError> {
        if self.index.losses() == self.losses.load(Ordering::Acquire) {
            return Ok(());
        }
        let gate = self.closed.write().unwrap_or_else(PoisonError::into_inner);
        let losses = self.index.losses();
        let recorded: HashMap<TaskId, Geometry> = self
            .index
            .records()?
            .into_iter()
            .filter_map(|(task, record)| Some((task, record?.geometry)))
            .collect();
        let mut pieces: HashMap<TaskId, Vec<PieceIndex>> = HashMap::new();
        self.index.each_claim(&mut |claim| pieces.entry(claim.task).or_default().push(claim.index))?;
        let (mut open, mut lost) = (Vec::new(), Vec::new());
        let mut shelf = self.shelf();
        let under_way = shelf.used.saturating_sub(shelf.slots.values().map(|slot| slot.bytes).sum());
        for (&task, slot) in &mut shelf.slots {
            let live = slot.live.upgrade();
            let geometry = live.as_ref().map(|blob| blob.geometry()).or(recorded.get(&task).copied());
            let held = geometry.zip(pieces.get(&task)).filter(|_| slot.adopted.is_none());
            slot.bytes = held.map_or(0, |(cut, held)| held.iter().map(|&at| cut.range(at).len()).sum());
            match live {
                Some(blob) if !recorded.contains_key(&task) => open.push(blob),
                None if !recorded.contains_key(&task) && slot.stage == Stage::Settled => lost.push(task),
                _ => {}
            }
        }
        shelf.used = under_way + shelf.slots.values().map(|slot| slot.bytes).sum::<u64>();
        drop((shelf, gate));
        self.losses.store(losses, Ordering::Release);
        open.iter().try_for_each(|blob| blob.update(|_| {}))?;
        lost.into_iter().try_for_each(|task| self.remove(task))
    }
}

// === impl Tally ===

impl Tally {
    fn tell(&self, folder: &Folder, lost_power: bool) {
        let Self { kept, rebuilt, dropped_tasks, dropped_claims, deleted_files } = self;
        let dir = folder.root().display();
        if rebuilt + dropped_tasks + dropped_claims + deleted_files > 0 {
            tracing::warn!(
                %dir, kept, rebuilt, dropped_tasks, dropped_claims, deleted_files, lost_power,
                "the store was put right after an unclean end"
            );
        } else {
            tracing::debug!(%dir, kept, lost_power, "the store is in order");
        }
    }
}
