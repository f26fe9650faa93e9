//! What a schedule is: what is wanted of it ([`Spec`]), and how it goes ([`View`]).

use std::fmt;
use std::str::FromStr;

use peer::image::reference::Reference;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::calendar::Calendar;
use crate::preheat::job::{self, JobId, Target};

/// The shortest time between two looks at a tag.
const LEAST_FOLLOW: u64 = 30;
/// The longest: a week.
const MOST_FOLLOW: u64 = 7 * 24 * 3600;

/// A schedule's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct ScheduleId(pub u64);

/// What is wanted: a job, and either `schedule` or `follow_seconds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ScheduleSpec)]
pub struct Spec {
    /// The job that begins each time.
    pub preheat: job::Spec,
    /// When: five fields as cron has them (minute, hour, day, month, weekday), or `@hourly`, `@daily`, `@weekly`, `@monthly`,
    /// `@yearly`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The time zone of `schedule`, as `Europe/Berlin`; none is UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// When the image's tag moves: the registry is asked this often, give or take a tenth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 30, maximum = 604_800)]
    pub follow_seconds: Option<u64>,
    /// Nothing begins by itself until it is resumed.
    #[serde(default)]
    pub paused: bool,
}

/// When a schedule's job begins.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    /// At these times.
    At(Calendar),
    /// When the tag of this image moves, which is looked for this often.
    Follow(Reference, time::Duration),
}

/// Whether a schedule has credentials of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ScheduleCredentials)]
pub enum Held {
    /// It was given none: the registry is asked with the supernode's login for it (`--registry-logins`), or without any.
    None,
    /// In memory: a restart of the supernode forgets them.
    Memory,
    /// A restart has forgotten them: make the same schedule again with credentials, or give the supernode a login for the
    /// registry (`--registry-logins`).
    Forgotten,
}

/// Why a run began, or should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ScheduleReason)]
pub enum Reason {
    /// It was time.
    Due,
    /// It was time while the supernode was away, however often.
    Missed,
    /// The tag means something else than was brought last.
    Moved,
    /// Somebody asked for it.
    Asked,
}

/// What came of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ScheduleResult)]
pub enum RunResult {
    /// Its job is under way.
    Running,
    /// All nodes have it.
    Succeeded,
    /// Its job failed, or could not be begun.
    Failed,
    /// Somebody cancelled or removed its job.
    Cancelled,
    /// The run before was still under way.
    Skipped,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ScheduleRun)]
pub struct Run {
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
    /// Why.
    pub reason: Reason,
    /// What came of it.
    pub result: RunResult,
    /// Its job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// What the tag meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A schedule, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Schedule)]
pub struct View {
    /// Its number.
    pub id: ScheduleId,
    /// What is wanted.
    pub spec: Spec,
    /// Whether it has credentials of its own.
    pub credentials: Held,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// When it runs next, or looks at its tag; none while it is paused or looks.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_at: Option<OffsetDateTime>,
    /// When the registry last said what the tag means.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub looked_at: Option<OffsetDateTime>,
    /// What the tag meant when it was last brought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What is in its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its last runs, the newest first: ten at most, one where all schedules are asked for.
    pub runs: Vec<Run>,
}

/// Why a schedule is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It makes no sense.
    #[error("{0}")]
    Nonsense(String),
    /// There is no such schedule.
    #[error("there is no preheat schedule {0}: `longshore preheats schedules` lists those that there are")]
    Unknown(ScheduleId),
    /// It is to run, and does.
    #[error("the schedule's job {0} is still under way: wait for its end, or cancel it")]
    Busy(JobId),
    /// There are too many.
    #[error("there are {0} preheat schedules already: remove some")]
    Crowded(usize),
    /// It cannot be written down.
    #[error("the schedule cannot be kept: {0}")]
    Broken(String),
}

// === impl ScheduleId ===

impl fmt::Display for ScheduleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ScheduleId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

// === impl Spec ===

impl Spec {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// With what does not, and what would.
    pub fn check(&self) -> Result<(), Refused> {
        self.rule().map(drop)
    }

