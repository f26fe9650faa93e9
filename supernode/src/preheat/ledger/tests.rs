//! A job, from its wish to its end.

use common::node::Labels;
use common::task::Source;
use peer::errand::Seen;

use super::super::choice::Choice;
use super::*;

const SEED: NodeId = NodeId([255; 16]);

fn node(number: u8) -> NodeId {
    NodeId([number; 16])
}

fn candidates(count: u8) -> Vec<Candidate> {
    let labels = |number: u8| Labels { host: format!("node-{number}"), ..Labels::default() };
    (0..count).map(|number| Candidate { node: node(number), labels: labels(number) }).collect()
}

fn load() -> Load {
    load_of("a")
}

fn load_of(revision: &str) -> Load {
    let source =
        Source { url: "https://origin.example/a".into(), digest: None, tag: revision.into(), accept: None };
    Load::of_sources(vec![(source, Some(9))], Credentials::none())
}

fn job(names: &[&str]) -> Job {
    let mut spec = Spec::image("quay.test/team/app:1", Target::Peers);
    spec.nodes = Choice { names: names.iter().map(|&name| name.to_owned()).collect(), ..Choice::default() };
    Job::new(JobId(7), spec, Credentials::none(), Now::read())
}

#[test]
fn a_job_ends_when_all_its_nodes_have_it_and_names_those_that_have_not() {
    let now = Now::read();
    let mut all = job(&[]);
    assert_eq!(all.found(load(), SEED, &candidates(2), now).len(), 2);
    for number in 0..2 {
        all.apply(Event::Done(node(number), 5), now);
    }
    let view = all.view(true);
    assert_eq!((view.state, view.succeeded, view.nodes.len()), (State::Succeeded, 2, 2));
    assert!(all.load.is_none() && all.expires().is_some());

    let mut some = job(&["node-1", "ghost"]);
    some.found(load(), SEED, &candidates(2), now);
    some.apply(Event::Done(node(1), 5), now);
    let view = some.view(false);
    assert_eq!((view.state, view.desired, view.succeeded, view.failed), (State::Failed, 2, 1, 1));
    assert_eq!((view.failed_nodes, view.nodes.len()), (vec!["ghost".to_owned()], 0));
    assert!(view.message.unwrap().contains("no node of this name"));

    let mut none = job(&["ghost"]);
    assert_eq!(none.found(load(), SEED, &candidates(2), now), []);
    assert_eq!(none.view(false).state, State::Failed);
}

#[test]
fn a_node_tells_which_parts_it_has_and_which_it_fetches() {
    let now = Now::read();
    let mut job = job(&[]);
    job.found(load(), SEED, &candidates(1), now);
    let seen = Seen { held: 7, total: 9, done: 99, under_way: vec![(0, 7)] };
    job.apply(Event::Progress(node(0), seen), now);
    let view = job.view(true);
    assert_eq!((view.parts.len(), view.nodes[0].bytes), (1, 7));
    assert_eq!(view.nodes[0].parts_done, 1, "no more than there are");
    assert_eq!(view.nodes[0].under_way, [PartProgress { part: 0, bytes: 7 }]);
    assert!(job.view(false).parts.is_empty());
    assert!(job.kept().nodes[0].under_way.is_empty(), "a restart begins anew");
    job.pause(now);
    assert!(job.view(true).nodes[0].under_way.is_empty());
    job.resume(now);
    job.apply(Event::Done(node(0), 9), now);
    let view = job.view(true);
    assert_eq!((view.nodes[0].parts_done, view.parts.len()), (1, 1));
    assert_eq!(Job::of_kept(job.kept(), now).view(true).parts, view.parts);
}

#[test]
fn after_a_restart_it_goes_on_with_the_nodes_that_it_was_for() {
    let now = Now::read();
    let mut before = job(&["node-0", "node-1", "ghost"]);
    before.found(load(), SEED, &candidates(3), now);
    before.apply(Event::Done(node(0), 5), now);
    let mut after = Job::of_kept(before.kept(), now);
    let view = after.view(false);
    assert_eq!((view.state, view.desired, view.active), (State::Pending, 3, 0));
    assert!(after.is_to_be_found(now.instant));
    assert_eq!(after.found(load(), SEED, &[], now), [Command::Start(node(1))]);
    after.apply(Event::Done(node(1), 5), now);
    let view = after.view(false);
    assert_eq!((view.state, view.succeeded), (State::Failed, 2));
    assert_eq!(view.failed_nodes, ["ghost"]);
    // What is over stays as it was.
    assert_eq!(Job::of_kept(after.kept(), now).view(true), after.view(true));
}

#[test]
fn credentials_that_are_gone_end_a_job() {
    let now = Now::read();
    let spec = Spec::image("quay.test/team/app:1", Target::Cache);
    let secret = Job::new(JobId(1), spec, Credentials::authorization("Basic x"), now);
    let view = Job::of_kept(secret.kept(), now).view(false);
    assert_eq!((view.state, view.lost_credentials()), (State::Failed, true));
    assert!(!Job::new(JobId(2), view.spec, Credentials::none(), now).view(false).lost_credentials());
}

