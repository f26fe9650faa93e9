//! Who a node is, and how it proves it: keys, the cluster's CA, certificates, join tokens, and the TLS
//! settings made of them. The transport takes its TLS from here; the supernode enrols with it; the peer
//! daemon enrols and renews with it.
//!
//! A node's key never leaves it. Its id is a digest of the public key, its certificate says that id, and
//! dialling a node means asking TLS for exactly that name, so that nobody can stand in for another.
//!
//! # Invariants
//! - Both ends speak TLS 1.3, without resumption: a certificate is looked at in every handshake.
//! - Only the cluster's own CA is trusted, and while it changes the next one, too; the system's roots have no say.
//! - Whoever holds no supernode certificate cannot pass for [`SUPERNODE_NAME`].
//! - Every file here is written whole with mode 0600 (see `files`); no secret reaches a log or an error.

mod account_token;
mod authority;
mod certificate;
mod files;
mod join_proof;
mod own;
mod revocation;
mod revocation_book;
mod roll;
mod rotation;
mod seal;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod token_book;
mod trust;

use std::io;
use std::path::PathBuf;

pub use account_token::AccountToken;
pub use authority::{Authority, CLOCK_SKEW, Issued, LIFETIME};
pub use certificate::{CertificateInfo, PeerCertificate, read_peer_certificate};
pub use files::{read_secret, write_secret};
pub use join_proof::JoinProof;
pub use own::Identity;
pub use revocation::Revocation;
pub use revocation_book::{RevocationBook, RevocationEntry};
pub use roll::Roll;
pub use rotation::{Rotation, RotationStatus};
pub use seal::{Seal, Sealer};
pub use tls::{Admits, enrolment_client_config, install_crypto_provider};
pub use token::{JoinToken, JoinTokenError};
pub use token_book::{TokenBook, TokenInfo, TokenOptions, TokenRefusal, TokenState};

use crate::node::NodeId;

/// The TLS name of every supernode.
pub const SUPERNODE_NAME: &str = "supernode.longshore";

/// The TLS name to dial a node under.
pub fn server_name(node: NodeId) -> String {
    format!("{node}.node.longshore")
}

/// Why an identity, a certificate or a token could not be made, read or trusted. The text is one line and whole:
/// a cause is inside it, and no secret is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file system said no.
    #[error("cannot {action} {}: {cause}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system answered.
        cause: io::Error,
    },
    /// A file is there but holds something else.
    #[error("{} holds no {what}: {way_out}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What the reader can do.
        way_out: &'static str,
    },
    /// The CA's two files are not a pair.
    #[error(
        "ca.key does not belong to ca.pem in {}: restore both from a backup or move the folder aside to start \
         a new cluster",
        .0.display()
    )]
    AuthorityMismatch(PathBuf),
    /// The CA's certificate is there without its key.
    #[error(
        "ca.pem has no ca.key beside it in {}: restore ca.key from a backup or move the folder aside to start \
         a new cluster",
        .0.display()
    )]
    AuthorityKeyMissing(PathBuf),
    /// TLS settings were asked of a node that is no member yet.
    #[error("this node has no certificate yet: enrol it first, with a join token or a Kubernetes token")]
    NotEnrolled,
    /// A certificate request is malformed or not signed by its own key.
    #[error("certificate request refused: {0}")]
    Request(String),
    /// A certificate or chain is malformed or not for whom it should be.
    #[error("certificate refused: {0}")]
    Certificate(String),
    /// A key or certificate could not be made.
    #[error("cannot make a key or certificate: {0}")]
    Making(rcgen::Error),
    /// TLS could not be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// A time outside what certificates can say.
    #[error("this machine's clock shows a time that no certificate can carry: set the clock")]
    Clock,
    /// A node to let in again that is not turned out.
    #[error("node {0} is not revoked: see `longshore node list`")]
    NotRevoked(NodeId),
    /// More revocations than are told in one message.
    #[error(
        "{} nodes are revoked already, which is the most: let those in again that are gone for good",
        crate::wire::swarm::MAX_ENTRIES
    )]
    TooManyRevoked,
    /// A rotation of the CA that cannot be done now.
    #[error("{0}")]
    Rotation(String),
    /// A token to revoke that is not in the book.
    #[error("there is no join token {0:?}: list the tokens to see their ids")]
    NoSuchToken(String),
    /// A join token file without a usable token.
    #[error("{}: {cause}", path.display())]
    JoinToken {
        /// The file.
        path: PathBuf,
        /// What is wrong with its text.
        cause: JoinTokenError,
    },
}
