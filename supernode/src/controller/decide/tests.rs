//! What is done for a resource, and what its status says, by what its jobs are.

use serde_json::json;

use super::*;
use crate::preheat::{NodeView, Spec};

const ME: &str = "me";

fn resource(spec: serde_json::Value) -> ImagePreheat {
    let mut resource = ImagePreheat::new("warm", serde_json::from_value(spec).unwrap());
    (resource.metadata.uid, resource.metadata.generation) = (Some("uid-1".into()), Some(3));
    resource
}

fn at(second: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000 + second).unwrap()
}

/// A job as it would be made for this resource.
fn job(id: u64, resource: &ImagePreheat, state: State) -> View {
    let owner = Owner { uid: resource.uid().to_owned(), wish: wish::fingerprint(&resource.spec) };
    View {
        id: JobId(id),
        spec: wish::job(&resource.spec, Vec::new(), &owner),
        state,
        message: None,
        created_at: at(0),
        updated_at: at(0),
        finished_at: state.is_over().then(|| at(60)),
        contents: None,
        parts: Vec::new(),
        desired: 2,
        active: 0,
        succeeded: 2,
        failed: 0,
        failed_nodes: Vec::new(),
        nodes: Vec::new(),
    }
}

fn decided(resource: &ImagePreheat, last: &ImagePreheatStatus, jobs: &[View]) -> Verdict {
    decide(resource, last, jobs, ME, at(100))
}

