//! The client matrix: every container runtime, on every way through a peer, from every kind of registry. One table
//! says which cells there are; each cell is two clients at two peers that pull one image of its own. What they hold
//! afterwards is compared digest by digest, and everything must have left the registry once.
//!
//! `tests/run --only clients` runs it and shows the table.

mod containerd;
mod dockerd;
mod podman;
mod quay;
mod skopeo;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;

use common::digest::Digest;
use futures_util::{FutureExt as _, StreamExt as _};

use crate::support::image::{Image, TAG};
use crate::support::{need, program};
use quay::{Quay, Route};

/// Layers below and above what travels inline and in one piece.
const LAYERS: [usize; 3] = [4 << 10, 300 << 10, 2 << 20];
/// Registries that are tested at once: a cell waits for its daemons most of the time.
const AT_ONCE: usize = 2;

/// A container runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Client {
    Containerd,
    Dockerd,
    Podman,
    Skopeo,
}

/// A kind of registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Everybody, in plain HTTP.
    Plain,
    /// A name and a password.
    Basic,
    /// A token of another server.
    Token,
    /// TLS with a CA that only the nodes know.
    Tls,
    /// A name and a password, and blobs by redirect from another host, which wants neither.
    Redirecting,
}

/// How a client is pointed at its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// The client's own setting for mirrors.
    Mirror,
    /// `HTTP_PROXY`: requests in absolute form.
    HttpProxy,
    /// `HTTPS_PROXY`: CONNECT, and the node's own CA.
    HttpsProxy,
}

type Cell = (Client, Way, Kind);

/// What a cell came to: pulled, failed with these words, or no such thing for this reason.
enum Mark {
    Pulled,
    Failed(String),
    None(&'static str),
}

/// What a client holds after a pull.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    manifest: Digest,
    /// Config and layers.
    blobs: BTreeSet<Digest>,
}

const CLIENTS: [Client; 4] = [Client::Containerd, Client::Dockerd, Client::Podman, Client::Skopeo];
const KINDS: [Kind; 5] = [Kind::Plain, Kind::Basic, Kind::Token, Kind::Tls, Kind::Redirecting];
const WAYS: [Way; 3] = [Way::Mirror, Way::HttpProxy, Way::HttpsProxy];

// === impl Client ===

impl Client {
    /// The programs that it needs; the first one is its name.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Containerd => &["containerd", "ctr", "runc"],
            Self::Dockerd => &["dockerd", "docker", "containerd", "runc"],
            Self::Podman => &["podman"],
            Self::Skopeo => &["skopeo"],
        }
    }

    /// Pulls `image` by the route with a fresh client; what that client then holds.
    async fn pull(self, route: &Route, image: &Image) -> Held {
        match self {
            Self::Containerd => containerd::pull(route, image).await,
            Self::Dockerd => dockerd::pull(route, image).await,
            Self::Podman => podman::pull(route, image).await,
            Self::Skopeo => skopeo::pull(route, image).await,
        }
    }
}

