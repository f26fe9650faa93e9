//! The join token: all that a new node needs besides an address. The supernode writes one to a file at first
//! start; peers and `get` read theirs from a file and enrol with it.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::{IdentityError, files};
use crate::digest::Digest;

/// The form's name and version.
const PREFIX: &str = "lsj1";

/// Bytes in a token's id and secret; 128 bits cannot be guessed.
const ID_BYTES: usize = 4;
const SECRET_BYTES: usize = 16;

/// The right to join one cluster, and the digest of the CA certificate by which to know that cluster. Written
/// `lsj1.<id: 8 hex>.<secret: 32 hex>.<CA fingerprint: 64 hex>`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: String,
    secret: String,
    ca: Digest,
}

/// A text that is no join token. The text itself is never repeated: most of it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}: a join token looks like lsj1.<8 hex>.<32 hex>.<64 hex>, and the supernode keeps its first one in \
     <data-dir>/join-token"
)]
pub struct JoinTokenError(&'static str);

// === impl JoinToken ===

impl JoinToken {
    /// A new token for the cluster of this CA. It opens nothing before it is in a [`super::TokenBook`].
    pub(super) fn random(ca: Digest) -> Self {
        let id = hex::encode(rand::random::<[u8; ID_BYTES]>());
        Self { id, secret: hex::encode(rand::random::<[u8; SECRET_BYTES]>()), ca }
    }

    /// Reads a token from a file, and warns when others may read that file too.
    ///
    /// # Errors
    /// When there is no such file, or it holds something else.
    pub fn read(path: &Path) -> Result<Self, IdentityError> {
        let bytes = files::read_secret(path)?.ok_or_else(|| IdentityError::File {
            action: "read the join token",
            path: path.to_owned(),
            cause: std::io::ErrorKind::NotFound.into(),
        })?;
        std::str::from_utf8(&bytes)
            .map_err(|_| JoinTokenError("not text"))
            .and_then(str::parse)
            .map_err(|cause| IdentityError::JoinToken { path: path.to_owned(), cause })
    }

    /// The token's name in the supernode's book; no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What proves the right to join.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// SHA-256 of the CA's certificate.
    pub fn ca(&self) -> Digest {
        self.ca
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    /// White space around the token is let pass, since files end with a newline.
    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(JoinTokenError("there is no join token here"));
        }
        let mut parts = text.split('.');
        let (prefix, id, secret, ca) = (parts.next(), parts.next(), parts.next(), parts.next());
        let (Some(PREFIX), None) = (prefix, parts.next()) else {
            return Err(JoinTokenError("this is not a join token"));
        };
        let (Some(id), Some(secret), Some(ca)) = (id, secret, ca) else {
            return Err(JoinTokenError("this join token is cut short"));
        };
        let ca = format!("sha256:{ca}").parse();
        match ca {
            Ok(ca) if is_hex(id, ID_BYTES) && is_hex(secret, SECRET_BYTES) => {
                Ok(Self { id: id.to_owned(), secret: secret.to_owned(), ca })
            }
            _ => Err(JoinTokenError("this join token is damaged")),
        }
    }
}

impl fmt::Display for JoinToken {
    /// The whole token with its secret: for the file that hands it on, never for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.{}.{}.{}", self.id, self.secret, self.ca.hex())
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken {{ id: {:?}, secret: [redacted], ca: {:?} }}", self.id, self.ca)
    }
}

fn is_hex(text: &str, bytes: usize) -> bool {
    text.len() == 2 * bytes && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn debug_and_errors_keep_the_secret() {
        let token = JoinToken::random(Digest::of(b"ca"));
        assert!(!format!("{token:?}").contains(token.secret()));
        let whole = token.to_string();
        let damaged = [
            whole.replacen("lsj1", "lsj2", 1),
            whole[..60].to_owned(),
            whole.to_uppercase(),
            whole[..whole.len() - 1].to_owned(),
            format!("{whole}.more"),
            whole.replacen('.', "", 1),
            format!("lsj1.{}", token.secret()),
        ];
        for text in damaged {
            let error = text.parse::<JoinToken>().unwrap_err().to_string();
            assert!(!error.contains(token.secret()) && error.contains("<data-dir>/join-token"), "{error}");
        }
        assert!(
            " \n".parse::<JoinToken>().unwrap_err().to_string().starts_with("there is no join token here")
        );
    }

    #[test]
    fn a_token_file_is_read_with_its_newline_and_named_when_it_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("join-token");
        assert!(JoinToken::read(&path).unwrap_err().to_string().contains("join-token"));
        let token = JoinToken::random(Digest::of(b"ca"));
        files::write_secret(&path, format!("{token}\n").as_bytes()).unwrap();
        assert_eq!(JoinToken::read(&path).unwrap(), token);
        files::write_secret(&path, b"\xff\xfe").unwrap();
        assert!(JoinToken::read(&path).unwrap_err().to_string().starts_with(&path.display().to_string()));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_without_panic(text in ".{0,200}") {
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(token.to_string(), text.trim());
            }
        }

        #[test]
        fn what_looks_like_a_token_round_trips(
            text in "[ \n]{0,2}lsj1\\.[0-9a-f]{8}\\.[0-9a-f]{32}\\.[0-9a-f]{64}[ \n]{0,2}",
        ) {
            prop_assert_eq!(text.parse::<JoinToken>().unwrap().to_string(), text.trim());
        }

        #[test]
        fn almost_tokens_are_refused(
            text in "lsj1\\.[0-9a-f]{7,9}\\.[0-9a-f]{31,33}\\.[0-9a-fé]{63,65}(\\.)?",
        ) {
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }
}
