//! Jobs on the disk, as notes in the seed's index: what is wanted, and who has it. Credentials are never written.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::job::{Contents, JobId, NodeView, Part, Spec, State};
use crate::shelf::Kind;

/// Where jobs are on the [shelf](crate::shelf).
pub(super) const JOBS: Kind = Kind { word: "preheat job", one: "preheat/job/", last: "preheat/last" };

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
    /// When it was first not paused.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub(super) started_at: Option<OffsetDateTime>,
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
    /// What its nodes have, or are to have: another meaning of a tag has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) meaning: Option<String>,
    /// The nodes that it is for, once they are chosen.
    #[serde(default)]
    pub(super) nodes: Vec<NodeView>,
}

#[cfg(test)]
mod tests {
    use peer::store::{Store, StoreOptions};

    use super::super::job::Target;
    use super::*;
    use crate::shelf::Shelf;

    #[test]
    fn jobs_outlive_the_process() {
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
            started_at: None,
            updated_at: at,
            finished_at: None,
            contents: None,
            parts: Vec::new(),
            meaning: None,
            nodes: Vec::new(),
        };
        let shelf = Shelf::new(Store::open(dir.path(), options).unwrap(), JOBS);
        shelf.write(2, &kept(2)).unwrap();
        drop(shelf);
        let (jobs, last) =
            Shelf::new(Store::open(dir.path(), options).unwrap(), JOBS).read::<Kept>().unwrap();
        assert_eq!((jobs.keys().copied().collect::<Vec<_>>(), last), (vec![2], Some(2)));
        assert_eq!((jobs[&2].id, &jobs[&2].spec), (JobId(2), &kept(2).spec));
    }
}
