//! Whole pulls, told event by event, and what is made of them: the sum of the causes, the sentence, and the bounds on memory.

use super::explain::{Explanation, Summary, explain};
use super::*;
use common::digest::Digest;
use proptest::prelude::*;

const PIECE: u64 = 256 * 1024;
const SLOW: Who = Who::Peer(NodeId([0x7f; 16]));
const QUICK: Who = Who::Peer(NodeId([0x11; 16]));

fn task() -> TaskId {
    TaskId::of_digest(Digest::of(b"x"))
}

fn geometry(pieces: u64) -> Geometry {
    Geometry::with(pieces * PIECE, PIECE as u32).unwrap()
}

/// A record, and what time it is when.
struct Desk {
    record: Record,
    begin: Instant,
}

// === impl Desk ===

impl Desk {
    fn new() -> Self {
        let begin = Instant::now() + Duration::from_secs(3600);
        Self { record: Record::new(task(), begin, SystemTime::UNIX_EPOCH), begin }
    }

    fn at(&self, ms: u64) -> Instant {
        self.begin + Duration::from_millis(ms)
    }

    fn by(&self, asked: u64, permitted: u64) -> By {
        By {
            name: "quay.test/team/app".into(),
            client: "containerd".into(),
            asked: self.at(asked),
            permitted: self.at(permitted),
        }
    }

    fn piece(&mut self, index: u32, who: Who, asked: u64, came: u64) {
        let (asked, came) = (self.at(asked), self.at(came));
        self.record.asked(PieceIndex(index), who, asked);
        self.record.came(PieceIndex(index), who, PIECE, came);
        self.record.kept(PieceIndex(index), Duration::ZERO, came);
    }

    fn explained(&self, ms: u64) -> Explanation {
        explain("it".into(), std::slice::from_ref(&self.record), self.at(ms))
    }

    fn ended(mut self, ms: u64) -> Explanation {
        let now = self.at(ms);
        self.record.end(End::Ok, now);
        self.record.close();
        self.explained(ms)
    }
}

fn waited(of: &Explanation, cause: &str) -> f64 {
    of.waits.iter().filter(|wait| wait.cause == cause).map(|wait| wait.seconds).sum()
}

/// Within two of the 64 parts in which the time is drawn.
fn close(figure: f64, to: f64, of: &Explanation) -> bool {
    (figure - to).abs() <= of.seconds / 32.0
}

#[test]
fn a_slow_parent_is_named_with_its_speed_beside_that_of_the_others() {
    let mut desk = Desk::new();
    let known = desk.at(100);
    desk.record.known(geometry(20), known);
    (0..20).for_each(|index| desk.record.vouched(PieceIndex(index), known));
    desk.piece(0, SLOW, 100, 2000);
    desk.piece(10, SLOW, 2000, 3900);
    (1..10)
        .chain(11..20)
        .for_each(|index| desk.piece(index, QUICK, 100 + u64::from(index) * 5, 105 + u64::from(index) * 5));
    let explained = desk.ended(4000);
    assert_eq!(
        explained.sentence,
        format!(
            "Most of the time (3.8 of 4.0 s) went to waiting for peer {}, which sent at 135 KiB/s while others sent at 50 MiB/s.",
            NodeId([0x7f; 16])
        )
    );
    assert!(close(waited(&explained, "supernode"), 0.1, &explained), "{explained:?}");
    assert_eq!(explained.bytes, 20 * PIECE);
    assert_eq!(explained.sources[0].chart.len(), explained.waits[0].chart.len());
}

#[test]
fn a_slow_client_is_told_that_it_is_slow() {
    let mut desk = Desk::new();
    desk.record.known(geometry(2), desk.begin);
    let (asked, now) = (desk.by(0, 5), desk.at(10));
    let id = desk.record.begin_reading(&asked, now);
    (0..2).for_each(|index| desk.piece(index, QUICK, 10, 20));
    let steps = [
        (10, Doing::Waits(PieceIndex(0)), 0),
        (20, Doing::Reads, 0),
        (21, Doing::Gave, PIECE),
        (5000, Doing::Reads, 0),
        (5001, Doing::Gave, PIECE),
    ];
    for (ms, doing, bytes) in steps {
        let now = desk.at(ms);
        desk.record.turn(id, doing, bytes, now);
    }
    let (end, done) = (desk.at(30), desk.at(9000));
    desk.record.end(End::Ok, end);
    assert_eq!(desk.record.close_due(), None, "somebody reads");
    desk.record.end_reading(id, done);
    let due = desk.record.close_due().unwrap();
    assert!(due <= done);
    desk.record.close();
    let explained = desk.explained(10_000);
    assert!(explained.sentence.contains("the client, which was slow"), "{}", explained.sentence);
    assert!((explained.seconds - 9.0).abs() < 1e-6 && explained.client.as_deref() == Some("containerd"));
    let summary = Summary::of(&desk.record, desk.at(10_000));
    assert_eq!((summary.first_byte, summary.sources["peer"]), (Some(0.021), 2 * PIECE));
}

