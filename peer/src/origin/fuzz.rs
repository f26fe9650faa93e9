//! One door for the fuzz target: every text of an origin's answer that this room reads, and every URL that somebody else
//! names. Called by nothing else.

use std::time::SystemTime;

use reqwest::Url;

use super::guard::OriginPolicy;
use super::plan::ContentRange;
use super::registry::{Registries, canonical};
use super::retry::retry_after;
use super::{label_of_text, place_of};

/// Reads the text as each of them; panics where a rule is broken.
pub fn answer(text: &str) {
    if let Some(ContentRange { range: Some(range), total }) = ContentRange::parse(text) {
        assert!(!range.is_empty() && total.is_none_or(|total| range.end <= total), "{text:?}");
    }
    let _ = retry_after(text, SystemTime::UNIX_EPOCH);
    let _ = (place_of(text), canonical(text));
    let shown = label_of_text(text);
    assert!(!shown.contains('?') && !shown.contains('#'), "{text:?} is shown as {shown:?}");
    redirect(text);
}

/// A redirect to the text, as a `Location` may have it: what is allowed is no place that is never asked.
fn redirect(text: &str) {
    let from = Url::parse("https://registry.example/v2/a/blobs/x").expect("invariant: it is a URL");
    let Ok(to) = from.join(text) else { return };
    let nobody = Registries::new(&Default::default(), &[]).expect("invariant: none is fine");
    let policy = OriginPolicy::new(&[], &nobody).expect("invariant: none is fine");
    if policy.check(&to, Some(&from)).is_ok() {
        assert_eq!(to.scheme(), "https", "{text:?} lets go of TLS");
        assert!(to.username().is_empty() && to.password().is_none(), "{text:?} brings a user");
        let host = to.host_str().unwrap_or_default().trim_matches(['[', ']']);
        if let Ok(address) = host.parse::<std::net::IpAddr>() {
            let canonical = address.to_canonical();
            assert!(!canonical.is_loopback() && !canonical.is_unspecified(), "{text:?} leads home");
            assert!(!canonical.is_multicast(), "{text:?} leads to many");
            assert!(!matches!(canonical, std::net::IpAddr::V4(v4) if v4.is_link_local()), "{text:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_breaks_the_readers(
            text in "(https?:)?(//)?[a-z0-9\\[\\]:.@%?#/-]{0,40}|bytes [0-9]{0,22}-[0-9]{0,22}/[0-9*]{0,22}|.{0,40}"
        ) {
            super::answer(&text);
        }
    }
}
