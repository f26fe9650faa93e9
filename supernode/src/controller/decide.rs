//! A resource and the jobs that are for it → what is to be done, and what its status says. Pure.
//!
//! # Invariants
//! - A resource has one job at most that is not over; it is for what the resource says now.
//! - What is over stays so until the resource wants something else: neither a restart nor a job that is forgotten begins it again.
//! - A job that failed because the supernode forgot its credentials is begun again: they are in the Secret still.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::resource::{Condition, Failure, ImagePreheat, ImagePreheatStatus, Phase};
use super::wish::{self, Owner};
use crate::preheat::{Change, JobId, NodeState, State, View};

/// Nodes whose reasons are said.
const MAX_FAILURES: usize = 20;
/// Of a reason; objects of Kubernetes are small.
const MAX_WORDS: usize = 512;

/// What is to be done for a resource, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Jobs that are for it no more.
    pub(super) stale: Vec<JobId>,
    /// And then.
    pub(super) deed: Deed,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// It is over, or goes its way; this is how it is.
    Tell(Box<ImagePreheatStatus>),
    /// The job is to be changed first.
    Change(JobId, Change),
    /// There is no job for what it wants.
    Begin(Owner),
    /// Its time is over.
    Remove,
}

/// A word for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct News {
    /// Whether somebody should look.
    pub(super) warning: bool,
    /// The word.
    pub(super) word: &'static str,
    /// And a sentence.
    pub(super) sentence: String,
}

/// What follows. `jobs` are those of this supernode, `me`, that are for it, the newest first; `last` is what its status says.
pub(super) fn decide(
    resource: &ImagePreheat,
    last: &ImagePreheatStatus,
    jobs: &[View],
    me: &str,
    now: OffsetDateTime,
) -> Verdict {
    let wish = wish::fingerprint(&resource.spec);
    let newest = jobs.first().filter(|job| !job.lost_credentials());
    let current = newest.filter(|job| Owner::of(job).is_some_and(|owner| owner.wish == wish));
    let stale = jobs.iter().map(|job| job.id).filter(|id| current.is_none_or(|job| job.id != *id)).collect();
    let deed = match current {
        Some(job) => match change(resource, job) {
            Some(change) => Deed::Change(job.id, change),
            None => Deed::Tell(Box::new(told(resource, last, job, wish, me))),
        },
        None if last.state.is_over() && last.wish == wish => Deed::Tell(Box::new(ImagePreheatStatus {
            observed_generation: generation(resource),
            ..last.clone()
        })),
        None => Deed::Begin(Owner { uid: resource.uid().to_owned(), wish }),
    };
    let ended = match &deed {
        Deed::Tell(status) => status.completion_time.as_deref(),
        _ => None,
    };
    match removal(resource, ended) {
        Some(at) if at <= now => Verdict { stale, deed: Deed::Remove },
        _ => Verdict { stale, deed },
    }
}

fn change(resource: &ImagePreheat, job: &View) -> Option<Change> {
    match (resource.spec.paused, job.state) {
        (true, State::Pending | State::Running) => Some(Change::Pause),
        (false, State::Paused) => Some(Change::Resume),
        _ => None,
    }
}

/// When a resource is to go, of which it is known when it ended.
fn removal(resource: &ImagePreheat, ended: Option<&str>) -> Option<OffsetDateTime> {
    let ttl = resource.spec.completion_policy.ttl_seconds_after_finished?;
    let ended = OffsetDateTime::parse(ended?, &Rfc3339).ok()?;
    ended.checked_add(time::Duration::seconds(ttl.max(0)))
}

fn generation(resource: &ImagePreheat) -> i64 {
    resource.metadata.generation.unwrap_or_default()
}

