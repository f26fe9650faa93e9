//! A blob's body: the engine's bytes as long as they come, and when the engine fails in the middle, the rest straight
//! from the origin. Made by [`crate::blobs`]; hyper pulls it as fast as the client reads, so a slow client holds
//! nothing but its own stream.
//!
//! # Invariants
//! Pieces that have been sent were proven piece by piece; the rest goes on only under the proof of the whole, for
//! which what was sent is read again. What cannot be proven is cut with an error, never ended.

use std::time::Duration;

use bytes::Bytes;
use common::piece::ByteRange;
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use peer::error::FetchError;
use peer::handle::Handle;

use crate::direct::{BodyError, Direct, Origin};
use crate::permission::{WayOut, way_out};
use crate::proof::Proof;

/// How long the next bytes of what was sent already may take to be read again. They are on this node's disk or in its
/// memory; a store that needs longer is of no help.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// Content of the engine.
pub(crate) trait Content: Send + Sync + 'static {
    /// Bytes in the whole.
    fn length(&self) -> u64;
    /// The bytes of a range, in order.
    fn read(&self, range: ByteRange) -> BoxStream<'static, Result<Bytes, FetchError>>;
}

impl Content for Handle {
    fn length(&self) -> u64 {
        Handle::length(self)
    }

    fn read(&self, range: ByteRange) -> BoxStream<'static, Result<Bytes, FetchError>> {
        Handle::read(self, range).boxed()
    }
}

/// Where the next bytes come from.
enum Flow<C, O> {
    Engine(Engine<C, O>),
    Direct(Box<Direct<O>>),
    Done,
}

struct Engine<C, O> {
    content: C,
    bytes: BoxStream<'static, Result<Bytes, FetchError>>,
    left: ByteRange,
    origin: O,
}

/// The range of the content, from the engine first.
pub(crate) fn of_engine<C: Content, O: Origin>(
    content: C,
    range: ByteRange,
    origin: O,
) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static {
    let bytes = content.read(range);
    flow(Flow::Engine(Engine { content, bytes, left: range, origin }))
}

/// What `direct` wants.
pub(crate) fn of_origin<O: Origin>(
    direct: Direct<O>,
) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static {
    flow(Flow::<Handle, O>::Direct(Box::new(direct)))
}

fn flow<C: Content, O: Origin>(
    first: Flow<C, O>,
) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static {
    stream::unfold(first, |mut flow| async move {
        loop {
            flow = match flow {
                Flow::Engine(engine) => match engine.next().await {
                    (Some(item), next) => return Some((item, next)),
                    (None, next) => next,
                },
                Flow::Direct(mut direct) => {
                    return direct.next().await.map(|item| (item, Flow::Direct(direct)));
                }
                Flow::Done => return None,
            }
        }
    })
}

// === impl Engine ===

impl<C: Content, O: Origin> Engine<C, O> {
    /// The next item, if there is one already, and where to go on.
    async fn next(mut self) -> (Option<Result<Bytes, BodyError>>, Flow<C, O>) {
        if self.left.is_empty() {
            return (None, Flow::Done);
        }
        match self.bytes.next().await {
            Some(Ok(bytes)) => {
                self.left.start = self.left.end.min(self.left.start + bytes.len() as u64);
                (Some(Ok(bytes)), Flow::Engine(self))
            }
            Some(Err(error)) if way_out(&error) == WayOut::Direct => {
                tracing::warn!(digest = %self.origin.digest(), sent = self.left.start, %error, "going on straight from the origin");
                (None, Flow::Direct(Box::new(self.way_out().await)))
            }
            Some(Err(error)) => (Some(Err(error.into())), Flow::Done),
            None => {
                let early = FetchError::Swarm("the engine's bytes ended too early".to_owned());
                (Some(Err(early.into())), Flow::Done)
            }
        }
    }

    async fn way_out(self) -> Direct<O> {
        // No more is wanted of the swarm; what was sent is read before the pin on it goes.
        drop(self.bytes);
        let proof = read_again(&self.content, self.left.start, &self.origin).await;
        Direct::resume(self.origin, proof, Some(self.content.length()), self.left)
    }
}

