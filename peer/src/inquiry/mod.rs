//! Questions to origins that many ask at once: who may have this, what does this tag mean now? Those who put the same
//! question with the same credentials at one moment share one request. [`crate::engine::Engine::inquire`] asks here, in the
//! peer for its clients and in the supernode for all peers.
//!
//! # Invariants
//! - Nobody gets an answer to a request that had left before the question was put: a tag that has moved is seen.
//! - What one credential was told is told to no other.
//! - One question, however often it is put, is a bounded number of requests a second ([`pace`]).

mod pace;
mod troubles;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::digest::{Digest, Hasher};
use common::wire::inquiry::{Answered, Inquired, Inquiry, MAX_HEADERS, MAX_VALUE};
use common::wire::swarm::Failure;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use http::header::{ACCEPT, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use crate::error::FetchError;
use crate::origin::{Answer, OriginClient, RetryPolicy, place_of};
use pace::Pace;
use troubles::Troubles;

/// A client waits for these answers: a hiccup of the origin is masked, a longer failure is told soon, so that the
/// client can go elsewhere.
const ATTEMPTS: u32 = 3;
/// The longest rest that an origin is given before it is asked again; who is asked to wait longer is told so.
const PATIENCE: Duration = Duration::from_secs(2);
/// So long a supernode tries at most for a neighbour, which waits a little longer.
const FOR_OTHERS: Duration = Duration::from_secs(8);
/// Questions whose pace is known; beyond, those that have rested are forgotten.
const MAX_QUEUES: usize = 8192;
/// A supernode that could not ask an origin is not asked to for so long.
const UNABLE: Duration = Duration::from_secs(60);
/// An origin that gave no answer is asked only once a question for so long: its clients wait for what was known before.
const SILENT: Duration = Duration::from_secs(10);

/// What the origin said, or why it could not be asked.
pub type Outcome = Result<Answered, FetchError>;

/// Puts questions to origins. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk {
    inner: Arc<Inner>,
}

struct Inner {
    origin: OriginClient,
    queues: Mutex<HashMap<Digest, Queue>>,
    /// Origins that the supernode could not ask.
    unable: Troubles,
    /// Origins that did not answer.
    silent: Troubles,
}

/// One question, as often as it is put.
struct Queue {
    pace: Pace,
    /// The request that has not left yet: whoever asks now shares it.
    forming: Option<WeakShared<BoxFuture<'static, Outcome>>>,
}

// === impl Desk ===

impl Desk {
    /// A desk that asks as `origin` does.
    pub(crate) fn new(origin: &OriginClient) -> Self {
        let origin = origin.with_retry(policy(ATTEMPTS));
        let (unable, silent) = (Troubles::lasting(UNABLE), Troubles::lasting(SILENT));
        Self { inner: Arc::new(Inner { origin, queues: Mutex::default(), unable, silent }) }
    }

    /// Puts a neighbour's question, and does not let it wait for long.
    pub(crate) async fn ask_for_neighbour(&self, inquiry: Inquiry) -> Inquired {
        match tokio::time::timeout(FOR_OTHERS, self.ask(inquiry)).await {
            Ok(Ok(answered)) => Inquired::Answered(answered),
            Ok(Err(FetchError::Forbidden(why))) => Inquired::Unable(Failure::Refused(why)),
            Ok(Err(error)) => Inquired::Unable(Failure::Unavailable(error.to_string())),
            Err(_) => Inquired::Unable(Failure::Unavailable("the origin takes too long".to_owned())),
        }
    }

    /// Puts the question, or shares the request of somebody who puts the same one.
    pub(crate) async fn ask(&self, inquiry: Inquiry) -> Outcome {
        self.join(inquiry, Instant::now()).await
    }

