//! A part of some content, as people write it behind `curl --range`: `0-499`, `500-`, `-500`. Pure; read by `get`, cut by
//! the local API.
//!
//! Source: RFC 9110, section 14.1.2.

use std::str::FromStr;

use common::piece::ByteRange;
use serde::{Deserialize, Serialize};

/// Which bytes, before the length is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Excerpt {
    /// From the first to the last, both included.
    Between(u64, u64),
    /// From this one to the end.
    From(u64),
    /// So many at the end.
    Last(u64),
}

/// Not a range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of bytes: expected FIRST-LAST, FIRST- or -COUNT, for example 0-499")]
pub struct ExcerptError(String);

// === impl Excerpt ===

impl Excerpt {
    /// Its bytes in content of `length`; `None` when there are none.
    pub fn within(self, length: u64) -> Option<ByteRange> {
        let range = match self {
            Self::Between(first, last) => ByteRange::new(first, last.saturating_add(1).min(length)),
            Self::From(first) => ByteRange::new(first, length),
            Self::Last(count) => ByteRange::new(length.saturating_sub(count), length),
        };
        (!range.is_empty()).then_some(range)
    }
}

impl FromStr for Excerpt {
    type Err = ExcerptError;

    fn from_str(text: &str) -> Result<Self, ExcerptError> {
        let refused = || ExcerptError(text.chars().take(60).collect());
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok()).flatten().ok_or_else(refused)
        };
        match text.split_once('-').ok_or_else(refused)? {
            ("", count) => number(count).map(Self::Last),
            (first, "") => number(first).map(Self::From),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if first <= last { Ok(Self::Between(first, last)) } else { Err(refused()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_read_as_curl_reads_them() {
        for (text, range) in [
            ("0-0", Some((0, 1))),
            ("5-", Some((5, 10))),
            ("-3", Some((7, 10))),
            ("2-99", Some((2, 10))),
            ("-99", Some((0, 10))),
            ("10-", None),
            ("-0", None),
            ("10-20", None),
        ] {
            let read = text.parse::<Excerpt>().unwrap().within(10).map(|range| (range.start, range.end));
            assert_eq!(read, range, "{text}");
        }
        for bad in ["", "-", "5", "5-2", "a-b", "+1-2", "1-2,4-5", "1 - 2", "-99999999999999999999"] {
            assert!(bad.parse::<Excerpt>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,20}") {
            let _ = text.parse::<Excerpt>();
        }

        #[test]
        fn an_excerpt_lies_within(first: u64, more: u32, length: u64) {
            let all = [Excerpt::Between(first, first.saturating_add(more.into())), Excerpt::From(first), Excerpt::Last(first)];
            for range in all.into_iter().filter_map(|excerpt| excerpt.within(length)) {
                prop_assert!(range.start < range.end && range.end <= length);
            }
        }
    }
}
