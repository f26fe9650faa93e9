//! Jobs on the disk, as notes in the seed's index: what is wanted, and who has it. Credentials are never written.

use std::collections::BTreeMap;

use peer::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::job::{Contents, JobId, NodeView, Part, Spec, State};

const PREFIX: &str = "preheat/job/";
/// The last number that was given: none is given twice, even after its job was forgotten.
const LAST: &str = "preheat/last";

/// A job as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Its number.
    pub(super) id: JobId,
    /// What is wanted.
    pub(super) spec: Spec,
    /// How it was.
    pub(super) state: State,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    /// Whether it had credentials, which are gone.
    #[serde(default)]
    pub(super) secret: bool,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created_at: OffsetDateTime,
    /// When it was written.
    #[serde(with = "time::serde::rfc3339")]
    pub(super) updated_at: OffsetDateTime,
    /// When it ended.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub(super) finished_at: Option<OffsetDateTime>,
    /// What it comes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) contents: Option<Contents>,
    /// Its first parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) parts: Vec<Part>,
    /// The nodes that it is for, once they are chosen.
    #[serde(default)]
    pub(super) nodes: Vec<NodeView>,
}

/// The shelf of jobs. Everything blocks.
#[derive(Clone)]
pub(super) struct Shelf(Store);

// === impl Shelf ===

impl Shelf {
    /// In this store.
    pub(super) fn new(store: Store) -> Self {
        Self(store)
    }

    /// All jobs, and the last number given. What cannot be read is forgotten, with a word.
    ///
    /// # Errors
    /// When the index fails.
    pub(super) fn read(&self) -> Result<(BTreeMap<JobId, Kept>, u64), StoreError> {
        let mut jobs = BTreeMap::new();
        for (name, text) in self.0.notes(PREFIX)? {
            match serde_json::from_slice::<Kept>(&text) {
                Ok(kept) => drop(jobs.insert(kept.id, kept)),
                Err(error) => {
                    tracing::warn!("the preheat job {name:?} is forgotten, for it cannot be read: {error}");
                    self.0.remove_note(&name)?;
                }
            }
        }
        let last =
            self.0.notes(LAST)?.into_iter().find_map(|(_, text)| String::from_utf8(text).ok()?.parse().ok());
        let highest = jobs.keys().next_back().map_or(0, |id: &JobId| id.0);
        Ok((jobs, last.unwrap_or(0).max(highest)))
    }

    /// Notes that a number is given.
    ///
    /// # Errors
    /// When the index fails.
    pub(super) fn give(&self, id: JobId) -> Result<(), StoreError> {
        self.0.write_note(LAST, id.to_string().as_bytes())
    }

    /// Writes jobs down.
    ///
    /// # Errors
    /// When the index fails.
    pub(super) fn write(&self, jobs: &[Kept]) -> Result<(), StoreError> {
        for kept in jobs {
            let text = serde_json::to_vec(kept).expect("invariant: a job is JSON");
            self.0.write_note(&name(kept.id), &text)?;
        }
        Ok(())
    }

    /// Forgets a job.
    ///
    /// # Errors
    /// When the index fails.
    pub(super) fn forget(&self, id: JobId) -> Result<(), StoreError> {
        self.0.remove_note(&name(id))
    }
}

fn name(id: JobId) -> String {
    format!("{PREFIX}{id:020}", id = id.0)
}

#[cfg(test)]
mod tests {
    use peer::store::StoreOptions;

    use super::super::job::Target;
    use super::*;

    #[test]
    fn jobs_outlive_the_process_and_numbers_are_given_once() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { durable: true, ..StoreOptions::default() };
        let at = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let kept = |id| Kept {
            id: JobId(id),
            spec: Spec::image("quay.io/team/app:1", Target::Cache),
            state: State::Running,
            message: None,
            secret: true,
            created_at: at,
            updated_at: at,
            finished_at: None,
            contents: None,
            parts: Vec::new(),
            nodes: Vec::new(),
        };
        let shelf = Shelf::new(Store::open(dir.path(), options).unwrap());
        shelf.give(JobId(12)).unwrap();
        shelf.write(&[kept(2), kept(12)]).unwrap();
        shelf.forget(JobId(12)).unwrap();
        shelf.0.write_note("preheat/job/x", b"{").unwrap();
        drop(shelf);
        let (jobs, last) = Shelf::new(Store::open(dir.path(), options).unwrap()).read().unwrap();
        assert_eq!((jobs.keys().copied().collect::<Vec<_>>(), last), (vec![JobId(2)], 12));
        assert_eq!(jobs[&JobId(2)].spec, kept(2).spec);
    }
}
