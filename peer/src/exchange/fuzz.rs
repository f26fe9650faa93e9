//! One door for the fuzz target: what a neighbour says on a link, after it was decoded. Called by nothing else.

use std::ops::Range;

use common::piece::PieceSet;
use common::wire::exchange::Link;

use super::link::Allowance;

/// Takes messages in as a link about so many pieces does; panics where a neighbour could make it work without end.
pub fn link(pieces: u32, messages: impl Iterator<Item = Link>) {
    let (mut allowance, mut set, mut steps) = (Allowance::new(pieces), PieceSet::new(pieces), 0_u64);
    for message in messages {
        let runs = match message {
            Link::Have(runs) | Link::Hold(runs) => runs,
            Link::Accepted | Link::Refused(_) => return,
        };
        if allowance.hear(&runs).is_err() {
            return;
        }
        for Range { start, end } in runs {
            steps += u64::from(end - start);
            set.insert_range(start..end);
        }
        assert!(steps <= 2 * u64::from(pieces) + 256, "{steps} steps for {pieces} pieces");
        assert_eq!(set.runs().iter().map(|run| run.end - run.start).sum::<u32>(), set.count());
    }
}
