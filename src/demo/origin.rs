//! The demo's origin: just enough of a registry to serve one generated image, counting every byte that it sends.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use common::digest::Digest;
use rand::{RngCore as _, SeedableRng as _};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// The image's name.
pub const REPOSITORY: &str = "demo/image";
/// Its tag.
pub const TAG: &str = "latest";

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// A layer that dominates, a middle one and a small one, like most images; in sixteenths.
const SHARES: [u64; 3] = [11, 4, 1];
/// What one write to a socket takes.
const CHUNK: usize = 64 * 1024;

/// The origin; it ends when dropped.
pub struct Origin {
    address: SocketAddr,
    shelf: Arc<Shelf>,
    serving: AbortHandle,
}

/// What an image is made of.
#[derive(Clone)]
pub struct Image {
    /// The config and the layers.
    pub layers: Vec<Digest>,
    /// The manifest.
    pub manifest: Digest,
    /// Bytes in all of it.
    pub bytes: u64,
}

struct Shelf {
    present: Mutex<Present>,
    sent: AtomicU64,
}

/// The one image that is here at the moment.
struct Present {
    blobs: BTreeMap<Digest, Bytes>,
    image: Image,
}

// === impl Origin ===

impl Origin {
    /// Generates an image of about `size` bytes and serves it on a free port.
    pub async fn start(size: u64) -> anyhow::Result<Self> {
        let present = tokio::task::spawn_blocking(move || generate(size, 0)).await?;
        let shelf = Arc::new(Shelf { present: Mutex::new(present), sent: AtomicU64::new(0) });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(serve).with_state(shelf.clone());
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, shelf, serving: serving.abort_handle() })
    }

    /// Puts another image of about `size` bytes in the place of the present one.
    pub async fn release(&self, size: u64, number: u64) -> anyhow::Result<()> {
        let next = tokio::task::spawn_blocking(move || generate(size, number)).await?;
        *self.shelf.present() = next;
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The present image.
    pub fn image(&self) -> Image {
        self.shelf.present().image.clone()
    }

    /// Body bytes that left.
    pub fn sent(&self) -> u64 {
        self.shelf.sent.load(Ordering::Relaxed)
    }
}

impl Shelf {
    fn present(&self) -> MutexGuard<'_, Present> {
        // It is replaced whole: a panic in between leaves the one before.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Bytes that do not compress: they are carried, not unpacked. Another number is another image.
fn generate(size: u64, number: u64) -> Present {
    let mut rng = rand::rngs::SmallRng::seed_from_u64(0x4c6f_6e67 + number);
    let mut blobs = BTreeMap::new();
    let mut keep = |bytes: Bytes| {
        let digest = Digest::of(&bytes);
        let length = bytes.len();
        blobs.insert(digest, bytes);
        (digest, length)
    };
    let config = keep(
        json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers" }, "release": number })
            .to_string()
            .into(),
    );
    let layers = SHARES.map(|share| {
        let mut bytes = vec![0; (size * share / 16).max(1) as usize];
        rng.fill_bytes(&mut bytes);
        keep(bytes.into())
    });
    let descriptor = |kind: &str, (digest, length): (Digest, usize)| json!({ "mediaType": kind, "digest": digest.to_string(), "size": length });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, config),
        "layers": layers.map(|layer| descriptor(LAYER_TYPE, layer)),
    });
    let (manifest, _) = keep(manifest.to_string().into());
    let layers = std::iter::once(config.0).chain(layers.map(|(digest, _)| digest)).collect();
    let bytes = blobs.values().map(|blob| blob.len() as u64).sum();
    Present { blobs, image: Image { layers, manifest, bytes } }
}

async fn serve(State(shelf): State<Arc<Shelf>>, request: Request) -> Response {
    let path = request.uri().path();
    let rest = path.strip_prefix("/v2/").unwrap_or_default();
    if rest.is_empty() {
        return StatusCode::OK.into_response();
    }
    let found = find(&shelf.present(), rest);
    match found {
        Some((digest, kind, blob)) => {
            answer(&shelf, (request.method(), request.headers()), (digest, kind), blob)
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What is asked for, if it is of the present image.
fn find(present: &Present, rest: &str) -> Option<(Digest, &'static str, Bytes)> {
    let manifest = present.image.manifest;
    let digest = match rest.strip_prefix(REPOSITORY).map(|rest| rest.trim_start_matches('/')) {
        Some(reference) if reference == format!("manifests/{TAG}") => Some(manifest),
        Some(reference) => reference.rsplit_once('/').and_then(|(_, digest)| digest.parse().ok()),
        None => None,
    };
    let digest = digest?;
    let kind = if digest == manifest { MANIFEST_TYPE } else { "application/octet-stream" };
    Some((digest, kind, present.blobs.get(&digest)?.clone()))
}

fn answer(
    shelf: &Arc<Shelf>,
    (method, asked): (&Method, &HeaderMap),
    (digest, kind): (Digest, &'static str),
    blob: Bytes,
) -> Response {
    let whole = blob.len();
    let range = asked.get(header::RANGE).and_then(|value| range(value.to_str().ok()?, whole));
    let (start, end) = range.unwrap_or((0, whole));
    let body = blob.slice(start..end);
    let mut response = Response::builder()
        .status(if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK })
        .header(header::CONTENT_TYPE, kind)
        .header(header::CONTENT_LENGTH, body.len())
        .header(header::ACCEPT_RANGES, "bytes")
        .header("docker-content-digest", digest.to_string());
    if range.is_some() {
        response = response.header(header::CONTENT_RANGE, format!("bytes {start}-{}/{whole}", end - 1));
    }
    let body =
        if method == Method::HEAD { Body::empty() } else { Body::from_stream(counted(shelf.clone(), body)) };
    response.body(body).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// Counts chunks as the connection takes them.
fn counted(
    shelf: Arc<Shelf>,
    bytes: Bytes,
) -> impl futures_util::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    futures_util::stream::unfold(bytes, move |mut left| {
        let shelf = shelf.clone();
        async move {
            if left.is_empty() {
                return None;
            }
            let chunk = left.split_to(left.len().min(CHUNK));
            shelf.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            Some((Ok(chunk), left))
        }
    })
}

/// `bytes=start-end` as a half-open range within `length`.
fn range(value: &str, length: usize) -> Option<(usize, usize)> {
    let (start, end) = value.strip_prefix("bytes=")?.split_once('-')?;
    let start: usize = start.parse().ok()?;
    let end = end.parse().map_or(length, |end: usize| (end + 1).min(length));
    (start < end).then_some((start, end))
}
