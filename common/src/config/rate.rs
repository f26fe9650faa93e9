//! Limits on bytes per second as people write them: `25MiB/s`, `200mbit`, `none`.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::quantity::{Number, ParseError, text_or_integer};
use super::size::{ByteSize, unit};

const EXPECTED: &str = "a rate: expected for example 25MiB/s, 200mbit, a number of bytes a second, or none";

/// A limit in bytes per second, or none. `0`, `none` and `unlimited` all mean no limit.
///
/// Bits must be written out (`mbit`): `Mb` and `mbps` mean bits to some and bytes to others, and are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rate(Option<NonZeroU64>);

// === impl Rate ===

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self(None);

    /// So many bytes a second; 0 is no limit.
    pub fn new(bytes_per_second: u64) -> Self {
        Self(NonZeroU64::new(bytes_per_second))
    }

    /// The limit, if there is one.
    pub fn bytes_per_second(self) -> Option<NonZeroU64> {
        self.0
    }

    fn read(text: &str) -> Option<u64> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("none") || text.eq_ignore_ascii_case("unlimited") {
            return Some(0);
        }
        let (number, rest) = Number::split(text)?;
        let name = rest.trim_start();
        let name = name.strip_suffix("/s").unwrap_or(name);
        let bits = name.len().checked_sub(3).and_then(|start| name.split_at_checked(start));
        let bytes = match bits {
            Some((prefix, bit)) if bit.eq_ignore_ascii_case("bit") && !prefix.ends_with(['b', 'B']) => {
                number.times(unit(prefix)?.into())?.div_ceil(8)
            }
            _ if name.is_empty() || name.ends_with('B') => number.times(unit(name)?.into())?,
            _ => return None,
        };
        u64::try_from(bytes).ok()
    }
}

impl FromStr for Rate {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::read(text).map(Self::new).ok_or_else(|| ParseError::new(text, EXPECTED))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{}/s", ByteSize(bytes.get())),
            None => f.write_str("none"),
        }
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_integer(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_read_as_people_write_them() {
        for (text, bytes) in [
            ("200mbit", 25_000_000),
            ("200Mbit/s", 25_000_000),
            ("1gbit", 125_000_000),
            ("8kibit", 1024),
            ("1bit", 1),
            ("25MiB/s", 25 << 20),
            ("25MiB", 25 << 20),
            ("1.5MB/s", 1_500_000),
            ("1000", 1000),
            ("1000B/s", 1000),
        ] {
            assert_eq!(text.parse(), Ok(Rate::new(bytes)), "{text}");
        }
        for text in ["0", "none", "None", "unlimited", "0mbit", "0.0MiB/s"] {
            assert_eq!(text.parse(), Ok(Rate::UNLIMITED), "{text}");
        }
    }

    #[test]
    fn rates_that_could_mean_bits_or_bytes_are_refused() {
        for bad in [
            "200mb", "200mbps", "200Mb/s", "200M", "fast", "", "-1", "/s", "bit", "1Bbit", "1MBbit", "1xbit",
            "9µbit",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}", number in "[0-9.]{1,30}") {
            let _ = text.parse::<Rate>();
            let _ = format!("{number}{text}").parse::<Rate>();
        }

        #[test]
        fn every_rate_reads_back(bytes: u64) {
            let rate = Rate::new(bytes);
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }
    }
}
