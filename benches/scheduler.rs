//! How many events a second the scheduler takes, alone on one core, against the figure that one supernode needs for
//! its swarm. Run by `cargo bench --bench scheduler`.

#![allow(clippy::print_stdout, reason = "it talks to people")]

use std::net::SocketAddr;
use std::time::Instant;

use common::node::{Contact, Labels, NodeId};
use common::task::TaskId;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use supernode::scheduler::{Event, Member, Scheduler, Settings};

/// Events a second that are asked for, with 10,000 peers in one swarm.
const NEEDED: f64 = 200_000.0;
const TASK: TaskId = TaskId([0; 32]);
const PIECES: u32 = 1000;

fn node(number: u32) -> NodeId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    NodeId(id)
}

fn contact(id: NodeId) -> Contact {
    Contact { id, address: SocketAddr::from(([0, 0, 0, 0], 7710)) }
}

/// Two peers a machine, three zones.
fn member(number: u32) -> Member {
    let labels =
        Labels { zone: format!("z{}", number % 3), rack: String::new(), host: format!("h{}", number / 2) };
    Member { contact: contact(node(number)), labels, slots: 8 }
}

fn measure(peers: u32) {
    let now = Instant::now();
    let mut scheduler = Scheduler::new(contact(NodeId([255; 16])), Settings::default(), 7);
    let mut rng = SmallRng::seed_from_u64(7);
    (0..peers).for_each(|number| drop(scheduler.apply(Event::PeerUp(member(number)), now)));
    scheduler.apply(Event::SeedMeta { task: TASK, pieces: PIECES }, now);
    let mut rate = |what: &str, count: u32, next: &mut dyn FnMut(u32) -> Event| {
        let events: Vec<Event> = (0..count).map(next).collect();
        let start = Instant::now();
        let commands: usize = events.into_iter().map(|event| scheduler.apply(event, now).len()).sum();
        let rate = f64::from(count) / start.elapsed().as_secs_f64();
        println!("{peers:>7} {what:<10} {rate:>12.0} {:>6.2} {commands:>10}", rate / NEEDED);
    };
    rate("join", peers, &mut |index| Event::Join { task: TASK, node: node(index), held: 0 });
    let progress =
        |index| Event::Progress { task: TASK, node: node(index % peers), held: 100 * (1 + index / peers) };
    rate("progress", 4 * peers, &mut { progress });
    rate("mixed", 4 * peers, &mut |index| {
        let node = node(rng.random_range(0..peers));
        match index % 16 {
            0 => Event::Leave { task: TASK, node },
            1 => Event::Join { task: TASK, node, held: 0 },
            2 => Event::MoreParents { task: TASK, node },
            _ => Event::Progress { task: TASK, node, held: rng.random_range(0..PIECES) },
        }
    });
    rate("finish", peers, &mut |index| Event::Progress { task: TASK, node: node(index), held: PIECES });
    rate("down", peers, &mut |index| Event::PeerDown(node(index)));
}

fn main() {
    println!("{:>7} {:<10} {:>12} {:>6} {:>10}", "peers", "events", "a second", "ratio", "commands");
    [1_000, 10_000, 100_000].into_iter().for_each(measure);
}
