//! Content streamed straight from the origin, past swarm and store, and proven on its way: for algorithms that the
//! engine does not speak, and as the way out when the engine fails. Used by [`crate::blobs`] from the first byte and
//! by [`crate::body`] from the middle of a body.
//!
//! # Invariants
//! - What is handed on is at every moment at least one chunk short of what was asked, until all of the content has
//!   been seen and has its digest. So no damaged content is ever finished, also where only a part was asked.
//! - A body that breaks off is resumed where it broke off; bytes already seen are not asked again from an origin
//!   that serves ranges.

use std::time::Duration;

use bytes::Bytes;
use common::piece::ByteRange;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, StreamExt};

use crate::error::Refusal;
use crate::proof::{ContentDigest, Proof};

/// How often a body that broke off is asked for again; each asking has the origin client's own retries inside.
const RESUMES: u32 = 5;
/// The wait before the first of them; the next ones take as many times longer.
const PAUSE: Duration = Duration::from_millis(200);

/// A cause whose kind does not matter here.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Bytes that are on their way from the origin.
pub(crate) struct Opening {
    /// The offset of the first byte: what was asked, or 0 from an origin that serves no ranges.
    pub(crate) start: u64,
    /// The length of the whole, where the origin says it.
    pub(crate) total: Option<u64>,
    /// The bytes.
    pub(crate) bytes: BoxStream<'static, Result<Bytes, Cause>>,
}

/// Who is asked for content, with whose credentials is its own affair.
pub(crate) trait Origin: Clone + Send + Sync + 'static {
    /// Asks for the content from offset `from` to its end.
    fn open(&self, from: u64) -> BoxFuture<'_, Result<Opening, Refusal>>;
    /// What a broken or damaged answer is to be called.
    fn damaged(&self) -> Refusal;
    /// The content's digest.
    fn digest(&self) -> &ContentDigest;
}

