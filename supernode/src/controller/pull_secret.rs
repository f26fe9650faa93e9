//! The login for an image's registry in a Secret, as `kubectl create secret docker-registry` makes them. Pure.
//!
//! # Invariants
//! - A login is for its registry alone: what the Secret says for others is not looked at.
//! - Nothing of a Secret is in an error.
//!
//! Source: Kubernetes, "Pull an Image from a Private Registry" (`kubernetes.io/dockerconfigjson`, `kubernetes.io/dockercfg`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::task::Credentials;
use k8s_openapi::api::core::v1::Secret;
use peer::image::reference::{HUB, Reference};
use serde_json::Value;

/// What Docker Hub is called there.
const HUB_KEYS: [&str; 4] =
    ["docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io"];

/// Why a Secret is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SecretError {
    /// Another kind.
    #[error("is neither of type kubernetes.io/dockerconfigjson nor kubernetes.io/dockercfg")]
    Kind,
    /// It cannot be read.
    #[error("has no readable .dockerconfigjson or .dockercfg")]
    Unreadable,
}

/// The login for the registry of `image`; `None` where the Secret has none for it.
pub(super) fn login(secret: &Secret, image: &Reference) -> Result<Option<Credentials>, SecretError> {
    let (key, below) = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => (".dockerconfigjson", true),
        Some("kubernetes.io/dockercfg") => (".dockercfg", false),
        _ => return Err(SecretError::Kind),
    };
    let text = secret.data.as_ref().and_then(|data| data.get(key)).ok_or(SecretError::Unreadable)?;
    let all: Value = serde_json::from_slice(&text.0).map_err(|_| SecretError::Unreadable)?;
    let logins = if below { &all["auths"] } else { &all };
    let logins = logins.as_object().ok_or(SecretError::Unreadable)?;
    let found = logins.iter().filter(|(name, _)| is_for(name, image));
    // The longest name is the most particular one, as the kubelet has it.
    let found = found.max_by_key(|(name, _)| name.len()).and_then(|(_, login)| basic(login));
    Ok(found.map(|basic| Credentials::authorization(format!("Basic {basic}"))))
}

/// Whether a name in a Secret is that of the image's registry, or of a part of it that the image is in.
fn is_for(name: &str, image: &Reference) -> bool {
    if image.registry == HUB && HUB_KEYS.contains(&name) {
        return true;
    }
    let name = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
    let (registry, path) = name.split_once('/').unwrap_or((name, ""));
    let path = path.trim_end_matches('/');
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    let within = |rest: &str| path.is_empty() || rest.is_empty() || rest.starts_with('/');
    registry == image.registry && image.repository.strip_prefix(path).is_some_and(within)
}

/// User and password, as they are sent.
fn basic(login: &Value) -> Option<String> {
    let text = |key: &str| login[key].as_str().filter(|text| !text.is_empty());
    if let Some(auth) = text("auth") {
        let plain = STANDARD.decode(auth.trim()).ok()?;
        return plain.contains(&b':').then(|| STANDARD.encode(plain));
    }
    Some(STANDARD.encode(format!("{}:{}", text("username")?, text("password")?)))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn secret(kind: &str, key: &str, text: &str) -> Secret {
        Secret {
            type_: Some(kind.to_owned()),
            data: Some([(key.to_owned(), ByteString(text.as_bytes().to_vec()))].into()),
            ..Secret::default()
        }
    }

    fn config(logins: &Value) -> Secret {
        secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", &json!({ "auths": logins }).to_string())
    }

    fn found(secret: &Secret, image: &str) -> Option<String> {
        let credentials = login(secret, &Reference::of_image(image).unwrap()).unwrap()?;
        let (_, value) = credentials.expose().find(|(name, _)| *name == "authorization")?;
        let basic = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
        String::from_utf8(basic).ok()
    }

    #[test]
    fn a_login_is_for_its_registry_alone() {
        let secret = config(&json!({
            "quay.io": { "auth": STANDARD.encode("a:b") },
            "quay.io/team": { "username": "c", "password": "d:e" },
            "https://index.docker.io/v1/": { "auth": STANDARD.encode("hub:x") },
            "http://registry.local:5000/v2/": { "auth": STANDARD.encode("local:x") },
            "empty.example": {},
            "broken.example": { "auth": "???" },
        }));
        for (image, login) in [
            ("quay.io/other/app:1", Some("a:b")),
            ("quay.io/team/app:1", Some("c:d:e")),
            ("quay.io/teams/app:1", Some("a:b")),
            ("nginx", Some("hub:x")),
            ("registry.local:5000/app", Some("local:x")),
            ("registry.local/app", None),
            ("evil.quay.io/app", None),
            ("empty.example/app", None),
            ("broken.example/app", None),
        ] {
            assert_eq!(found(&secret, image).as_deref(), login, "{image}");
        }
        let old = secret_of_old();
        assert_eq!(found(&old, "quay.io/a/b").as_deref(), Some("a:b"));
    }

    fn secret_of_old() -> Secret {
        let text = json!({ "quay.io": { "auth": STANDARD.encode("a:b") } }).to_string();
        secret("kubernetes.io/dockercfg", ".dockercfg", &text)
    }

    #[test]
    fn what_is_no_login_is_said_and_not_shown() {
        let image = Reference::of_image("quay.io/a/b").unwrap();
        let opaque = secret("Opaque", ".dockerconfigjson", "{}");
        assert_eq!(login(&opaque, &image).unwrap_err(), SecretError::Kind);
        for text in ["", "{", "[]", "{\"auths\":7}"] {
            let broken = secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", text);
            assert_eq!(login(&broken, &image).unwrap_err(), SecretError::Unreadable, "{text}");
        }
        assert!(!format!("{:?}", login(&secret_of_old(), &image).unwrap()).contains("YTpi"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not(text in "\\PC{0,80}", auth in "\\PC{0,20}") {
            let image = Reference::of_image("quay.io/a/b").unwrap();
            let _ = login(&secret("kubernetes.io/dockercfg", ".dockercfg", &text), &image);
            let _ = login(&config(&json!({ "quay.io": { "auth": auth } })), &image);
        }
    }
}
