//! Who got how much from whom, as a table.

use common::telemetry::{ByteSource, Recipient};
use supernode::daemon::Supernode;

use super::Pull;
use crate::daemons::Node;
use crate::progress::bytes;

/// Prints a row a node.
#[expect(clippy::print_stdout, reason = "the demo is for people")]
pub fn print(nodes: &[Node], supernode: &Supernode, pulls: &[Pull], image: u64) {
    println!();
    println!(
        "{:<10} {:>9} {:>10} {:>12} {:>12} {:>12} {:>7} {:>12}",
        "node", "seconds", "first byte", "from origin", "from seed", "from peers", "peers", "handed on"
    );
    let (mut all, mut peers) = (0, 0);
    for pull in pulls {
        let metrics = nodes[pull.peer - 1].peer().engine().metrics();
        let from = |source| metrics.received_bytes.of(source).get();
        let (origin, seed, peer) = (from(ByteSource::Origin), from(ByteSource::Seed), from(ByteSource::Peer));
        all += origin + seed + peer;
        peers += peer;
        println!(
            "{:<10} {:>9.2} {:>8.0}ms {:>12} {:>12} {:>12} {:>6.0}% {:>12}",
            format!("peer-{}", pull.peer),
            pull.took.as_secs_f64(),
            pull.first_byte.as_secs_f64() * 1000.0,
            bytes(origin),
            bytes(seed),
            bytes(peer),
            share(peer, origin + seed + peer),
            bytes(metrics.sent_bytes.of(Recipient::Peer).get()),
        );
    }
    let seed = supernode.engine().metrics();
    println!(
        "{:<10} {:>9} {:>10} {:>12} {:>12} {:>12} {:>7} {:>12}",
        "supernode",
        "",
        "",
        bytes(seed.received_bytes.of(ByteSource::Origin).get()),
        "",
        "",
        "",
        bytes(seed.sent_bytes.of(Recipient::Peer).get()),
    );
    println!(
        "\n{} pulls of {}: {:.0} % of all bytes came from other peers",
        pulls.len(),
        bytes(image),
        share(peers, all)
    );
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}