#[test]
fn a_slow_origin_is_named_here_and_where_the_supernode_asks_it() {
    let mut desk = Desk::new();
    desk.record.feeding(Who::Origin, desk.begin);
    desk.record.known(geometry(4), desk.at(50));
    for index in 0..4 {
        let now = desk.at(1000 * (u64::from(index) + 1));
        desk.record.poured(PieceIndex(index), Who::Origin, PIECE, now);
        desk.record.kept(PieceIndex(index), Duration::ZERO, now);
    }
    let own = desk.ended(4010);
    assert!(own.sentence.contains("waiting for the origin, which sent at 255 KiB/s"), "{}", own.sentence);

    let mut desk = Desk::new();
    desk.record.known(geometry(4), desk.at(50));
    for index in 0..4 {
        let ms = 1000 * (u64::from(index) + 1);
        desk.record.vouched(PieceIndex(index), desk.at(ms));
        desk.piece(index, Who::Seed(NodeId([1; 16])), ms, ms + 10);
    }
    let through = desk.ended(4020);
    assert!(waited(&through, "upstream") > 3.5, "{through:?}");
    assert!(
        through.sentence.contains("the supernode, which had not got the next piece"),
        "{}",
        through.sentence
    );
}

#[test]
fn what_waits_now_is_seen_now() {
    let mut desk = Desk::new();
    desk.record.known(geometry(4), desk.begin);
    desk.record.vouched(PieceIndex(0), desk.begin);
    let (by, now) = (desk.by(0, 0), desk.begin);
    let id = desk.record.begin_reading(&by, now);
    desk.record.turn(id, Doing::Waits(PieceIndex(0)), 0, now);
    desk.record.asked(PieceIndex(0), SLOW, now);
    let explained = desk.explained(8000);
    assert_eq!(explained.state, "running");
    assert!(
        explained
            .sentence
            .starts_with("It goes on. So far most of the time (8.0 of 8.0 s) went to waiting for peer 7f7f")
    );
    assert!(explained.sentence.ends_with("which sent nothing."), "{}", explained.sentence);
}

#[test]
fn permission_that_came_before_the_download_counts() {
    let mut desk = Desk::new();
    let first = desk.record.start;
    let by = By {
        asked: first - Duration::from_secs(2),
        permitted: first - Duration::from_millis(100),
        ..desk.by(0, 0)
    };
    desk.record.known(geometry(1), desk.begin);
    desk.piece(0, QUICK, 0, 20);
    let (read, done) = (desk.at(10), desk.at(30));
    let id = desk.record.begin_reading(&by, read);
    desk.record.turn(id, Doing::Waits(PieceIndex(0)), 0, read);
    desk.record.turn(id, Doing::Gave, PIECE, desk.begin + Duration::from_millis(20));
    desk.record.end_reading(id, done);
    let explained = desk.ended(30);
    assert!((explained.seconds - 2.03).abs() < 1e-6, "{}", explained.seconds);
    assert!(close(waited(&explained, "permission"), 1.9, &explained), "{explained:?}");
}

#[test]
fn an_image_s_time_is_shared_among_its_parts_and_the_pauses_between_them() {
    let (mut one, mut other) = (Desk::new(), Desk::new());
    other.begin = one.begin;
    other.record = Record::new(TaskId::of_url("other", ""), one.at(3000), SystemTime::UNIX_EPOCH);
    for (desk, begin) in [(&mut one, 0), (&mut other, 3000)] {
        desk.record.known(geometry(1), desk.at(begin));
        desk.record.vouched(PieceIndex(0), desk.at(begin));
        desk.piece(0, SLOW, begin, begin + 1000);
        let end = desk.at(begin + 1000);
        desk.record.end(End::Ok, end);
        desk.record.close();
    }
    let explained = explain("image".into(), &[one.record.clone(), other.record.clone()], one.at(9000));
    assert!((explained.seconds - 4.0).abs() < 1e-6 && explained.parts.len() == 2);
    assert!(
        close(waited(&explained, "peer"), 2.0, &explained)
            && close(waited(&explained, "idle"), 2.0, &explained)
    );
    assert_eq!((explained.sources.len(), explained.sources[0].bytes), (1, 2 * PIECE));
}