/// The status that a job of `me` comes to.
pub(super) fn told(
    resource: &ImagePreheat,
    last: &ImagePreheatStatus,
    job: &View,
    wish: String,
    me: &str,
) -> ImagePreheatStatus {
    let state = match job.state {
        State::Pending => Phase::Pending,
        State::Running => Phase::Running,
        State::Paused => Phase::Paused,
        State::Succeeded => Phase::Succeeded,
        State::Failed | State::Cancelled => Phase::Failed,
    };
    let word = match (job.state, job.failed) {
        (State::Cancelled, _) => "Cancelled",
        (State::Failed, 0) => "CannotBegin",
        (State::Failed, _) => "NodesFailed",
        _ => "AllNodesHaveIt",
    };
    let failed = job.nodes.iter().filter(|node| node.state == NodeState::Failed);
    let failure = |node: &crate::preheat::NodeView| Failure {
        node: if node.name.is_empty() { node.node.clone() } else { node.name.clone() },
        reason: cut(node.reason.as_deref().unwrap_or_default()),
    };
    let cancelled =
        || (job.state == State::Cancelled).then(|| format!("somebody cancelled the job {}", job.id));
    let message = job.message.as_deref().map(cut).or_else(cancelled);
    // It was begun once, on whichever supernode.
    let begun = last.start_time.clone().filter(|_| last.wish == wish);
    let mut status = ImagePreheatStatus {
        observed_generation: generation(resource),
        wish,
        supernode: me.to_owned(),
        job: i64::try_from(job.id.0).ok(),
        state,
        desired: job.desired.into(),
        active: job.active.into(),
        succeeded: job.succeeded.into(),
        failed: job.failed.into(),
        failed_nodes: job.failed_nodes.clone(),
        failures: failed.take(MAX_FAILURES).map(failure).collect(),
        message,
        start_time: begun.or_else(|| date(job.created_at)),
        completion_time: None,
        conditions: Vec::new(),
    };
    if state.is_over() {
        end(&mut status, word, job.finished_at.unwrap_or(job.updated_at));
    }
    status
}

/// The status of a resource that is not begun, and why: `over` where trying again would not help.
pub(super) fn not_begun(
    resource: &ImagePreheat,
    owner: &Owner,
    why: &str,
    over: Option<&str>,
    now: OffsetDateTime,
) -> ImagePreheatStatus {
    let mut status = ImagePreheatStatus {
        observed_generation: generation(resource),
        wish: owner.wish.clone(),
        message: Some(cut(why)),
        ..ImagePreheatStatus::default()
    };
    if let Some(word) = over {
        (status.state, status.start_time) = (Phase::Failed, date(now));
        end(&mut status, word, now);
    }
    status
}

fn end(status: &mut ImagePreheatStatus, word: &str, at: OffsetDateTime) {
    let kind = if status.state == Phase::Succeeded { "Complete" } else { "Failed" };
    status.completion_time = date(at);
    status.conditions = vec![Condition {
        kind: kind.to_owned(),
        status: "True".to_owned(),
        last_transition_time: status.completion_time.clone().unwrap_or_default(),
        reason: word.to_owned(),
        message: status.message.clone().unwrap_or_default(),
        observed_generation: status.observed_generation,
    }];
}

/// To the second, as Kubernetes has dates.
fn date(at: OffsetDateTime) -> Option<String> {
    at.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).ok()?.format(&Rfc3339).ok()
}

fn cut(words: &str) -> String {
    words.chars().take(MAX_WORDS).collect()
}

// === impl ImagePreheatStatus ===

impl ImagePreheatStatus {
    /// What is to be said to people, now that it is so and was otherwise.
    pub(super) fn news(&self, last: &Self) -> Option<News> {
        let turned = self.wish != last.wish || self.state != last.state;
        // What waits with a message waits for somebody to mend something.
        let waits = self.state == Phase::Pending && self.job.is_none() && self.message.is_some();
        let word = match self.state {
            Phase::Succeeded if turned => "Succeeded",
            Phase::Failed if turned && self.job.is_some() => "Failed",
            Phase::Failed if turned => "Refused",
            Phase::Pending if waits && (turned || self.message != last.message) => "Refused",
            _ => return None,
        };
        let done = || format!("{} of {} nodes have it", self.succeeded, self.desired);
        let sentence = self.message.clone().unwrap_or_else(done);
        Some(News { warning: word != "Succeeded", word, sentence })
    }
}

#[cfg(test)]
mod tests;
