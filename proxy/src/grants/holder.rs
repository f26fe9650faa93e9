//! Who asks, as the ledger knows them: not the credential, only a keyed hash of it. Used by [`super::Grants`].

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::digest::{Digest, Hasher};
use common::task::Credentials;
use serde::Deserialize;

use super::ledger::Public;

/// Tokens are at most some kilobytes; of a longer one nothing is read.
const MAX_TOKEN: usize = 16 * 1024;

/// Whoever shows one credential. Two processes call the same credential differently, so a hash that leaks is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Holder(Digest);

/// What the hashes are keyed with: random, for the life of the process.
#[derive(Clone)]
pub(super) struct Salt([u8; 32]);

// === impl Salt ===

impl Salt {
    pub(super) fn new() -> Self {
        Self(rand::random())
    }

    /// Whoever shows these.
    pub(super) fn holder(&self, credentials: &Credentials) -> Holder {
        let mut hasher = Hasher::new();
        hasher.update(&self.0);
        for (name, value) in credentials.expose() {
            for text in [name, value] {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
        Holder(hasher.finish())
    }
}

/// Who else could have shown these.
///
/// To be believed only of credentials that the origin has just taken: then it has checked the token's signature.
/// Source: Distribution's token specification, `sub`: "should be empty if the client did not authenticate".
pub(super) fn public(credentials: &Credentials) -> Public {
    let mut all = credentials.expose();
    match (all.next(), all.next()) {
        (None, _) => Public::Open,
        (Some(("authorization", value)), None)
            if subject(value).is_some_and(|subject| subject.is_empty()) =>
        {
            Public::Token
        }
        _ => Public::No,
    }
}

/// The subject of a `Bearer` JSON web token.
pub(crate) fn subject(authorization: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        sub: String,
    }
    let (scheme, token) = authorization.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.len() > MAX_TOKEN {
        return None;
    }
    let mut parts = token.trim().split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    Some(serde_json::from_slice::<Claims>(&claims).ok()?.sub)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(claims: &str) -> Credentials {
        Credentials::authorization(format!("Bearer e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)))
    }

    #[test]
    fn holders_are_told_apart_and_differ_from_process_to_process() {
        let (one, other) = (Salt::new(), Salt::new());
        let alice = Credentials::authorization("Basic YWxpY2U6eA==");
        assert_eq!(one.holder(&alice), one.holder(&alice.clone()));
        assert_ne!(one.holder(&alice), other.holder(&alice));
        assert_ne!(one.holder(&alice), one.holder(&Credentials::none()));
    }

    #[test]
    fn nobodys_token_has_an_empty_subject() {
        assert_eq!(public(&Credentials::none()), Public::Open);
        assert_eq!(public(&bearer(r#"{"sub":"","access":[]}"#)), Public::Token);
        let mut two = bearer(r#"{"sub":""}"#);
        two.add("cookie", "x");
        for somebody in [
            bearer(r#"{"sub":"alice"}"#),
            bearer(r#"{"access":[]}"#),
            bearer("x"),
            Credentials::authorization("Bearer opaque"),
            Credentials::authorization("Basic Og=="),
            two,
        ] {
            assert_eq!(public(&somebody), Public::No, "{somebody:?}");
        }
    }

    proptest! {
        #[test]
        fn no_token_panics(text in "(Bearer )?[A-Za-z0-9._=-]{0,60}|.{0,40}") {
            let _ = subject(&text);
        }
    }
}
