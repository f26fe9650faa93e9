//! An origin that misbehaves on demand. It serves images as a registry does and other files below `/files/`,
//! counts every body byte that it gives out, and can cut bodies short, flip a byte, refuse for a while, ignore
//! ranges, or hold all big bodies at a total until it is told to go on. A hold makes "in the middle of a pull" a
//! state that a test can sit in, whatever the machine's speed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use common::digest::Digest;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::image::{Image, TAG};

/// How much of a body is handed to the connection at a time.
const CHUNK: usize = 64 << 10;
/// Bodies below this are never held: a hold is meant for a layer, not for the manifest before it.
const HELD_FROM: usize = 1 << 20;

/// What goes wrong with an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The connection ends when this many bytes of the body are out.
    Truncate(u64),
    /// The byte at this place of the object is another.
    Flip(u64),
    /// This status, with `Retry-After: 1` and a short body, instead of an answer.
    Status(u16),
    /// Too many requests, and `Retry-After` with so many seconds; to HEADs, too.
    Busy(u32),
}

/// The origin; it ends when it is dropped.
pub(crate) struct Origin {
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
    shared: Arc<Shared>,
    _server: AbortOnDropHandle<()>,
}

struct Shared {
    objects: Mutex<HashMap<String, Object>>,
    /// What goes wrong with GETs of a path, and how many times more.
    faults: Mutex<HashMap<String, (Fault, usize)>>,
    /// Body bytes given out, and answers begun, by path.
    given: Mutex<HashMap<String, Given>>,
    ranges: Mutex<bool>,
    /// Whether content has an entity tag.
    tags: Mutex<bool>,
    /// What `Last-Modified` says of a path.
    dates: Mutex<HashMap<String, String>>,
    /// A query without which a path is forbidden.
    keys: Mutex<HashMap<String, String>>,
    /// Bytes of big bodies that may leave in all, and those that have.
    allowed: watch::Sender<u64>,
    left: Mutex<u64>,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    media_type: &'static str,
    digest: Digest,
}

#[derive(Clone, Copy, Default)]
struct Given {
    bytes: u64,
    answers: usize,
}

// === impl Origin ===

