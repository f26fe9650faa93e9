//! A schedule as the clerk keeps it: what is to be done now, and what follows from what came of it. Pure: time and dice are
//! passed in.
//!
//! # Invariants
//! - At most one job of it is under way, and at most one look.
//! - A tag's meaning is brought once: it is noted when its job begins, and forgotten if that job brought it to nobody.

use std::collections::VecDeque;

use common::digest::Digest;
use common::task::Credentials;
use time::{Duration, OffsetDateTime};

use super::keep::Kept;
use super::look::Failed;
use super::schedule::{Held, Reason, Refused, Rule, Run, RunResult, ScheduleId, Spec, View};
use crate::preheat::job;
use crate::preheat::{self, JobId, State};

/// Runs that are remembered.
const MOST_RUNS: usize = 10;
/// A run that is later than this was missed: the supernode was away.
const LATE: Duration = Duration::MINUTE;
/// When there are too many jobs.
const CROWDED: Duration = Duration::MINUTE;
/// A registry that does not answer is asked ever less often, down to this.
const RARELY: Duration = Duration::HOUR;
/// After a restart tags are looked at within so long, not all at once.
const SPREAD: Duration = Duration::MINUTE;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Find out what the tag means; it is told by [`Standing::looked`].
    Look,
    /// Begin a job; it is told by [`Standing::began`].
    Begin(Beginning),
}

/// A job that is to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beginning {
    /// What is wanted.
    pub(super) job: Box<job::Spec>,
    /// Why it begins.
    pub(super) reason: Reason,
    /// What the tag means.
    pub(super) digest: Option<Digest>,
}

/// A schedule.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) id: ScheduleId,
    pub(super) spec: Spec,
    pub(super) rule: Rule,
    pub(super) credentials: Credentials,
    /// It had some, which a restart has forgotten.
    forgotten: bool,
    created_at: OffsetDateTime,
    next: OffsetDateTime,
    /// Somebody wants it to run now.
    asked: bool,
    looking: bool,
    looked_at: Option<OffsetDateTime>,
    /// What was brought last.
    digest: Option<Digest>,
    /// Looks and jobs in a row that came to nothing.
    failures: u32,
    message: Option<String>,
    job: Option<JobId>,
    /// The newest first.
    runs: VecDeque<Run>,
}

// === impl Standing ===

impl Standing {
    /// A new one. What follows a tag looks at once.
    pub(super) fn new(
        id: ScheduleId,
        spec: Spec,
        credentials: Credentials,
        now: OffsetDateTime,
    ) -> Result<Self, Refused> {
        let rule = spec.rule()?;
        let next = match &rule {
            Rule::At(calendar) => calendar.next(now),
            Rule::Follow(..) => now,
        };
        Ok(Self {
            id,
            spec,
            rule,
            credentials,
            forgotten: false,
            created_at: now,
            next,
            asked: false,
            looking: false,
            looked_at: None,
            digest: None,
            failures: 0,
            message: None,
            job: None,
            runs: VecDeque::new(),
        })
    }

    /// One of an earlier life of the supernode; `dice` are from 0 to 1.
    pub(super) fn of_kept(kept: Kept, dice: f64, now: OffsetDateTime) -> Result<Self, Refused> {
        let Kept { id, spec, secret, created_at, next_at, digest, job, runs } = kept;
        let mut standing = Self::new(id, spec, Credentials::none(), now)?;
        (standing.forgotten, standing.created_at) = (secret, created_at);
        (standing.digest, standing.job, standing.runs) = (digest, job, runs.into());
        standing.next = match (&standing.rule, next_at) {
            (Rule::At(_), Some(at)) => at,
            (Rule::At(_), None) => standing.next,
            (Rule::Follow(_, every), _) => now + SPREAD.min(*every) * dice,
        };
        Ok(standing)
    }

    /// The job that is under way.
    pub(super) fn job(&self) -> Option<JobId> {
        self.job
    }

    /// When it must be asked for a step again; never while it is paused or looks.
    pub(super) fn due(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        match (self.looking, self.asked) {
            (true, _) => None,
            (false, true) if !self.follows() => Some(now),
            (false, asked) => (asked || !self.spec.paused).then_some(self.next),
        }
    }