#[test]
fn what_a_registry_does_not_say_is_asked_again_and_not_for_ever() {
    let now = Now::read();
    let later = |seconds| Now { instant: now.instant + Duration::from_secs(seconds), ..now };
    let away = |passing| Failed { why: "503".into(), passing };
    let mut job = job(&[]);
    job.lost(away(true), now);
    assert_eq!((job.state(), job.is_to_be_found(now.instant)), (State::Pending, false));
    assert_eq!((job.wake(), job.view(false).message.as_deref()), (Some(later(1).instant), Some("503")));
    job.apply(Event::Tick, later(1));
    assert!(job.is_to_be_found(later(1).instant) && job.wake().is_none(), "nothing is due while it is asked");
    job.found(load(), SEED, &candidates(1), later(2));
    assert_eq!((job.state(), job.view(false).message), (State::Running, None));

    let mut job = self::job(&[]);
    for _ in 0..=job.spec.backoff_limit {
        assert_eq!(job.state(), State::Pending);
        job.lost(away(true), now);
    }
    assert_eq!(job.state(), State::Failed);
    let mut job = self::job(&[]);
    job.lost(away(false), now);
    assert_eq!(job.state(), State::Failed, "there is no such image");
}

#[test]
fn who_brings_other_credentials_while_it_is_asked_is_not_told_the_former_answer() {
    let now = Now::read();
    let refused = || Failed { why: "401".into(), passing: false };
    let mut job = job(&[]);
    job.wish_again(Credentials::authorization("Basic x"));
    job.lost(refused(), now);
    assert!(job.is_to_be_found(now.instant), "by the new ones");
    job.lost(refused(), now);
    assert_eq!(job.state(), State::Failed);
}

#[test]
fn a_deadline_counts_from_the_start_over_restarts_and_finding() {
    let now = Now::read();
    let later = |seconds: u64| Now {
        instant: now.instant + Duration::from_secs(seconds),
        date: now.date + Duration::from_secs(seconds),
    };
    let limited = || Spec { active_deadline_seconds: Some(100), ..job(&[]).spec };
    let mut before = Job::new(JobId(1), limited(), Credentials::none(), now);
    before.found(load(), SEED, &candidates(2), later(10));
    before.apply(Event::Failed { node: node(0), why: "no".into(), passing: true }, later(20));
    let mut after = Job::of_kept(before.kept(), later(60));
    assert_eq!(after.wake(), Some(later(100).instant));
    after.found(load(), SEED, &candidates(2), later(70));
    assert_eq!(after.view(true).nodes.iter().map(|view| view.attempts).collect::<Vec<_>>(), [2, 1]);
    after.apply(Event::Tick, later(100));
    assert_eq!(after.view(false).state, State::Failed);

    let mut pending = Job::new(JobId(1), limited(), Credentials::none(), now);
    pending.apply(Event::Tick, later(100));
    assert!(pending.view(false).message.unwrap().contains("active_deadline_seconds"));

    let held = Spec { paused: true, ..limited() };
    let mut held = Job::new(JobId(1), held, Credentials::none(), now);
    assert_eq!(held.wake(), None);
    held.resume(later(500));
    assert_eq!(held.wake(), Some(later(600).instant), "it begins when it is not paused");
    held.found(load(), SEED, &candidates(1), later(501));
    held.pause(later(600));
    assert_eq!(held.state(), State::Failed, "a pause does not make it undone");
}

#[test]
fn in_a_list_a_job_does_not_say_all_that_it_was_asked_for() {
    let names: Vec<String> = (0..5000).map(|number| format!("node-{number}")).collect();
    let job = job(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let (whole, short) = (job.view(false).spec, job.glimpse().spec);
    assert_eq!((whole.nodes.names.len(), short.nodes.names.len()), (5000, MAX_NAMED));
    assert_eq!(Spec { nodes: whole.nodes.clone(), ..short }, whole);
    assert_eq!(job.weight(), 5000);
}

#[test]
fn nodes_of_another_meaning_begin_anew() {
    let now = Now::read();
    let mut before = job(&[]);
    before.found(load_of("a"), SEED, &candidates(2), now);
    before.apply(Event::Done(node(0), 5), now);
    let again = |revision| {
        let mut after = Job::of_kept(before.kept(), now);
        after.found(load_of(revision), SEED, &candidates(2), now).len()
    };
    assert_eq!((again("a"), again("b")), (1, 2));
}

#[test]
fn who_wishes_the_same_once_more_gets_what_the_tag_means_then() {
    let now = Now::read();
    let mut job = job(&["node-0", "node-1", "ghost"]);
    let same = job.spec.clone();
    assert!(job.is_for(&same) && !job.is_for(&Spec { paused: true, ..same.clone() }));
    job.wish_again(Credentials::authorization("Basic x"));
    assert_eq!(job.found(load_of("a"), SEED, &candidates(2), now).len(), 2);
    let run = |job: &mut Job, fails: bool| {
        job.apply(Event::Done(node(0), 5), now);
        let failed = Event::Failed { node: node(1), why: "no".into(), passing: false };
        job.apply(if fails { failed } else { Event::Done(node(1), 5) }, now);
        (job.state(), job.view(false).succeeded, job.view(false).failed)
    };
    job.wish_again(Credentials::none());
    assert_eq!(run(&mut job, true), (State::Pending, 1, 1), "it is asked again; nobody is called ghost");
    assert_eq!(job.found(load_of("a"), SEED, &[], now), [Command::Start(node(1))], "who failed tries again");
    job.wish_again(Credentials::none());
    assert_eq!(run(&mut job, false), (State::Pending, 2, 1));
    assert_eq!(job.found(load_of("b"), SEED, &[], now).len(), 2, "it means something else");
    assert_eq!(run(&mut job, false), (State::Failed, 2, 1));
    assert_eq!(job.view(false).failed_nodes, ["ghost"]);
}
