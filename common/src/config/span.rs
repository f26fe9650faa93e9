//! Lengths of time as people write them: `500ms`, `10s`, `5m`, `1h30m`, `24h`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::quantity::{Number, ParseError, text_or_integer};

const EXPECTED: &str = "a length of time: expected for example 500ms, 10s, 5m, 1h30m or 24h, at most 36500d";

const NANOS_PER_SECOND: u128 = 1_000_000_000;
/// A hundred years: more would overflow the clock that deadlines are counted on.
const LONGEST: u128 = 36_500 * 24 * 3600 * NANOS_PER_SECOND;

/// Longest first; each is written at most once, so that the text reads back to the nanosecond.
const UNITS: [(&str, u128); 6] = [
    ("h", 3600 * NANOS_PER_SECOND),
    ("m", 60 * NANOS_PER_SECOND),
    ("s", NANOS_PER_SECOND),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A length of time. A number without a unit is seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

// === impl Span ===

impl Span {
    fn read(text: &str) -> Option<Duration> {
        let mut rest = text.trim();
        let mut total = 0_u128;
        let whole = rest;
        loop {
            let (number, after) = Number::split(rest)?;
            let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let (name, next) = after.split_at(end);
            let unit = match name.trim() {
                // A bare number stands alone: the `5` of `1h5` could be anything.
                "" if rest.len() == whole.len() && next.is_empty() => NANOS_PER_SECOND,
                "d" => 24 * 3600 * NANOS_PER_SECOND,
                "min" => 60 * NANOS_PER_SECOND,
                name => UNITS.iter().find(|(known, _)| name == *known)?.1,
            };
            total = total.checked_add(number.times(unit)?).filter(|&total| total <= LONGEST)?;
            if next.is_empty() {
                let seconds = u64::try_from(total / NANOS_PER_SECOND).ok()?;
                return Some(Duration::new(seconds, (total % NANOS_PER_SECOND) as u32));
            }
            rest = next;
        }
    }
}

impl FromStr for Span {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::read(text).map(Self).ok_or_else(|| ParseError::new(text, EXPECTED))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (name, unit) in UNITS {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_integer(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_read_as_people_write_them() {
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("10", 10_000),
            ("0.5s", 500),
            ("5m", 300_000),
            ("5min", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(millis))), "{text}");
        }
        for bad in ["", "s", "-1s", "1h5", "10x", "10 seconds ago", "36501d", "99999999999999999999h"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_are_shown_short() {
        for text in ["24h", "1h30m", "10s", "500ms", "0s", "1s1ns"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}", parts in "([0-9.]{1,12} ?(d|h|m|s|ms|us|ns)? ?){1,5}") {
            let _ = text.parse::<Span>();
            let _ = parts.parse::<Span>();
        }

        #[test]
        fn every_span_reads_back(seconds in 0..=36_500_u64 * 24 * 3600 - 1, nanos in 0..1_000_000_000_u32) {
            for span in [Span(Duration::new(seconds, nanos)), Span(Duration::from_secs(seconds))] {
                prop_assert_eq!(span.to_string().parse(), Ok(span));
            }
        }
    }
}