    /// Whether its steps are looks.
    pub(super) fn follows(&self) -> bool {
        matches!(self.rule, Rule::Follow(..))
    }

    /// What is to be done now, if anything.
    pub(super) fn step(&mut self, now: OffsetDateTime) -> Option<Step> {
        if let Rule::Follow(_, every) = self.rule
            && self.next > now + every.max(Duration::DAY) * 2
        {
            // The clock was put back: nobody waits for it to come there again.
            self.next = now;
        }
        if self.due(now).is_none_or(|due| due > now) {
            return None;
        }
        if self.follows() {
            self.looking = true;
            return Some(Step::Look);
        }
        let reason = match (std::mem::take(&mut self.asked), now - self.next > LATE) {
            (true, _) => Reason::Asked,
            (false, true) => Reason::Missed,
            (false, false) => Reason::Due,
        };
        if let Rule::At(calendar) = &self.rule
            && reason != Reason::Asked
        {
            self.next = calendar.next(now);
        }
        match self.job {
            Some(job) => {
                self.skip(reason, job, now);
                None
            }
            None => Some(Step::Begin(Beginning {
                job: Box::new(self.spec.preheat.clone()),
                reason,
                digest: None,
            })),
        }
    }

    /// It cannot be looked before `from`.
    pub(super) fn put_off(&mut self, from: OffsetDateTime) {
        (self.looking, self.next) = (false, from);
    }

    /// What the tag means, or why that is not known. `dice` are from 0 to 1.
    pub(super) fn looked(
        &mut self,
        seen: Result<Digest, Failed>,
        dice: f64,
        now: OffsetDateTime,
    ) -> Option<Beginning> {
        self.looking = false;
        let Rule::Follow(image, every) = &self.rule else { return None };
        let asked = std::mem::take(&mut self.asked);
        let digest = match seen {
            Ok(digest) => digest,
            Err(Failed { why, rest }) => {
                self.failures += 1;
                self.next = now + self.wait(*every, dice).max(rest.unwrap_or_default());
                if asked {
                    self.note(Reason::Asked, RunResult::Failed, None, Some(why.clone()), now);
                }
                self.message = Some(self.lacking(&why));
                return None;
            }
        };
        self.looked_at = Some(now);
        self.next = now + self.wait(*every, dice);
        if self.digest == Some(digest) && !asked {
            (self.failures, self.message) = (0, None);
            return None;
        }
        if let Some(job) = self.job {
            self.message =
                Some(format!("the tag means {digest} now, which is brought when job {job} is over"));
            return None;
        }
        let reason = if asked { Reason::Asked } else { Reason::Moved };
        let job = Box::new(self.spec.pinned(image, digest));
        Some(Beginning { job, reason, digest: Some(digest) })
    }

    /// A job began, or could not.
    pub(super) fn began(
        &mut self,
        Beginning { reason, digest, .. }: &Beginning,
        job: Result<JobId, preheat::Refused>,
        now: OffsetDateTime,
    ) {
        match job {
            Ok(job) => {
                (self.job, self.digest, self.message) = (Some(job), *digest, None);
                self.note(*reason, RunResult::Running, Some(job), None, now);
            }
            // A storm of jobs is over soon, and the run is not lost.
            Err(full @ preheat::Refused::Crowded(_)) => {
                (self.message, self.next) = (Some(full.to_string()), self.next.min(now + CROWDED));
                self.asked = self.follows() && *reason == Reason::Asked;
                return;
            }
            Err(refused) => {
                self.failures += 1;
                self.message = Some(refused.to_string());
                self.note(*reason, RunResult::Failed, None, Some(refused.to_string()), now);
            }
        }
        if let Some(run) = self.runs.front_mut() {
            run.digest = digest.map(|digest| digest.to_string());
        }
    }

