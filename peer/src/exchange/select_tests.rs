//! Whatever parents do, the invariants of the choice hold and the download ends.

use std::collections::BTreeSet;

use super::*;
use proptest::prelude::*;

const PIECES: u32 = 40;

fn geometry() -> Geometry {
    Geometry::of(u64::from(PIECES) * 256 * 1024).unwrap()
}

fn node(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn select() -> Select {
    let mut select = Select::new(geometry(), PieceSet::new(PIECES), 7);
    (0..PIECES).for_each(|index| select.vouch(PieceIndex(index)));
    select
}

/// Choices of one who is linked with the seed.
fn select_of_seed() -> Select {
    let mut select = select();
    select.parent_up(node(9));
    select.seed_is(node(9));
    select
}

/// Choices among so many parents that show everything.
fn with_parents(count: u8) -> Select {
    let mut select = select();
    for n in 0..count {
        select.parent_up(node(n));
        select.parent_has(node(n), std::slice::from_ref(&(0..PIECES)), true);
    }
    select
}

#[test]
fn the_rarest_piece_goes_first_but_for_the_one_that_a_client_waits_for() {
    let (mut select, now) = (select(), Instant::now());
    for n in 1..=3 {
        select.parent_up(node(n));
        select.parent_has(node(n), std::slice::from_ref(&(0..10)), false);
    }
    select.parent_has(node(1), &[0..10, 20..21], true);
    let asked: Vec<_> = select.poll(0, now).iter().map(|ask| ask.index.0).collect();
    assert_eq!(asked[..2], [0, 20]);
}

#[test]
fn a_few_pieces_are_asked_for_at_once_of_one_parent_or_of_many() {
    let (mut one, now) = (select(), Instant::now());
    one.parent_up(node(1));
    one.parent_has(node(1), std::slice::from_ref(&(0..PIECES)), true);
    assert_eq!(one.poll(0, now).len(), FEW);
    let mut many = with_parents(10);
    let asked: BTreeSet<_> = many.poll(0, now).iter().map(|ask| ask.node).collect();
    assert_eq!(asked.len(), FEW, "each of another");
}

#[test]
fn while_pieces_come_quickly_more_are_asked_for_and_fewer_once_they_are_slow() {
    let (mut select, mut now) = (with_parents(10), Instant::now());
    for (takes, most) in [(QUICK / 2, 10), (SLOW * 2, FEW)] {
        let mut asks = select.poll(0, now);
        while asks.len() < most || most == FEW && asks.len() > FEW {
            let ask = asks.remove(0);
            now += takes;
            select.arrived(ask.index, Some(ask.node), now);
            // The others' clocks start anew: what is measured is this one.
            asks.drain(..).for_each(|ask| select.setback((ask.node, ask.index), Setback::Withdrawn, now));
            asks = select.poll(0, now);
        }
        assert_eq!(asks.len(), most);
        asks.iter().for_each(|ask| select.setback((ask.node, ask.index), Setback::Withdrawn, now));
    }
}

#[test]
fn what_is_late_leaves_room_for_other_requests() {
    let (mut select, now) = (with_parents(10), Instant::now());
    let asked: BTreeSet<_> = select.poll(0, now).iter().map(|ask| ask.node).collect();
    assert!(select.poll(0, now).is_empty());
    let others: BTreeSet<_> = select.poll(0, now + MAX_PATIENCE).iter().map(|ask| ask.node).collect();
    assert_eq!((asked.len(), others.len()), (FEW, 10 - FEW));
    assert!(asked.is_disjoint(&others));
}

#[test]
fn a_silent_parent_is_hedged_within_two_seconds_and_the_loser_is_withdrawn() {
    let (mut select, now) = (select(), Instant::now());
    select.parent_up(node(1));
    select.parent_has(node(1), std::slice::from_ref(&(0..1)), true);
    assert_eq!(select.poll(0, now).len(), 1);
    select.parent_up(node(2));
    select.parent_has(node(2), std::slice::from_ref(&(0..1)), true);
    assert!(select.poll(0, now).is_empty());
    let later = now + Duration::from_secs(2);
    assert!(select.wake_at(now).unwrap() <= later);
    let hedge = select.poll(0, later);
    assert_eq!(hedge, [Ask { node: node(2), index: PieceIndex(0), hedge: true }]);
    assert_eq!(select.arrived(PieceIndex(0), Some(node(2)), later), [node(1)]);
    assert!(select.is_idle());
}

#[test]
fn who_sent_wrong_bytes_is_not_asked_again() {
    let (mut select, now) = (select(), Instant::now());
    select.parent_up(node(1));
    select.parent_has(node(1), std::slice::from_ref(&(0..PIECES)), true);
    for ask in select.poll(0, now) {
        select.setback((ask.node, ask.index), Setback::WrongBytes, now);
    }
    select.parent_down(node(1));
    select.parent_up(node(1));
    select.parent_has(node(1), std::slice::from_ref(&(0..PIECES)), true);
    assert!(select.poll(0, now + Duration::from_secs(3600)).is_empty(), "a new link washes nothing off");
}

#[test]
fn requests_outlive_a_link_that_is_replaced() {
    let (mut select, now) = (select(), Instant::now());
    select.parent_up(node(1));
    select.parent_has(node(1), std::slice::from_ref(&(0..PIECES)), true);
    let asks = select.poll(0, now);
    select.parent_down(node(1));
    select.parent_up(node(1));
    select.parent_has(node(1), std::slice::from_ref(&(0..PIECES)), true);
    assert!(select.poll(0, now).is_empty(), "the old requests still count");
    asks.iter().for_each(|ask| select.setback((ask.node, ask.index), Setback::Withdrawn, now));
    assert_eq!(select.poll(0, now).len(), asks.len());
}

#[test]
fn a_parent_is_of_use_only_with_what_may_be_asked_for() {
    let mut select = Select::new(geometry(), PieceSet::new(PIECES), 7);
    select.parent_up(node(1));
    select.parent_has(node(1), std::slice::from_ref(&(0..PIECES)), true);
    assert_eq!(select.useful_parents(), 0);
    select.vouch(PieceIndex(3));
    assert_eq!(select.useful_parents(), 1);
}

#[test]
fn a_front_that_nobody_gives_holds_nothing_up() {
    let (pieces, now) = (2 * WINDOW, Instant::now());
    let geometry = Geometry::of(u64::from(pieces) * 256 * 1024).unwrap();
    let mut select = Select::new(geometry, PieceSet::new(pieces), 7);
    (0..pieces).for_each(|index| select.vouch(PieceIndex(index)));
    select.parent_up(node(1));
    // It deals on only when these are taken, and the first piece is among what it would deal then.
    select.parent_has(node(1), &[5..6, WINDOW + 9..WINDOW + 11], true);
    let asked: Vec<_> = select.poll(0, now).iter().map(|ask| ask.index.0).collect();
    assert_eq!(asked[0], 5, "the window goes first");
    assert_eq!(asked.len(), 3);
}

#[test]
fn while_other_downloads_fill_the_line_little_is_asked_for_but_what_the_seed_alone_has() {
    let (mut select, now) = (with_parents(10), Instant::now());
    assert_eq!(select.poll(100, now).len(), LEAST);
    assert!(
        select.wake_at(now).is_some_and(|at| at <= now + LOOK_AGAIN),
        "it looks whether that is still so"
    );
    let mut select = select_of_seed();
    select.parent_up(node(1));
    select.parent_has(node(1), std::slice::from_ref(&(0..10)), true);
    let common = select.poll(100, now);
    assert_eq!(common.len(), LEAST);
    select.parent_has(node(9), std::slice::from_ref(&(20..30)), true);
    let scarce = select.poll(100, now);
    assert_eq!(scarce.len(), LEAST);
    assert!(scarce.iter().all(|ask| ask.node == node(9) && ask.index.0 >= 20));
    assert!(select.poll(100, now).is_empty());
}

#[test]
fn what_nobody_vouches_for_is_not_asked() {
    let mut select = Select::new(geometry(), PieceSet::new(PIECES), 7);
    select.parent_up(node(1));
    select.parent_has(node(1), std::slice::from_ref(&(0..PIECES)), true);
    assert!(select.poll(0, Instant::now()).is_empty());
}

#[test]
fn a_busy_parent_is_asked_again_soon_however_often_it_was_busy() {
    let (mut select, mut now) = (select(), Instant::now());
    select.parent_up(node(1));
    select.parent_has(node(1), std::slice::from_ref(&(0..PIECES)), true);
    for _ in 0..20 {
        let asks = select.poll(0, now);
        assert!(!asks.is_empty());
        asks.iter().for_each(|ask| select.setback((ask.node, ask.index), Setback::Busy, now));
        now += Duration::from_millis(500);
    }
}

#[derive(Debug, Clone)]
enum Deed {
    Show(u8, u32, u32),
    Gone(u8),
    Arrive(usize),
    Fail(usize, u8),
    Wait(u64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    prop::collection::vec(
        prop_oneof![
            (0u8..6, 0..PIECES + 5, 0..PIECES + 5).prop_map(|(n, a, b)| Deed::Show(n, a.min(b), a.max(b))),
            (0u8..6).prop_map(Deed::Gone),
            any::<usize>().prop_map(Deed::Arrive),
            (any::<usize>(), 0u8..5).prop_map(|(at, why)| Deed::Fail(at, why)),
            (0u64..3000).prop_map(Deed::Wait),
        ],
        0..150,
    )
}

proptest! {
    #[test]
    fn invariants_hold_whatever_parents_do(deeds in deeds()) {
        let (mut select, mut now) = (select(), Instant::now());
        let mut shown: BTreeMap<NodeId, PieceSet> = BTreeMap::new();
        let mut flights: Vec<Ask> = Vec::new();
        let mut have = PieceSet::new(PIECES);
        for deed in deeds {
            match deed {
                Deed::Show(n, a, b) => {
                    select.parent_up(node(n));
                    select.parent_has(node(n), std::slice::from_ref(&(a..b)), true);
                    shown.entry(node(n)).or_insert_with(|| PieceSet::new(PIECES)).insert_range(a..b);
                }
                Deed::Gone(n) => {
                    select.parent_down(node(n));
                    shown.remove(&node(n));
                    for ask in flights.extract_if(.., |ask| ask.node == node(n)) {
                        select.setback((ask.node, ask.index), Setback::Silent, now);
                    }
                }
                Deed::Arrive(at) if !flights.is_empty() => {
                    let ask = flights[at % flights.len()];
                    select.arrived(ask.index, Some(ask.node), now);
                    have.insert(ask.index);
                    flights.retain(|other| other.index != ask.index);
                }
                Deed::Fail(at, why) if !flights.is_empty() => {
                    let ask = flights.swap_remove(at % flights.len());
                    let why = [Setback::Withdrawn, Setback::NotThere, Setback::Busy, Setback::Silent,
                        Setback::WrongBytes][why as usize];
                    select.setback((ask.node, ask.index), why, now);
                }
                Deed::Wait(millis) => now += Duration::from_millis(millis),
                _ => {}
            }
            for ask in select.poll(0, now) {
                prop_assert!(!have.contains(ask.index));
                prop_assert!(shown[&ask.node].contains(ask.index));
                let others: Vec<_> = flights.iter().filter(|other| other.index == ask.index).collect();
                prop_assert!(others.len() < MAX_ASKS && others.iter().all(|other| other.node != ask.node));
                flights.push(ask);
                prop_assert!(flights.len() <= 64);
            }
        }
        // One honest parent that shows all is enough, once the others have been given up.
        select.parent_up(node(99));
        select.parent_has(node(99), std::slice::from_ref(&(0..PIECES)), true);
        for _ in 0..500 {
            now += Duration::from_secs(40);
            for ask in std::mem::take(&mut flights) {
                if ask.node == node(99) {
                    select.arrived(ask.index, Some(ask.node), now);
                    have.insert(ask.index);
                } else {
                    select.setback((ask.node, ask.index), Setback::Silent, now);
                }
            }
            flights = select.poll(0, now);
        }
        prop_assert!(have.is_full());
    }
}

#[test]
fn the_seed_is_asked_first_though_it_looks_slow() {
    let (mut select, mut now, seed) = (select(), Instant::now(), node(99));
    select.parent_up(seed);
    select.seed_is(seed);
    select.parent_has(seed, std::slice::from_ref(&(0..1)), true);
    assert_eq!(select.poll(0, now).len(), 1);
    now += Duration::from_millis(900);
    select.arrived(PieceIndex(0), Some(seed), now);
    for n in 0..10 {
        select.parent_up(node(n));
        select.parent_has(node(n), std::slice::from_ref(&(0..PIECES - 1)), true);
    }
    select.parent_has(seed, std::slice::from_ref(&(PIECES - 1..PIECES)), true);
    assert_eq!(select.poll(0, now)[0].node, seed);
}

#[test]
fn a_client_gets_its_first_bytes_soon_though_all_pieces_are_common() {
    let (mut select, mut now, mut taken) = (with_parents(10), Instant::now(), 0);
    let mut asks = select.poll(0, now);
    while select.have.first_missing(0) == Some(PieceIndex(0)) {
        let ask = asks.remove(0);
        now += Duration::from_millis(100);
        select.arrived(ask.index, Some(ask.node), now);
        asks.extend(select.poll(0, now));
        taken += 1;
    }
    assert_eq!(taken, 1);
}