/// Why a body ends early. Logged; the client sees its connection or stream reset.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The origin would not go on, or sent something else.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The engine's bytes ended, and there is no way out.
    #[error(transparent)]
    Engine(#[from] peer::error::FetchError),
    /// The origin's body keeps breaking off.
    #[error("the origin's answer broke off {RESUMES} times")]
    Broken(#[source] Option<Cause>),
}

/// A proven stream of the wanted part of the content.
pub(crate) struct Direct<O> {
    origin: O,
    proof: Proof,
    total: Option<u64>,
    /// What has not been handed on or held back yet.
    wanted: ByteRange,
    held: Option<Bytes>,
    open: Option<BoxStream<'static, Result<Bytes, Cause>>>,
    broken: u32,
    done: bool,
}

// === impl Direct ===

impl<O: Origin> Direct<O> {
    /// Goes on with content whose beginning `proof` has seen; nothing is asked before the first bytes are.
    pub(crate) fn resume(origin: O, proof: Proof, total: Option<u64>, wanted: ByteRange) -> Self {
        Self { origin, proof, total, wanted, held: None, open: None, broken: 0, done: false }
    }

    /// Asks for the whole of the content, so that a refusal can still be the answer. `length` is what the origin has
    /// said before, if it has.
    pub(crate) async fn connect(origin: O, length: Option<u64>) -> Result<Self, Refusal> {
        let proof = Proof::of(origin.digest());
        let mut direct = Self::resume(origin, proof, length, ByteRange::new(0, u64::MAX));
        direct.reopen().await?;
        Ok(direct)
    }

    /// The length of the whole, where it is known.
    pub(crate) fn total(&self) -> Option<u64> {
        self.total
    }

    /// Hands on this part only; before anything was.
    pub(crate) fn want(&mut self, part: ByteRange) {
        self.wanted = part;
    }

    /// The next bytes of the wanted part; after an error or the end, nothing.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        while !self.done {
            if self.total == Some(self.proof.seen()) {
                return self.finish();
            }
            let ended = match &mut self.open {
                Some(open) => match open.next().await {
                    Some(Ok(chunk)) => match self.take(chunk) {
                        Ok(None) => continue,
                        Ok(ready) => return ready.map(Ok),
                        Err(refusal) => return self.fail(refusal),
                    },
                    Some(Err(cause)) => Some(cause),
                    None if self.total.is_none() => return self.finish(),
                    None => None,
                },
                None => match self.reopen().await {
                    Ok(()) => continue,
                    Err(refusal) => return self.fail(refusal),
                },
            };
            self.open = None;
            self.broken += 1;
            if self.broken > RESUMES {
                return self.fail(BodyError::Broken(ended));
            }
            tokio::time::sleep(PAUSE * self.broken).await;
        }
        None
    }

    async fn reopen(&mut self) -> Result<(), Refusal> {
        let opening = self.origin.open(self.proof.seen()).await?;
        if opening.start != self.proof.seen() {
            self.restart();
        }
        let changed = matches!((self.total, opening.total), (Some(known), Some(said)) if known != said);
        if opening.start != self.proof.seen() || changed {
            return Err(self.origin.damaged());
        }
        self.total = self.total.or(opening.total);
        self.open = Some(opening.bytes);
        Ok(())
    }

    /// Begins the proof anew; what was held back was not proven by these bytes, so it is taken again.
    fn restart(&mut self) {
        self.proof = Proof::of(self.origin.digest());
        if let Some(held) = self.held.take() {
            self.wanted.start -= held.len() as u64;
        }
    }

    /// Takes bytes into the proof and says what may go out for them: what was held back so far.
    fn take(&mut self, chunk: Bytes) -> Result<Option<Bytes>, Refusal> {
        let at = self.proof.seen();
        self.proof.update(&chunk);
        if self.total.is_some_and(|total| self.proof.seen() > total) {
            return Err(self.origin.damaged());
        }
        let end = self.proof.seen().min(self.wanted.end);
        let start = self.wanted.start.max(at);
        if start >= end {
            return Ok(None);
        }
        self.wanted.start = end;
        Ok(self.held.replace(chunk.slice((start - at) as usize..(end - at) as usize)))
    }

    fn finish(&mut self) -> Option<Result<Bytes, BodyError>> {
        if !self.proof.holds() {
            return self.fail(self.origin.damaged());
        }
        self.done = true;
        self.held.take().map(Ok)
    }

    fn fail(&mut self, error: impl Into<BodyError>) -> Option<Result<Bytes, BodyError>> {
        self.done = true;
        self.held = None;
        Some(Err(error.into()))
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! An origin of memory: cuts its bodies where it is told, may not know ranges, may change a byte.

    use std::sync::{Arc, Mutex};

    use super::*;
    use common::digest::Digest;
    use futures_util::stream;

    #[derive(Clone)]
    pub(crate) struct FakeOrigin {
        pub(crate) content: Bytes,
        pub(crate) digest: ContentDigest,
        pub(crate) chunk: usize,
        pub(crate) ranges: bool,
        pub(crate) says_length: bool,
        /// How many bytes each further answer brings before it breaks off; then they are whole.
        pub(crate) cuts: Arc<Mutex<Vec<usize>>>,
        /// What was asked.
        pub(crate) asked: Arc<Mutex<Vec<u64>>>,
    }

    impl FakeOrigin {
        pub(crate) fn of(content: Vec<u8>) -> Self {
            Self {
                digest: ContentDigest::Sha256(Digest::of(&content)),
                content: content.into(),
                chunk: 7,
                ranges: true,
                says_length: true,
                cuts: Arc::default(),
                asked: Arc::default(),
            }
        }
    }

    impl Origin for FakeOrigin {
        fn open(&self, from: u64) -> BoxFuture<'_, Result<Opening, Refusal>> {
            self.asked.lock().unwrap().push(from);
            let start = if self.ranges { from } else { 0 };
            let rest = self.content.slice((start as usize).min(self.content.len())..);
            let cut = self.cuts.lock().unwrap().pop();
            let sent = cut.map_or(rest.len(), |cut| cut.min(rest.len()));
            let mut chunks: Vec<Result<Bytes, Cause>> =
                rest[..sent].chunks(self.chunk).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
            if cut.is_some() {
                chunks.push(Err("cut".into()));
            }
            let total = self.says_length.then_some(self.content.len() as u64);
            Box::pin(async move { Ok(Opening { start, total, bytes: stream::iter(chunks).boxed() }) })
        }

        fn damaged(&self) -> Refusal {
            Refusal::Damaged { registry: "fake".to_owned(), digest: self.digest.to_string() }
        }

        fn digest(&self) -> &ContentDigest {
            &self.digest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeOrigin;
    use super::*;
    use proptest::prelude::*;

    /// Everything that comes out, and whether it was finished.
    fn drain(mut direct: Direct<FakeOrigin>) -> (Vec<u8>, bool) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async move {
            let mut all = Vec::new();
            while let Some(step) = direct.next().await {
                match step {
                    Ok(bytes) => all.extend_from_slice(&bytes),
                    Err(_) => {
                        assert!(direct.next().await.is_none());
                        return (all, false);
                    }
                }
            }
            (all, true)
        })
    }

    fn whole(origin: FakeOrigin) -> Direct<FakeOrigin> {
        let proof = Proof::of(&origin.digest);
        Direct::resume(origin, proof, None, ByteRange::new(0, u64::MAX))
    }

    #[test]
    fn an_origin_that_keeps_breaking_off_ends_as_an_error() {
        let origin = FakeOrigin::of(vec![1; 100]);
        *origin.cuts.lock().unwrap() = vec![10; RESUMES as usize + 1];
        let (got, finished) = drain(whole(origin));
        assert!(!finished && got.len() < 100);
    }

    #[test]
    fn bytes_once_seen_are_not_asked_again() {
        let origin = FakeOrigin::of(vec![1; 100]);
        *origin.cuts.lock().unwrap() = vec![30, 20];
        let (got, finished) = drain(whole(origin.clone()));
        assert!(finished && got.len() == 100);
        assert_eq!(*origin.asked.lock().unwrap(), [0, 20, 50]);
    }

    #[test]
    fn empty_content_is_finished_at_once() {
        assert_eq!(drain(whole(FakeOrigin::of(Vec::new()))), (Vec::new(), true));
    }

    proptest! {
        #[test]
        fn the_right_part_comes_out_or_the_body_is_cut(
            content in prop::collection::vec(any::<u8>(), 1..200),
            (start, end) in (0usize..200, 0usize..220),
            chunk in 1usize..50,
            cuts in prop::collection::vec(0usize..150, 0..5),
            (ranges, says_length) in any::<(bool, bool)>(),
            damage in prop::option::of(0usize..200),
        ) {
            let mut origin = FakeOrigin::of(content.clone());
            if let Some(at) = damage {
                let mut bytes = content.clone();
                bytes[at % content.len()] ^= 1;
                origin.content = bytes.into();
            }
            (origin.chunk, origin.ranges, origin.says_length) = (chunk, ranges, says_length);
            *origin.cuts.lock().unwrap() = cuts;
            let start = start.min(content.len() - 1);
            let end = end.clamp(start + 1, content.len().max(start + 1));
            let mut direct = whole(origin);
            direct.want(ByteRange::new(start as u64, end as u64));
            let (got, finished) = drain(direct);
            prop_assert_eq!(finished, damage.is_none());
            if finished {
                prop_assert_eq!(&got[..], &content[start..end]);
            } else {
                prop_assert!(got.len() < end - start, "the last of it must not go out");
            }
        }
    }
}
