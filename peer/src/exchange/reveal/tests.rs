//! Thrift in a burst, nobody starved.

use std::time::Duration;

use super::*;
use proptest::prelude::*;

const PACE: Duration = Duration::from_millis(20);

fn node(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn shown(tells: &[Tell]) -> Vec<(NodeId, u32)> {
    tells.iter().flat_map(|tell| tell.show.iter().map(|index| (tell.to, index.0))).collect()
}

#[test]
fn the_seed_shows_a_new_piece_to_one_child_in_turn() {
    let now = Instant::now();
    let mut reveal = Reveal::new(Style::Seed, 12);
    (0..4).for_each(|n| reveal.child_up(node(n)));
    (0..12).for_each(|index| reveal.piece(PieceIndex(index), now));
    let said = shown(&reveal.drain(0, now));
    assert_eq!(said.len(), 12, "each piece once: {said:?}");
    for n in 0..4 {
        assert_eq!(said.iter().filter(|(to, _)| *to == node(n)).count(), 3);
    }
}

#[test]
fn an_only_child_is_shown_as_many_as_may_be_out_and_more_as_it_takes_them_quickly() {
    let mut now = Instant::now();
    let mut reveal = Reveal::new(Style::Seed, 100);
    reveal.child_up(node(1));
    (0..100).for_each(|index| reveal.piece(PieceIndex(index), now));
    let first = shown(&reveal.drain(0, now));
    assert_eq!(first.len(), 12);
    now += Duration::from_millis(10);
    first.iter().for_each(|(_, index)| reveal.child_has(node(1), std::slice::from_ref(&(*index..index + 1))));
    assert_eq!(shown(&reveal.drain(0, now)).len(), 24);
}

#[test]
fn what_a_lost_child_was_to_hand_on_goes_to_another() {
    let now = Instant::now();
    let mut reveal = Reveal::new(Style::Seed, 3);
    (0..3).for_each(|n| reveal.child_up(node(n)));
    reveal.piece(PieceIndex(0), now);
    let first = shown(&reveal.drain(0, now))[0].0;
    reveal.child_down(first);
    let again = shown(&reveal.drain(0, now));
    assert!(matches!(again[..], [(to, 0)] if to != first));
}

#[test]
fn the_seed_sends_nothing_twice_while_it_has_enough_to_send() {
    let mut now = Instant::now();
    let mut reveal = Reveal::new(Style::Seed, 60);
    (0..8).for_each(|n| reveal.child_up(node(n)));
    let (mut sees, mut dealt) = (BTreeMap::<NodeId, Vec<u32>>::new(), 0);
    for index in 0..50 {
        reveal.piece(PieceIndex(index), now);
        for (to, piece) in shown(&reveal.drain(0, now)) {
            sees.entry(to).or_default().push(piece);
            dealt += 1;
        }
        // Each takes what it saw some time later, so that several pieces are out at any moment.
        for (to, pieces) in sees.iter_mut().filter(|(_, pieces)| pieces.len() > 1) {
            let piece = pieces.remove(0);
            reveal.child_has(*to, std::slice::from_ref(&(piece..piece + 1)));
        }
        now += Duration::from_millis(200);
    }
    assert_eq!(dealt, 50, "each once, though ten seconds have passed");
}

#[test]
fn what_nobody_took_the_seed_deals_to_another() {
    let mut now = Instant::now();
    let mut reveal = Reveal::new(Style::Seed, 4);
    (0..4).for_each(|n| reveal.child_up(node(n)));
    reveal.piece(PieceIndex(0), now);
    let first = shown(&reveal.drain(0, now))[0].0;
    now = reveal.wake_at().unwrap();
    let again = shown(&reveal.drain(0, now));
    assert!(matches!(again[..], [(to, 0)] if to != first), "{again:?}");
}

#[test]
fn children_that_died_do_not_keep_the_seed_from_dealing_again() {
    let mut now = Instant::now();
    let mut reveal = Reveal::new(Style::Seed, 40);
    (0..4).for_each(|n| reveal.child_up(node(n)));
    (0..40).for_each(|index| reveal.piece(PieceIndex(index), now));
    // The first two never take anything; the others take all that they see, and swap nothing.
    let mut sees: BTreeMap<NodeId, PieceSet> = BTreeMap::new();
    for _ in 0..200 {
        for (to, piece) in shown(&reveal.drain(0, now)) {
            sees.entry(to).or_insert_with(|| PieceSet::new(40)).insert(PieceIndex(piece));
            if to > node(1) {
                reveal.child_has(to, std::slice::from_ref(&(piece..piece + 1)));
            }
        }
        now += Duration::from_millis(500);
    }
    assert!(sees[&node(2)].is_full() && sees[&node(3)].is_full());
    assert!(sees[&node(0)].count() < 10, "who takes nothing is not shown more and more");
}

#[test]
fn a_peer_shows_a_new_piece_at_once_to_all_who_lack_it() {
    let now = Instant::now();
    let mut reveal = Reveal::new(Style::Peer, 4);
    (0..10).for_each(|n| reveal.child_up(node(n)));
    (0..4).for_each(|n| reveal.child_has(node(n), std::slice::from_ref(&(3..4))));
    reveal.drain(0, now);
    reveal.piece(PieceIndex(3), now);
    let tells = reveal.drain(0, now);
    assert_eq!(shown(&tells).len(), 6);
    assert_eq!(tells.len(), 6, "the others need not hear of it at once");
    assert!(reveal.drain(0, now).is_empty());
    assert!(reveal.wake_at().is_some_and(|at| at > now), "but soon");
}

#[test]
fn who_has_a_piece_hears_before_long_that_it_is_here() {
    let now = Instant::now();
    let mut reveal = Reveal::new(Style::Peer, 30);
    (0..5).for_each(|n| reveal.child_up(node(n)));
    (0..5).for_each(|n| reveal.child_has(node(n), std::slice::from_ref(&(0..30))));
    let mut heard = 0;
    for index in 0..30 {
        reveal.piece(PieceIndex(index), now);
        let tells = reveal.drain(0, now);
        assert!(tells.iter().all(|tell| tell.show.is_empty()));
        heard += tells.iter().map(|tell| tell.hold.len()).sum::<usize>();
    }
    assert!(heard > 0 && heard < 150, "{heard}: some pieces at a time");
    let due = reveal.wake_at().unwrap();
    heard += reveal.drain(0, due).iter().map(|tell| tell.hold.len()).sum::<usize>();
    assert_eq!(heard, 150);
    assert_eq!(reveal.wake_at(), None);
}

#[test]
fn a_newcomer_sees_what_a_peer_got_before() {
    let now = Instant::now();
    let mut reveal = Reveal::new(Style::Peer, 4);
    reveal.piece(PieceIndex(3), now);
    assert!(reveal.drain(0, now).is_empty());
    reveal.child_up(node(1));
    reveal.piece(PieceIndex(1), now);
    assert_eq!(shown(&reveal.drain(0, now)), [(node(1), 1), (node(1), 3)]);
}

#[test]
fn who_gave_a_piece_hears_that_it_arrived() {
    let now = Instant::now();
    for children in [1, 2, 5, 9] {
        let mut reveal = Reveal::new(Style::Peer, 4);
        (0..children).for_each(|n| reveal.child_up(node(n)));
        reveal.child_has(node(0), std::slice::from_ref(&(0..4)));
        reveal.piece(PieceIndex(3), now);
        let heard = |tell: &Tell| tell.to == node(0) && tell.show.is_empty() && tell.hold == [PieceIndex(3)];
        assert!(reveal.drain(0, now).iter().any(heard), "of {children} neighbours");
    }
}

#[test]
fn the_seed_goes_on_as_its_children_take_what_it_showed() {
    let now = Instant::now();
    let mut reveal = Reveal::new(Style::Seed, 60);
    (0..2).for_each(|n| reveal.child_up(node(n)));
    (0..60).for_each(|index| reveal.piece(PieceIndex(index), now));
    let mut all = 0;
    loop {
        let tells = reveal.drain(0, now);
        if tells.is_empty() {
            break;
        }
        for tell in tells {
            all += tell.show.len();
            tell.show
                .iter()
                .for_each(|index| reveal.child_has(tell.to, std::slice::from_ref(&(index.0..index.0 + 1))));
        }
    }
    assert_eq!(all, 60, "each piece once, and all of them without waiting");
}

#[test]
fn the_seed_is_not_held_up_by_a_piece_that_its_children_have() {
    let now = Instant::now();
    let mut reveal = Reveal::new(Style::Seed, 12);
    (0..3).for_each(|n| reveal.child_up(node(n)));
    (0..3).for_each(|n| reveal.child_has(node(n), std::slice::from_ref(&(0..4))));
    (0..12).for_each(|index| reveal.piece(PieceIndex(index), now));
    let said = shown(&reveal.drain(0, now));
    assert_eq!(said.len(), 8, "what they lack, once: {said:?}");
}

#[test]
fn the_seed_is_not_woken_for_what_is_past() {
    let mut now = Instant::now();
    let mut reveal = Reveal::new(Style::Seed, 4);
    (0..10).for_each(|n| reveal.child_up(node(n)));
    reveal.piece(PieceIndex(0), now);
    for _ in 0..20 {
        reveal.drain(0, now);
        let Some(wake) = reveal.wake_at() else { return };
        assert!(wake > now);
        now = wake;
    }
    panic!("still young");
}

proptest! {
    #[test]
    fn everybody_sees_everything_in_bounded_time(
        seed in any::<bool>(),
        children in 1u8..12,
        pieces in 1u32..60,
        losses in prop::collection::vec((0u8..12, 0u32..60), 0..10),
    ) {
        let mut now = Instant::now();
        let style = if seed { Style::Seed } else { Style::Peer };
        let mut reveal = Reveal::new(style, pieces);
        let mut sees: BTreeMap<NodeId, PieceSet> = BTreeMap::new();
        for n in 0..children {
            reveal.child_up(node(n));
            sees.insert(node(n), PieceSet::new(pieces));
        }
        for index in 0..pieces {
            reveal.piece(PieceIndex(index), now);
            for (n, at) in &losses {
                if *at == index && sees.remove(&node(*n)).is_some() {
                    reveal.child_down(node(*n));
                }
            }
        }
        for _ in 0..200 {
            for tell in reveal.drain(0, now) {
                let seen = sees.get_mut(&tell.to);
                prop_assert!(seen.is_some(), "told a child that is gone");
                let seen = seen.unwrap();
                for index in tell.show {
                    prop_assert!(seen.insert(index), "shown twice");
                }
            }
            // Children take what they see, slowly.
            for (to, seen) in &sees {
                reveal.child_has(*to, &seen.runs());
            }
            now = reveal.wake_at().unwrap_or(now) + PACE;
        }
        for (to, seen) in sees {
            prop_assert!(seen.is_full(), "{to:?} saw only {seen:?}");
        }
    }
}

#[test]
fn while_other_tasks_have_much_out_nothing_is_dealt_twice() {
    let (mut now, others) = (Instant::now(), 20);
    let mut reveal = Reveal::new(Style::Seed, 40);
    (1..=2).for_each(|n| reveal.child_up(node(n)));
    (0..40).for_each(|index| reveal.piece(PieceIndex(index), now));
    (0..38).for_each(|index| reveal.child_has(node(1), std::slice::from_ref(&(index..index + 1))));
    assert_eq!(shown(&reveal.drain(others, now)).len(), 2 + 1, "what nobody has, and one that somebody has");
    reveal.child_has(node(1), std::slice::from_ref(&(38..40)));
    reveal.child_has(node(2), std::slice::from_ref(&(38..40)));
    assert!(reveal.drain(others, now).is_empty());
    assert!(reveal.wake_at().is_some_and(|at| at > now), "it looks whether that is still so");
    now += Duration::from_secs(4);
    assert_eq!(shown(&reveal.drain(others, now)).len(), 1, "its parents may not have it");
    assert!(shown(&reveal.drain(0, now)).len() > 1);
}
