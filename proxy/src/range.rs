//! Which bytes of a content-addressed blob a request is to get: `Range`, `If-Range`, `If-None-Match`. Pure; called by
//! the blob and manifest handlers once the client is known to be allowed.
//!
//! Source: RFC 9110, sections 13 and 14. What the RFC lets a server ignore (several ranges, units other than
//! bytes, nonsense) is ignored: the client then gets the whole.

use common::piece::ByteRange;
use http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderName};

/// The part of a blob that a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Everything: status 200.
    Whole,
    /// One range of at least a byte, within the blob: status 206.
    Part(ByteRange),
    /// A range that begins behind the end: status 416.
    Unsatisfiable,
}

// === impl Wanted ===

impl Wanted {
    /// What a request with these headers gets of a blob of `length` bytes whose strong validator is `etag`.
    pub(crate) fn of(headers: &HeaderMap, etag: &str, length: u64) -> Self {
        let Some(range) = only(headers, RANGE) else { return Self::Whole };
        // A date, a weak tag or another tag: the client's part may be of something else, so it gets the whole.
        if headers.contains_key(IF_RANGE) && only(headers, IF_RANGE) != Some(etag) {
            return Self::Whole;
        }
        parse(range, length)
    }

    /// The bytes to send, none where there is nothing to send.
    pub(crate) fn range(self, length: u64) -> ByteRange {
        match self {
            Self::Whole => ByteRange::new(0, length),
            Self::Part(range) => range,
            Self::Unsatisfiable => ByteRange::new(0, 0),
        }
    }
}

/// Whether the client says that it has this content already.
pub(crate) fn unchanged(headers: &HeaderMap, etag: &str) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        let mut tags = value.split(',').map(str::trim);
        tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    })
}

/// The header's value if it was sent once and is text.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| first.trim())
}

fn parse(header: &str, length: u64) -> Wanted {
    let Some((unit, set)) = header.split_once('=') else { return Wanted::Whole };
    let Some((first, last)) = set.trim().split_once('-') else { return Wanted::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Wanted::Whole;
    }
    match (first, last) {
        ("", suffix) => match number(suffix) {
            Some(0) => Wanted::Unsatisfiable,
            // An empty blob has no byte that a 206 could name.
            Some(count) if length > 0 => Wanted::Part(ByteRange::new(length - count.min(length), length)),
            _ => Wanted::Whole,
        },
        (first, last) => {
            let open = last.is_empty();
            let (Some(first), Some(last)) = (number(first), number(if open { first } else { last })) else {
                return Wanted::Whole;
            };
            let last = if open { u64::MAX } else { last };
            match first {
                first if first > last => Wanted::Whole,
                first if first >= length => Wanted::Unsatisfiable,
                first => Wanted::Part(ByteRange::new(first, last.saturating_add(1).min(length))),
            }
        }
    }
}

/// Digits only; a number beyond 64 bits is as good as the largest.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const ETAG: &str = "\"sha256:aa\"";

    fn asked(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn wanted(range: &str, length: u64) -> Wanted {
        Wanted::of(&asked(&[(RANGE, range)]), ETAG, length)
    }

    #[test]
    fn single_ranges_are_served_and_the_rest_is_ignored() {
        let part = |start, end| Wanted::Part(ByteRange::new(start, end));
        assert_eq!(wanted("bytes=0-0", 10), part(0, 1));
        assert_eq!(wanted("bytes=3-", 10), part(3, 10));
        assert_eq!(wanted("bytes=3-99", 10), part(3, 10));
        assert_eq!(wanted("bytes=-4", 10), part(6, 10));
        assert_eq!(wanted("bytes=-40", 10), part(0, 10));
        assert_eq!(wanted("Bytes = 1-2", 10), part(1, 3));
        assert_eq!(wanted(&format!("bytes=0-{}0", u64::MAX), 10), part(0, 10));
        for unsatisfiable in ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(wanted(unsatisfiable, 10), Wanted::Unsatisfiable, "{unsatisfiable}");
        }
        for ignored in
            ["bytes=5-4", "bytes=0-1,4-5", "bytes=", "bytes=-", "bytes=+1-2", "lines=0-1", "bytes=a-b", "x"]
        {
            assert_eq!(wanted(ignored, 10), Wanted::Whole, "{ignored}");
        }
        assert_eq!(wanted("bytes=-1", 0), Wanted::Whole);
        assert_eq!(wanted("bytes=0-", 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn a_range_counts_only_for_the_content_that_the_client_has_begun() {
        let range = (RANGE, "bytes=1-2");
        let part = Wanted::Part(ByteRange::new(1, 3));
        assert_eq!(Wanted::of(&asked(&[range.clone(), (IF_RANGE, ETAG)]), ETAG, 10), part);
        for other in ["\"sha256:bb\"", "W/\"sha256:aa\"", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(Wanted::of(&asked(&[range.clone(), (IF_RANGE, other)]), ETAG, 10), Wanted::Whole);
        }
        let mut twice = asked(&[range]);
        twice.append(RANGE, HeaderValue::from_static("bytes=5-6"));
        assert_eq!(Wanted::of(&twice, ETAG, 10), Wanted::Whole);
    }

    #[test]
    fn a_known_tag_is_unchanged_content() {
        for known in ["*", ETAG, "W/\"sha256:aa\"", "\"x\" , \"sha256:aa\""] {
            assert!(unchanged(&asked(&[(IF_NONE_MATCH, known)]), ETAG), "{known}");
        }
        assert!(!unchanged(&asked(&[(IF_NONE_MATCH, "\"x\"")]), ETAG));
        assert!(!unchanged(&HeaderMap::new(), ETAG));
    }

    proptest! {
        #[test]
        fn no_header_panics_and_no_part_leaves_the_blob(header in "(bytes=)?[0-9,= -]{0,30}|[ -~]{0,40}", length: u64) {
            if let Wanted::Part(range) = wanted(&header, length) {
                prop_assert!(!range.is_empty() && range.end <= length);
            }
        }

        #[test]
        fn parts_are_what_slicing_a_list_gives(first in 0usize..40, last in 0usize..40, length in 0usize..40, form in 0..3) {
            let blob: Vec<usize> = (0..length).collect();
            let (header, slice) = match form {
                0 => (format!("bytes={first}-{last}"), blob.iter().filter(|at| **at >= first && **at <= last).collect::<Vec<_>>()),
                1 => (format!("bytes={first}-"), blob.iter().skip(first).collect()),
                _ => (format!("bytes=-{last}"), blob.iter().skip(length.saturating_sub(last)).collect()),
            };
            match wanted(&header, length as u64) {
                Wanted::Part(range) => {
                    let got: Vec<usize> = (range.start as usize..range.end as usize).collect();
                    prop_assert_eq!(got.iter().collect::<Vec<_>>(), slice);
                }
                Wanted::Unsatisfiable => prop_assert!(slice.is_empty()),
                Wanted::Whole => prop_assert!((form == 0 && first > last) || length == 0),
            }
        }
    }
}
