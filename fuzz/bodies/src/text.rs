//! Every text that comes from outside: digests, tokens, settings, registry paths and ranges, what an origin answers, and the
//! files of container runtimes.

use common::config::{ByteSize, ListenAddr, Rate, Settings, Span};
use common::digest::Digest;
use common::identity::JoinToken;
use common::node::NodeId;
use common::task::TaskId;

/// Takes the bytes for a text, if they are one.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.to_string(), text.trim());
    }
    let _ = text.parse::<TaskId>();
    let _ = text.parse::<NodeId>();
    let _ = text.parse::<ByteSize>();
    let _ = text.parse::<Rate>();
    let _ = text.parse::<Span>();
    let _ = text.parse::<ListenAddr>();
    let _ = Settings::from_str(text, "fuzz");
    let _ = common::telemetry::redact(text);
    peer::origin::fuzz::answer(text);
    proxy::fuzz::request(text);
    proxy::fuzz::setup(text);
}
