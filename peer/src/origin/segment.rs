//! Reads one range of a task from its origin, resuming where the body broke off, and cuts it into hashed pieces.
//! Run by [`super::ranges`], several at a time.
//!
//! # Invariants
//! - A byte that arrived is never asked for again (unless the origin does not serve ranges).
//! - Only whole pieces leave, and each piece leaves once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::digest::Hasher;
use common::piece::{ByteRange, Geometry, PieceSet};
use common::task::{Credentials, Source};
use futures_util::StreamExt;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use tokio::sync::mpsc::Sender;

use super::plan::ContentRange;
use super::ranges::OriginEvent;
use super::retry::Outcome;
use super::{Answer, Cause, OriginClient, OriginError, label_of_text};

/// The most time that one ranged request may spend on the network: after it a new connection, perhaps to a healthier
/// server, takes over where this one was. Even 30 kB/s finish a segment in it.
const REQUEST_TIME: Duration = Duration::from_secs(300);

/// What is asked for, and with what.
pub(super) struct Asking {
    pub(super) client: OriginClient,
    pub(super) source: Source,
    pub(super) credentials: Credentials,
}

/// What is known of the content since the first answer.
pub(crate) struct Content {
    pub(crate) geometry: Geometry,
    /// Pieces that are not wanted.
    pub(crate) have: PieceSet,
    /// The strong ETag, where only it can tell that the content changed (see [`Opened::validator`]).
    pub(crate) validator: Option<HeaderValue>,
    /// Whether pieces are hashed.
    pub(crate) hashed: bool,
}

/// A body about to be read.
pub(super) struct Opened {
    pub(super) answer: Answer,
    /// The bytes of the task that the body holds.
    pub(super) body: ByteRange,
    /// The length of the task.
    pub(super) total: u64,
    /// Whether the origin serves ranges.
    pub(super) ranged: bool,
    /// The strong ETag of content without a digest. Where a digest is known, that proves the content, and replicas of
    /// one file may well disagree about its ETag.
    pub(super) validator: Option<HeaderValue>,
}

/// What an origin says to a range.
pub(super) enum Reply {
    /// Here it is, or here is everything.
    Body(Box<Opened>),
    /// There is no such range (416); the length, if it is said.
    NoSuchRange(Option<u64>),
}

/// How one body ended.
enum End {
    /// All that was wanted is delivered.
    Done,
    /// It broke off.
    Cut(Cause),
    /// Nobody listens any more.
    Closed,
}

/// The piece that is being put together.
pub(crate) struct Assembly {
    content: Arc<Content>,
    /// The next byte that is needed.
    position: u64,
    chunks: Vec<Bytes>,
    hasher: Hasher,
}

/// An ETag that promises the same bytes; weak ones do not.
fn strong_etag(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(header::ETAG).filter(|etag| etag.as_bytes().starts_with(b"\"")).cloned()
}

// === impl Asking ===

impl Asking {
    fn label(&self) -> String {
        label_of_text(&self.source.url)
    }

    pub(super) fn changed(&self, what: impl Into<String>) -> OriginError {
        OriginError::Changed { url: self.label(), what: what.into() }
    }

    /// The same, once the origin has begun to give: it is waited for longer. To give up then would send every node of a
    /// swarm to an origin that is just coming back, each for all of it.
    pub(super) fn persistent(&self) -> Self {
        let Self { client, source, credentials } = self;
        Self { client: client.persistent(), source: source.clone(), credentials: credentials.clone() }
    }

    /// Asks for `range`, or without one for everything.
    pub(super) async fn open(
        &self,
        range: Option<ByteRange>,
        if_range: Option<&HeaderValue>,
    ) -> Result<Reply, OriginError> {
        let mut headers = HeaderMap::new();
        let mut put = |name: header::HeaderName, value: &str| {
            let value = HeaderValue::from_str(value)
                .map_err(|_| OriginError::BadHeader { name: name.as_str().to_owned() })?;
            headers.insert(name, value);
            Ok::<_, OriginError>(())
        };
        if let Some(accept) = &self.source.accept {
            put(header::ACCEPT, accept)?;
        }
        if let Some(range) = range {
            put(header::RANGE, &format!("bytes={}-{}", range.start, range.end.saturating_sub(1)))?;
        }
        if let Some(etag) = if_range {
            headers.insert(header::IF_RANGE, etag.clone());
        }
        let answer = self.client.ask(Method::GET, &self.source.url, &headers, &self.credentials).await?;
        let said = answer.headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let said = said.and_then(ContentRange::parse);
        match (answer.status, range) {
            (StatusCode::OK, _) => self.whole(answer),
            (StatusCode::PARTIAL_CONTENT, Some(asked)) => self.part(answer, asked, said),
            // Its body is not read: registries promise the whole blob's length there and hang up.
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => {
                Ok(Reply::NoSuchRange(said.and_then(|r| r.total)))
            }
            _ => Err(OriginError::Answer(answer.into_failure().await)),
        }
    }

    fn whole(&self, answer: Answer) -> Result<Reply, OriginError> {
        let total = answer.length().ok_or_else(|| OriginError::NoLength { url: self.label() })?;
        Ok(Reply::Body(self.opened(answer, ByteRange::new(0, total), total, false)))
    }

