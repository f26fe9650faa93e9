//! What the first page shows, put together from what the [hub](crate::hub), the seed and the [history](super::history) know.
//! Made by the recorder for all open pages at once, and by the route for whoever asks.

use std::time::Duration;

use peer::store::Room;
use serde::Serialize;
use utoipa::ToSchema;

use super::history::{History, Point, Speeds, Totals};
use crate::hub::Census;

/// Errors at the origin matter for so long.
const OF_LATE: Duration = Duration::from_secs(60);
/// Fuller than this a quota makes the cache forget what is still wanted.
const NEARLY_FULL: f64 = 0.95;

/// The overview.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Overview {
    /// The release.
    pub version: &'static str,
    /// The supernode's node id.
    pub node: String,
    /// Milliseconds since the start: the clock of the plot.
    pub uptime_ms: u64,
    /// Nodes and swarms in numbers.
    #[serde(flatten)]
    pub census: Census,
    /// Bytes since the start.
    pub bytes: Bytes,
    /// Bytes a second now.
    pub speed: Speeds,
    /// The supernode's own store.
    pub cache: Cache,
    /// What is not as it should be; empty when all is well.
    pub troubles: Vec<Trouble>,
}

/// The overview, and the last hour.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OverviewWithHistory {
    /// The overview.
    #[serde(flatten)]
    pub overview: Overview,
    /// For the plots: milliseconds since the start, and the sums of what nodes got, of what origins sent, and of what the
    /// supernode sent.
    #[schema(value_type = Vec<[u64; 4]>)]
    pub history: Vec<Point>,
}

/// Bytes since the start of the supernode.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Bytes {
    /// What the origin did not have to send: `delivered` less `origin`.
    pub saved: u64,
    /// What nodes got.
    pub delivered: u64,
    /// What the supernode got from origins.
    pub origin: u64,
    /// What the supernode sent to nodes.
    pub seed: u64,
    /// What nodes got from each other.
    pub nodes: u64,
}

/// The supernode's store in numbers.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Cache {
    /// Tasks in it.
    pub tasks: u64,
    /// What it takes on the disk.
    pub disk: u64,
    /// What it may take.
    pub quota: Option<u64>,
    /// What its disk has free.
    pub free: u64,
}

/// Something that is not as it should be, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Trouble {
    /// Whether pulls suffer already.
    pub serious: bool,
    /// What it is, and the way out.
    pub text: String,
}

// === impl Overview ===

impl Overview {
    /// The overview of this moment.
    pub fn new(node: String, uptime: Duration, census: Census, room: &Room, history: &History) -> Self {
        let totals = history.last();
        let cache = Cache { tasks: room.tasks, disk: room.total, quota: room.quota, free: room.free };
        let troubles = troubles(&census, room, history.origin_errors(OF_LATE));
        Self {
            version: env!("CARGO_PKG_VERSION"),
            node,
            uptime_ms: uptime.as_millis() as u64,
            census,
            bytes: bytes(totals),
            speed: history.speeds(),
            cache,
            troubles,
        }
    }
}

fn bytes(totals: Totals) -> Bytes {
    let Totals { delivered, origin, seed, .. } = totals;
    Bytes { saved: totals.saved(), delivered, origin, seed, nodes: totals.between_nodes() }
}

fn troubles(census: &Census, room: &Room, origin_errors: u64) -> Vec<Trouble> {
    let mut troubles = Vec::new();
    let mut add = |serious, text: String| troubles.push(Trouble { serious, text });
    if origin_errors > 0 {
        let times = count(origin_errors, "request", "requests");
        add(true, format!("{times} to an origin failed in the last minute: look at the supernode's log"));
    }
    if room.free <= room.keep_free {
        add(
            true,
            "the disk of the supernode's data folder has no room left: make some, or lower its quota"
                .to_owned(),
        );
    }
    if census.distrusted > 0 {
        let nodes = count(census.distrusted as u64, "node is", "nodes are");
        add(false, format!("{nodes} blamed by others: see the nodes' standing"));
    }
    let full = |quota: u64| room.total as f64 > quota as f64 * NEARLY_FULL;
    if room.quota.is_some_and(full) {
        add(false, "the cache is nearly full: the least recently used images leave it".to_owned());
    }
    troubles
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(free: u64, total: u64) -> Room {
        let quota = Some(1000);
        Room {
            free,
            total,
            quota,
            keep_free: 10,
            blobs: 0,
            index: 0,
            tasks: 0,
            pinned_tasks: 0,
            pinned_bytes: 0,
        }
    }

    #[test]
    fn what_is_wrong_is_said_and_nothing_else() {
        let well = Census::default();
        assert_eq!(troubles(&well, &room(100, 500), 0), []);
        let blamed = Census { distrusted: 1, ..Census::default() };
        let said = troubles(&blamed, &room(5, 999), 2);
        let texts: Vec<_> = said.iter().map(|trouble| trouble.text.as_str()).collect();
        for (text, word) in texts.iter().zip(["2 requests", "no room", "1 node is", "nearly full"]) {
            assert!(text.contains(word), "{texts:?}");
        }
        assert_eq!(
            said.iter().map(|trouble| trouble.serious).collect::<Vec<_>>(),
            [true, true, false, false]
        );
    }
}
