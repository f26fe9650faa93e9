//! A member that is turned out before its certificate ends. Supernodes write it down and tell their peers, who tell the
//! other supernodes: whoever holds the CA's key can check the seal.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Seal, Sealer};
use crate::node::NodeId;

/// What the seal is for.
const KIND: &str = "revocation";

/// One member turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Who.
    pub node: NodeId,
    /// Until when it is told, seconds since 1970: by then no certificate of the node can be good.
    pub until: u64,
    /// A supernode's word for the two.
    pub seal: Seal,
}

// === impl Revocation ===

impl Revocation {
    /// Turns a node out until `until`.
    pub fn new(node: NodeId, until: SystemTime, sealer: &Sealer) -> Self {
        let until = until.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let seal = sealer.seal(KIND, &[&node.0, &until.to_le_bytes()]);
        Self { node, until, seal }
    }

    /// Whether a supernode said so.
    pub fn is_sealed(&self, sealer: &Sealer) -> bool {
        sealer.verify(KIND, &[&self.node.0, &self.until.to_le_bytes()], &self.seal)
    }

    /// Whether it still matters.
    pub fn is_alive(&self, now: SystemTime) -> bool {
        now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs() < self.until
    }
}
