//! That an origin has the content which it grants. A blob's task is its digest, wherever it came from, so who asks for it
//! through an origin of his own could be granted what another one keeps private. Therefore an origin that a blob was not
//! fetched from must show that it has it, before anything of the copy here is handed out in its name: a part of it, chosen
//! at random. [`crate::engine::Engine::open`] asks here, in the peer for what it holds, and in the seed for all peers.
//!
//! # Invariants
//! Nothing of the content goes to the origin: it is asked, and what it says is compared here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use common::piece::{ByteRange, PieceIndex};
use common::task::{Credentials, Source, TaskId};
use futures_util::StreamExt as _;
use http::header::{HeaderMap, HeaderValue, RANGE};
use http::{Method, StatusCode};
use tokio::sync::OnceCell;

use crate::error::FetchError;
use crate::handle::Handle;
use crate::origin::{OriginClient, place_of};

/// What an origin must show. Much more than can be guessed of a file, and next to nothing of a layer; content that is not
/// longer must be shown whole.
const SAMPLE: u64 = 64 * 1024;
/// Pairs of task and origin that are remembered. Who is forgotten has to show it again.
const MAX_SHOWN: usize = 16 * 1024;

/// Which origins have shown what.
#[derive(Default)]
pub(crate) struct Provenance {
    shown: Mutex<Shown>,
}

/// Empty until it was shown; who asks meanwhile waits.
type Proof = Arc<OnceCell<()>>;

#[derive(Default)]
struct Shown {
    places: HashMap<(TaskId, String), Proof>,
    /// Oldest first.
    order: VecDeque<(TaskId, String)>,
}

// === impl Provenance ===

impl Provenance {
    /// Makes sure that the origin of `source` has the content of `handle`.
    ///
    /// # Errors
    /// When it does not show it.
    pub(crate) async fn check(
        &self,
        origin: &OriginClient,
        handle: &Handle,
        source: &Source,
        credentials: &Credentials,
    ) -> Result<(), FetchError> {
        let place = place_of(&source.url)?;
        let fetched_from = handle.source_url().and_then(|url| place_of(&url).ok());
        if source.digest.is_none() || fetched_from.as_ref() == Some(&place) {
            return Ok(());
        }
        let proof = self.lock().proof((handle.task(), place.clone()));
        let show = async || {
            let range = sample(handle, &mut rand::rng());
            if ask(origin, source, credentials, range).await? == here(handle, range).await? {
                return Ok(());
            }
            tracing::warn!(task = %handle.task(), place, "an origin grants content that it does not have");
            Err(FetchError::Swarm(format!("{place} does not show that it has this content")))
        };
        proof.get_or_try_init(show).await.map(drop)
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Shown ===

impl Shown {
    fn proof(&mut self, key: (TaskId, String)) -> Proof {
        if let Some(proof) = self.places.get(&key) {
            return proof.clone();
        }
        self.order.push_back(key.clone());
        if self.order.len() > MAX_SHOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
        self.places.entry(key).or_default().clone()
    }
}

/// The part to be shown; of content that is still on its way one that comes soon.
fn sample(handle: &Handle, dice: &mut impl rand::Rng) -> ByteRange {
    let within = match handle.is_local() {
        true => ByteRange::new(0, handle.length()),
        false => handle.geometry().range(PieceIndex(0)),
    };
    let last = within.end.saturating_sub(SAMPLE);
    let start = if last == 0 { 0 } else { dice.random_range(0..=last) };
    ByteRange::new(start, within.end.min(start + SAMPLE))
}

/// The bytes of the range as the origin gives them to these credentials.
async fn ask(
    origin: &OriginClient,
    source: &Source,
    credentials: &Credentials,
    range: ByteRange,
) -> Result<BytesMut, FetchError> {
    let mut said = BytesMut::new();
    if range.is_empty() {
        return Ok(said);
    }
    let mut headers = HeaderMap::new();
    let text = format!("bytes={}-{}", range.start, range.end - 1);
    headers.insert(RANGE, HeaderValue::from_str(&text).expect("invariant: numbers are header text"));
    if let Some(accept) = source.accept.as_deref().and_then(|accept| HeaderValue::from_str(accept).ok()) {
        headers.insert(http::header::ACCEPT, accept);
    }
    let answer = origin.ask(Method::GET, &source.url, &headers, credentials).await?;
    // Who serves no ranges sends it all: what is before the part is read past.
    let mut before = match answer.status {
        StatusCode::PARTIAL_CONTENT => 0,
        status if status.is_success() => range.start,
        _ => return Err(FetchError::Origin(answer.into_failure().await)),
    };
    let mut chunks = answer.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        let skip = before.min(chunk.len() as u64);
        before -= skip;
        let left = range.len() as usize - said.len();
        let rest = &chunk[skip as usize..];
        said.extend_from_slice(&rest[..rest.len().min(left)]);
        if said.len() as u64 == range.len() {
            break;
        }
    }
    Ok(said)
}

/// The same bytes as they are here, or will be in a moment.
async fn here(handle: &Handle, range: ByteRange) -> Result<BytesMut, FetchError> {
    let mut all = BytesMut::new();
    let mut chunks = std::pin::pin!(handle.read(range));
    while let Some(chunk) = chunks.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}
