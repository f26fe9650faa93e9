//! Nodes: supernodes and peers, their ids, addresses and places.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A node's name: the first 16 bytes of the SHA-256 of its public key (DER `SubjectPublicKeyInfo`), so that
/// nobody can take another's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 16]);

/// A text that is no node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a node id: expected 32 hex characters")]
pub struct NodeIdError(String);

// === impl NodeId ===

impl NodeId {
    /// The id of the holder of a public key.
    pub fn of_public_key(spki_der: &[u8]) -> Self {
        let digest = Digest::of(spki_der);
        let mut id = [0; 16];
        id.copy_from_slice(&digest.0[..16]);
        Self(id)
    }

    /// The first eight hex characters: enough for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).map_err(|_| NodeIdError(text.chars().take(64).collect()))?;
        Ok(Self(id))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

/// Where a node stands. Two nodes are near when they share a host, then a rack, then a zone; empty means unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Labels {
    /// Availability zone.
    pub zone: String,
    /// Rack.
    pub rack: String,
    /// Machine.
    pub host: String,
}

/// What a node does in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Tracks, schedules, seeds and enrols.
    Supernode,
    /// Fetches and serves.
    Peer,
}

/// How to reach a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Who must answer there; the TLS handshake proves it.
    pub id: NodeId,
    /// Its QUIC address.
    pub address: SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_nonsense_is_refused() {
        let id = NodeId::of_public_key(b"key");
        assert_eq!(id.to_string().parse::<NodeId>().unwrap(), id);
        assert!("zz".parse::<NodeId>().is_err());
    }
}
