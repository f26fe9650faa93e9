//! Nothing piles up, however long peers come and go. `cargo bench --bench simulate -- --churn-hours 24` shows a day.

use simulator::churn::{Hour, KEPT, PEERS, churn};
use supernode::scheduler::Counts;

#[test]
fn what_is_kept_does_not_grow_with_time_and_goes_with_the_peers() {
    let (hours, end) = churn(3, 1);
    for hour in &hours {
        let Counts { peers, listed, swarms, lone, members, .. } = hour.counts;
        let members = members + lone;
        let most = PEERS as usize;
        assert!(hour.pulls > 1000 && peers > most / 4 && peers <= 2 * most, "{hour:?}");
        assert_eq!(listed, members, "a list or a swarm has somebody whom the other has not: {hour:?}");
        assert!(swarms <= members && members <= hour.fleets.0 + hour.fleets.2, "{hour:?}");
        assert!(hour.fleets.1 <= most * (KEPT + 1) && hour.deeds <= most * most, "{hour:?}");
    }
    // A supernode is lost in each hour; in the first all are still coming.
    let (first, second) = hours[1..].split_at(1);
    let most = |hours: &[Hour], what: fn(&Hour) -> usize| hours.iter().map(what).max().unwrap();
    type Kept = (&'static str, fn(&Hour) -> usize);
    let kept: [Kept; 9] = [
        ("lone copies", |hour| hour.counts.lone),
        ("swarms", |hour| hour.counts.swarms),
        ("members", |hour| hour.counts.members),
        ("seats", |hour| hour.counts.seats),
        ("groups", |hour| hour.counts.groups),
        ("accusations", |hour| hour.counts.accusations),
        ("digests", |hour| hour.recalled.1),
        ("told", |hour| hour.fleets.2),
        ("deeds", |hour| hour.deeds),
    ];
    for (name, of) in kept {
        let (before, after) = (most(first, of), most(second, of));
        assert!(after <= before + before / 4 + 32, "{name}: {before}, then {after}");
    }
    let recalled = end.recalled;
    assert_eq!(end, Hour { recalled, ..Hour::default() }, "something stays when all have gone");
}
