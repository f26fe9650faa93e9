//! What a resource asks for, as a preheat job's [`Spec`]; and what tells a change that wants another job from one that does not. Pure.
//!
//! # Invariants
//! - A job says by its owner which resource it is for, and which of that resource's wishes: so it is found again after a restart of
//!   the supernode, and once its resource is gone.

use common::digest::Digest;

use super::resource::{ImagePreheatSpec, Where};
use crate::preheat::{Choice, Spec, Target, View};

/// The owner of all jobs of the controller begins so.
const OWNER: &str = "imagepreheats.longshore.dev/";
/// Of a wish's digest: enough to tell some wishes of one resource from each other.
const DIGITS: usize = 16;

/// Whose a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The resource's.
    pub(super) uid: String,
    /// Which of its wishes.
    pub(super) wish: String,
}

// === impl Owner ===

impl Owner {
    /// Of a job; `None` where it is nobody's that the controller knows.
    pub(super) fn of(view: &View) -> Option<Self> {
        let (uid, wish) = view.spec.owner.as_deref()?.strip_prefix(OWNER)?.split_once('/')?;
        Some(Self { uid: uid.to_owned(), wish: wish.to_owned() })
    }

    /// As a job carries it.
    pub(super) fn text(&self) -> String {
        format!("{OWNER}{}/{}", self.uid, self.wish)
    }
}

/// What tells this wish from others of the same resource. Pausing, and how long the resource stays, are no other wish.
pub(super) fn fingerprint(spec: &ImagePreheatSpec) -> String {
    let mut wish = spec.clone();
    wish.paused = false;
    wish.completion_policy.ttl_seconds_after_finished = None;
    let text = serde_json::to_vec(&wish).expect("invariant: a spec is JSON");
    Digest::of(&text).hex()[..DIGITS].to_owned()
}

/// The job, for nodes of these names (none: for all that fit the rest).
pub(super) fn job(spec: &ImagePreheatSpec, names: Vec<String>, owner: &Owner) -> Spec {
    let to = match spec.to {
        Where::Cache => Target::Cache,
        Where::Peers => Target::Peers,
        Where::Runtime => Target::Runtime,
    };
    // The schema has turned away what is below nothing.
    let count = |number: i32| u32::try_from(number).unwrap_or_default();
    let seconds = |number: i64| u64::try_from(number).unwrap_or_default();
    Spec {
        platforms: spec.platforms.clone(),
        nodes: Choice {
            names,
            zones: spec.zones.clone(),
            racks: Vec::new(),
            count: spec.count.map(count),
            percent: spec.percent.map(|percent| u8::try_from(percent).unwrap_or_default()),
        },
        parallelism: count(spec.parallelism),
        timeout_seconds: seconds(spec.pull_policy.timeout_seconds),
        backoff_limit: count(spec.pull_policy.backoff_limit),
        active_deadline_seconds: spec.completion_policy.active_deadline_seconds.map(seconds),
        paused: spec.paused,
        owner: Some(owner.text()),
        // How long the job is shown is not the resource's time to live: the controller has to see how it ended.
        ..Spec::image(spec.image.clone(), to)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(value: serde_json::Value) -> ImagePreheatSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_job_is_what_its_resource_says() {
        let spec = spec(json!({
            "image": "quay.io/team/app:2", "to": "runtime", "platforms": ["linux/amd64"], "zones": ["a"], "percent": 5,
            "parallelism": 4, "pullPolicy": { "timeoutSeconds": 60, "backoffLimit": 0 },
            "completionPolicy": { "activeDeadlineSeconds": 900, "ttlSecondsAfterFinished": 0 },
        }));
        let owner = Owner { uid: "u".into(), wish: fingerprint(&spec) };
        let job = job(&spec, vec!["node-1".into()], &owner);
        job.check().unwrap();
        assert_eq!((job.to, job.nodes.percent, job.nodes.names.len()), (Target::Runtime, Some(5), 1));
        assert_eq!((job.timeout_seconds, job.backoff_limit, job.active_deadline_seconds), (60, 0, Some(900)));
        assert!(job.ttl_seconds_after_finished >= 3600, "the end must be seen");
        assert!(!job.owner.unwrap().contains("app"), "an owner is shown to who may not know images' names");
    }

    #[test]
    fn nonsense_that_no_schema_stopped_is_refused_by_the_job() {
        for value in [
            json!({ "image": "a", "count": -1 }),
            json!({ "image": "a", "percent": 300 }),
            json!({ "image": "A B" }),
        ] {
            let spec = spec(value);
            let owner = Owner { uid: "u".into(), wish: fingerprint(&spec) };
            assert!(job(&spec, Vec::new(), &owner).check().is_err());
        }
    }

    #[test]
    fn pausing_is_no_other_wish_and_another_image_is() {
        let one = spec(json!({ "image": "a:1" }));
        let paused = spec(
            json!({ "image": "a:1", "paused": true, "completionPolicy": { "ttlSecondsAfterFinished": 5 } }),
        );
        assert_eq!(fingerprint(&one), fingerprint(&paused));
        assert_ne!(fingerprint(&one), fingerprint(&spec(json!({ "image": "a:2" }))));
    }
}
