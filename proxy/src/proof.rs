//! Digests as clients write them, and the proof that bytes have one. Wider than [`common::digest`] by SHA-512: the
//! engine does not speak it, but what the mirror streams straight from the origin is checked all the same.
//! Called by the path parser and by everything here that hands on the origin's bytes itself.

use std::fmt;
use std::str::FromStr;

use common::digest::{Digest, Hasher};
use sha2::Digest as _;

/// A digest that content is asked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ContentDigest {
    /// The engine speaks it.
    Sha256(Digest),
    /// 128 lower-case hex characters.
    Sha512(String),
}

/// A text that is no digest, or one of an algorithm that cannot be checked here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a sha256 or sha512 digest")]
pub(crate) struct NotADigest;

// === impl ContentDigest ===

impl ContentDigest {
    /// The digest that the engine speaks, if it is one.
    pub(crate) fn sha256(&self) -> Option<Digest> {
        match self {
            Self::Sha256(digest) => Some(*digest),
            Self::Sha512(_) => None,
        }
    }
}

impl FromStr for ContentDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let Some(hex) = text.strip_prefix("sha512:") else {
            return text.parse().map(Self::Sha256).map_err(|_| NotADigest);
        };
        let lower = hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if lower && hex.len() == 128 { Ok(Self::Sha512(hex.to_owned())) } else { Err(NotADigest) }
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => digest.fmt(f),
            Self::Sha512(hex) => write!(f, "sha512:{hex}"),
        }
    }
}

/// Takes content in order and says in the end whether it has its digest.
#[derive(Clone)]
pub(crate) struct Proof {
    hasher: AnyHasher,
    seen: u64,
}

#[derive(Clone)]
enum AnyHasher {
    Sha256(Hasher, Digest),
    Sha512(sha2::Sha512, String),
}

// === impl Proof ===

impl Proof {
    /// The proof of content of which nothing has been seen.
    pub(crate) fn of(digest: &ContentDigest) -> Self {
        let hasher = match digest {
            ContentDigest::Sha256(digest) => AnyHasher::Sha256(Hasher::new(), *digest),
            ContentDigest::Sha512(hex) => AnyHasher::Sha512(sha2::Sha512::new(), hex.clone()),
        };
        Self { hasher, seen: 0 }
    }

    /// Bytes taken in so far.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Takes the next bytes in.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.seen += bytes.len() as u64;
        match &mut self.hasher {
            AnyHasher::Sha256(hasher, _) => hasher.update(bytes),
            AnyHasher::Sha512(hasher, _) => hasher.update(bytes),
        }
    }

    /// Whether all that was taken in has the digest.
    pub(crate) fn holds(&self) -> bool {
        match self.hasher.clone() {
            AnyHasher::Sha256(hasher, wanted) => hasher.finish() == wanted,
            AnyHasher::Sha512(hasher, wanted) => hex_of(&hasher.finalize()) == wanted,
        }
    }
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_algorithms_prove_their_content_and_nothing_else() {
        // The well-known SHA-512 of "abc", from FIPS 180-2.
        let sha512 = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                      2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        for digest in [Digest::of(b"abc").to_string(), sha512.to_owned()] {
            let digest: ContentDigest = digest.parse().unwrap();
            let mut proof = Proof::of(&digest);
            proof.update(b"ab");
            assert!(!proof.holds());
            proof.update(b"c");
            assert!(proof.holds());
            assert_eq!(proof.seen(), 3);
            proof.update(b"d");
            assert!(!proof.holds());
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_digests_round_trip(text in "(sha256|sha512|md5)?:?[a-f0-9]{0,130}|.{0,80}") {
            if let Ok(digest) = text.parse::<ContentDigest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
