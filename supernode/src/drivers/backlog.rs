//! Pushes on their way to a job: which are to be asked for when, how often, and how many may wait. Pure: the time is passed
//! in. Filled by [`super::notifications`], emptied by [`super::worker`].
//!
//! A registry tells of a push before everybody can read it, so a job that could not read its manifest is begun again, a
//! few times and ever later.
//!
//! # Invariants
//! - An image waits once, whatever is told of it; at most [`MOST`] wait.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::digest::Digest;
use peer::image::reference::Reference;

use crate::preheat::job::{JobId, Refused, Spec, State, View};

/// Pushes that wait, each some hundred bytes and at most a few thousand.
pub(super) const MOST: usize = 1024;
/// How long until a manifest that could not be read is asked for again, doubled each time.
const FIRST: Duration = Duration::from_secs(1);
/// So often: for two minutes.
const ATTEMPTS: u32 = 8;
/// How often a job is looked at that has not read its manifest yet.
const LOOK: Duration = Duration::from_secs(1);
/// When a job is tried again that there was no room for.
const CROWDED: Duration = Duration::from_secs(5);

/// Those that wait, by image without its digest.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    waiting: HashMap<String, Push>,
    /// Orders what is due at the same time.
    count: u64,
}

#[derive(Clone, Debug)]
struct Push {
    digest: Option<Digest>,
    spec: Spec,
    attempts: u32,
    job: Option<JobId>,
    due: (Instant, u64),
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It waits.
    New,
    /// It waited already.
    Known,
    /// Too many wait.
    Full,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Begin this job.
    Begin(String, Box<Spec>),
    /// See how this job is.
    Look(String, JobId),
}

/// What is known of a push after a step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ended {
    /// It waits on.
    NotYet,
    /// The job that failed makes room for another try.
    Again(JobId),
    /// Its manifest was read: the job goes on by itself.
    Begun,
    /// Nothing comes of it, and why.
    Lost(String),
}

// === impl Backlog ===

impl Backlog {
    /// Takes a push on.
    pub(super) fn push(&mut self, image: &Reference, spec: Spec, now: Instant) -> Taken {
        let name = Reference { digest: None, ..image.clone() }.to_string();
        if let Some(known) = self.waiting.get_mut(&name) {
            if known.digest != image.digest {
                // What was pushed last is what the tag means.
                *known = Push { digest: image.digest, spec, attempts: 0, job: None, due: known.due };
            }
            return Taken::Known;
        }
        if self.waiting.len() >= MOST {
            return Taken::Full;
        }
        self.count += 1;
        let due = (now, self.count);
        self.waiting.insert(name, Push { digest: image.digest, spec, attempts: 0, job: None, due });
        Taken::New
    }

