//! Who the user is at a registry, as `docker login`, `podman login` and `skopeo login` leave it in their files. Read where no `-H`
//! says who.
//!
//! Source: containers-auth.json(5).

use std::path::PathBuf;

use common::task::Credentials;
use peer::image::logins::{Logins, MAX_FILE};

/// What the user's files say for a registry; nothing where they say nothing. Blocks.
pub fn credentials(registry: &str) -> Credentials {
    let texts =
        files().into_iter().filter(|path| path.metadata().is_ok_and(|metadata| metadata.len() <= MAX_FILE));
    let mut texts = texts.filter_map(|path| std::fs::read(path).ok());
    texts.find_map(|text| Logins::read(&text)?.of(registry)).unwrap_or_default()
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