#[test]
fn what_failed_says_why_and_nothing_is_said_of_nothing() {
    let mut desk = Desk::new();
    desk.record.end(End::Failed { why: "the origin said 404".into(), trouble: false }, desk.begin);
    desk.record.close();
    let explained = desk.explained(5);
    assert_eq!(
        (explained.state.as_str(), explained.sentence.as_str()),
        ("failed", "It failed at once: the origin said 404.")
    );
    assert_eq!(explain("none".into(), &[], desk.begin).sentence, "It took no time to speak of.");
}

#[derive(Clone, Debug)]
enum Deed {
    Vouched(u32),
    Withheld(u32),
    Asked(u32, u8),
    GaveUp(u8, bool),
    Came(u32, u8),
    Poured(u32),
    Fed,
    Kept(u32),
    Begin(u64),
    Turn(u32, u32),
    EndReading(u32),
    Mark,
}

fn deed() -> impl Strategy<Value = Deed> {
    let piece = 0u32..9;
    prop_oneof![
        piece.clone().prop_map(Deed::Vouched),
        piece.clone().prop_map(Deed::Withheld),
        (piece.clone(), any::<u8>()).prop_map(|(index, who)| Deed::Asked(index, who)),
        (any::<u8>(), any::<bool>()).prop_map(|(who, fault)| Deed::GaveUp(who, fault)),
        (piece.clone(), any::<u8>()).prop_map(|(index, who)| Deed::Came(index, who)),
        piece.clone().prop_map(Deed::Poured),
        Just(Deed::Fed),
        piece.clone().prop_map(Deed::Kept),
        (0u64..3000).prop_map(Deed::Begin),
        (1u32..5, piece).prop_map(|(id, index)| Deed::Turn(id, index)),
        (1u32..5).prop_map(Deed::EndReading),
        Just(Deed::Mark),
    ]
}

proptest! {
    /// Whatever happens in whatever order: the shares make the whole, no byte is lost, and the room is bounded.
    #[test]
    fn any_history_is_explained(deeds in prop::collection::vec((deed(), 0u64..400), 0..300), length: bool, closes: bool) {
        let mut desk = Desk::new();
        let (mut clock, mut given) = (0, 0);
        if length {
            desk.record.known(geometry(8), desk.begin);
        }
        for (deed, pause) in deeds {
            clock += pause;
            let now = desk.at(clock);
            let peer = |who: u8| Who::Peer(NodeId([who; 16]));
            let by = |earlier: u64| By {
                name: "a".into(), client: "b".into(), asked: now - Duration::from_millis(earlier), permitted: now - Duration::from_millis(earlier / 2),
            };
            let record = &mut desk.record;
            match deed {
                Deed::Vouched(index) => record.vouched(PieceIndex(index), now),
                Deed::Withheld(index) => record.withheld(PieceIndex(index), now),
                Deed::Asked(index, who) => record.asked(PieceIndex(index), peer(who), now),
                Deed::GaveUp(who, fault) => record.gave_up(peer(who), fault, now),
                Deed::Came(index, who) => { given += PIECE; record.came(PieceIndex(index), peer(who), PIECE, now) }
                Deed::Poured(index) => { given += PIECE; record.poured(PieceIndex(index), Who::Origin, PIECE, now) }
                Deed::Fed => record.fed(now),
                Deed::Kept(index) => record.kept(PieceIndex(index), Duration::from_millis(u64::from(index)), now),
                Deed::Begin(earlier) => { record.begin_reading(&by(earlier), now); }
                Deed::Turn(id, index) => record.turn(id, if index == 8 { Doing::Gave } else { Doing::Waits(PieceIndex(index)) }, 1, now),
                Deed::EndReading(id) => record.end_reading(id, now),
                Deed::Mark => record.mark(Mark::Parents(1), now),
            }
            prop_assert!(record.givers.len() <= MAX_GIVERS + 4 && record.marks.len() <= MAX_MARKS && record.active.len() <= MAX_READINGS);
        }
        if closes {
            let now = desk.at(clock);
            (1..300).for_each(|id| desk.record.end_reading(id, now));
            desk.record.end(End::Ok, now);
            desk.record.close();
        }
        let explained = desk.explained(clock + 10);
        let shares: f64 = explained.waits.iter().map(|wait| wait.seconds).sum();
        prop_assert!(shares <= explained.seconds * 1.001 + 1e-6, "{shares} of {}", explained.seconds);
        prop_assert!(shares >= explained.seconds * 0.9 - 1e-6, "{shares} of {}", explained.seconds);
        let others: u64 = explained.sources.iter().filter(|source| source.source != "store").map(|source| source.bytes).sum();
        prop_assert_eq!(others, given);
        prop_assert!(!explained.sentence.is_empty() && !explained.sentence.contains('\n'));
        let text = serde_json::to_string(&explained).unwrap();
        prop_assert!(text.len() < 200_000);
    }
}
