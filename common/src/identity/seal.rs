//! A supernode's word that outlives its sessions: a message authentication code (HMAC-SHA-256, RFC 2104) under a key that
//! only holders of the CA's key can make. Peers keep it and show it to the next supernode, which can tell that one of its
//! kind said so; they cannot make one themselves. Used by the sessions and by [`super::Revocation`].

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::Authority;
use super::rotation::{Pair, Ring};

/// Keeps these words apart from all else that might ever be signed with the CA's key.
const CONTEXT: &[u8] = b"longshore seal 1";

/// A word. It tells nothing by itself; [`Sealer`] makes and checks it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal(pub [u8; 32]);

/// Who can give the word: whoever has the CA's key, so every supernode of a cluster alike. While one CA takes over from
/// another, words under both are good. Cheap to clone; follows its authority's rotations.
#[derive(Clone)]
pub struct Sealer(Arc<ArcSwap<Keys>>);

struct Keys {
    present: hmac::Key,
    former: Option<hmac::Key>,
}

// === impl Seal ===

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seal({})", hex::encode(&self.0[..4]))
    }
}

// === impl Sealer ===

impl Sealer {
    /// The sealer of a cluster.
    pub fn new(authority: &Authority) -> Self {
        authority.sealer().clone()
    }

    pub(super) fn of(ring: &Ring) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Keys::of(ring))))
    }

    /// Other CAs from now on.
    pub(super) fn set(&self, ring: &Ring) {
        self.0.store(Arc::new(Keys::of(ring)));
    }

    /// The word for `parts`, which belong to a kind of statement. Parts of other lengths, in another order or of another
    /// kind have other words.
    pub fn seal(&self, kind: &str, parts: &[&[u8]]) -> Seal {
        let mut word = [0; 32];
        word.copy_from_slice(hmac::sign(&self.0.load().present, &statement(kind, parts)).as_ref());
        Seal(word)
    }

    /// Whether the word was given for just that.
    pub fn verify(&self, kind: &str, parts: &[&[u8]], seal: &Seal) -> bool {
        let (keys, statement) = (self.0.load(), statement(kind, parts));
        let mut good = std::iter::once(&keys.present).chain(&keys.former);
        good.any(|key| hmac::verify(key, &statement, &seal.0).is_ok())
    }
}

// === impl Keys ===

impl Keys {
    fn of(ring: &Ring) -> Self {
        let key = |pair: &Pair| {
            let ca = hmac::Key::new(hmac::HMAC_SHA256, &pair.issuer.key().serialize_der());
            hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&ca, CONTEXT).as_ref())
        };
        Self { present: key(&ring.present), former: ring.former.as_ref().map(|(former, _)| key(former)) }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

/// Each part behind its length, so that no two statements are the same bytes.
fn statement(kind: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + parts.iter().map(|part| part.len() + 8).sum::<usize>());
    for part in std::iter::once(kind.as_bytes()).chain(parts.iter().copied()) {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_for_one_statement_of_one_cluster() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let ours = Sealer::new(&Authority::open(here.path()).unwrap());
        let again = Sealer::new(&Authority::open(here.path()).unwrap());
        let others = Sealer::new(&Authority::open(there.path()).unwrap());
        let seal = ours.seal("kind", &[b"ab", b"c"]);
        assert!(again.verify("kind", &[b"ab", b"c"], &seal), "every holder of the key");
        assert!(!others.verify("kind", &[b"ab", b"c"], &seal));
        assert!(!ours.verify("other", &[b"ab", b"c"], &seal));
        assert!(!ours.verify("kind", &[b"a", b"bc"], &seal), "parts cut elsewhere");
        assert!(!ours.verify("kind", &[b"ab"], &seal));
    }
}