    fn part(
        &self,
        answer: Answer,
        asked: ByteRange,
        said: Option<ContentRange>,
    ) -> Result<Reply, OriginError> {
        let said = said.ok_or_else(|| self.changed("it answered a range without saying which"))?;
        let total = said.total.ok_or_else(|| OriginError::NoLength { url: self.label() })?;
        // Fewer bytes than asked are allowed (RFC 9110, section 15.3.7) and are resumed like a body that broke off.
        match said.range {
            Some(body) if body.start == asked.start && body.end <= asked.end => {
                Ok(Reply::Body(self.opened(answer, body, total, true)))
            }
            _ => {
                Err(self.changed(format!("bytes {}-{} were asked, others came", asked.start, asked.end - 1)))
            }
        }
    }

    fn opened(&self, answer: Answer, body: ByteRange, total: u64, ranged: bool) -> Box<Opened> {
        let validator = if self.source.digest.is_none() { strong_etag(&answer.headers) } else { None };
        Box::new(Opened { answer, body, total, ranged, validator })
    }

    /// Reads `segment` (or from `opened` on, if it is open already) and sends its pieces.
    pub(super) async fn read(
        self: Arc<Self>,
        content: Arc<Content>,
        segment: ByteRange,
        mut opened: Option<Box<Opened>>,
        events: Sender<OriginEvent>,
    ) -> Result<(), OriginError> {
        let mut assembly = Assembly::new(content.clone(), segment.start);
        let mut attempts = self.client.retry();
        loop {
            let before = assembly.position;
            let body = match opened.take() {
                Some(opened) => opened,
                None => self.reopen(&content, &assembly, segment).await?,
            };
            let source = match self.drain(body, &mut assembly, segment.end, &events).await? {
                End::Done | End::Closed => return Ok(()),
                End::Cut(source) => source,
            };
            if assembly.position > before {
                attempts.progressed();
            }
            let Some(wait) = attempts.next(Outcome::Broken, &mut rand::rng()) else {
                return Err(OriginError::Truncated { url: self.label(), source });
            };
            tracing::debug!(
                url = self.label(),
                at = assembly.position,
                ?wait,
                "the origin's answer broke off: resuming"
            );
            tokio::time::sleep(wait).await;
        }
    }

    /// Asks for what is left of `segment`, and makes sure that it is still the same content.
    async fn reopen(
        &self,
        content: &Content,
        assembly: &Assembly,
        segment: ByteRange,
    ) -> Result<Box<Opened>, OriginError> {
        // Elsewhere the ETag is compared after the fact: a failed If-Range would send everything.
        let resuming = assembly.position > segment.start;
        let if_range = content.validator.as_ref().filter(|_| resuming);
        let opened = match self.open(Some(ByteRange::new(assembly.position, segment.end)), if_range).await? {
            Reply::Body(opened) => opened,
            Reply::NoSuchRange(_) => return Err(self.changed("a range that was there is gone")),
        };
        if opened.total != content.geometry.length() {
            return Err(self.changed(format!("{} bytes became {}", content.geometry.length(), opened.total)));
        }
        match (&content.validator, &opened.validator) {
            (Some(then), Some(now)) if then != now => Err(self.changed("its ETag is another")),
            _ => Ok(opened),
        }
    }

    /// Takes pieces out of one body until the segment is whole or the body ends.
    async fn drain(
        &self,
        opened: Box<Opened>,
        assembly: &mut Assembly,
        end: u64,
        events: &Sender<OriginEvent>,
    ) -> Result<End, OriginError> {
        let Opened { answer, body, ranged, .. } = *opened;
        let mut stream = answer.bytes_stream();
        let mut at = body.start;
        let mut left = if ranged { REQUEST_TIME } else { Duration::MAX };
        while assembly.position < end {
            let asked = Instant::now();
            let mut chunk = match tokio::time::timeout(left, stream.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(error))) => return Ok(End::Cut(error.into())),
                Ok(None) => return Ok(End::Cut("the body is shorter than said".into())),
                Err(elapsed) => return Ok(End::Cut(elapsed.into())),
            };
            left = left.saturating_sub(asked.elapsed());
            let start = at;
            at += chunk.len() as u64;
            if at > body.end {
                return Err(self.changed("more bytes came than were said"));
            }
            // An origin without ranges starts again at the first byte.
            let skip = assembly.position.saturating_sub(start).min(chunk.len() as u64);
            drop(chunk.split_to(skip as usize));
            while !chunk.is_empty() && assembly.position < end {
                let Some(piece) = assembly.take(&mut chunk) else { continue };
                if events.send(piece).await.is_err() {
                    return Ok(End::Closed);
                }
            }
        }
        Ok(End::Done)
    }
}

// === impl Assembly ===

impl Assembly {
    pub(crate) fn new(content: Arc<Content>, position: u64) -> Self {
        Self { content, position, chunks: Vec::new(), hasher: Hasher::new() }
    }

    /// Moves the bytes of the current piece out of `chunk`; gives the piece once it is whole and wanted.
    pub(crate) fn take(&mut self, chunk: &mut Bytes) -> Option<OriginEvent> {
        let geometry = self.content.geometry;
        let index = geometry.piece_at(self.position);
        let range = geometry.range(index);
        let part = chunk.split_to((chunk.len() as u64).min(range.end - self.position) as usize);
        self.position += part.len() as u64;
        if self.content.have.contains(index) {
            return None;
        }
        if self.content.hashed {
            self.hasher.update(&part);
        }
        self.chunks.push(part);
        (self.position == range.end).then(|| OriginEvent::Piece {
            index,
            chunks: std::mem::take(&mut self.chunks),
            digest: self.content.hashed.then(|| std::mem::take(&mut self.hasher).finish()),
        })
    }
}
