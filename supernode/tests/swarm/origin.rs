//! An origin whose content is computed, so that a task of any size costs no memory: it serves ranges, counts the
//! bytes that leave it, and can hold back everything beyond some offset.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use common::digest::{Digest, Hasher};
use common::task::Source;
use http::{HeaderMap, StatusCode, header};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How much leaves at once; also what is computed at once.
const CHUNK: u64 = 64 * 1024;

/// Content of the origin, known by a number and a length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub(crate) number: u64,
    pub(crate) length: u64,
}

pub(crate) struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    served: AtomicU64,
    /// Bytes at and beyond this offset wait.
    gate: watch::Sender<u64>,
    /// The first byte of everything is wrong.
    spoilt: AtomicBool,
}

// === impl Content ===

impl Content {
    /// Bytes `start..end`.
    pub(crate) fn bytes(&self, start: u64, end: u64) -> Bytes {
        let words = start / 8..end.div_ceil(8);
        let bytes: Vec<u8> = words.flat_map(|word| self.word(word).to_le_bytes()).collect();
        let skipped = (start % 8) as usize;
        Bytes::from(bytes).slice(skipped..skipped + (end - start) as usize)
    }

    pub(crate) fn digest(&self) -> Digest {
        let mut hasher = Hasher::new();
        self.chunks(0, self.length).for_each(|(start, end)| hasher.update(&self.bytes(start, end)));
        hasher.finish()
    }

    /// SplitMix64: no two pieces are alike.
    fn word(&self, index: u64) -> u64 {
        let mut z = (self.number << 40 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn chunks(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> + Send + 'static {
        (start..end).step_by(CHUNK as usize).map(move |at| (at, end.min(at + CHUNK)))
    }
}

// === impl Origin ===

impl Origin {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            served: AtomicU64::new(0),
            gate: watch::Sender::new(u64::MAX),
            spoilt: AtomicBool::new(false),
        });
        let router = Router::new()
            .route("/content/{number}/{length}", get(content))
            .route("/private", get(private))
            .with_state(shared.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared, _serving: serving }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn url(&self, content: Content) -> String {
        format!("http://{}/content/{}/{}", self.address, content.number, content.length)
    }

    /// The content as a task that is known by its digest.
    pub(crate) fn source(&self, content: Content) -> Source {
        Source::of_digest(self.url(content), content.digest())
    }

    pub(crate) fn private(&self) -> Source {
        Source::of_digest(format!("http://{}/private", self.address), Digest::of(b"private"))
    }

    /// Bytes of content that left.
    pub(crate) fn served(&self) -> u64 {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// Serves content whose first byte is wrong, or right content again.
    pub(crate) fn spoil(&self, spoilt: bool) {
        self.shared.spoilt.store(spoilt, Ordering::Relaxed);
    }

    /// Holds back everything from `offset` on.
    pub(crate) fn hold_from(&self, offset: u64) {
        self.shared.gate.send_replace(offset);
    }

    /// Holds nothing back any more.
    pub(crate) fn release(&self) {
        self.hold_from(u64::MAX);
    }
}

async fn content(
    State(shared): State<Arc<Shared>>,
    Path((number, length)): Path<(u64, u64)>,
    headers: HeaderMap,
) -> Response {
    let content = Content { number, length };
    let (status, start, end) = match range(&headers) {
        Some((start, _)) if start >= length => {
            let range = format!("bytes */{length}");
            let answer = Response::builder().status(StatusCode::RANGE_NOT_SATISFIABLE);
            return answer.header(header::CONTENT_RANGE, range).body(Body::empty()).unwrap();
        }
        Some((start, end)) => (StatusCode::PARTIAL_CONTENT, start, end.min(length)),
        None => (StatusCode::OK, 0, length),
    };
    let gate = shared.gate.subscribe();
    let chunks = content.chunks(start, end);
    let body = futures_util::stream::unfold(
        (chunks, gate, shared),
        move |(mut chunks, mut gate, shared)| async move {
            let (start, end) = chunks.next()?;
            gate.wait_for(|gate| start < *gate).await.ok()?;
            shared.served.fetch_add(end - start, Ordering::Relaxed);
            let mut bytes = Vec::from(content.bytes(start, end));
            if start == 0 && shared.spoilt.load(Ordering::Relaxed) {
                bytes[0] ^= 1;
            }
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(bytes)), (chunks, gate, shared)))
        },
    );
    let mut answer = Response::builder().status(status).header(header::CONTENT_LENGTH, end - start);
    if status == StatusCode::PARTIAL_CONTENT {
        answer = answer.header(header::CONTENT_RANGE, format!("bytes {start}-{}/{length}", end - 1));
    }
    answer.body(Body::from_stream(body)).unwrap()
}

async fn private() -> Response {
    let answer = Response::builder().status(StatusCode::UNAUTHORIZED);
    answer.header(header::WWW_AUTHENTICATE, "Bearer realm=\"x\"").body(Body::from("{\"errors\":[]}")).unwrap()
}

/// The first byte and the one past the last of a `Range` header.
fn range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let (first, last) = headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    Some((first.parse().ok()?, last.parse::<u64>().map_or(u64::MAX, |last| last + 1)))
}
