//! The first words on a connection. The dialler opens a stream and says [`Hello`]; the listener answers with its
//! own or refuses in words. Both then speak the older of the two versions.

use serde::{Deserialize, Serialize};

use crate::node::{Labels, NodeId, Role};

/// TLS application protocol (ALPN) of members.
pub const ALPN: &[u8] = b"longshore/1";
/// The newest protocol version that this build speaks.
pub const VERSION: u16 = 4;
/// The oldest that it still understands.
pub const MIN_VERSION: u16 = 1;

/// In [`Hello::features`]: a peer that is here for one fetch and takes no errands.
pub const PASSING: u64 = 1;

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Newest version the speaker knows.
    pub version: u16,
    /// Oldest version it understands.
    pub min_version: u16,
    /// Must be the id of the certificate's key.
    pub node: NodeId,
    /// What it is.
    pub role: Role,
    /// Optional abilities, one bit each; unknown bits are ignored.
    pub features: u64,
    /// Where it can be dialled, if not at the address it dials from.
    pub advertise: Option<std::net::SocketAddr>,
    /// Where it stands.
    pub labels: Labels,
    /// How many children it serves at once per task.
    pub slots: u16,
}

/// The answer to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Come in.
    Welcome(Hello),
    /// Not welcome, and why, for the log.
    Refused(String),
}

/// The version that two nodes speak.
///
/// # Errors
/// In words, when neither understands the other.
pub fn agree(ours: (u16, u16), theirs: (u16, u16)) -> Result<u16, String> {
    let (our_min, our_max) = ours;
    let (their_min, their_max) = theirs;
    let version = our_max.min(their_max);
    if version < our_min || version < their_min {
        return Err(format!(
            "no common protocol version: we speak {our_min} to {our_max}, the neighbour {their_min} to {their_max}; \
             upgrade the older one"
        ));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_version_is_spoken_or_refused_in_words() {
        assert_eq!(agree((1, 1), (1, 3)), Ok(1));
        assert_eq!(agree((1, 4), (2, 3)), Ok(3));
        assert!(agree((1, 1), (2, 3)).unwrap_err().contains("upgrade"));
    }
}
