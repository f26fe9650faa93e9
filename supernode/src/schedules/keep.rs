//! Schedules on the disk, as notes in the seed's index. Credentials are never written.

use common::digest::Digest;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::schedule::{Run, ScheduleId, Spec};
use crate::preheat::JobId;
use crate::shelf::Kind;

/// Where schedules are on the [shelf](crate::shelf).
pub(super) const SCHEDULES: Kind =
    Kind { word: "preheat schedule", one: "preheat-schedule/one/", last: "preheat-schedule/last" };

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

#[cfg(test)]
mod tests {
    use peer::store::{Store, StoreOptions};

    use super::*;
    use crate::preheat::{Spec as Job, Target};
    use crate::shelf::Shelf;

    #[test]
    fn schedules_outlive_the_process() {
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
        let shelf = Shelf::new(Store::open(dir.path(), options).unwrap(), SCHEDULES);
        shelf.write(2, &kept(2)).unwrap();
        drop(shelf);
        let shelf = Shelf::new(Store::open(dir.path(), options).unwrap(), SCHEDULES);
        assert_eq!(shelf.read().unwrap(), (std::collections::BTreeMap::from([(2, kept(2))]), Some(2)));
    }
}