    /// When there is something to do; nothing waits where there is no answer.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.values().map(|push| push.due).min().map(|(due, _)| due)
    }

    /// What is to be done now. It is asked for again only after [`Self::began`] or [`Self::looked`].
    pub(super) fn next(&self, now: Instant) -> Option<Step> {
        let (name, push) = self.waiting.iter().min_by_key(|(_, push)| push.due)?;
        (push.due.0 <= now).then(|| match push.job {
            Some(job) => Step::Look(name.clone(), job),
            None => Step::Begin(name.clone(), Box::new(push.spec.clone())),
        })
    }

    /// The engine took the job of `spec`, or did not.
    pub(super) fn began(
        &mut self,
        name: &str,
        spec: &Spec,
        job: Result<JobId, Refused>,
        now: Instant,
    ) -> Ended {
        // Another revision may have been pushed meanwhile.
        let Some(push) = self.waiting.get_mut(name).filter(|push| push.spec == *spec) else {
            return Ended::NotYet;
        };
        match job {
            Ok(job) => {
                push.job = Some(job);
                self.put_off(name, LOOK, now);
                Ended::NotYet
            }
            Err(Refused::Crowded(_)) => {
                self.put_off(name, CROWDED, now);
                Ended::NotYet
            }
            Err(refused) => {
                self.waiting.remove(name);
                Ended::Lost(refused.to_string())
            }
        }
    }

    /// How the job is.
    pub(super) fn looked(
        &mut self,
        name: &str,
        job: JobId,
        seen: Result<View, Refused>,
        now: Instant,
    ) -> Ended {
        let Some(push) = self.waiting.get_mut(name).filter(|push| push.job == Some(job)) else {
            return Ended::NotYet;
        };
        let unread = |view: &View| view.contents.is_none() && view.state == State::Failed;
        match seen {
            Ok(view) if unread(&view) => {
                push.attempts += 1;
                if push.attempts >= ATTEMPTS {
                    self.waiting.remove(name);
                    return Ended::Lost(view.message.unwrap_or_else(|| "its manifest cannot be read".into()));
                }
                push.job = None;
                let wait = FIRST * 2_u32.pow(push.attempts - 1);
                self.put_off(name, wait, now);
                Ended::Again(job)
            }
            Ok(view) if view.contents.is_none() && !view.state.is_over() => {
                self.put_off(name, LOOK, now);
                Ended::NotYet
            }
            // Who removed or cancelled it knows why.
            Ok(_) | Err(_) => {
                self.waiting.remove(name);
                Ended::Begun
            }
        }
    }

    fn put_off(&mut self, name: &str, wait: Duration, now: Instant) {
        self.count += 1;
        let due = (now + wait, self.count);
        if let Some(push) = self.waiting.get_mut(name) {
            push.due = due;
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::preheat::job::{Contents, Target};

    fn image(number: usize, digest: Option<&[u8]>) -> Reference {
        let name = format!("h.io/team/app{number}:1");
        Reference { digest: digest.map(Digest::of), ..Reference::of_image(&name).unwrap() }
    }

    fn spec(image: &Reference) -> Spec {
        Spec::image(image.to_string(), Target::Cache)
    }

    fn view(state: State, contents: Option<Contents>) -> View {
        let then = OffsetDateTime::UNIX_EPOCH;
        View {
            id: JobId(1),
            spec: spec(&image(0, None)),
            state,
            message: Some("there is no such manifest".into()),
            created_at: then,
            updated_at: then,
            finished_at: None,
            contents,
            desired: 0,
            active: 0,
            succeeded: 0,
            failed: 0,
            failed_nodes: Vec::new(),
            parts: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// The name of the one push, which is to be begun.
    fn begun(backlog: &mut Backlog, now: Instant) -> String {
        let Some(Step::Begin(name, spec)) = backlog.next(now) else { panic!("nothing to begin") };
        assert_eq!(backlog.began(&name, &spec, Ok(JobId(1)), now), Ended::NotYet);
        name
    }

    #[test]
    fn a_storm_is_held_to_so_many_and_an_image_waits_once() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let mut taken = HashMap::<&str, usize>::new();
        for number in 0..10_000 {
            let image = image(number % 5_000, None);
            *taken
                .entry(match backlog.push(&image, spec(&image), now) {
                    Taken::New => "new",
                    Taken::Known => "known",
                    Taken::Full => "full",
                })
                .or_default() += 1;
        }
        assert_eq!(taken, HashMap::from([("new", MOST), ("known", MOST), ("full", 10_000 - 2 * MOST)]));
        // First come, first served; and what ends makes room.
        let Some(Step::Begin(name, spec)) = backlog.next(now) else { panic!("nothing to do") };
        assert_eq!(name, image(0, None).to_string());
        assert!(matches!(
            backlog.began(&name, &spec, Err(Refused::Nonsense("x".into())), now),
            Ended::Lost(_)
        ));
        let one = image(9_999, None);
        assert_eq!(backlog.push(&one, (*spec).clone(), now), Taken::New);
        assert_eq!(backlog.push(&image(8_888, None), *spec, now), Taken::Full);
    }

    #[test]
    fn a_manifest_that_cannot_be_read_yet_is_asked_for_again_and_not_for_ever() {
        let (mut backlog, mut now) = (Backlog::default(), Instant::now());
        let image = image(0, Some(b"a"));
        assert_eq!(backlog.push(&image, spec(&image), now), Taken::New);
        let began = now;
        for attempt in 1..=ATTEMPTS {
            let name = begun(&mut backlog, now);
            assert_eq!(backlog.next(now), None, "it is looked at a moment later");
            now = backlog.due().unwrap();
            assert_eq!(backlog.next(now), Some(Step::Look(name.clone(), JobId(1))));
            let ended = backlog.looked(&name, JobId(1), Ok(view(State::Failed, None)), now);
            if attempt == ATTEMPTS {
                assert_eq!(ended, Ended::Lost("there is no such manifest".into()));
            } else {
                assert_eq!(ended, Ended::Again(JobId(1)));
                assert!(backlog.due().unwrap() > now);
                now = backlog.due().unwrap();
            }
        }
        assert_eq!(backlog.due(), None);
        let waited = now - began;
        assert!(waited > Duration::from_secs(100) && waited < Duration::from_secs(300), "{waited:?}");
    }

    #[test]
    fn a_job_that_has_read_its_manifest_goes_on_by_itself() {
        for (state, contents, ended) in [
            (State::Pending, None, Ended::NotYet),
            (State::Paused, None, Ended::NotYet),
            (State::Running, Some(Contents::default()), Ended::Begun),
            (State::Failed, Some(Contents::default()), Ended::Begun),
            (State::Succeeded, Some(Contents::default()), Ended::Begun),
            (State::Cancelled, None, Ended::Begun),
        ] {
            let (mut backlog, now) = (Backlog::default(), Instant::now());
            backlog.push(&image(0, None), spec(&image(0, None)), now);
            let name = begun(&mut backlog, now);
            assert_eq!(backlog.looked(&name, JobId(1), Ok(view(state, contents)), now), ended, "{state:?}");
            assert_eq!(backlog.due().is_some(), ended == Ended::NotYet, "{state:?}");
        }
    }

    #[test]
    fn what_there_is_no_room_for_waits() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        backlog.push(&image(0, None), spec(&image(0, None)), now);
        let Some(Step::Begin(name, spec)) = backlog.next(now) else { panic!("nothing to do") };
        assert_eq!(backlog.began(&name, &spec, Err(Refused::Crowded(100)), now), Ended::NotYet);
        assert_eq!(backlog.next(now), None);
        assert!(matches!(backlog.next(backlog.due().unwrap()), Some(Step::Begin(..))));
    }

    #[test]
    fn what_was_pushed_last_is_what_the_tag_means() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        let (old, new) = (image(0, Some(b"old")), image(0, Some(b"new")));
        backlog.push(&old, spec(&old), now);
        let Some(Step::Begin(name, asked)) = backlog.next(now) else { panic!("nothing to do") };
        assert_eq!(backlog.push(&new, spec(&new), now), Taken::Known);
        assert_eq!(backlog.began(&name, &asked, Ok(JobId(1)), now), Ended::NotYet);
        assert_eq!(
            backlog.next(now),
            Some(Step::Begin(name.clone(), Box::new(spec(&new)))),
            "the old job is not it"
        );
        assert_eq!(backlog.began(&name, &spec(&new), Ok(JobId(2)), now), Ended::NotYet);
        assert_eq!(backlog.looked(&name, JobId(1), Ok(view(State::Running, None)), now), Ended::NotYet);
    }
}
