//! podman: mirrors by `registries.conf`, with the registry's name before the repository; proxies of its environment.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::digest::Digest;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::quay::Route;
use super::{Held, Way, name_of};
use crate::support::files_below;
use crate::support::image::Image;
use crate::support::process::succeed;

/// Pulls `image` into a storage of its own.
pub(super) async fn pull(route: &Route, image: &Image) -> Held {
    let home = TempDir::new().unwrap();
    let name = name_of(route, image);
    configure(route, home.path());
    let mut command = podman(home.path());
    command.arg("pull").args((route.way == Way::HttpProxy).then_some("--tls-verify=false"));
    command.arg(&name);
    succeed(route.proxied(&mut command)).await;
    let mut inspect = podman(home.path());
    inspect.args(["image", "inspect", "--format", "{{.Digest}} sha256:{{.Id}}", &name]);
    let said = succeed(route.proxied(&mut inspect)).await;
    let digests: Vec<Digest> = said.split_whitespace().map(|digest| digest.parse().unwrap()).collect();
    let mut blobs = layers(home.path());
    blobs.push(digests[1]);
    Held { manifest: digests[0], blobs: blobs.into_iter().collect() }
}

/// Writes the settings of the user whose home is `home`. A mirror's credentials go by the mirror's own address; those of
/// the command line would be for the registry alone.
pub(super) fn configure(route: &Route, home: &Path) {
    let folder = home.join(".config/containers");
    std::fs::create_dir_all(&folder).unwrap();
    let mirror = format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        route.registry, route.location
    );
    let text = if route.way == Way::Mirror { mirror } else { String::new() };
    std::fs::write(folder.join("registries.conf"), text).unwrap();
    let users = route.user.map(|user| json!({"auth": STANDARD.encode(user.pair())}));
    let users: Map<String, Value> = [&*route.proxy, route.registry]
        .into_iter()
        .filter_map(|at| Some((at.to_owned(), users.clone()?)))
        .collect();
    std::fs::write(home.join("auth.json"), json!({"auths": users}).to_string()).unwrap();
}

fn podman(home: &Path) -> Command {
    let mut command = Command::new("podman");
    command.env("HOME", home).env("REGISTRY_AUTH_FILE", home.join("auth.json"));
    command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_RUNTIME_DIR");
    command.arg("--root").arg(home.join("root")).arg("--runroot").arg(home.join("run"));
    // whatever else it keeps, it keeps here, too
    command.args(["--storage-driver", "vfs", "--events-backend", "file", "--tmpdir"]).arg(home.join("tmp"));
    command
}

/// The digests of the layers as they came over the network, from its storage's own list.
fn layers(home: &Path) -> Vec<Digest> {
    let lists = files_below(&home.join("root"));
    let list = lists.iter().find(|file| file.ends_with("vfs-layers/layers.json")).expect("a list of layers");
    let list: Vec<Value> = serde_json::from_slice(&std::fs::read(list).unwrap()).unwrap();
    list.iter().map(|layer| layer["compressed-diff-digest"].as_str().unwrap().parse().unwrap()).collect()
}
