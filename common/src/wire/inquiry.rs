//! What a peer would have its supernode ask an origin for one of its clients: may this client have it, and which content
//! does this tag mean now? One stream an inquiry, opened with [`super::exchange::Opening::Inquiry`]; one answer. Through
//! the supernode so that a thousand nodes that ask the same thing at one moment are one request at the origin.

use serde::{Deserialize, Serialize};

use super::swarm::Failure;
use crate::task::Credentials;

/// The most headers of an answer that are handed on.
pub const MAX_HEADERS: usize = 64;
/// The longest value of one.
pub const MAX_VALUE: usize = 4096;

/// A question to an origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inquiry {
    /// The origin's URL.
    pub url: String,
    /// The media types that the client takes.
    pub accept: Option<String>,
    /// What the client shows.
    pub credentials: Credentials,
    /// Ask with a GET and bring the words of a refusal; else a HEAD, which has none.
    pub words: bool,
}

/// An origin's answer without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// HTTP status.
    pub status: u16,
    /// The headers, names in lower case; at most [`MAX_HEADERS`] of at most [`MAX_VALUE`] bytes.
    pub headers: Vec<(String, String)>,
    /// What the origin said of a refusal; empty otherwise.
    pub body: Vec<u8>,
}

/// The supernode's reply to an [`Inquiry`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inquired {
    /// What the origin said.
    Answered(Answered),
    /// The supernode could not ask: the peer may be able to.
    Unable(Failure),
}
