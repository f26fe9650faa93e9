//! Who one is at a registry, as `docker login`, `podman login` and `skopeo login` leave it in a file, and Kubernetes keeps it in Secrets
//! of type `kubernetes.io/dockerconfigjson`. What a credential helper keeps is not asked for. Pure.
//!
//! Source: containers-auth.json(5).
//!
//! # Invariants
//! - A login is for its registry alone: host and port as they are written, and all names of Docker Hub are one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::task::Credentials;
use serde_json::Value;

use super::reference::HUB;

/// What Docker Hub is called there.
const HUB_KEYS: [&str; 5] = [
    "docker.io",
    "https://index.docker.io/v1/",
    "https://index.docker.io/v2/",
    "index.docker.io",
    "registry-1.docker.io",
];
/// Such a file is some kilobytes.
pub const MAX_FILE: u64 = 1024 * 1024;

/// The logins of one file. Its text is a secret, and not kept.
pub struct Logins(Value);

// === impl Logins ===

impl Logins {
    /// Reads a file's text; none where it is no such file's.
    pub fn read(text: &[u8]) -> Option<Self> {
        let all: Value = serde_json::from_slice(text).ok()?;
        all.is_object().then_some(Self(all))
    }

    /// How many registries there are logins for.
    pub fn count(&self) -> usize {
        let all = self.0["auths"].as_object();
        all.map_or(0, |all| all.values().filter(|login| word(login).is_some()).count())
    }

    /// The login for a registry.
    pub fn of(&self, registry: &str) -> Option<Credentials> {
        let of = |key: &str| word(&self.0["auths"][key]);
        let word = match registry == HUB {
            true => HUB_KEYS.iter().find_map(|key| of(key)),
            false => [
                registry.to_owned(),
                format!("https://{registry}"),
                format!("https://{registry}/"),
                format!("http://{registry}"),
            ]
            .iter()
            .find_map(|key| of(key)),
        };
        word.map(|word| Credentials::authorization(format!("Basic {word}")))
    }
}

/// What HTTP's basic authorization has: what `auth` says, or else `username` and `password`.
fn word(login: &Value) -> Option<String> {
    let plain = |word: &&str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
    };
    if let Some(word) = login["auth"].as_str().filter(plain) {
        return Some(word.to_owned());
    }
    let (user, password) = (login["username"].as_str()?, login["password"].as_str()?);
    (!user.is_empty()).then(|| STANDARD.encode(format!("{user}:{password}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn login(text: &[u8], registry: &str) -> Option<String> {
        let credentials = Logins::read(text)?.of(registry)?;
        let (name, value) = credentials.expose().next()?;
        assert_eq!(name, "authorization");
        value.strip_prefix("Basic ").map(str::to_owned)
    }

    #[test]
    fn a_login_is_for_its_registry_alone() {
        let text = br#"{"auths":{"quay.io":{"auth":"YTpi"},"https://index.docker.io/v1/":{"auth":"Yzpk"},"empty":{},
            "https://h.io/":{"username":"a","password":"b"},"h:5000":{"username":"","password":"b"}},"credsStore":"x"}"#;
        assert_eq!(login(text, "quay.io").as_deref(), Some("YTpi"));
        assert_eq!(login(text, "docker.io").as_deref(), Some("Yzpk"));
        assert_eq!(login(text, "h.io").as_deref(), Some("YTpi"));
        for other in ["quay.io:443", "evil.quay.io", "empty", "", "h:5000", "https://index.docker.io/v1/ "] {
            assert_eq!(login(text, other), None, "{other}");
        }
        assert_eq!(login(br#"{"auths":{"h":{"auth":"a\r\nx: y"}}}"#, "h"), None);
        assert_eq!(Logins::read(text).unwrap().count(), 3);
        assert!(Logins::read(b"[]").is_none() && Logins::read(b"").is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not(text in "\\PC{0,60}", registry in "[a-z.:]{0,10}") {
            let _ = login(text.as_bytes(), &registry);
        }
    }
}
