//! dockerd: mirrors for Docker Hub alone, proxies of the daemon's environment, users from the command's settings.

use serde_json::json;

use super::quay::Route;
use super::{Held, Way, name_of};
use crate::support::image::Image;
use crate::support::runtimes::Dockerd;

/// What the command's settings call Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";

/// Pulls `image` into a dockerd of its own.
pub(super) async fn pull(route: &Route, image: &Image) -> Held {
    let more = match route.way {
        Way::Mirror => json!({"registry-mirrors": [format!("http://{}", route.proxy)]}),
        Way::HttpProxy => json!({"insecure-registries": [route.registry]}),
        Way::HttpsProxy => json!({}),
    };
    let dockerd = Dockerd::start_with(more, |command| route.proxied(command)).await;
    if let Some(user) = route.user {
        let at = if route.way == Way::Mirror { HUB } else { route.registry };
        dockerd.log_in(at, user);
    }
    let name = name_of(route, image);
    let manifest = dockerd.pull(&name).await;
    Held { manifest, blobs: dockerd.blobs(&name).await }
}
