//! What must hold of a pull, whatever goes wrong: see [`simulator::faults`]. A seed that fails prints itself;
//! `SIM_SEED=17 cargo test -p simulator --test faults` has that day again.

use common::wire::swarm::Fault;
use simulator::faults::{Event, Findings, Plan, Role, Trouble, Victim, complaints, draw};
use simulator::try_out;
use std::time::Duration;
use supernode::scheduler::Counts;

/// Some seconds' worth; `cargo bench --bench simulate -- --faults 10000` goes on from there.
const SEEDS: u64 = 400;
/// Days on which the end of an old session was taken for the end of a new one, and on which a zone starved: of its two ways out
/// one crawled and the other lied.
const BAD_ONCE: [u64; 2] = [113_579, 109_781];

fn judged(seed: u64) -> (Findings, Vec<String>) {
    let scenario = draw(seed);
    let found = try_out(&scenario);
    let complaints = complaints(&scenario.plan, scenario.supernodes, &found).into_iter();
    let wrong =
        complaints.map(|complaint| format!("SIM_SEED={seed}: {complaint};{}", scenario.plan)).collect();
    (found, wrong)
}

#[test]
fn everybody_gets_the_task_or_says_why_and_the_innocent_are_not_punished() {
    let only = std::env::var("SIM_SEED").ok().map(|seed| seed.parse().unwrap());
    let wrong: Vec<String> = match only {
        Some(seed) => judged(seed).1,
        None => (0..SEEDS).chain(BAD_ONCE).flat_map(|seed| judged(seed).1).collect(),
    };
    assert!(wrong.is_empty(), "{} complaints\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_seed_is_one_day_and_the_days_have_something_of_everything() {
    assert_eq!(format!("{:?}", judged(3).0), format!("{:?}", judged(3).0));
    let plans: Vec<Plan> = (0..SEEDS).map(|seed| draw(seed).plan).collect();
    let kinds: [fn(Trouble, Victim) -> bool; 9] = [
        |_, victim| victim == Victim::Origin,
        |what, victim| matches!((what, victim), (Trouble::Kill { keeps: true }, Victim::Supernode(_))),
        |what, victim| matches!((what, victim), (Trouble::Kill { keeps: false }, Victim::Peer(_))),
        |what, _| what == Trouble::Cut,
        |what, _| what == Trouble::Deafen,
        |what, _| what == Trouble::Mute,
        |what, _| matches!(what, Trouble::Part(_)),
        |what, _| what == Trouble::Crawl,
        |what, _| what == Trouble::Evict,
    ];
    assert!(kinds.iter().all(|kind| plans.iter().any(|plan| plan.has(kind))));
    for role in [Role::Liar, Role::Boaster, Role::Mute] {
        assert!(plans.iter().any(|plan| plan.villains.iter().any(|(_, other)| *other == role)));
    }
}

#[test]
fn liars_are_met_and_barred_by_those_who_take_from_them() {
    let seen: Vec<Findings> = (0..60).map(|seed| judged(seed).0).collect();
    let fooled = |found: &Findings| found.faults.values().any(|faults| faults.contains(&Fault::WrongBytes));
    assert!(seen.iter().filter(|found| fooled(found)).count() > 5);
    for found in &seen {
        let liars = found.faults.iter().filter(|(_, faults)| faults.contains(&Fault::WrongBytes));
        liars.for_each(|(pair, _)| assert!(found.barred.contains(pair), "{pair:?} {found:?}"));
    }
}

#[test]
fn the_judge_knows_every_crime() {
    let kill = Event {
        at: Duration::ZERO,
        victim: Victim::Peer(3),
        trouble: Trouble::Kill { keeps: true },
        lasts: None,
    };
    let plan = Plan { events: vec![kill], villains: vec![(4, Role::Liar)], ..Plan::default() };
    let crimes: [fn(&mut Findings); 9] = [
        |found| found.without = vec![(0, 0)],
        |found| found.without = vec![(0, 3)],
        |found| found.copies = 1.3,
        |found| found.blind = 1,
        |found| drop(found.faults.insert((1, 2), vec![Fault::WrongBytes])),
        |found| drop(found.faults.insert((1, 4), vec![Fault::WrongBytes; 9])),
        |found| found.barred = vec![(1, 2)],
        |found| found.outcasts = vec![2],
        |found| found.left = vec![Counts { seats: 1, ..Counts::default() }],
    ];
    let judge = |change: &dyn Fn(&mut Findings)| {
        let mut found =
            Findings { copies: 1.0, barred: vec![(1, 4)], outcasts: vec![4], ..Findings::default() };
        change(&mut found);
        complaints(&plan, 2, &found)
    };
    assert_eq!(judge(&|_| ()), Vec::<String>::new());
    crimes.iter().for_each(|crime| assert_eq!(judge(crime).len(), 1, "{:?}", judge(crime)));
}
