//! What a job would come to, were it begun now: how many bytes would move, from where, and for how long. Pure; [`super::scout`] finds
//! out what it is told.
//!
//! # Invariants
//! - What the cache lacks is counted once as the origin's, though nodes may hold it: a supernode vouches only for what it has seen.

use common::node::NodeId;
use common::piece::Geometry;
use common::task::TaskId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::job::Contents;

/// A blob, manifest or file of a job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) task: TaskId,
    /// Bytes.
    pub(super) length: u64,
    /// Bytes of it that the supernode's cache has.
    pub(super) cached: u64,
}

/// The highest speeds of late, in bytes a second; nothing was moved, where one is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = PreheatSpeeds)]
pub struct Speeds {
    /// From origins to the supernode.
    pub origin: u64,
    /// To all nodes together, wherever from.
    pub nodes: u64,
}

/// What a job would come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Forecast {
    /// What it comes to on one node.
    pub contents: Contents,
    /// Nodes that are to have it; the supernode alone, for `cache`.
    pub desired: u32,
    /// How many of them have all of it.
    pub ready: u32,
    /// Names that no connected node has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Bytes that the origin would send, once.
    pub origin_bytes: u64,
    /// Bytes that the nodes would get, from the supernode and from each other.
    pub node_bytes: u64,
    /// The highest speeds of the last hour.
    pub speeds: Speeds,
    /// How long it would take at these speeds; unknown where nothing was moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

// === impl Part ===

impl Part {
    /// What a node lacks of it that holds so many of its pieces.
    fn lacks(&self, held: u32) -> u64 {
        // Of what cannot be cut nobody holds a piece.
        let piece = Geometry::of(self.length).map_or(0, |cut| u64::from(cut.piece_length()));
        self.length.saturating_sub(u64::from(held).saturating_mul(piece))
    }
}

// === impl Forecast ===

impl Forecast {
    /// For these nodes; `held` says how many pieces of a task each of them holds, in their order.
    pub(super) fn of(
        parts: &[Part],
        nodes: &[NodeId],
        mut held: impl FnMut(TaskId, &[NodeId]) -> Vec<u32>,
        speeds: Speeds,
    ) -> Self {
        let mut lacking = vec![0_u64; nodes.len()];
        let mut origin_bytes = 0;
        for part in parts {
            let before: u64 = lacking.iter().sum();
            for (lacking, held) in lacking.iter_mut().zip(held(part.task, nodes)) {
                *lacking += part.lacks(held);
            }
            if lacking.iter().sum::<u64>() > before {
                origin_bytes += part.length.saturating_sub(part.cached);
            }
        }
        let contents =
            Contents { tasks: parts.len() as u32, bytes: parts.iter().map(|part| part.length).sum() };
        Self {
            contents,
            desired: nodes.len() as u32,
            ready: lacking.iter().filter(|lacking| **lacking == 0).count() as u32,
            unknown: Vec::new(),
            origin_bytes,
            node_bytes: lacking.iter().sum(),
            speeds,
            seconds: None,
        }
        .timed()
    }

    /// For the cache alone.
    pub(super) fn of_cache(parts: &[Part], speeds: Speeds) -> Self {
        let lacking = parts.iter().map(|part| part.length.saturating_sub(part.cached)).sum();
        let forecast = Self::of(parts, &[], |_, _| Vec::new(), speeds);
        let ready = u32::from(lacking == 0);
        Self { desired: 1, ready, origin_bytes: lacking, ..forecast }.timed()
    }

    /// Pieces are handed on as they come: the slower way says how long it takes.
    fn timed(self) -> Self {
        let takes = |bytes: u64, speed: u64| match (bytes, speed) {
            (0, _) => Some(0),
            (_, 0) => None,
            _ => Some(bytes.div_ceil(speed)),
        };
        let ways =
            takes(self.origin_bytes, self.speeds.origin).zip(takes(self.node_bytes, self.speeds.nodes));
        Self { seconds: ways.map(|(origin, nodes)| origin.max(nodes)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn part(number: u8, length: u64, cached: u64) -> Part {
        Part { task: TaskId([number; 32]), length, cached }
    }

    fn nodes(count: u8) -> Vec<NodeId> {
        (0..count).map(|number| NodeId([number; 16])).collect()
    }

    const SPEEDS: Speeds = Speeds { origin: MIB, nodes: 4 * MIB };

    #[test]
    fn what_nodes_hold_is_not_brought_and_the_origin_gives_each_part_once() {
        let parts = [part(1, 8 * MIB, 0), part(2, 4 * MIB, 4 * MIB), part(3, 2 * MIB, 0)];
        // The first node has all, the second half of the first part, the third nothing but the third part.
        let whole = |length: u64| Geometry::of(length).unwrap().pieces();
        let held = |task: TaskId, _: &[NodeId]| match task.0[0] {
            1 => vec![whole(8 * MIB), whole(8 * MIB) / 2, 0],
            2 => vec![whole(4 * MIB), 0, 0],
            _ => vec![whole(2 * MIB), whole(2 * MIB), whole(2 * MIB)],
        };
        let forecast = Forecast::of(&parts, &nodes(3), held, SPEEDS);
        assert_eq!((forecast.desired, forecast.ready), (3, 1));
        assert_eq!(forecast.contents, Contents { tasks: 3, bytes: 14 * MIB });
        assert_eq!(forecast.node_bytes, (4 + 8 + 4 + 4) * MIB);
        assert_eq!(forecast.origin_bytes, 8 * MIB, "the third part nobody lacks");
        assert_eq!(forecast.seconds, Some(8));
    }

    #[test]
    fn for_the_cache_nodes_do_not_matter() {
        let forecast = Forecast::of_cache(&[part(1, 8 * MIB, 2 * MIB), part(2, MIB, MIB)], SPEEDS);
        assert_eq!((forecast.desired, forecast.ready, forecast.node_bytes), (1, 0, 0));
        assert_eq!((forecast.origin_bytes, forecast.seconds), (6 * MIB, Some(6)));
        let ready = Forecast::of_cache(&[part(1, MIB, MIB)], Speeds::default());
        assert_eq!((ready.ready, ready.seconds), (1, Some(0)));
    }

    #[test]
    fn without_a_speed_there_is_no_time() {
        let nothing = |_: TaskId, nodes: &[NodeId]| vec![0; nodes.len()];
        let forecast = Forecast::of(&[part(1, MIB, MIB)], &nodes(2), nothing, Speeds::default());
        assert_eq!((forecast.node_bytes, forecast.seconds), (2 * MIB, None));
    }
}