impl Origin {
    /// Starts an empty origin that behaves.
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared {
            objects: Mutex::default(),
            faults: Mutex::default(),
            given: Mutex::default(),
            ranges: Mutex::new(true),
            tags: Mutex::new(true),
            dates: Mutex::default(),
            keys: Mutex::default(),
            allowed: watch::Sender::new(u64::MAX),
            left: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let app = axum::Router::new().fallback(answer).with_state(shared.clone());
        let server =
            tokio::spawn(async move { axum::serve(listener, app).await.expect("the origin serves") });
        Self { address, shared, _server: AbortOnDropHandle::new(server) }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves `image` as a registry does.
    pub(crate) fn add(&self, image: &Image) {
        let folder = format!("/v2/{}", image.repository);
        for blob in image.blobs() {
            self.put(&format!("{folder}/blobs/{}", blob.digest), blob.bytes.clone(), blob.media_type);
        }
        let manifest = &image.manifest;
        for reference in [TAG.to_owned(), manifest.digest.to_string()] {
            self.put(&format!("{folder}/manifests/{reference}"), manifest.bytes.clone(), manifest.media_type);
        }
    }

    /// Serves `bytes` under `/files/NAME`; gives the URL.
    pub(crate) fn add_file(&self, name: &str, bytes: impl Into<Bytes>) -> String {
        let path = format!("/files/{name}");
        self.put(&path, bytes.into(), "application/octet-stream");
        format!("{}{path}", self.url())
    }

    /// Serves `bytes` at `path`.
    pub(crate) fn put(&self, path: &str, bytes: Bytes, media_type: &'static str) {
        let object = Object { digest: Digest::of(&bytes), bytes, media_type };
        self.shared.objects.lock().unwrap().insert(path.to_owned(), object);
    }

    /// Lets `fault` happen to the next `times` GETs of `path`.
    pub(crate) fn fault(&self, path: &str, fault: Fault, times: usize) {
        self.shared.faults.lock().unwrap().insert(path.to_owned(), (fault, times));
    }

    /// Whether `Range` is understood.
    pub(crate) fn ranges(&self, understood: bool) {
        *self.shared.ranges.lock().unwrap() = understood;
    }

    /// Whether content has an entity tag.
    pub(crate) fn tags(&self, given: bool) {
        *self.shared.tags.lock().unwrap() = given;
    }

    /// Lets `path` have been changed last at this date.
    pub(crate) fn date(&self, path: &str, date: &str) {
        self.shared.dates.lock().unwrap().insert(path.to_owned(), date.to_owned());
    }

    /// Forbids `path` to whoever does not show `key` in the query.
    pub(crate) fn lock(&self, path: &str, key: &str) {
        self.shared.keys.lock().unwrap().insert(path.to_owned(), key.to_owned());
    }

    /// Stops all big bodies once `bytes` of them have left in all, until [`Origin::release`].
    pub(crate) fn hold_at(&self, bytes: u64) {
        self.shared.allowed.send_replace(bytes);
    }

    /// Lets everything go on.
    pub(crate) fn release(&self) {
        self.shared.allowed.send_replace(u64::MAX);
    }

    /// Bytes of big bodies that have left so far.
    pub(crate) fn left(&self) -> u64 {
        *self.shared.left.lock().unwrap()
    }

    /// How many copies of the image's blob have left, counted as they were handed to the connection.
    pub(crate) fn copies(&self, image: &Image, digest: Digest) -> f64 {
        self.copies_of(&format!("/v2/{}/blobs/{digest}", image.repository))
    }

    /// How many copies of the object at `path` have left.
    pub(crate) fn copies_of(&self, path: &str) -> f64 {
        let size = self.shared.objects.lock().unwrap()[path].bytes.len();
        let given = self.shared.given.lock().unwrap().get(path).copied().unwrap_or_default();
        #[allow(clippy::cast_precision_loss, reason = "sizes here are far below 2^52")]
        let copies = given.bytes as f64 / size as f64;
        copies
    }

    /// How many GETs of `path` were answered.
    pub(crate) fn answers(&self, path: &str) -> usize {
        self.shared.given.lock().unwrap().get(path).map_or(0, |given| given.answers)
    }
}

// === impl Shared ===

impl Shared {
    fn fault_of(&self, path: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let (fault, times) = faults.get_mut(path)?;
        *times = times.checked_sub(1)?;
        Some(*fault)
    }

    /// Waits until some of the next `wish` bytes of a body may leave; how many.
    async fn leave(&self, wish: usize, held: bool) -> usize {
        if !held {
            return wish;
        }
        let mut allowed = self.allowed.subscribe();
        loop {
            let limit = *allowed.borrow_and_update();
            {
                let mut left = self.left.lock().unwrap();
                let may = limit.saturating_sub(*left).min(wish as u64);
                if may > 0 {
                    *left += may;
                    return usize::try_from(may).expect("at most the wish");
                }
            }
            if allowed.changed().await.is_err() {
                return wish;
            }
        }
    }

