//! A part of something whose size is not known when it is typed: `80%`, or an amount that does not depend on it.
//! Percentages alone are for parts of what is itself a setting.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::ByteSize;
use super::quantity::{Number, ParseError, text_or_integer};

const EXPECTED_PERCENT: &str = "a percentage: expected for example 85% or 12.5%, at most 100%";
const EXPECTED_SHARE: &str = "a size or a percentage: expected for example 50GiB, 500MB or 80%, at most 100%";
/// All of it.
const WHOLE: u16 = 10_000;

/// A percentage, in hundredths of a percent. A number without its sign is percent, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u16);

/// An amount of bytes, or a part of all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Share {
    /// So many.
    Bytes(u64),
    /// Such a part.
    Percent(Percent),
}

// === impl Percent ===

impl Percent {
    /// So many percent; more than a hundred are a hundred.
    pub const fn new(percent: u16) -> Self {
        Self(if percent > 100 { WHOLE } else { percent * 100 })
    }

    /// Such a part of `whole`, rounded down.
    pub fn of(self, whole: u64) -> u64 {
        (u128::from(whole) * u128::from(self.0) / u128::from(WHOLE)) as u64
    }

    fn read(text: &str) -> Option<u16> {
        let (number, rest) = Number::split(text.trim())?;
        let hundredths = number.times(100).filter(|_| matches!(rest.trim(), "" | "%"))?;
        u16::try_from(hundredths).ok().filter(|&hundredths| hundredths <= WHOLE)
    }
}

impl FromStr for Percent {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::read(text).map(Self).ok_or_else(|| ParseError::new(text, EXPECTED_PERCENT))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, hundredths) = (self.0 / 100, self.0 % 100);
        match hundredths {
            0 => write!(f, "{whole}%"),
            tenths if tenths % 10 == 0 => write!(f, "{whole}.{}%", tenths / 10),
            _ => write!(f, "{whole}.{hundredths:02}%"),
        }
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_integer(deserializer)
    }
}

// === impl Share ===

impl Share {
    /// The bytes that are meant where there are `whole` in all.
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => percent.of(whole),
        }
    }
}

impl FromStr for Share {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let read = match text.trim_end().ends_with('%') {
            true => text.parse().map(Self::Percent),
            false => text.parse().map(|ByteSize(bytes)| Self::Bytes(bytes)),
        };
        read.map_err(|_| ParseError::new(text, EXPECTED_SHARE))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => ByteSize(*bytes).fmt(f),
            Self::Percent(percent) => percent.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_integer(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_read_as_people_write_them() {
        for (text, of_ten_thousand) in [
            ("80%", 8000),
            ("12.5 %", 1250),
            ("0%", 0),
            ("100%", 10_000),
            ("0.01%", 1),
            ("4096", 4096),
            ("1KiB", 1024),
        ] {
            assert_eq!(text.parse::<Share>().unwrap().of(10_000), of_ten_thousand, "{text}");
        }
        for bad in ["", "%", "101%", "-1%", "80%%", "1GiB%", "half"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
        assert_eq!("85".parse::<Percent>(), Ok(Percent::new(85)));
        assert!("85GiB".parse::<Percent>().is_err());
        assert_eq!(Percent::new(100).of(u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}", like in "[0-9.]{1,12} ?(%|GiB)?") {
            let _ = (text.parse::<Share>(), text.parse::<Percent>());
            let _ = (like.parse::<Share>(), like.parse::<Percent>());
        }

        #[test]
        fn every_share_reads_back(hundredths in 0..=WHOLE, bytes: u64) {
            for share in [Share::Percent(Percent(hundredths)), Share::Bytes(bytes)] {
                prop_assert_eq!(share.to_string().parse(), Ok(share));
            }
        }
    }
}
