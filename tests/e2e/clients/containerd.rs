//! containerd: `ctr` makes the requests itself, with a hosts folder for mirrors, and proxies of its environment.

use super::quay::Route;
use super::{Held, Way, name_of};
use crate::support::image::Image;
use crate::support::registry::User;
use crate::support::runtimes::Containerd;

/// Pulls `image` into a containerd of its own.
pub(super) async fn pull(route: &Route, image: &Image) -> Held {
    let containerd = Containerd::start().await;
    let user = route.user.map(User::pair);
    let hosts;
    let mut more = match route.way {
        Way::Mirror => {
            hosts = containerd.mirror(route.registry, &host(route));
            vec!["--hosts-dir", &hosts]
        }
        Way::HttpProxy => vec!["--plain-http"],
        Way::HttpsProxy => vec![],
    };
    more.extend(user.iter().flat_map(|pair| ["--user", pair]));
    let name = name_of(route, image);
    let manifest = containerd.pull_with(&more, &name, |command| route.proxied(command)).await;
    let mut blobs = containerd.digests();
    assert!(blobs.remove(&manifest), "the manifest is among its blobs");
    Held { manifest, blobs }
}

/// The mirror's table in `hosts.toml`, in one of the two ways in which people write it.
fn host(route: &Route) -> String {
    if route.first {
        format!("[host.\"http://{}\"]", route.proxy)
    } else {
        format!("[host.\"http://{}/v2\"]\noverride_path = true", route.proxy)
    }
}
