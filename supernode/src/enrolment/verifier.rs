//! What the office asks of those who check proofs, and the desks that bound how much is done for strangers at once.
//! Implemented by [`super::join_tokens`] and [`super::kubernetes`].

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use common::wire::enrol::Request;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

/// Pieces of work for strangers at once; the others wait, and give up by their own time limit.
const AT_ONCE: usize = 16;

/// Checks one kind of proof that a node may join.
pub trait Verifier: Send + Sync {
    /// Whether a request shows this kind.
    fn takes(&self, request: &Request) -> bool;

    /// Who may join by it; `from` is where the stranger dials from.
    fn check<'a>(
        &'a self,
        request: &'a Request,
        from: IpAddr,
        now: SystemTime,
    ) -> BoxFuture<'a, Result<Guest, Refusal>>;
}

/// Who was let in, in words for the log: no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest(pub String);

/// Why a stranger is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What it shows opens nothing here.
    No {
        /// For the stranger.
        words: String,
        /// For the log.
        why: String,
    },
    /// It cannot be told just now: the stranger is to come again. The words are for it.
    Later(String),
}

/// The places at which blocking work is done for strangers. Clones are the same places.
#[derive(Clone)]
pub struct Desks(Arc<Semaphore>);

// === impl Guest ===

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Refusal ===

impl Refusal {
    /// A refusal whose reason the stranger may know.
    pub fn no(words: impl Into<String>) -> Self {
        let words = words.into();
        Self::No { why: words.clone(), words }
    }
}

// === impl Desks ===

impl Default for Desks {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Desks {
    /// Does a piece of blocking work when there is room; the place is kept until it is done, whoever waits for it.
    ///
    /// # Errors
    /// When the work panics.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let broken = || Refusal::Later("the supernode failed: its log says why".to_owned());
        let desk = self.0.clone().acquire_owned().await.map_err(|_| broken())?;
        let done = tokio::task::spawn_blocking(move || {
            let _desk = desk;
            work()
        });
        done.await.map_err(|_| broken())
    }
}
