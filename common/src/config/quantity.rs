//! What the value types share: a decimal number with a unit, the error for a text that is none, and reading such
//! a value from a TOML text or integer.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::Deserializer;
use serde::de::{self, Visitor};

/// More decimals than this say nothing (they would be fractions of a nanosecond).
const MOST_DECIMALS: usize = 9;
/// A refused text is quoted no longer than this.
const LONGEST_QUOTE: usize = 40;

/// A text that is not the value it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {expected}")]
pub struct ParseError {
    given: String,
    expected: &'static str,
}

// === impl ParseError ===

impl ParseError {
    pub(super) fn new(given: &str, expected: &'static str) -> Self {
        Self { given: given.chars().take(LONGEST_QUOTE).collect(), expected }
    }
}

/// A decimal number, kept exact: `digits / 10^decimals`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    digits: u128,
    decimals: u32,
}

// === impl Number ===

impl Number {
    /// The number at the front of `text`, and what follows it.
    pub(super) fn split(text: &str) -> Option<(Self, &str)> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, rest) = text.split_at(end);
        let (whole, fraction) = match number.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (number, ""),
        };
        if whole.is_empty() || fraction.contains('.') || fraction.len() > MOST_DECIMALS {
            return None;
        }
        let digits = format!("{whole}{fraction}").parse().ok()?;
        Some((Self { digits, decimals: fraction.len() as u32 }, rest))
    }

    /// The number times `factor`, rounded up, if that can be written.
    pub(super) fn times(self, factor: u128) -> Option<u128> {
        Some(self.digits.checked_mul(factor)?.div_ceil(10_u128.pow(self.decimals)))
    }
}

/// Reads a `T` from a TOML text, or from an integer as if it were written as text.
pub(super) fn text_or_integer<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err = ParseError>,
    D: Deserializer<'de>,
{
    struct Reader<T>(PhantomData<T>);

    impl<T: FromStr<Err = ParseError>> Visitor<'_> for Reader<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or a whole number")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }
    }

    deserializer.deserialize_any(Reader(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_exact_and_rounded_up_only_at_the_end() {
        let (number, rest) = Number::split("1.5GiB").unwrap();
        assert_eq!((number.times(1 << 30), rest), (Some(3 << 29), "GiB"));
        assert_eq!(Number::split("0.1x").unwrap().0.times(1), Some(1));
        for bad in ["", ".5", "5.", "1.2.3", "-1", "1.0123456789", "x"] {
            assert_eq!(Number::split(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_split_or_refused(text in "\\PC{0,40}", factor: u128) {
            if let Some((number, rest)) = Number::split(&text) {
                prop_assert!(text.ends_with(rest));
                let _ = number.times(factor);
            }
        }
    }
}
