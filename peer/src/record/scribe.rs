//! The lock around a [`Record`], held for a few words at a time, and the line that is logged when a pull is over. A session's
//! scribe is part of what all see of its task ([`crate::download::shared`]); a reader holds a [`Reading`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use common::piece::Geometry;
use common::task::TaskId;

use super::explain::Summary;
use super::{By, Doing, End, Record};

/// A record that several write to.
pub struct Scribe(Mutex<Record>);

/// A client that reads; its reading ends when this is dropped.
pub struct Reading {
    scribe: Arc<Scribe>,
    id: u32,
}

// === impl Scribe ===

impl Scribe {
    /// Of a download that begins now.
    pub fn new(task: TaskId) -> Self {
        Self(Mutex::new(Record::new(task, Instant::now(), SystemTime::now())))
    }

    /// Of what is here already, and is read from now on.
    pub fn stored(task: TaskId, geometry: Geometry) -> Self {
        Self(Mutex::new(Record::stored(task, geometry, Instant::now(), SystemTime::now())))
    }

    /// Writes down what happens now.
    pub fn note(&self, what: impl FnOnce(&mut Record, Instant)) {
        what(&mut self.lock(), Instant::now());
    }

    /// Looks into it.
    pub fn read<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.lock())
    }

    /// A client begins to read.
    pub fn begin_reading(self: &Arc<Self>, by: &By) -> Reading {
        let id = self.lock().begin_reading(by, Instant::now());
        Reading { scribe: self.clone(), id }
    }

    /// The download is over.
    pub fn end(&self, end: End) {
        self.note(|record, now| record.end(end, now));
        self.close(Instant::now());
    }

    /// Closes the record once that is due; when to come again, if it is not yet.
    pub fn close(&self, now: Instant) -> Option<Instant> {
        let (summary, trouble) = {
            let mut record = self.lock();
            let due = record.close_due()?;
            if due > now {
                return Some(due);
            }
            record.close();
            (Summary::of(&record, now), record.is_trouble())
        };
        log(&summary, trouble);
        None
    }

    /// Closes the record whatever is to come.
    pub fn close_now(&self) {
        let Some(due) = self.read(Record::close_due) else { return };
        self.close(due.max(Instant::now()));
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // A panic in between would leave figures that are still the best there are.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one line that a pull leaves.
fn log(pull: &Summary, trouble: bool) {
    let from = |source: &str| pull.sources.get(source).copied().filter(|bytes| *bytes > 0);
    let thousandths = |seconds: f64| (seconds * 1e3).round() / 1e3;
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "peer::record",
                name = pull.name,
                task = pull.task,
                client = pull.client,
                bytes = pull.sources.values().sum::<u64>(),
                seconds = thousandths(pull.seconds),
                first_byte = pull.first_byte.map(thousandths),
                origin = from("origin"),
                cache = from("cache"),
                seed = from("seed"),
                peer = from("peer"),
                store = from("store"),
                outcome = pull.state,
                error = pull.error,
                "pull"
            )
        };
    }
    if trouble { line!(warn) } else { line!(info) }
}

// === impl Reading ===

impl Reading {
    /// The reader does something else from now on; so many bytes were given to the client.
    pub fn turn(&self, doing: Doing, bytes: u64) {
        self.scribe.note(|record, now| record.turn(self.id, doing, bytes, now));
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.scribe.note(|record, now| record.end_reading(self.id, now));
        self.scribe.close(Instant::now());
    }
}