/// Why there is no such cell, if there is none.
fn why_not((client, way, kind): Cell) -> Option<&'static str> {
    if client.programs().iter().any(|part| program(part).is_none()) {
        return Some("the client is not installed");
    }
    match (way, kind) {
        (Way::HttpProxy, Kind::Tls) => Some("for a registry with TLS a client uses HTTPS_PROXY"),
        (Way::HttpsProxy, Kind::Plain) => Some("for a registry without TLS a client uses HTTP_PROXY"),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_pulls_on_every_way_from_every_kind_of_registry() {
    need!("docker-registry", "htpasswd", "root");
    let marks = futures_util::stream::iter(KINDS).map(column).buffer_unordered(AT_ONCE);
    let marks: BTreeMap<Cell, Mark> = marks.flat_map(futures_util::stream::iter).collect().await;
    assert_eq!(marks.len(), CLIENTS.len() * KINDS.len() * WAYS.len(), "a mark in every cell");
    println!("\n{}", table(&marks));
    let all = std::env::var("LONGSHORE_TESTS_REQUIRE_ALL").is_ok_and(|value| value == "1");
    let missing =
        CLIENTS.iter().filter(|client| client.programs().iter().any(|part| program(part).is_none()));
    let missing: Vec<_> = missing.collect();
    assert!(
        !all || missing.is_empty(),
        "{missing:?} missing, and LONGSHORE_TESTS_REQUIRE_ALL=1 allows no gaps"
    );
    let failed: Vec<String> = marks.iter().filter_map(|(cell, mark)| mark.failure(*cell)).collect();
    assert!(failed.is_empty(), "{} cells failed:\n{}", failed.len(), failed.join("\n"));
}

/// All cells of one kind of registry.
async fn column(kind: Kind) -> Vec<(Cell, Mark)> {
    let quay = Quay::open(kind).await;
    let mut marks = Vec::new();
    for (client, way) in CLIENTS.into_iter().flat_map(|client| WAYS.map(|way| (client, way))) {
        let cell = (client, way, kind);
        let mark = match why_not(cell) {
            Some(reason) => Mark::None(reason),
            // a failure ends this cell and no other
            None => match AssertUnwindSafe(pulls(&quay, client, way)).catch_unwind().await {
                Ok(()) => Mark::Pulled,
                Err(panic) => Mark::Failed(words_of(&*panic)),
            },
        };
        marks.push((cell, mark));
    }
    marks
}

/// One cell: two clients, each at its own peer, pull the same image at once.
async fn pulls(quay: &Quay, client: Client, way: Way) {
    let seed = (client as u64 + 1) * 1000 + (way as u64) * 100 + (quay.kind as u64) * 10;
    let name = format!("team/{client:?}-{way:?}").to_lowercase();
    let image = Image::of_sizes(&name, &LAYERS, seed);
    quay.push(way, &image).await;
    let routes = quay.routes(client, way).await;
    let (one, two) = tokio::join!(client.pull(&routes[0], &image), client.pull(&routes[1], &image));
    let whole =
        Held { manifest: image.manifest.digest, blobs: image.blobs().map(|blob| blob.digest).collect() };
    for held in [one, two] {
        assert_eq!(held, whole, "{client:?} holds something else");
    }
    quay.served_once(way, &image).await;
}

/// What a failed cell said.
fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().cloned();
    words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned())).unwrap_or_default()
}

// === impl Mark ===

impl Mark {
    fn failure(&self, cell: Cell) -> Option<String> {
        if let Self::Failed(words) = self { Some(format!("{cell:?}: {words}")) } else { None }
    }
}

/// The matrix for people, with a line for every reason.
fn table(marks: &BTreeMap<Cell, Mark>) -> String {
    let mut text = format!("{:<12}{:<13}", "client", "way");
    for kind in KINDS {
        let _ = write!(text, "{:<13}", format!("{kind:?}").to_lowercase());
    }
    let mut reasons: Vec<&str> = Vec::new();
    for (client, way) in CLIENTS.into_iter().flat_map(|client| WAYS.map(|way| (client, way))) {
        let way_name = match way {
            Way::Mirror => "mirror",
            Way::HttpProxy => "HTTP proxy",
            Way::HttpsProxy => "HTTPS proxy",
        };
        let _ = write!(text, "\n{:<12}{way_name:<13}", client.programs()[0]);
        for kind in KINDS {
            let mark = match &marks[&(client, way, kind)] {
                Mark::Pulled => "✓".to_owned(),
                Mark::Failed(_) => "✗".to_owned(),
                Mark::None(reason) => {
                    let known = reasons.iter().position(|known| known == reason);
                    let number = known.unwrap_or_else(|| {
                        reasons.push(reason);
                        reasons.len() - 1
                    });
                    format!("– ({})", number + 1)
                }
            };
            let _ = write!(text, "{mark:<13}");
        }
    }
    for (number, reason) in reasons.iter().enumerate() {
        let _ = write!(text, "\n({}) {reason}", number + 1);
    }
    text
}

/// What a client calls the image.
fn name_of(route: &Route, image: &Image) -> String {
    format!("{}/{}:{TAG}", route.registry, image.repository)
}
