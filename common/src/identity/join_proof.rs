//! What a node shows to become a member. There is a join token, and a Kubernetes ServiceAccount token; the peer daemon is
//! given one of them, and [`crate::transport::enrol`] shows it.
//!
//! # Invariants
//! - A proof knows the CA of its cluster, and is shown to nobody but a supernode with a certificate of that CA.

use std::fmt;

use super::{IdentityError, JoinToken};
use crate::digest::Digest;
use crate::wire::enrol::Request;

/// What a node shows to become a member.
pub trait JoinProof: fmt::Debug + Send + Sync {
    /// SHA-256 of the certificate of the cluster's CA.
    fn cluster(&self) -> Digest;

    /// The request for a certificate, with the proof as it is now. A short blocking read at most.
    ///
    /// # Errors
    /// When the proof cannot be read.
    fn request(&self, csr: Vec<u8>) -> Result<Request, IdentityError>;

    /// What it is called.
    fn name(&self) -> &'static str;

    /// What to do when it is refused.
    fn way_out(&self) -> &'static str;
}

impl JoinProof for JoinToken {
    fn cluster(&self) -> Digest {
        self.ca()
    }

    fn request(&self, csr: Vec<u8>) -> Result<Request, IdentityError> {
        Ok(Request { token_id: self.id().to_owned(), secret: self.secret().to_owned(), csr })
    }

    fn name(&self) -> &'static str {
        "join token"
    }

    fn way_out(&self) -> &'static str {
        "make a token for it with `longshore token create` on its supernode"
    }
}
