//! Schedules by the clock and by their tags: when they run, what is made up for, what is skipped, and what outlives a restart.

use proptest::prelude::*;

use super::*;
use crate::preheat::job::Contents;
use crate::preheat::{Spec as Job, Target};

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH.saturating_add(Duration::days(20_000));

fn spec(schedule: Option<&str>, follow_seconds: Option<u64>) -> Spec {
    let preheat = Job::image("quay.test/team/app:1", Target::Cache);
    let schedule = schedule.map(str::to_owned);
    Spec { preheat, schedule, time_zone: None, follow_seconds, paused: false }
}

fn daily() -> Standing {
    Standing::new(ScheduleId(1), spec(Some("@daily"), None), Credentials::none(), NOW).unwrap()
}

fn following() -> Standing {
    Standing::new(ScheduleId(2), spec(None, Some(300)), Credentials::none(), NOW).unwrap()
}

/// How a job of one node is; what it comes to is known where it has begun.
fn view(state: State, contents: Option<Contents>) -> crate::preheat::View {
    crate::preheat::View {
        id: JobId(1),
        spec: Job::image("quay.test/team/app:1", Target::Cache),
        state,
        message: Some("no such manifest".into()),
        created_at: NOW,
        updated_at: NOW,
        finished_at: None,
        contents,
        desired: 0,
        active: 0,
        succeeded: u32::from(state == State::Succeeded),
        failed: 0,
        failed_nodes: Vec::new(),
        parts: Vec::new(),
        nodes: Vec::new(),
    }
}

/// Takes a step that begins a job, which begins.
fn begin(standing: &mut Standing, now: OffsetDateTime) -> Reason {
    let Some(Step::Begin(beginning)) = standing.step(now) else { panic!("nothing begins") };
    standing.began(&beginning, Ok(JobId(1)), now);
    beginning.reason
}

/// A look that finds this.
fn look(standing: &mut Standing, found: &[u8], now: OffsetDateTime) -> Option<Beginning> {
    assert_eq!(standing.step(now), Some(Step::Look));
    assert_eq!(standing.step(now), None, "one look at a time");
    standing.looked(Ok(Digest::of(found)), 0.5, now)
}

fn results(standing: &Standing) -> Vec<(Reason, RunResult)> {
    standing.view(10).runs.iter().map(|run| (run.reason, run.result)).collect()
}

#[test]
fn a_run_begins_when_it_is_time_and_one_that_comes_too_early_is_skipped() {
    let mut standing = daily();
    assert_eq!(standing.step(NOW), None);
    let (one, two, three) = (NOW + Duration::DAY, NOW + Duration::DAY * 2, NOW + Duration::DAY * 3);
    assert_eq!(begin(&mut standing, one), Reason::Due);
    assert_eq!(standing.step(one), None, "once");
    assert_eq!(standing.step(two), None, "the first is under way");
    assert!(!standing.seen(Some(&view(State::Running, None))));
    assert!(standing.seen(Some(&view(State::Succeeded, Some(Contents::default())))));
    assert_eq!(begin(&mut standing, three), Reason::Due);
    let skipped = (Reason::Due, RunResult::Skipped);
    assert_eq!(
        results(&standing),
        [(Reason::Due, RunResult::Running), skipped, (Reason::Due, RunResult::Succeeded)]
    );
    assert!(standing.view(10).runs[1].message.as_ref().unwrap().contains("job 1"));
}

#[test]
fn however_many_runs_were_missed_one_is_made_up_for() {
    let kept = daily().kept();
    let later = NOW + Duration::days(9) + Duration::HOUR;
    let mut standing = Standing::of_kept(kept, 0.5, later).unwrap();
    assert_eq!(begin(&mut standing, later), Reason::Missed);
    standing.seen(Some(&view(State::Succeeded, None)));
    assert_eq!(standing.step(later), None);
    assert_eq!(standing.due(later), Some(NOW + Duration::days(10)));
}

#[test]
fn nothing_begins_while_it_is_paused_except_what_is_asked_for() {
    let mut standing = daily();
    standing.pause();
    let late = NOW + Duration::days(5) + Duration::HOUR;
    assert_eq!((standing.step(late), standing.due(late)), (None, None));
    standing.ask(late).unwrap();
    assert_eq!(begin(&mut standing, late), Reason::Asked);
    assert_eq!(standing.ask(late), Err(Refused::Busy(JobId(1))));
    standing.seen(None);
    assert_eq!(results(&standing), [(Reason::Asked, RunResult::Cancelled)]);
    standing.resume(late);
    assert_eq!(standing.step(late), None, "what was missed meanwhile is not made up for");
    assert_eq!(standing.due(late), Some(NOW + Duration::days(6)));
    // What runs by hand does not move the next time.
    standing.ask(late).unwrap();
    begin(&mut standing, late);
    assert_eq!(standing.due(late), Some(NOW + Duration::days(6)));
}