/// The proof over as much of the first `sent` bytes as can be read: the origin is then asked for what follows.
async fn read_again<C: Content, O: Origin>(content: &C, sent: u64, origin: &O) -> Proof {
    let mut proof = Proof::of(origin.digest());
    let mut bytes = content.read(ByteRange::new(0, sent));
    while proof.seen() < sent {
        let Ok(Some(Ok(chunk))) = tokio::time::timeout(READ_AGAIN, bytes.next()).await else { break };
        let left = usize::try_from(sent - proof.seen()).unwrap_or(usize::MAX);
        proof.update(&chunk[..chunk.len().min(left)]);
    }
    proof
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::direct::fake::FakeOrigin;
    use common::task::TaskId;
    use proptest::prelude::*;

    /// An engine that fails behind `good` bytes, and may not let them be read again.
    struct FakeContent {
        content: Vec<u8>,
        good: u64,
        error: FetchError,
        again: bool,
        read: std::sync::atomic::AtomicBool,
    }

    impl Content for FakeContent {
        fn length(&self) -> u64 {
            self.content.len() as u64
        }

        fn read(&self, range: ByteRange) -> BoxStream<'static, Result<Bytes, FetchError>> {
            let second = self.read.swap(true, std::sync::atomic::Ordering::Relaxed);
            let end = range.end.min(if second && !self.again { 0 } else { self.good });
            let start = range.start.min(end);
            let mut items: Vec<Result<Bytes, FetchError>> = self.content[start as usize..end as usize]
                .chunks(5)
                .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
                .collect();
            if end < range.end {
                items.push(Err(self.error.clone()));
            }
            stream::iter(items).boxed()
        }
    }

    fn drain(content: FakeContent, range: ByteRange, origin: FakeOrigin) -> (Vec<u8>, bool) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
            let mut all = Vec::new();
            let mut body = std::pin::pin!(of_engine(content, range, origin));
            while let Some(item) = body.next().await {
                match item {
                    Ok(bytes) => all.extend_from_slice(&bytes),
                    Err(_) => return (all, false),
                }
            }
            (all, true)
        })
    }

    fn failing(content: &[u8], good: u64, error: FetchError, again: bool) -> FakeContent {
        FakeContent { content: content.to_vec(), good, error, again, read: false.into() }
    }

    #[test]
    fn poisoned_content_is_cut() {
        let content = vec![3; 50];
        let poisoned = FetchError::Poisoned { task: TaskId::of_url("x", "") };
        let origin = FakeOrigin::of(content.clone());
        let (got, finished) =
            drain(failing(&content, 20, poisoned, true), ByteRange::new(0, 50), origin.clone());
        assert!(!finished && got.len() == 20);
        assert!(origin.asked.lock().unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn a_failing_engine_goes_unnoticed_and_costs_the_origin_only_the_rest(
            content in prop::collection::vec(any::<u8>(), 1..200),
            (start, end) in (0usize..200, 0usize..220),
            good in 0u64..200,
            again: bool,
            damaged: bool,
        ) {
            let start = start.min(content.len() - 1);
            let end = end.clamp(start + 1, content.len().max(start + 1));
            let good = good.min(content.len() as u64);
            let mut origin = FakeOrigin::of(content.clone());
            if damaged {
                let mut bytes = content.clone();
                bytes[content.len() - 1] ^= 1;
                origin.content = bytes.into();
            }
            let error = FetchError::Swarm("gone".to_owned());
            let range = ByteRange::new(start as u64, end as u64);
            let (got, finished) = drain(failing(&content, good, error, again), range, origin.clone());
            prop_assert_eq!(finished, !damaged || good >= end as u64);
            if finished {
                prop_assert_eq!(&got[..], &content[start..end]);
            } else {
                prop_assert!(got.len() < end - start);
                prop_assert_eq!(&got[..], &content[start..start + got.len()]);
            }
            let asked = origin.asked.lock().unwrap().clone();
            let expected = if good >= end as u64 { vec![] } else { vec![if again { good } else { 0 }] };
            prop_assert_eq!(asked, expected);
        }
    }
}