    fn count(&self, path: &str, bytes: usize, answers: usize) {
        let mut given = self.given.lock().unwrap();
        let given = given.entry(path.to_owned()).or_default();
        given.bytes += bytes as u64;
        given.answers += answers;
    }
}

async fn answer(State(shared): State<Arc<Shared>>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().to_owned();
    if matches!(path.as_str(), "/v2" | "/v2/") {
        return (StatusCode::OK, "{}").into_response();
    }
    let get = method == Method::GET;
    let Some(object) = shared.objects.lock().unwrap().get(&path).cloned() else {
        return (StatusCode::NOT_FOUND, r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#).into_response();
    };
    let shows = |key: &String| uri.query().unwrap_or_default().split('&').any(|part| part == key);
    if shared.keys.lock().unwrap().get(&path).is_some_and(|key| !shows(key)) {
        return (StatusCode::FORBIDDEN, "the signature is missing").into_response();
    }
    let busy = matches!(shared.faults.lock().unwrap().get(&path), Some((Fault::Busy(_), _)));
    let fault = if get || busy { shared.fault_of(&path) } else { None };
    if let Some(Fault::Busy(seconds)) = fault {
        shared.count(&path, 0, 1);
        return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds.to_string())], "not now")
            .into_response();
    }
    if let Some(Fault::Status(status)) = fault {
        shared.count(&path, 0, 1);
        let status = StatusCode::from_u16(status).expect("a status");
        return (status, [(header::RETRY_AFTER, "1")], "not now").into_response();
    }
    let ranges = *shared.ranges.lock().unwrap();
    let wanted = headers.get(header::RANGE).filter(|_| ranges && get);
    let size = object.bytes.len();
    let mut answer = Response::builder()
        .header(header::CONTENT_TYPE, object.media_type)
        .header("docker-content-digest", object.digest.to_string());
    if *shared.tags.lock().unwrap() {
        answer = answer.header(header::ETAG, format!("\"{}\"", object.digest));
    }
    if let Some(date) = shared.dates.lock().unwrap().get(&path) {
        answer = answer.header(header::LAST_MODIFIED, date);
    }
    if ranges {
        answer = answer.header(header::ACCEPT_RANGES, "bytes");
    }
    let (start, end) = match wanted.map(|range| range_of(range.to_str().unwrap_or_default(), size)) {
        None => (0, size),
        Some(Some((start, end))) => {
            let place = format!("bytes {start}-{}/{size}", end - 1);
            answer = answer.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, place);
            (start, end)
        }
        Some(None) => return StatusCode::RANGE_NOT_SATISFIABLE.into_response(),
    };
    answer = answer.header(header::CONTENT_LENGTH, end - start);
    let body = if get {
        shared.count(&path, 0, 1);
        body(Sending { shared, path, object, at: start, start, end, fault })
    } else {
        Body::empty()
    };
    answer.body(body).expect("a valid answer")
}

/// One body on its way out.
struct Sending {
    shared: Arc<Shared>,
    path: String,
    object: Object,
    at: usize,
    start: usize,
    end: usize,
    fault: Option<Fault>,
}

fn body(sending: Sending) -> Body {
    Body::from_stream(futures_util::stream::unfold(sending, |mut sending| async move {
        if sending.at == sending.end {
            return None;
        }
        let mut wish = CHUNK.min(sending.end - sending.at);
        if let Some(Fault::Truncate(after)) = sending.fault {
            let rest = (sending.start + usize::try_from(after).expect("a size")).saturating_sub(sending.at);
            wish = wish.min(rest);
            if wish == 0 {
                return Some((Err(std::io::Error::other("cut on purpose")), sending));
            }
        }
        let held = sending.object.bytes.len() >= HELD_FROM;
        let length = sending.shared.leave(wish, held).await;
        let range = sending.at..sending.at + length;
        let mut chunk = sending.object.bytes.slice(range.clone());
        if let Some(Fault::Flip(place)) = sending.fault {
            let place = usize::try_from(place).expect("a size");
            if range.contains(&place) {
                let mut wrong = chunk.to_vec();
                wrong[place - range.start] ^= 1;
                chunk = wrong.into();
            }
        }
        sending.shared.count(&sending.path, length, 0);
        sending.at += length;
        // lets the connection write what it has, so that a cut comes after the bytes before it
        tokio::task::yield_now().await;
        Some((Ok(chunk), sending))
    }))
}

/// `bytes=a-b`, `bytes=a-` and `bytes=-n` within an object of `size`, as a half-open range.
pub(crate) fn range_of(text: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (first, last) {
        ("", n) => (size.saturating_sub(n.parse().ok()?), size),
        (a, "") => (a.parse().ok()?, size),
        (a, b) => (a.parse().ok()?, b.parse::<usize>().ok()?.saturating_add(1).min(size)),
    };
    (start < end).then_some((start, end))
}
