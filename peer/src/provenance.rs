//! That an origin has the content which it grants. A blob's task is its digest, wherever it came from, so who asks for it
//! through an origin of his own could be granted what another one keeps private. Therefore an origin that a blob was not
//! fetched from must show that it has it, before anything of the copy here is handed out in its name: parts of
//! it, chosen by nobody who is asked. [`crate::engine::Engine::open`] asks here, in the peer for what it holds, and in the seed for all peers.
//!
//! # Invariants
//! Nothing of the content goes to the origin: it is asked, and what it says is compared here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::digest::Hasher;
use common::piece::ByteRange;
use common::task::{Credentials, Source, TaskId};
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use http::header::{HeaderMap, HeaderValue, RANGE};
use http::{Method, StatusCode};

use crate::error::FetchError;
use crate::handle::Handle;
use crate::origin::{OriginClient, place_of};
use crate::tasks::Tasks;

/// What an origin must show: so many parts, spread over the content.
const PARTS: u64 = 4;
/// Bytes of each. Together much more than can be guessed, and next to nothing of a layer; content that is not longer must
/// be shown whole.
const PART: u64 = 16 * 1024;
/// Pairs of task and origin that are remembered. Who is forgotten has to show it again.
const MAX_SHOWN: usize = 16 * 1024;
/// Who could not show it may try again after this.
const AGAIN: Duration = Duration::from_secs(60);

type Proof = Shared<BoxFuture<'static, Result<(), FetchError>>>;

/// Which origins have shown what.
pub(crate) struct Provenance {
    /// Chooses the parts: the same ones for everybody who tries, so that nobody can try until he is lucky.
    secret: [u8; 32],
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    proofs: HashMap<(TaskId, String), (Proof, Instant)>,
    /// Oldest first.
    order: VecDeque<(TaskId, String)>,
}

// === impl Provenance ===

impl Provenance {
    /// Nobody has shown anything yet.
    pub(crate) fn new() -> Self {
        Self { secret: rand::random(), shown: Mutex::default() }
    }

    /// Makes sure that the origin of `source` has the content of `handle`.
    ///
    /// # Errors
    /// When it does not show it.
    pub(crate) async fn check(
        &self,
        (tasks, origin): (&Tasks, &OriginClient),
        handle: &Handle,
        source: &Source,
        credentials: &Credentials,
    ) -> Result<(), FetchError> {
        let place = place_of(&source.url)?;
        let fetched_from = handle.source_url().and_then(|url| place_of(&url).ok());
        if source.digest.is_none() || fetched_from.as_ref() == Some(&place) {
            return Ok(());
        }
        let parts = parts(&self.secret, handle.task(), handle.length());
        let asking = show(origin.clone(), handle.clone(), source.clone(), credentials.clone(), parts);
        let (proof, is_new) = self.lock().proof((handle.task(), place), asking.boxed(), Instant::now());
        if is_new {
            // It ends even if everybody who waits for it hangs up, and then keeps nothing in the store.
            tasks.spawn(proof.clone().map(drop));
        }
        proof.await
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Shown ===

impl Shown {
    /// The proof that is there or under way; what failed is begun anew in the end.
    fn proof(
        &mut self,
        key: (TaskId, String),
        asking: BoxFuture<'static, Result<(), FetchError>>,
        now: Instant,
    ) -> (Proof, bool) {
        if let Some((proof, begun)) = self.proofs.get(&key) {
            let failed = matches!(proof.peek(), Some(Err(_)));
            if !failed || now.saturating_duration_since(*begun) < AGAIN {
                return (proof.clone(), false);
            }
        } else {
            self.order.push_back(key.clone());
        }
        if self.order.len() > MAX_SHOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.proofs.remove(&oldest);
        }
        let proof = asking.shared();
        self.proofs.insert(key, (proof.clone(), now));
        (proof, true)
    }
}

/// The parts of a task that its origins must show.
fn parts(secret: &[u8; 32], task: TaskId, length: u64) -> Vec<ByteRange> {
    if length <= PARTS * PART {
        return vec![ByteRange::new(0, length)];
    }
    let mut hasher = Hasher::new();
    hasher.update(secret);
    hasher.update(&task.0);
    let dice = hasher.finish().0;
    let share = length / PARTS;
    let part = |(at, dice): (u64, &[u8])| {
        let dice = dice.iter().fold(0_u64, |all, byte| (all << 8) | u64::from(*byte));
        let start = at * share + dice % (share - PART + 1);
        ByteRange::new(start, start + PART)
    };
    (0..PARTS).zip(dice.chunks(8)).map(part).collect()
}

/// Compares what the origin says of each part with what is here.
async fn show(
    origin: OriginClient,
    handle: Handle,
    source: Source,
    credentials: Credentials,
    parts: Vec<ByteRange>,
) -> Result<(), FetchError> {
    for part in parts {
        if ask(&origin, &source, &credentials, part).await? != here(&handle, part).await? {
            let place = place_of(&source.url)?;
            tracing::warn!(task = %handle.task(), place, "an origin grants content that it does not have");
            return Err(FetchError::Swarm(format!("{place} does not show that it has this content")));
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_lie_within_and_are_the_same_for_everybody(secret: [u8; 32], task: [u8; 32], length in 0u64..1 << 40) {
            let all = parts(&secret, TaskId(task), length);
            prop_assert_eq!(&all, &parts(&secret, TaskId(task), length));
            prop_assert!(all.iter().all(|part| part.end <= length && part.start <= part.end));
            let shown: u64 = all.iter().map(ByteRange::len).sum();
            prop_assert_eq!(shown, length.min(PARTS * PART));
            prop_assert!(all.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