#[test]
fn a_tag_is_brought_at_once_and_each_time_that_it_moves() {
    let (mut standing, mut now) = (following(), NOW);
    let beginning = look(&mut standing, b"a", now).expect("the first look");
    assert_eq!(beginning.reason, Reason::Moved);
    assert_eq!(beginning.job.image, Some(format!("quay.test/team/app:1@{}", Digest::of(b"a"))));
    standing.began(&beginning, Ok(JobId(1)), now);
    assert_eq!(standing.due(now), Some(now + Duration::seconds(300)));

    now += Duration::seconds(300);
    assert_eq!(look(&mut standing, b"b", now), None, "the first is under way");
    assert!(standing.view(1).message.unwrap().contains("job 1 is over"));
    standing.seen(Some(&view(State::Succeeded, Some(Contents::default()))));
    now += Duration::seconds(300);
    let beginning = look(&mut standing, b"b", now).expect("it has moved");
    standing.began(&beginning, Ok(JobId(2)), now);
    let some_have_it =
        crate::preheat::View { succeeded: 1, ..view(State::Failed, Some(Contents::default())) };
    standing.seen(Some(&some_have_it));
    assert_eq!(standing.view(1).message, None);

    // It is there, or is not for good: neither another look nor a restart brings it again.
    now += Duration::seconds(300);
    assert_eq!(look(&mut standing, b"b", now), None);
    let mut standing = Standing::of_kept(standing.kept(), 0.5, now).unwrap();
    assert_eq!(standing.due(now), Some(now + Duration::seconds(30)), "not all at once");
    now += Duration::seconds(30);
    assert_eq!(look(&mut standing, b"b", now), None);
    // Who asks gets it nevertheless.
    standing.ask(now).unwrap();
    assert_eq!(look(&mut standing, b"b", now).map(|beginning| beginning.reason), Some(Reason::Asked));
}

#[test]
fn what_could_not_be_read_or_begun_is_tried_again() {
    let (mut standing, mut now) = (following(), NOW);
    let beginning = look(&mut standing, b"a", now).unwrap();
    standing.began(&beginning, Err(preheat::Refused::Broken("the disk".into())), now);
    assert!(standing.view(1).message.unwrap().contains("the disk"));
    now += Duration::seconds(300);
    let beginning = look(&mut standing, b"a", now).expect("it was not brought");
    standing.began(&beginning, Ok(JobId(1)), now);
    standing.seen(Some(&view(State::Failed, None)));
    now = standing.due(now).unwrap();
    let beginning = look(&mut standing, b"a", now).expect("its manifest could not be read");
    standing.began(&beginning, Ok(JobId(2)), now);
    standing.seen(Some(&view(State::Failed, Some(Contents::default()))));
    now = standing.due(now).unwrap();
    assert!(look(&mut standing, b"a", now).is_some(), "nobody was there to have it");
}

#[test]
fn a_run_for_which_there_is_no_room_comes_a_minute_later() {
    let crowded = || Err(preheat::Refused::Crowded(256));
    let mut standing = daily();
    let at = standing.due(NOW).unwrap();
    let Some(Step::Begin(beginning)) = standing.step(at) else { panic!("nothing begins") };
    standing.began(&beginning, crowded(), at);
    assert_eq!((standing.due(at), results(&standing)), (Some(at + CROWDED), vec![]));
    assert_eq!(begin(&mut standing, at + CROWDED), Reason::Due);

    let mut standing = following();
    standing.ask(NOW).unwrap();
    let beginning = look(&mut standing, b"a", NOW).unwrap();
    standing.began(&beginning, crowded(), NOW);
    assert_eq!(standing.due(NOW), Some(NOW + CROWDED));
    assert_eq!(
        look(&mut standing, b"a", NOW + CROWDED).map(|beginning| beginning.reason),
        Some(Reason::Asked)
    );
}

#[test]
fn a_registry_that_fails_is_asked_ever_less_often_and_one_that_wants_rest_has_it() {
    let (mut standing, mut now) = (following(), NOW);
    let failed = |rest| Err(Failed { why: "502 Bad Gateway".into(), rest });
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert_eq!(standing.step(now), Some(Step::Look));
        assert_eq!(standing.looked(failed(None), 0.5, now), None);
        let due = standing.due(now).unwrap();
        waits.push((due - now).whole_seconds());
        now = due;
    }
    assert_eq!(waits, [600, 1200, 2400, 3600, 3600, 3600, 3600, 3600]);
    assert_eq!(standing.view(1).message.as_deref(), Some("502 Bad Gateway"));
    standing.step(now);
    standing.looked(failed(Some(Duration::hours(7))), 0.5, now);
    assert_eq!(standing.due(now), Some(now + Duration::hours(7)));
    now += Duration::hours(7);
    assert!(look(&mut standing, b"a", now).is_some());
    // Asked for by hand, a failure is a run that failed.
    let mut standing = following();
    standing.ask(NOW).unwrap();
    standing.step(NOW);
    standing.looked(failed(None), 0.5, NOW);
    assert_eq!(results(&standing), [(Reason::Asked, RunResult::Failed)]);
}

