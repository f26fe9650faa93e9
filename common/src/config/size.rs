//! Amounts of bytes as people write them: `10GiB`, `500MB`, `64MiB`, or a plain number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::quantity::{Number, ParseError, text_or_integer};

const EXPECTED: &str = "a size in bytes: expected for example 10GiB, 500MB or 1048576";

/// Largest factor first, so that the first that divides a size writes it shortest.
const UNITS: [(&str, u64); 10] = [
    ("PiB", 1 << 50),
    ("PB", 1_000_000_000_000_000),
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
];

/// An amount of bytes. Units are read in any case, and without their `B` (`10Gi`, `500M`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// How many bytes a unit means, whatever its case; the empty unit is one byte.
pub(super) fn unit(name: &str) -> Option<u64> {
    if name.is_empty() || name.eq_ignore_ascii_case("b") {
        return Some(1);
    }
    UNITS
        .iter()
        .find(|(known, _)| {
            name.eq_ignore_ascii_case(known) || name.eq_ignore_ascii_case(&known[..known.len() - 1])
        })
        .map(|&(_, bytes)| bytes)
}

// === impl ByteSize ===

impl FromStr for ByteSize {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let read = || {
            let (number, rest) = Number::split(text.trim())?;
            let bytes = number.times(unit(rest.trim_start())?.into())?;
            u64::try_from(bytes).ok()
        };
        read().map(Self).ok_or_else(|| ParseError::new(text, EXPECTED))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_integer(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [
            ("10GiB", 10 << 30),
            ("500MB", 500_000_000),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("10Gi", 10 << 30),
            ("1.5k", 1500),
            ("7", 7),
            ("7B", 7),
            ("0", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "GiB", "-1", "10GX", "1e3", "10 GiB free", "99999PiB", "18446744073709551616"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_shown_short() {
        for text in ["10GiB", "1TB", "64MiB", "1001B", "0B", "3kB"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = text.parse::<ByteSize>();
        }

        #[test]
        fn anything_like_a_size_is_read_or_refused(text in "[0-9.]{1,40} ?[kKmMgGtTpP]?i?[bB]?") {
            let _ = text.parse::<ByteSize>();
        }

        #[test]
        fn every_size_reads_back(count: u64, unit in 0..UNITS.len()) {
            for size in [ByteSize(count), ByteSize((count % 1024) * UNITS[unit].1)] {
                prop_assert_eq!(size.to_string().parse(), Ok(size));
            }
        }
    }
}
