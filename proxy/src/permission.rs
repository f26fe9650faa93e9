//! Who may read what. Before anything is handed out the origin has granted it to the client's own credentials: by its
//! answer to this request, or to one before that [`crate::grants`] remembers. This module says what an answer means. Pure;
//! the asking itself is in [`crate::upstream`].
//!
//! # Invariants
//! Only a plain 2xx grants. An origin that answers no is believed; one that gives no answer leaves things as they were.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use peer::error::FetchError;

/// What the origin said to the client's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The client may have the content.
    Granted {
        /// Its length, where the origin says one that can be meant.
        length: Option<u64>,
    },
    /// The answer goes back to the client as it is.
    Refused,
    /// A page for people: a login form behind a redirect, a captive portal. Neither yes nor a registry's no.
    NoRegistry,
}

/// What is done when the engine cannot bring what the origin has granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WayOut {
    /// Straight to the origin with this client's credentials, past swarm and store.
    Direct,
    /// The failure is told to the client.
    Tell,
}

/// What the origin's answer to a HEAD means.
pub(crate) fn judge(status: StatusCode, headers: &HeaderMap) -> Verdict {
    if !status.is_success() {
        return Verdict::Refused;
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if text(CONTENT_TYPE).trim_start().to_ascii_lowercase().starts_with("text/html") {
        return Verdict::NoRegistry;
    }
    // Some servers and proxies say 0 for whatever a HEAD asks.
    Verdict::Granted { length: text(CONTENT_LENGTH).parse().ok().filter(|length| *length > 0) }
}

/// Whether this is no answer to the question: the origin is down, overloaded, or wants rest.
pub(crate) fn is_no_answer(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS
        || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
}

/// Whether a GET may bring what a refused HEAD did not: the registry's own words, or even the content where HEAD is not
/// spoken. An origin that is in trouble is not asked twice.
pub(crate) fn is_worth_a_get(status: StatusCode) -> bool {
    !is_no_answer(status)
}

/// Whether content that is here can be what the origin has just granted.
pub(crate) fn is_same(granted: Option<u64>, here: u64) -> bool {
    granted.is_none_or(|length| length == here)
}

/// What to do about a failure of the engine.
pub(crate) fn way_out(error: &FetchError) -> WayOut {
    match error {
        // The download may have been begun for another client, whose credentials ran out; this client's were
        // granted a moment ago.
        FetchError::Origin(failure) if matches!(failure.status, 401 | 403) => WayOut::Direct,
        FetchError::Unavailable(_)
        | FetchError::Swarm(_)
        | FetchError::StoreFull(_)
        | FetchError::Store(_) => WayOut::Direct,
        // An origin that asked for rest gets no second wave of requests; damaged content stays damaged.
        FetchError::Origin(_)
        | FetchError::Forbidden(_)
        | FetchError::Poisoned { .. }
        | FetchError::Closing => WayOut::Tell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::task::{OriginFailure, TaskId};
    use http::HeaderValue;
    use proptest::prelude::*;

    fn answer(pairs: &[(http::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_page_for_people_grants_nothing() {
        let html = answer(&[(CONTENT_TYPE, "Text/HTML; charset=utf-8"), (CONTENT_LENGTH, "7")]);
        assert_eq!(judge(StatusCode::OK, &html), Verdict::NoRegistry);
    }

    #[test]
    fn lengths_are_taken_where_they_can_be_meant() {
        for (said, length) in [("7", Some(7)), ("0", None), ("-1", None), ("x", None)] {
            let headers = answer(&[(CONTENT_LENGTH, said)]);
            assert_eq!(judge(StatusCode::OK, &headers), Verdict::Granted { length }, "{said}");
        }
        assert!(is_same(None, 7) && is_same(Some(7), 7) && !is_same(Some(8), 7));
    }

    #[test]
    fn an_origin_in_trouble_is_not_asked_twice() {
        for (status, worth) in
            [(401, true), (404, true), (405, true), (501, true), (429, false), (503, false)]
        {
            assert_eq!(is_worth_a_get(StatusCode::from_u16(status).unwrap()), worth, "{status}");
        }
    }

    #[test]
    fn another_clients_refusal_and_a_broken_swarm_lead_straight_to_the_origin() {
        let origin = |status| FetchError::Origin(OriginFailure { status, headers: vec![], body: vec![] });
        for direct in [origin(401), origin(403), FetchError::Swarm("gone".into())] {
            assert_eq!(way_out(&direct), WayOut::Direct, "{direct}");
        }
        let poisoned = FetchError::Poisoned { task: TaskId::of_url("x", "") };
        for told in [origin(404), origin(429), origin(503), poisoned, FetchError::Closing] {
            assert_eq!(way_out(&told), WayOut::Tell, "{told}");
        }
        assert_eq!(way_out(&FetchError::Forbidden("no".into())), WayOut::Tell);
    }

    proptest! {
        #[test]
        fn only_a_success_grants(status in 100u16..1000) {
            let granted = matches!(
                judge(StatusCode::from_u16(status).unwrap(), &HeaderMap::new()),
                Verdict::Granted { .. }
            );
            prop_assert_eq!(granted, (200..300).contains(&status));
        }
    }
}