    /// The same wish, whether it is paused or not.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        Self { paused: other.paused, ..self.clone() } == *other
    }

    /// When its job begins.
    pub(super) fn rule(&self) -> Result<Rule, Refused> {
        let refuse = |why: &str| Err(Refused::Nonsense(why.to_owned()));
        self.preheat.check().map_err(|refused| Refused::Nonsense(refused.to_string()))?;
        if self.preheat.paused {
            return refuse("a schedule's job cannot begin paused: pause the schedule");
        }
        match (&self.schedule, self.follow_seconds) {
            (Some(_), Some(_)) => refuse("a schedule has times or follows a tag: make two"),
            (None, None) => refuse("it is not said when: give `schedule` or `follow_seconds`"),
            (Some(line), None) => {
                let calendar = Calendar::read(line, self.time_zone.as_deref());
                calendar.map(Rule::At).map_err(Refused::Nonsense)
            }
            (None, Some(_)) if self.time_zone.is_some() => {
                refuse("who follows a tag needs no time zone: leave `time_zone` out")
            }
            (None, Some(seconds)) if !(LEAST_FOLLOW..=MOST_FOLLOW).contains(&seconds) => {
                refuse(&format!("follow_seconds must be from {LEAST_FOLLOW} to {MOST_FOLLOW}"))
            }
            (None, Some(seconds)) => {
                let image = self.preheat.image.as_deref().and_then(|image| Reference::of_image(image).ok());
                match image {
                    None => refuse("only an image has a tag that can be followed: files go by `schedule`"),
                    Some(image) if image.digest.is_some() => {
                        refuse("a digest never moves: name the image by its tag alone")
                    }
                    Some(image) => Ok(Rule::Follow(image, time::Duration::seconds(seconds as i64))),
                }
            }
        }
    }

    /// The job that brings what the tag means now. A runtime knows an image by its tag.
    pub(super) fn pinned(&self, image: &Reference, digest: common::digest::Digest) -> job::Spec {
        let digest = (self.preheat.to != Target::Runtime).then_some(digest);
        job::Spec { image: Some(Reference { digest, ..image.clone() }.spelled()), ..self.preheat.clone() }
    }
}

// === impl View ===

impl View {
    /// The same without what images and files are called: reasons name them, too.
    pub fn unnamed(mut self) -> Self {
        (self.spec.preheat.image, self.spec.preheat.files, self.message) = (None, Vec::new(), None);
        self.runs.iter_mut().for_each(|run| run.message = None);
        self
    }
}

#[cfg(test)]
mod tests {
    use common::digest::Digest;

    use super::*;

    fn read(text: &str) -> Result<Spec, String> {
        let spec: Spec = serde_json::from_str(text).map_err(|error| error.to_string())?;
        spec.check().map_err(|error| error.to_string()).map(|()| spec)
    }

    #[test]
    fn nonsense_is_named() {
        for (text, word) in [
            (r#"{"preheat":{"image":"a"}}"#, "when"),
            (r#"{"preheat":{"image":"a"},"schedule":"@daily","follow_seconds":60}"#, "make two"),
            (r#"{"preheat":{"image":"A B"},"schedule":"@daily"}"#, "names no image"),
            (r#"{"preheat":{"image":"a","paused":true},"schedule":"@daily"}"#, "pause the schedule"),
            (r#"{"preheat":{"image":"a"},"schedule":"daily"}"#, "five fields"),
            (r#"{"preheat":{"image":"a"},"schedule":"@daily","time_zone":"Mars"}"#, "no time zone"),
            (r#"{"preheat":{"image":"a"},"follow_seconds":60,"time_zone":"UTC"}"#, "leave `time_zone` out"),
            (r#"{"preheat":{"image":"a"},"follow_seconds":29}"#, "from 30"),
            (r#"{"preheat":{"image":"a"},"follow_seconds":604801}"#, "to 604800"),
            (r#"{"preheat":{"files":[{"url":"https://h/a"}]},"follow_seconds":60}"#, "only an image"),
            (
                r#"{"preheat":{"image":"a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"follow_seconds":60}"#,
                "never moves",
            ),
            (r#"{"preheat":{"image":"a"},"schedule":"@daily","speed":1}"#, "speed"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!(read(r#"{"preheat":{"files":[{"url":"https://h/a"}]},"schedule":"@weekly"}"#).is_ok());
    }

    #[test]
    fn what_a_tag_means_is_brought_by_its_digest_except_into_runtimes() {
        let digest = Digest::of(b"");
        for (to, name) in [
            ("cache", format!("quay.io/team/app:1@{digest}")),
            ("peers", format!("quay.io/team/app:1@{digest}")),
            ("runtime", "quay.io/team/app:1".to_owned()),
        ] {
            let text =
                format!(r#"{{"preheat":{{"image":"quay.io/team/app:1","to":"{to}"}},"follow_seconds":60}}"#);
            let spec = read(&text).unwrap();
            let Ok(Rule::Follow(image, _)) = spec.rule() else { panic!("it follows") };
            let job = spec.pinned(&image, digest);
            assert_eq!(job.image, Some(name));
            job.check().unwrap();
        }
        // A host without a dot keeps what says that it is one.
        let spec = read(r#"{"preheat":{"image":"oci://registry/app:1"},"follow_seconds":60}"#).unwrap();
        let Ok(Rule::Follow(image, _)) = spec.rule() else { panic!("it follows") };
        assert_eq!(spec.pinned(&image, digest).image, Some(format!("oci://registry/app:1@{digest}")));
    }
}
