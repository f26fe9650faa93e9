//! Every text that comes from outside: digests, tokens, settings, registry paths and ranges, and the files of
//! container runtimes.
#![no_main]

use common::config::{ByteSize, ListenAddr, Rate, Settings, Span};
use common::digest::Digest;
use common::identity::JoinToken;
use common::node::NodeId;
use common::task::TaskId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
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
    proxy::fuzz::request(text);
    proxy::fuzz::setup(text);
});
