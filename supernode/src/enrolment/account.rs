//! The name of a Kubernetes ServiceAccount: as the operator types it, `NAMESPACE/NAME`, and as the Kubernetes API says
//! who shows a token, `system:serviceaccount:NAMESPACE:NAME`. Used by the settings and by [`super::review`].

use std::fmt;
use std::str::FromStr;

/// What the API puts before the names of ServiceAccounts. No other way to log in may give out names with it.
const PREFIX: &str = "system:serviceaccount:";
/// Kubernetes' limits: a namespace is a DNS label (RFC 1123), an account a DNS name.
const MAX_NAMESPACE: usize = 63;
const MAX_NAME: usize = 253;

/// A ServiceAccount of a Kubernetes cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    namespace: String,
    name: String,
}

/// A text that names no ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not NAMESPACE/SERVICEACCOUNT, for example longshore/longshore-peer")]
pub struct AccountError(String);

// === impl ServiceAccount ===

impl ServiceAccount {
    /// Whom a user name of the Kubernetes API is of, if it is a ServiceAccount's.
    pub fn of_username(username: &str) -> Option<Self> {
        let (namespace, name) = username.strip_prefix(PREFIX)?.split_once(':')?;
        Self::new(namespace, name)
    }

    fn new(namespace: &str, name: &str) -> Option<Self> {
        let fits = namespace.len() <= MAX_NAMESPACE && name.len() <= MAX_NAME;
        let named = is_label(namespace) && name.split('.').all(is_label);
        (fits && named).then(|| Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl FromStr for ServiceAccount {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        let parts = text.split_once('/');
        let account = parts.and_then(|(namespace, name)| Self::new(namespace, name));
        account.ok_or_else(|| AccountError(text.chars().take(100).collect()))
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(plain) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_names_that_kubernetes_gives_are_read() {
        for bad in
            ["", "peer", "/", "a/", "/b", "a/b/c", "A/b", "a/b_c", "a b/c", "a.b/c", "a/-b", "*/*", "a/*"]
        {
            assert!(bad.parse::<ServiceAccount>().is_err(), "{bad}");
        }
        for bad in [
            "system:serviceaccount:a",
            "system:serviceaccount::b",
            "system:serviceaccount:a:b:c",
            "system:node:a",
            "system:serviceaccounts:a:b",
            " system:serviceaccount:a:b",
            "a:b",
            "SYSTEM:SERVICEACCOUNT:a:b",
        ] {
            assert_eq!(ServiceAccount::of_username(bad), None, "{bad}");
        }
        assert!(format!("{}/peer", "a".repeat(64)).parse::<ServiceAccount>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(text in "[a-c:/.-]{0,12}|.{0,40}") {
            if let Ok(account) = text.parse::<ServiceAccount>() {
                prop_assert_eq!(account.to_string(), text.as_str());
                let username = format!("{PREFIX}{}", text.replacen('/', ":", 1));
                prop_assert_eq!(ServiceAccount::of_username(&username), Some(account));
            }
            let username = format!("{PREFIX}{text}");
            if let Some(account) = ServiceAccount::of_username(&username) {
                prop_assert_eq!(account.to_string(), text.replacen(':', "/", 1));
            }
        }
    }
}
