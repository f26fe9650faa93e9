//! What the store knows about its blobs: a record per task, one claim per piece, and the mark of the last run.
//! [`super::Store`] and [`super::Blob`] speak to it through the typed methods on `dyn Index`; a kind of index
//! ([`sled`], [`memory`]) is five operations on keys and values.
//!
//! # Invariants
//! - The existence of a claim's key IS the claim that the piece is present, and its value is the digest that the
//!   bytes were checked against: claim and digest cannot part.
//! - Operations take effect in their order, and what survives a crash is a prefix of them.
//!
//! # Stored form
//! Keys: `r` task → record, `p` task, piece (`u32` big-endian) → claim, `m` → run, `n` name → a note, which is its
//! writer's affair. Every other value starts with [`FORMAT`]. A claim is then the 32 bytes of its digest. A record and a run are JSON: there are few, they are
//! tiny, and a release may add a field with a default without telling older ones.

pub(super) mod memory;
pub(super) mod sled;

use common::digest::Digest;
use common::piece::{Geometry, PieceIndex};
use common::task::TaskId;
use serde::{Deserialize, Serialize};

use super::adopted::Foreign;
use super::error::IndexError;

/// The version of the stored form; a value of another version counts as unreadable.
const FORMAT: u8 = 1;
const RECORD: u8 = b'r';
const CLAIM: u8 = b'p';
const RUN: &[u8] = b"m";
pub(super) const NOTE: u8 = b'n';
const TASK_KEY: usize = 1 + 32;
const CLAIM_KEY: usize = TASK_KEY + 4;

/// What a scan calls with every key and value.
pub(super) type Visit<'a> = dyn FnMut(&[u8], &[u8]) + 'a;

/// An ordered map of bytes that outlives the process, or does not.
pub(super) trait Index: Send + Sync {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;
    /// Sets `key`; true when it was not there.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<bool, IndexError>;
    /// Takes `key` out; true when it was there.
    fn delete(&self, key: &[u8]) -> Result<bool, IndexError>;
    /// Shows every key that starts with `prefix`, in order.
    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), IndexError>;
    /// Returns once all that was done so far survives a loss of power.
    fn flush(&self) -> Result<(), IndexError>;
    /// How often, since it was opened, it lost what was not flushed.
    fn losses(&self) -> u64 {
        0
    }
}

/// What is known of a task besides its pieces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) geometry: Geometry,
    /// Where the bytes came from, for people; without credentials.
    pub(super) source_url: String,
    /// The whole was checked and is on the disk itself, not only in its cache.
    pub(super) proven: bool,
    pub(super) media_type: Option<String>,
    /// Unix seconds.
    pub(super) last_used: u64,
    /// Somebody wants it kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) pinned: bool,
    /// The bytes are in this file of somebody else, and none of them in ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) adopted: Option<Foreign>,
}

/// Which run of which kernel wrote the index last, and how it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// The kernel's boot id; empty where it is unknown.
    pub(super) boot_id: String,
    /// The store was closed: every claimed byte is on the disk itself.
    pub(super) clean: bool,
}

/// A key and a value of the claims, read back.
pub(super) struct Claim {
    pub(super) task: TaskId,
    pub(super) index: PieceIndex,
    /// `None` when the value is unreadable.
    pub(super) digest: Option<Digest>,
}

// === impl Index ===

