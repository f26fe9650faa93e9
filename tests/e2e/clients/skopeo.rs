//! skopeo: podman's mirrors and proxies without its storage; what it copies lies in a folder.

use std::process::Command;

use common::digest::Digest;
use tempfile::TempDir;

use super::quay::Route;
use super::{Held, Way, name_of, podman};
use crate::support::files_below;
use crate::support::image::Image;
use crate::support::process::succeed;

/// Copies `image` into a folder of its own.
pub(super) async fn pull(route: &Route, image: &Image) -> Held {
    let home = TempDir::new().unwrap();
    podman::configure(route, home.path());
    let to = home.path().join("copy");
    let mut command = Command::new("skopeo");
    command.env("HOME", home.path()).env("REGISTRY_AUTH_FILE", home.path().join("auth.json"));
    command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_RUNTIME_DIR");
    command.args(["--insecure-policy", "copy"]);
    command.args((route.way == Way::HttpProxy).then_some("--src-tls-verify=false"));
    command.args([format!("docker://{}", name_of(route, image)), format!("dir:{}", to.display())]);
    succeed(route.proxied(&mut command)).await;
    let blobs = files_below(&to).into_iter().filter_map(|file| {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let digest = format!("sha256:{name}").parse::<Digest>().ok()?;
        assert_eq!(Digest::of(&std::fs::read(&file).unwrap()), digest, "{file:?}");
        Some(digest)
    });
    let manifest = Digest::of(&std::fs::read(to.join("manifest.json")).unwrap());
    Held { manifest, blobs: blobs.collect() }
}
