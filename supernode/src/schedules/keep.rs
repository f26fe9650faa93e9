//! Schedules on the disk, as notes in the seed's index. Credentials are never written.

use std::collections::BTreeMap;

use common::digest::Digest;
use peer::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::schedule::{Run, ScheduleId, Spec};
use crate::preheat::JobId;

const PREFIX: &str = "preheat-schedule/one/";
/// The last number that was given: none is given twice, even after its schedule was forgotten.
const LAST: &str = "preheat-schedule/last";

/// A schedule as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Its number.
    pub(super) id: ScheduleId,
    /// What is wanted.
    pub(super) spec: Spec,
    /// Whether it had credentials, which are gone.
    #[serde(default)]
    pub(super) secret: bool,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created_at: OffsetDateTime,
    /// When it was to run next.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub(super) next_at: Option<OffsetDateTime>,
    /// What its tag meant when it was last brought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<Digest>,
    /// The job that was under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) job: Option<JobId>,
    /// Its last runs.
    #[serde(default)]
    pub(super) runs: Vec<Run>,
}

/// The shelf of schedules. Everything blocks.
#[derive(Clone)]
pub(super) struct Shelf(Store);

// === impl Shelf ===

impl Shelf {
    /// In this store.
    pub(super) fn new(store: Store) -> Self {
        Self(store)
    }

    /// All schedules, and the last number given. What cannot be read is left where it is, with a word: a later release may.
    ///
    /// # Errors
    /// When the index fails.
    pub(super) fn read(&self) -> Result<(BTreeMap<ScheduleId, Kept>, u64), StoreError> {
        let mut schedules = BTreeMap::new();
        let mut highest = 0;
        for (name, text) in self.0.notes(PREFIX)? {
            highest = highest.max(name.strip_prefix(PREFIX).and_then(|id| id.parse().ok()).unwrap_or(0));
            match serde_json::from_slice::<Kept>(&text) {
                Ok(kept) => drop(schedules.insert(kept.id, kept)),
                Err(error) => {
                    tracing::warn!("the preheat schedule {name:?} cannot be read and rests: {error}")
                }
            }
        }
        let last =
            self.0.notes(LAST)?.into_iter().find_map(|(_, text)| String::from_utf8(text).ok()?.parse().ok());
        Ok((schedules, last.unwrap_or(0).max(highest)))
    }

    /// Notes that a number is given.
    ///
    /// # Errors
    /// When the index fails.
    pub(super) fn give(&self, id: ScheduleId) -> Result<(), StoreError> {
        self.0.write_note(LAST, id.to_string().as_bytes())
    }

    /// Writes one down.
    ///
    /// # Errors
    /// When the index fails.
    pub(super) fn write(&self, kept: &Kept) -> Result<(), StoreError> {
        let text = serde_json::to_vec(kept).expect("invariant: a schedule is JSON");
        self.0.write_note(&name(kept.id), &text)
    }

    /// Forgets one.
    ///
    /// # Errors
    /// When the index fails.
    pub(super) fn forget(&self, id: ScheduleId) -> Result<(), StoreError> {
        self.0.remove_note(&name(id))
    }
}

fn name(id: ScheduleId) -> String {
    format!("{PREFIX}{id:020}", id = id.0)
}

#[cfg(test)]
mod tests {
    use peer::store::StoreOptions;

    use super::*;
    use crate::preheat::{Spec as Job, Target};

    #[test]
    fn schedules_outlive_the_process_and_numbers_are_given_once() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { durable: true, ..StoreOptions::default() };
        let at = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let kept = |id| Kept {
            id: ScheduleId(id),
            spec: Spec {
                preheat: Job::image("quay.io/team/app:1", Target::Cache),
                schedule: None,
                time_zone: None,
                follow_seconds: Some(300),
                paused: false,
            },
            secret: true,
            created_at: at,
            next_at: Some(at),
            digest: Some(Digest::of(b"")),
            job: Some(JobId(3)),
            runs: Vec::new(),
        };
        let shelf = Shelf::new(Store::open(dir.path(), options).unwrap());
        shelf.give(ScheduleId(12)).unwrap();
        shelf.write(&kept(2)).unwrap();
        shelf.write(&kept(12)).unwrap();
        shelf.forget(ScheduleId(12)).unwrap();
        shelf.0.write_note(&name(ScheduleId(14)), b"{").unwrap();
        drop(shelf);
        let (schedules, last) = Shelf::new(Store::open(dir.path(), options).unwrap()).read().unwrap();
        assert_eq!((schedules, last), (BTreeMap::from([(ScheduleId(2), kept(2))]), 14));
    }
}