impl dyn Index + '_ {
    /// The record of a task; an unreadable one counts as none.
    pub(super) fn record(&self, task: TaskId) -> Result<Option<Record>, IndexError> {
        Ok(self.get(&task_key(RECORD, task))?.and_then(|value| decode_record(&value)))
    }

    pub(super) fn put_record(&self, task: TaskId, record: &Record) -> Result<(), IndexError> {
        self.put(&task_key(RECORD, task), &encode(record)?).map(drop)
    }

    /// All records; `None` for an unreadable one.
    pub(super) fn records(&self) -> Result<Vec<(TaskId, Option<Record>)>, IndexError> {
        let mut records = Vec::new();
        self.scan(&[RECORD], &mut |key, value| {
            if let Ok(task) = <[u8; 32]>::try_from(&key[1..]) {
                records.push((TaskId(task), decode_record(value)));
            }
        })?;
        Ok(records)
    }

    /// Claims a piece; true when it was not claimed before.
    pub(super) fn claim(&self, task: TaskId, index: PieceIndex, digest: Digest) -> Result<bool, IndexError> {
        let mut value = [FORMAT; 33];
        value[1..].copy_from_slice(&digest.0);
        self.put(&claim_key(task, index), &value)
    }

    /// The digest of a claimed piece.
    pub(super) fn claimed(&self, task: TaskId, index: PieceIndex) -> Result<Option<Digest>, IndexError> {
        Ok(self.get(&claim_key(task, index))?.and_then(|value| decode_claim(&value)))
    }

    /// Drops the claim on a piece; true when there was one.
    pub(super) fn disclaim(&self, task: TaskId, index: PieceIndex) -> Result<bool, IndexError> {
        self.delete(&claim_key(task, index))
    }

    /// The readable claims of one task, in order.
    pub(super) fn claims(&self, task: TaskId) -> Result<Vec<(PieceIndex, Digest)>, IndexError> {
        let mut claims = Vec::new();
        self.scan_claims(&task_key(CLAIM, task), &mut |claim| {
            claims.extend(claim.digest.map(|digest| (claim.index, digest)));
        })?;
        Ok(claims)
    }

    /// Shows every claim of every task.
    pub(super) fn each_claim(&self, visit: &mut dyn FnMut(Claim)) -> Result<(), IndexError> {
        self.scan_claims(&[CLAIM], visit)
    }

    fn scan_claims(&self, prefix: &[u8], visit: &mut dyn FnMut(Claim)) -> Result<(), IndexError> {
        self.scan(prefix, &mut |key, value| {
            let (Some(task), Some(index)) = (key.get(1..TASK_KEY), key.get(TASK_KEY..)) else { return };
            if let (Ok(task), Ok(index)) = (task.try_into(), index.try_into()) {
                let index = PieceIndex(u32::from_be_bytes(index));
                visit(Claim { task: TaskId(task), index, digest: decode_claim(value) });
            }
        })
    }

    /// Removes a task's record, then its claims (claims without a record are dropped at the next start), and
    /// returns the claims.
    pub(super) fn remove_task(&self, task: TaskId) -> Result<Vec<(PieceIndex, Digest)>, IndexError> {
        let claims = self.claims(task)?;
        self.delete(&task_key(RECORD, task))?;
        for (index, _) in &claims {
            self.disclaim(task, *index)?;
        }
        Ok(claims)
    }

    /// Makes a change that has to outlive a crash before anything is built on it. An index that lost the change on
    /// its way to the disk has it made again, so it must bear that.
    pub(super) fn durably<E: From<IndexError>>(
        &self,
        mut change: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            let losses = self.losses();
            change()?;
            self.flush()?;
            if self.losses() == losses {
                return Ok(());
            }
        }
    }

    /// The mark of the last run; the default when there is none.
    pub(super) fn run(&self) -> Result<Run, IndexError> {
        let value = self.get(RUN)?;
        Ok(value.and_then(|value| serde_json::from_slice(body(&value)?).ok()).unwrap_or_default())
    }

    pub(super) fn set_run(&self, run: &Run) -> Result<(), IndexError> {
        self.put(RUN, &encode(run)?).map(drop)
    }
}

fn task_key(kind: u8, task: TaskId) -> [u8; TASK_KEY] {
    let mut key = [kind; TASK_KEY];
    key[1..].copy_from_slice(&task.0);
    key
}

fn claim_key(task: TaskId, index: PieceIndex) -> [u8; CLAIM_KEY] {
    let mut key = [CLAIM; CLAIM_KEY];
    key[1..TASK_KEY].copy_from_slice(&task.0);
    key[TASK_KEY..].copy_from_slice(&index.0.to_be_bytes());
    key
}

