//! How a stranger with a join token or a Kubernetes ServiceAccount token becomes a member: one request and one answer on one
//! stream of a connection with [`ALPN`], on which only the supernode shows a certificate.

use serde::{Deserialize, Serialize};

/// TLS application protocol (ALPN) of enrolment.
pub const ALPN: &[u8] = b"longshore-enrol/1";

/// Stands for the id of a join token, which is eight hex digits, where the secret is a Kubernetes ServiceAccount token.
pub const KUBERNETES: &str = "kubernetes";

/// The longest ServiceAccount token: they have 1 to 2 KiB, and a stranger's words 8.
pub const MAX_ACCOUNT_TOKEN: usize = 6 * 1024;

/// Whether a text has the form of a ServiceAccount token: a signed JSON Web Token (RFC 7515, compact). Who signed it is
/// the Kubernetes API's to say.
pub fn is_account_token(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let part = |part: &str| !part.is_empty() && part.bytes().all(plain);
    text.len() <= MAX_ACCOUNT_TOKEN
        && text.starts_with("eyJ")
        && text.split('.').count() == 3
        && text.split('.').all(part)
}

/// Asks for a certificate. Held back from `Debug` output: it carries a secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct Request {
    /// The id of the join token, or [`KUBERNETES`].
    pub token_id: String,
    /// Its secret, or the ServiceAccount token.
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
