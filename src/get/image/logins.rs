//! Who the user is at a registry, as `docker login`, `podman login` and `skopeo login` leave it. Read where no `-H` says who;
//! what a credential helper keeps is not asked for.
//!
//! Source: containers-auth.json(5).

use std::path::PathBuf;

use common::task::Credentials;
use serde_json::Value;

use peer::image::reference::HUB;

/// What Docker Hub is called there.
const HUB_KEYS: [&str; 3] = ["docker.io", "https://index.docker.io/v1/", "index.docker.io"];
/// Such a file is some kilobytes.
const MAX_FILE: u64 = 1024 * 1024;

/// What the user's files say for a registry; nothing where they say nothing. Blocks.
pub fn credentials(registry: &str) -> Credentials {
    let texts =
        files().into_iter().filter(|path| path.metadata().is_ok_and(|metadata| metadata.len() <= MAX_FILE));
    let found = texts.filter_map(|path| std::fs::read(path).ok()).find_map(|text| login(&text, registry));
    found.map_or_else(Credentials::none, |login| Credentials::authorization(format!("Basic {login}")))
}

/// Where logins lie, the most particular first.
fn files() -> Vec<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = folder("HOME");
    let all = [
        folder("REGISTRY_AUTH_FILE"),
        folder("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
        folder("XDG_CONFIG_HOME")
            .or_else(|| Some(home.as_ref()?.join(".config")))
            .map(|dir| dir.join("containers/auth.json")),
        folder("DOCKER_CONFIG")
            .or_else(|| Some(home.as_ref()?.join(".docker")))
            .map(|dir| dir.join("config.json")),
    ];
    all.into_iter().flatten().collect()
}

/// The login for a registry in the text of a file.
fn login(text: &[u8], registry: &str) -> Option<String> {
    let all: Value = serde_json::from_slice(text).ok()?;
    let of = |key: &str| {
        let login = all["auths"][key]["auth"].as_str()?;
        let plain = !login.is_empty()
            && login.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        plain.then(|| login.to_owned())
    };
    if registry == HUB {
        return HUB_KEYS.iter().find_map(|key| of(key));
    }
    of(registry).or_else(|| of(&format!("https://{registry}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_login_is_for_its_registry_alone() {
        let text = br#"{"auths":{"quay.io":{"auth":"YTpi"},"https://index.docker.io/v1/":{"auth":"Yzpk"},"empty":{}},"credsStore":"x"}"#;
        assert_eq!(login(text, "quay.io").as_deref(), Some("YTpi"));
        assert_eq!(login(text, "docker.io").as_deref(), Some("Yzpk"));
        for other in ["quay.io:443", "evil.quay.io", "empty", ""] {
            assert_eq!(login(text, other), None, "{other}");
        }
        assert_eq!(login(br#"{"auths":{"h":{"auth":"a\r\nx: y"}}}"#, "h"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not(text in "\\PC{0,60}", registry in "[a-z.:]{0,10}") {
            let _ = login(text.as_bytes(), &registry);
        }
    }
}
