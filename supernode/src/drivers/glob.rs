//! Patterns of names, as `.gitignore` has them: `*` is any part of one component, `**` any text, `?` one character. Pure;
//! asked by [`super::rules`].
//!
//! # Invariants
//! - Matching takes time in proportion to both lengths, whatever either says.

use std::fmt;

/// Longer ones match nothing that a registry can hold.
const MAX_LENGTH: usize = 512;

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob(Vec<Part>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// This byte.
    Byte(u8),
    /// One byte that is no `/`.
    One,
    /// Any bytes that are no `/`.
    Some,
    /// Any bytes.
    All,
}

// === impl Glob ===

impl Glob {
    /// A pattern of the bytes that names are made of.
    ///
    /// # Errors
    /// With what is wrong with it.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_LENGTH {
            return Err(format!("a pattern has 1 to {MAX_LENGTH} characters"));
        }
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"*?._-/:[]".contains(*c)) {
            return Err(format!("{odd:?} is in no name"));
        }
        let mut parts = Vec::with_capacity(text.len());
        for byte in text.bytes() {
            match (byte, parts.last()) {
                (b'*', Some(Part::Some)) => drop(parts.splice(parts.len() - 1.., [Part::All])),
                (b'*', Some(Part::All)) => {}
                (b'*', _) => parts.push(Part::Some),
                (b'?', _) => parts.push(Part::One),
                (byte, _) => parts.push(Part::Byte(byte)),
            }
        }
        Ok(Self(parts))
    }

    /// Whether the whole name is meant.
    pub(super) fn matches(&self, name: &str) -> bool {
        // reached[n]: the parts so far can end behind the name's first n bytes.
        let name = name.as_bytes();
        let mut reached = vec![false; name.len() + 1];
        reached[0] = true;
        for part in &self.0 {
            let mut next = vec![false; name.len() + 1];
            if matches!(part, Part::Some | Part::All) {
                next[0] = reached[0];
            }
            for (at, byte) in name.iter().enumerate() {
                next[at + 1] = match part {
                    Part::Byte(wanted) => reached[at] && wanted == byte,
                    Part::One => reached[at] && *byte != b'/',
                    Part::Some => reached[at + 1] || next[at] && *byte != b'/',
                    Part::All => reached[at + 1] || next[at],
                };
            }
            reached = next;
        }
        reached[name.len()]
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Byte(byte) => write!(f, "{}", char::from(*byte)),
            Part::One => f.write_str("?"),
            Part::Some => f.write_str("*"),
            Part::All => f.write_str("**"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::new(pattern).unwrap().matches(name)
    }

    #[test]
    fn a_star_stays_in_its_component_and_two_do_not() {
        for (pattern, name) in [
            ("team/app", "team/app"),
            ("team/*", "team/app"),
            ("team/**", "team/a/b"),
            ("**", ""),
            ("*", ""),
            ("v*", "v1.2"),
            ("v?.?", "v1.2"),
            ("*-rc*", "1.0-rc1"),
            ("**/app", "a/b/app"),
            ("***", "a/b"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("team/*", "team/a/b"),
            ("team/app", "team/app2"),
            ("app", "team/app"),
            ("v?", "v"),
            ("?", "/"),
            ("**/app", "app"),
            ("*", "a/b"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_long_pattern_against_a_long_name_ends() {
        assert!(!matches(&"*a".repeat(250), &"a".repeat(249)));
        assert!(matches(&"*a".repeat(250), &"a".repeat(300)));
    }

    #[test]
    fn what_is_in_no_name_is_in_no_pattern() {
        for bad in ["", "a b", "ä", "a\\*", "{a,b}", "a=b", &"a".repeat(513)] {
            assert!(Glob::new(bad).is_err(), "{bad}");
        }
    }

    /// The same by definition: slow, and plainly right.
    fn plainly(pattern: &[Part], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, rest) => rest.is_none(),
            (Some((Part::Byte(wanted), later)), Some((byte, rest))) => wanted == byte && plainly(later, rest),
            (Some((Part::One, later)), Some((byte, rest))) => *byte != b'/' && plainly(later, rest),
            (Some((Part::Some, later)), Some((byte, rest))) => {
                plainly(later, name) || *byte != b'/' && plainly(pattern, rest)
            }
            (Some((Part::All, later)), Some((_, rest))) => plainly(later, name) || plainly(pattern, rest),
            (Some((Part::Some | Part::All, later)), None) => plainly(later, name),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_it_says(pattern in "[ab/*?]{1,8}", name in "[ab/]{0,10}") {
            let glob = Glob::new(&pattern).unwrap();
            prop_assert_eq!(glob.matches(&name), plainly(&glob.0, name.as_bytes()), "{} {}", glob, name);
        }

        #[test]
        fn a_name_matches_itself(name in "[a-z0-9._/-]{1,40}") {
            prop_assert!(matches(&name, &name));
        }
    }
}
