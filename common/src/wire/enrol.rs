//! How a stranger with a join token becomes a member: one request and one answer on one stream of a connection
//! with [`ALPN`], on which only the supernode shows a certificate.

use serde::{Deserialize, Serialize};

/// TLS application protocol (ALPN) of enrolment.
pub const ALPN: &[u8] = b"longshore-enrol/1";

/// Asks for a certificate. Held back from `Debug` output: it carries a secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct Request {
    /// The id of the join token.
    pub token_id: String,
    /// Its secret.
    pub secret: String,
    /// A PKCS #10 certificate request, DER. Only its key is used; the names are the supernode's to give.
    pub csr: Vec<u8>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Request {{ token_id: {:?}, secret: [redacted] }}", self.token_id)
    }
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The certificate and the CA's, DER, leaf first.
    Issued(Vec<Vec<u8>>),
    /// Turned away, and why.
    Refused(String),
}