#[test]
fn credentials_that_a_restart_forgot_are_named_where_they_are_missed() {
    let secret = Credentials::authorization("Basic x");
    let standing = Standing::new(ScheduleId(3), spec(None, Some(60)), secret.clone(), NOW).unwrap();
    assert_eq!(standing.view(1).credentials, Held::Memory);
    let mut standing = Standing::of_kept(standing.kept(), 0.0, NOW).unwrap();
    assert_eq!(standing.view(1).credentials, Held::Forgotten);
    standing.step(NOW);
    standing.looked(Err(Failed { why: "401 Unauthorized".into(), rest: None }), 0.5, NOW);
    assert!(standing.view(1).message.unwrap().contains("--registry-logins"));
    assert!(standing.kept().secret, "the next restart knows it, too");
    assert!(standing.due(NOW).unwrap() > NOW);
    standing.open_with(secret, NOW);
    assert_eq!((standing.view(1).credentials, standing.due(NOW)), (Held::Memory, Some(NOW)));
    assert_eq!(following().view(1).credentials, Held::None);
}

#[test]
fn a_clock_that_is_put_back_stops_nobody() {
    let mut standing = following();
    let beginning = look(&mut standing, b"a", NOW).unwrap();
    standing.began(&beginning, Ok(JobId(1)), NOW);
    let before = NOW - Duration::days(400);
    assert_eq!(standing.step(before), Some(Step::Look));
}

#[derive(Clone, Debug)]
enum Deed {
    Wait(u32),
    Answer(u8),
    Fail,
    End(bool),
    Pause,
    Resume,
    Ask,
    Restart,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        (0..100_000_u32).prop_map(Deed::Wait),
        (0..3_u8).prop_map(Deed::Answer),
        Just(Deed::Fail),
        any::<bool>().prop_map(Deed::End),
        Just(Deed::Pause),
        Just(Deed::Resume),
        Just(Deed::Ask),
        Just(Deed::Restart),
    ];
    proptest::collection::vec(deed, 0..80)
}

proptest! {
    #[test]
    fn one_job_at_a_time_and_always_another_turn(follow: bool, deeds in deeds()) {
        let (mut standing, mut now) = (if follow { following() } else { daily() }, NOW);
        let (mut jobs, mut looking) = (0, false);
        for deed in deeds {
            let mut beginning = None;
            match deed {
                Deed::Wait(seconds) => now += Duration::seconds(seconds.into()),
                Deed::Answer(found) if looking => {
                    looking = false;
                    beginning = standing.looked(Ok(Digest::of(&[found])), 0.5, now);
                }
                Deed::Fail if looking => {
                    looking = false;
                    beginning = standing.looked(Err(Failed { why: "no".into(), rest: None }), 0.5, now);
                }
                Deed::Answer(_) | Deed::Fail => {}
                Deed::End(well) => {
                    if let Some(job) = standing.job() {
                        let state = if well { State::Succeeded } else { State::Failed };
                        let ended = standing.seen(Some(&view(state, None)));
                        prop_assert!(ended && job == JobId(jobs));
                    }
                }
                Deed::Pause => standing.pause(),
                Deed::Resume => standing.resume(now),
                Deed::Ask => prop_assert_eq!(standing.ask(now).is_err(), standing.job().is_some()),
                Deed::Restart => {
                    looking = false;
                    standing = Standing::of_kept(standing.kept(), 0.5, now).unwrap();
                }
            }
            for _ in 0..3 {
                match standing.step(now) {
                    Some(Step::Look) => { prop_assert!(!looking && follow); looking = true; }
                    Some(Step::Begin(begin)) => { prop_assert!(!follow && beginning.is_none()); beginning = Some(begin); }
                    None => {}
                }
            }
            if let Some(begin) = beginning {
                prop_assert!(standing.job().is_none());
                jobs += 1;
                standing.began(&begin, Ok(JobId(jobs)), now);
            }
            prop_assert!(standing.view(100).runs.len() <= MOST_RUNS);
            // It is never stuck: it looks, is paused, or has a next time.
            prop_assert!(looking || standing.spec.paused || standing.due(now).is_some());
        }
    }
}
