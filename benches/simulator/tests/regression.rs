//! The swarm stays as fast, and as thrifty, as it was: ceilings a little above what is seen. Deterministic, in virtual time.
//! One who makes the swarm better lowers them.

use std::time::Duration;

use simulator::{Arrival, Churn, Outcome, Scenario, run};

/// Everybody at once, equal links of 50 Mbit/s.
fn burst(peers: u32, mebibytes: u64) -> Scenario {
    Scenario { peers, size: mebibytes << 20, ..Scenario::default() }
}

fn assert_fast(outcome: &Outcome, last: f64, seed: f64) {
    assert_eq!(outcome.unfinished, 0);
    assert!(outcome.ratio(100.0) < last, "last node {} × bound", outcome.ratio(100.0));
    assert!(outcome.seed_factor < seed, "the seed sent {} blobs", outcome.seed_factor);
    assert!((outcome.origin_factor - 1.0).abs() < 0.001, "the origin sent {}", outcome.origin_factor);
    assert_eq!(outcome.fallbacks, 0);
}

#[test]
fn a_burst_is_near_the_bound_and_the_seed_sends_little_more_than_once() {
    assert_fast(&run(&burst(16, 64)), 1.25, 1.06);
    assert_fast(&run(&burst(40, 32)), 1.36, 1.06);
    assert_fast(&run(&burst(200, 32)), 1.52, 1.06);
}

#[test]
fn the_same_scenario_gives_the_same_outcome() {
    let churn = Churn { share: 0.1, back_after: Some(Duration::from_secs(1)) };
    let scenario = Scenario { churn, zones: 2, ..burst(40, 16) };
    assert_eq!(run(&scenario).essence(), run(&scenario).essence());
    assert_ne!(run(&scenario).essence(), run(&Scenario { rng: 2, ..scenario }).essence());
}

#[test]
fn a_blob_crosses_into_a_zone_about_once() {
    let outcome = run(&Scenario { zones: 3, ..burst(60, 32) });
    assert_fast(&outcome, 2.4, 1.45);
    for into in &outcome.zone_factors[1..] {
        assert!(*into <= 1.25, "{:?}", outcome.zone_factors);
    }
}

#[test]
fn those_that_stay_finish_though_others_die() {
    for back_after in [None, Some(Duration::from_secs(3))] {
        let churn = Churn { share: 0.2, back_after };
        let outcome = run(&Scenario { churn, ..burst(40, 32) });
        assert_eq!(outcome.unfinished, 0);
        assert_eq!(outcome.fallbacks, 0);
        assert!(outcome.ratio(100.0) < 2.1, "{}", outcome.ratio(100.0));
    }
}

#[test]
fn who_comes_later_is_served_by_those_who_came_before() {
    let scenario = burst(40, 32);
    let arrival = Arrival::Rolling(2 * scenario.bound());
    let outcome = run(&Scenario { arrival, ..scenario });
    assert_fast(&outcome, 1.35, 1.2);
}

#[test]
fn lines_between_zones_that_are_narrow_are_no_end() {
    let scenario = Scenario { zones: 2, zone_rate: Some(30_000_000), ..burst(20, 16) };
    let outcome = run(&scenario);
    assert_eq!(outcome.unfinished, 0);
    assert!(outcome.ratio(100.0) < 2.7, "{}", outcome.ratio(100.0));
}