    /// How its job is: gone where there is no view. Whether it is over.
    pub(super) fn seen(&mut self, view: Option<&crate::preheat::View>) -> bool {
        if view.is_some_and(|view| !view.state.is_over()) {
            return false;
        }
        let job = self.job.take();
        let result = match view.map(|view| view.state) {
            Some(State::Succeeded) => RunResult::Succeeded,
            Some(State::Failed) => RunResult::Failed,
            _ => RunResult::Cancelled,
        };
        let message = view.and_then(|view| view.message.clone());
        if result == RunResult::Failed && view.is_some_and(|view| view.succeeded == 0) {
            // Nobody has what the tag means.
            (self.failures, self.digest) = (self.failures + 1, None);
        } else {
            self.failures = 0;
        }
        let lacking = message.as_deref().map(|why| self.lacking(why));
        self.message = lacking.filter(|_| self.forgotten && result == RunResult::Failed);
        if let Some(run) = self.runs.iter_mut().find(|run| run.job == job) {
            (run.result, run.message) = (result, message);
        }
        true
    }

    /// Nothing begins by itself until it is resumed.
    pub(super) fn pause(&mut self) {
        self.spec.paused = true;
    }

    /// It goes on; what was missed is not made up for.
    pub(super) fn resume(&mut self, now: OffsetDateTime) {
        if !std::mem::take(&mut self.spec.paused) {
            return;
        }
        self.next = match &self.rule {
            Rule::At(calendar) => calendar.next(now),
            Rule::Follow(..) => now,
        };
    }

    /// It is to run now.
    ///
    /// # Errors
    /// When it does.
    pub(super) fn ask(&mut self, now: OffsetDateTime) -> Result<(), Refused> {
        if let Some(job) = self.job {
            return Err(Refused::Busy(job));
        }
        self.asked = true;
        if self.follows() {
            self.next = now;
        }
        Ok(())
    }

    /// It has these credentials from now on; what did not go without them is tried at once.
    pub(super) fn open_with(&mut self, credentials: Credentials, now: OffsetDateTime) {
        (self.credentials, self.forgotten) = (credentials, false);
        if self.follows() && std::mem::take(&mut self.failures) > 0 {
            self.next = now;
        }
    }

    /// As it is shown; with so many runs.
    pub(super) fn view(&self, runs: usize) -> View {
        let held = match (self.credentials.is_empty(), self.forgotten) {
            (false, _) => Held::Memory,
            (true, true) => Held::Forgotten,
            (true, false) => Held::None,
        };
        View {
            id: self.id,
            spec: self.spec.clone(),
            credentials: held,
            created_at: self.created_at,
            next_at: (!self.looking && !self.spec.paused).then_some(self.next),
            looked_at: self.looked_at,
            digest: self.digest.map(|digest| digest.to_string()),
            message: self.message.clone(),
            runs: self.runs.iter().take(runs).cloned().collect(),
        }
    }

    /// As it is written down.
    pub(super) fn kept(&self) -> Kept {
        Kept {
            id: self.id,
            spec: self.spec.clone(),
            secret: self.forgotten || !self.credentials.is_empty(),
            created_at: self.created_at,
            next_at: Some(self.next),
            digest: self.digest,
            job: self.job,
            runs: self.runs.iter().cloned().collect(),
        }
    }

    /// How long until the next look.
    fn wait(&self, every: Duration, dice: f64) -> Duration {
        // Give or take a tenth, so that schedules that were made together drift apart.
        let jittered = every * (0.9 + 0.2 * dice);
        (jittered * 2_i32.pow(self.failures.min(10))).min(RARELY.max(jittered))
    }

    fn skip(&mut self, reason: Reason, job: JobId, now: OffsetDateTime) {
        let why = format!("job {job} of the run before was still under way");
        self.note(reason, RunResult::Skipped, None, Some(why), now);
    }

    /// What went wrong, and what may be the cause.
    fn lacking(&self, why: &str) -> String {
        match self.forgotten {
            true => format!(
                "{why}; its credentials were in memory only, and the supernode was restarted: make the same schedule again \
                 with them, or give the supernode a login (--registry-logins)"
            ),
            false => why.to_owned(),
        }
    }

    fn note(
        &mut self,
        reason: Reason,
        result: RunResult,
        job: Option<JobId>,
        message: Option<String>,
        at: OffsetDateTime,
    ) {
        self.runs.push_front(Run { at, reason, result, job, digest: None, message });
        self.runs.truncate(MOST_RUNS);
    }
}

#[cfg(test)]
mod tests;