fn told_of(verdict: Verdict) -> ImagePreheatStatus {
    match verdict.deed {
        Deed::Tell(status) => *status,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_resource_gets_a_job_and_the_same_is_not_begun_twice() {
    let resource = resource(json!({ "image": "a:1" }));
    let none = ImagePreheatStatus::default();
    let Verdict { stale, deed: Deed::Begin(owner) } = decided(&resource, &none, &[]) else { panic!() };
    assert_eq!((stale.len(), owner.uid.as_str()), (0, "uid-1"));
    let running = told_of(decided(&resource, &none, &[job(7, &resource, State::Running)]));
    assert_eq!((running.state, running.job, running.observed_generation), (Phase::Running, Some(7), 3));
    assert_eq!((running.supernode.as_str(), running.completion_time), (ME, None));
    assert!(running.conditions.is_empty());
}

#[test]
fn another_wish_is_another_job_and_what_was_for_the_last_one_goes() {
    let (old, new) = (resource(json!({ "image": "a:1" })), resource(json!({ "image": "a:2" })));
    let last = told_of(decided(&old, &ImagePreheatStatus::default(), &[job(7, &old, State::Running)]));
    let verdict = decided(&new, &last, &[job(7, &old, State::Running)]);
    assert_eq!(verdict.stale, [JobId(7)]);
    assert!(matches!(verdict.deed, Deed::Begin(_)));
    // Back again is another wish, too, though a job for it is there still.
    let verdict = decided(&old, &last, &[job(8, &new, State::Running), job(7, &old, State::Succeeded)]);
    assert_eq!(verdict.stale, [JobId(8), JobId(7)]);
    assert!(matches!(verdict.deed, Deed::Begin(_)));
}

#[test]
fn what_is_over_stays_over() {
    let resource = resource(json!({ "image": "a:1" }));
    let done =
        told_of(decided(&resource, &ImagePreheatStatus::default(), &[job(7, &resource, State::Succeeded)]));
    assert_eq!((done.state, done.conditions[0].kind.as_str()), (Phase::Succeeded, "Complete"));
    assert_eq!(done.completion_time.as_deref(), Some("2027-01-15T08:01:00Z"));
    // The job is forgotten, or another supernode leads: nothing begins.
    assert_eq!(told_of(decided(&resource, &done, &[])), done);
    // Nor when only the time to live changes.
    let mut kept = resource.clone();
    kept.spec.completion_policy.ttl_seconds_after_finished = Some(1_000);
    kept.metadata.generation = Some(4);
    assert_eq!(
        told_of(decided(&kept, &done, &[])),
        ImagePreheatStatus { observed_generation: 4, ..done.clone() }
    );
    // What was under way at another supernode is begun here, and keeps its start.
    let running =
        ImagePreheatStatus { state: Phase::Running, start_time: Some("2027-01-01T00:00:00Z".into()), ..done };
    assert!(matches!(decided(&resource, &running, &[]).deed, Deed::Begin(_)));
    let here = told_of(decided(&resource, &running, &[job(1, &resource, State::Running)]));
    assert_eq!(here.start_time.as_deref(), Some("2027-01-01T00:00:00Z"));
}

#[test]
fn credentials_that_a_restart_lost_are_brought_again() {
    let resource = resource(json!({ "image": "a:1", "pullSecrets": ["login"] }));
    let mut forgot = job(7, &resource, State::Failed);
    forgot.message = Some(
        "the supernode was restarted, and the job's credentials were in its memory only: start it again"
            .into(),
    );
    assert!(forgot.lost_credentials());
    let verdict = decided(&resource, &ImagePreheatStatus::default(), std::slice::from_ref(&forgot));
    assert_eq!(verdict.stale, [JobId(7)]);
    assert!(matches!(verdict.deed, Deed::Begin(_)));
    forgot.message = Some("no permission".into());
    let failed = told_of(decided(&resource, &ImagePreheatStatus::default(), &[forgot]));
    assert_eq!((failed.state, failed.conditions[0].reason.as_str()), (Phase::Failed, "CannotBegin"));
}

#[test]
fn a_pause_is_the_resources_word() {
    let running = resource(json!({ "image": "a:1" }));
    let paused = resource(json!({ "image": "a:1", "paused": true }));
    let none = ImagePreheatStatus::default();
    let deed = |resource: &ImagePreheat, state| decided(resource, &none, &[job(7, resource, state)]).deed;
    assert_eq!(deed(&paused, State::Running), Deed::Change(JobId(7), Change::Pause));
    assert_eq!(deed(&running, State::Paused), Deed::Change(JobId(7), Change::Resume));
    assert!(matches!(deed(&paused, State::Paused), Deed::Tell(status) if status.state == Phase::Paused));
    assert!(matches!(deed(&paused, State::Succeeded), Deed::Tell(_)));
}

#[test]
fn a_resource_goes_when_its_time_is_over() {
    let brief = |ttl: i64| {
        resource(json!({ "image": "a:1", "completionPolicy": { "ttlSecondsAfterFinished": ttl } }))
    };
    let none = ImagePreheatStatus::default();
    let deed = |ttl: i64, state| {
        let resource = brief(ttl);
        decided(&resource, &none, &[job(7, &resource, state)]).deed
    };
    assert_eq!(deed(40, State::Failed), Deed::Remove);
    assert!(matches!(deed(41, State::Succeeded), Deed::Tell(_)));
    assert!(matches!(deed(0, State::Running), Deed::Tell(_)));
    assert!(matches!(deed(i64::MAX, State::Succeeded), Deed::Tell(_)));
}

#[test]
fn failures_are_said_and_bounded() {
    let resource = resource(json!({ "image": "a:1" }));
    let mut failed = job(7, &resource, State::Failed);
    (failed.failed, failed.succeeded, failed.desired) = (200, 1, 201);
    failed.message = Some("x".repeat(5_000));
    failed.nodes = (0..200)
        .map(|number| NodeView {
            node: format!("id-{number}"),
            name: if number == 0 { String::new() } else { format!("node-{number}") },
            state: NodeState::Failed,
            attempts: 4,
            bytes: 0,
            parts_done: 0,
            under_way: Vec::new(),
            reason: Some("y".repeat(5_000)),
        })
        .collect();
    let status = told_of(decided(&resource, &ImagePreheatStatus::default(), &[failed]));
    assert_eq!((status.failures.len(), status.failures[0].node.as_str()), (MAX_FAILURES, "id-0"));
    assert_eq!(status.conditions[0].reason, "NodesFailed");
    assert!(serde_json::to_vec(&status).unwrap().len() < 16 * 1024);
}

#[test]
fn each_turn_is_told_once() {
    let resource = resource(json!({ "image": "a:1" }));
    let owner = Owner { uid: "uid-1".into(), wish: wish::fingerprint(&resource.spec) };
    let none = ImagePreheatStatus::default();
    let word =
        |status: &ImagePreheatStatus, last: &ImagePreheatStatus| status.news(last).map(|news| news.word);
    let waiting = not_begun(&resource, &owner, "no secret", None, at(0));
    assert_eq!((waiting.state, word(&waiting, &none)), (Phase::Pending, Some("Refused")));
    assert_eq!(word(&waiting, &waiting), None);
    let refused = not_begun(&resource, &owner, "nonsense", Some("Refused"), at(0));
    assert_eq!((refused.state, word(&refused, &waiting)), (Phase::Failed, Some("Refused")));
    let done = told_of(decided(&resource, &none, &[job(7, &resource, State::Succeeded)]));
    assert_eq!((word(&done, &none), word(&done, &done)), (Some("Succeeded"), None));
    let failed = told_of(decided(&resource, &none, &[job(8, &resource, State::Failed)]));
    assert_eq!(word(&failed, &none), Some("Failed"));
    let running = told_of(decided(&resource, &none, &[job(8, &resource, State::Running)]));
    assert_eq!(word(&running, &none), None);
}

#[test]
fn a_job_of_somebody_else_is_nobodys() {
    let mut other = job(7, &resource(json!({ "image": "a:1" })), State::Running);
    assert!(Owner::of(&other).is_some());
    for owner in [None, Some("mine"), Some("imagepreheats.longshore.dev/uid")] {
        other.spec = Spec { owner: owner.map(str::to_owned), ..other.spec };
        assert_eq!(Owner::of(&other), None);
    }
}