    fn join(&self, inquiry: Inquiry, now: Instant) -> Shared<BoxFuture<'static, Outcome>> {
        let key = key(&inquiry);
        let mut queues = self.queues();
        if queues.len() >= MAX_QUEUES {
            queues.retain(|_, queue| !queue.pace.is_rested(now));
        }
        let queue = queues.entry(key).or_insert_with(|| Queue { pace: Pace::new(now), forming: None });
        if let Some(forming) = queue.forming.as_ref().and_then(WeakShared::upgrade) {
            return forming;
        }
        let (wait, desk) = (queue.pace.take(now), self.clone());
        let turn = Turn { desk: self.clone(), key, taken: false };
        let request = async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
                desk.leaves(key);
            }
            turn.take();
            desk.put(inquiry).await
        };
        let request = request.boxed().shared();
        if !wait.is_zero() {
            queue.forming = request.downgrade();
        }
        request
    }

    /// The request that was forming goes out: whoever asks from now on shares the next one.
    fn leaves(&self, key: Digest) {
        if let Some(queue) = self.queues().get_mut(&key) {
            queue.forming = None;
        }
    }

    /// Whether the supernode may be able to ask this origin.
    pub(crate) fn is_worth_asking(&self, place: &str, now: Instant) -> bool {
        !self.inner.unable.is_fresh(place, now)
    }

    /// The supernode could not ask this origin.
    pub(crate) fn was_unable(&self, place: String, now: Instant) {
        self.inner.unable.note(place, now);
    }

    async fn put(&self, inquiry: Inquiry) -> Outcome {
        let place = place_of(&inquiry.url)?;
        let mut origin = self.inner.origin.clone();
        if self.inner.silent.is_fresh(&place, Instant::now()) {
            origin = origin.with_retry(policy(1));
        }
        let rest = origin.resting(&place);
        if rest > PATIENCE {
            return Ok(come_again(rest));
        }
        let outcome = put(&origin, inquiry).await;
        if matches!(&outcome, Err(FetchError::Unavailable(_)))
            || matches!(&outcome, Ok(answered) if answered.status >= 500 || answered.status == 429)
        {
            self.inner.silent.note(place, Instant::now());
        }
        outcome
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<Digest, Queue>> {
        self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question's turn, which is given back when everybody who waited for it has hung up.
struct Turn {
    desk: Desk,
    key: Digest,
    taken: bool,
}

impl Turn {
    fn take(mut self) {
        self.taken = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.taken
            && let Some(queue) = self.desk.queues().get_mut(&self.key)
        {
            queue.pace.give_back();
        }
    }
}

fn policy(attempts: u32) -> RetryPolicy {
    RetryPolicy { attempts, patience: PATIENCE, ..RetryPolicy::default() }
}

/// What an origin that wants rest would say.
fn come_again(rest: Duration) -> Answered {
    let seconds = rest.as_secs() + 1;
    let headers = vec![("retry-after".to_owned(), seconds.to_string())];
    Answered { status: StatusCode::TOO_MANY_REQUESTS.as_u16(), headers, body: Vec::new() }
}

/// What makes two questions the same. A digest, so that no credential lies about in a map.
fn key(inquiry: &Inquiry) -> Digest {
    let Inquiry { url, accept, credentials, words } = inquiry;
    let mut hasher = Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    add(url);
    add(if *words { "GET" } else { "HEAD" });
    add(accept.as_deref().unwrap_or_default());
    for (name, value) in credentials.expose() {
        add(name);
        add(value);
    }
    hasher.finish()
}

async fn put(origin: &OriginClient, inquiry: Inquiry) -> Outcome {
    let mut headers = HeaderMap::new();
    if let Some(accept) = inquiry.accept.and_then(|accept| HeaderValue::from_str(&accept).ok()) {
        headers.insert(ACCEPT, accept);
    }
    let method = if inquiry.words { Method::GET } else { Method::HEAD };
    let answer = origin.ask(method, &inquiry.url, &headers, &inquiry.credentials).await?;
    Ok(read(answer, inquiry.words).await)
}

/// The answer without its content.
async fn read(answer: Answer, words: bool) -> Answered {
    let status = answer.status;
    let text = |(name, value): (&http::HeaderName, &HeaderValue)| {
        let value = value.to_str().ok().filter(|value| value.len() <= MAX_VALUE)?;
        Some((name.as_str().to_owned(), value.to_owned()))
    };
    let headers = answer.headers.iter().filter_map(text).take(MAX_HEADERS).collect();
    let refused = words && !status.is_success() && status != StatusCode::NOT_MODIFIED;
    let body = if refused { answer.into_failure().await.body } else { Vec::new() };
    Answered { status: status.as_u16(), headers, body }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;
    use crate::origin::fake::{Fake, Reply, client};

    fn inquiry(origin: &Fake, user: &str) -> Inquiry {
        let credentials = common::task::Credentials::authorization(user);
        Inquiry { url: origin.url("/x"), accept: None, credentials, words: false }
    }

    fn header<'a>(answered: &'a Answered, name: &str) -> &'a str {
        let found = answered.headers.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    #[tokio::test]
    async fn two_hundred_at_once_are_a_handful_of_requests_and_credentials_are_not_mixed() {
        let origin = Fake::start(|asked| {
            Reply::new(200).header("x-user", asked.header("authorization").unwrap_or_default())
        })
        .await;
        let desk = Desk::new(&client());
        let users = ["Basic YQ==", "Basic Yg=="];
        let asks = (0..200).map(|at| {
            let (desk, user) = (desk.clone(), users[at % 2]);
            let inquiry = inquiry(&origin, user);
            async move { assert_eq!(header(&desk.ask(inquiry).await.unwrap(), "x-user"), user) }
        });
        join_all(asks).await;
        let requests = origin.asked().len();
        assert!(requests <= 2 * 6, "{requests} requests");
    }

    #[tokio::test]
    async fn an_answer_is_never_older_than_the_question() {
        let moved = Arc::new(AtomicUsize::new(0));
        let now = moved.clone();
        let origin =
            Fake::start(move |_| Reply::new(200).header("x-tag", &now.load(Ordering::SeqCst).to_string()))
                .await;
        let desk = Desk::new(&client());
        for at in 0..7 {
            moved.store(at, Ordering::SeqCst);
            let answers = join_all((0..3).map(|_| desk.ask(inquiry(&origin, "Basic YQ==")))).await;
            for answered in answers {
                assert_eq!(header(&answered.unwrap(), "x-tag"), at.to_string());
            }
        }
    }

    #[tokio::test]
    async fn a_request_that_nobody_waits_for_any_more_does_not_block_the_next() {
        let origin = Fake::start(|_| Reply::new(200)).await;
        let desk = Desk::new(&client());
        for _ in 0..4 {
            desk.ask(inquiry(&origin, "Basic YQ==")).await.unwrap();
        }
        let given_up =
            tokio::time::timeout(Duration::from_millis(1), desk.ask(inquiry(&origin, "Basic YQ==")));
        assert!(given_up.await.is_err(), "it waits for its turn");
        desk.ask(inquiry(&origin, "Basic YQ==")).await.unwrap();
        for _ in 0..100 {
            let given_up =
                tokio::time::timeout(Duration::from_millis(1), desk.ask(inquiry(&origin, "Basic YQ==")));
            let _ = given_up.await;
        }
        let next = desk.join(inquiry(&origin, "Basic YQ=="), Instant::now());
        assert!(tokio::time::timeout(Duration::from_secs(10), next).await.is_ok(), "those who hung up count");
    }

    #[tokio::test]
    async fn an_origin_that_wants_rest_is_not_asked_meanwhile() {
        let origin = Fake::start(|_| Reply::new(429).header("Retry-After", "30")).await;
        let desk = Desk::new(&client());
        for user in ["a", "b"] {
            let answered = desk.ask(inquiry(&origin, user)).await.unwrap();
            assert_eq!(answered.status, 429);
            assert!(header(&answered, "retry-after").parse::<u64>().unwrap() > 20);
        }
        assert_eq!(origin.asked().len(), 1);
    }

    #[tokio::test]
    async fn the_words_of_a_refusal_come_with_a_get() {
        let origin = Fake::start(|_| Reply::new(404).body("{\"errors\":[]}")).await;
        let desk = Desk::new(&client());
        let said = desk.ask(Inquiry { words: true, ..inquiry(&origin, "") }).await.unwrap();
        assert_eq!((said.status, &said.body[..]), (404, &b"{\"errors\":[]}"[..]));
        assert_eq!(origin.asked()[0].method, "GET");
    }

    #[tokio::test]
    async fn an_origin_that_does_not_answer_is_asked_once_from_then_on() {
        let origin = Fake::start(|_| Reply::new(503)).await;
        let desk = Desk::new(&client());
        desk.ask(inquiry(&origin, "a")).await.unwrap();
        assert_eq!(origin.asked().len(), ATTEMPTS as usize);
        desk.ask(inquiry(&origin, "b")).await.unwrap();
        assert_eq!(origin.asked().len(), ATTEMPTS as usize + 1);
    }
}