pub(super) fn note_key(name: &str) -> Vec<u8> {
    [&[NOTE], name.as_bytes()].concat()
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, IndexError> {
    let mut bytes = vec![FORMAT];
    serde_json::to_writer(&mut bytes, value)?;
    Ok(bytes)
}

fn body(value: &[u8]) -> Option<&[u8]> {
    value.split_first().filter(|(format, _)| **format == FORMAT).map(|(_, body)| body)
}

/// The disk is no more to be trusted than a neighbour: an impossible geometry makes a record unreadable.
fn decode_record(value: &[u8]) -> Option<Record> {
    let record: Record = serde_json::from_slice(body(value)?).ok()?;
    Geometry::with(record.geometry.length(), record.geometry.piece_length()).ok()?;
    Some(record)
}

fn decode_claim(value: &[u8]) -> Option<Digest> {
    Some(Digest(body(value)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod suite {
    //! What every kind of index must do; each kind's tests call [`holds`] with a way to open it.

    use super::*;

    fn record(length: u64) -> Record {
        Record {
            geometry: Geometry::of(length).unwrap(),
            source_url: "https://origin.example/a".into(),
            proven: false,
            media_type: Some("application/octet-stream".into()),
            last_used: 7,
            pinned: true,
            adopted: None,
        }
    }

    /// Runs the suite; with `reopen` it is also checked that all survives a new start.
    pub(in crate::store) fn holds(open: &dyn Fn() -> Box<dyn Index>, reopen: bool) {
        let (one, two) = (TaskId([1; 32]), TaskId([2; 32]));
        let index = open();
        assert_eq!(index.record(one).unwrap(), None);
        assert_eq!(index.run().unwrap(), Run::default());
        index.put_record(one, &record(600_000)).unwrap();
        index.put_record(two, &record(0)).unwrap();
        for at in [2, 0, 256, 1] {
            assert!(index.claim(one, PieceIndex(at), Digest([at as u8; 32])).unwrap());
        }
        assert!(!index.claim(one, PieceIndex(1), Digest([9; 32])).unwrap(), "a claim is new only once");
        assert!(index.claim(two, PieceIndex(0), Digest([3; 32])).unwrap());
        let run = Run { boot_id: "a".into(), clean: true };
        index.set_run(&run).unwrap();
        index.flush().unwrap();

        let index = if reopen {
            drop(index);
            open()
        } else {
            index
        };
        assert_eq!(index.run().unwrap(), run);
        assert_eq!(index.record(one).unwrap(), Some(record(600_000)));
        assert_eq!(index.records().unwrap(), vec![(one, Some(record(600_000))), (two, Some(record(0)))]);
        let claims = index.claims(one).unwrap();
        assert_eq!(claims.iter().map(|(at, _)| at.0).collect::<Vec<_>>(), [0, 1, 2, 256], "in numeric order");
        assert_eq!(index.claimed(one, PieceIndex(1)).unwrap(), Some(Digest([9; 32])));
        assert_eq!(index.claimed(one, PieceIndex(3)).unwrap(), None);
        assert!(index.disclaim(one, PieceIndex(0)).unwrap());
        assert!(!index.disclaim(one, PieceIndex(0)).unwrap());

        assert_eq!(index.remove_task(one).unwrap().len(), 3);
        assert_eq!(index.record(one).unwrap(), None);
        let mut left = Vec::new();
        index.each_claim(&mut |claim| left.push((claim.task, claim.index))).unwrap();
        assert_eq!(left, [(two, PieceIndex(0))], "the neighbour's claims stay");

        unreadable_values_are_told_apart(&*index, two);
    }

    fn unreadable_values_are_told_apart(index: &dyn Index, task: TaskId) {
        index.put(&task_key(RECORD, task), b"\x02{}").unwrap();
        assert_eq!(index.record(task).unwrap(), None);
        assert_eq!(index.records().unwrap(), vec![(task, None)]);
        let impossible = br#"{"geometry":{"length":5,"piece_length":0},"source_url":"","proven":true,"media_type":null,"last_used":0}"#;
        index.put(&task_key(RECORD, task), &[&[FORMAT], &impossible[..]].concat()).unwrap();
        assert_eq!(index.record(task).unwrap(), None);
        index.put(&claim_key(task, PieceIndex(0)), b"\x01short").unwrap();
        assert_eq!(index.claims(task).unwrap(), vec![]);
    }
}
