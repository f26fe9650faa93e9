//! One request to an origin: guarded, retried, redirected by hand, bounded in time. Called by [`super::ranges`] for
//! bytes and by the proxy for HEADs, manifests and pass-through.
//!
//! # Invariants
//! - No hop is asked that [`OriginPolicy`] forbids, and no credential follows a redirect to another host or port.
//! - A body is handed on as it came: no decoder is compiled in, and none is asked for.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use common::task::Credentials;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use reqwest::Url;

use super::address::{Filtered, GuardedResolver};
use super::answer::Answer;
use super::folders::{self, Folders};
use super::guard::{OriginPolicy, Permit};
use super::registry::Registries;
use super::retry::{CoolOffs, Outcome, Retry, RetryPolicy};
use super::{Cause, OriginError, label, parse_url, place};

/// Name look-up, TCP and TLS together; a healthy origin takes well under a second.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest silence, before the first header as between two chunks.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// As many as a registry, its storage and a mirror or two need.
const MAX_REDIRECTS: usize = 5;
/// Idle connections kept for the next ranges of the same origin.
const MAX_IDLE_PER_HOST: usize = 16;
/// How long they are kept: the next layer is asked for within seconds, and a descriptor that is open for nothing is one too many.
const IDLE_LIFE: Duration = Duration::from_secs(30);
/// How an origin sees us, unless the caller passes its client's own name on.
const USER_AGENT: &str = concat!("longshore/", env!("CARGO_PKG_VERSION"));
/// Request headers that belong to one connection or that this client sets itself.
pub(super) const NOT_PASSED: [HeaderName; 8] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::ACCEPT_ENCODING,
];
/// Headers that say which content is meant: a credential by such a name would change what a URL stands for.
const RESERVED: [&str; 5] = ["range", "if-range", "expect", "keep-alive", "proxy-connection"];
/// Headers that are secrets even where the caller passes them as plain ones.
const SECRET: [HeaderName; 3] = [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];
/// What the settings say about origins.
#[derive(Debug, Clone, Default)]
pub struct OriginOptions {
    /// `--origin-allow`: host patterns; empty allows every host that is not on loopback.
    pub allow: Vec<String>,
    /// `--registry NAME=URL`.
    pub registries: BTreeMap<String, String>,
    /// `--insecure-registry HOST:PORT`.
    pub insecure_registries: Vec<String>,
    /// `--origin-folder`: folders whose files `file://` may name.
    pub folders: Vec<PathBuf>,
    /// PEM files of CAs that are trusted beside the platform's.
    pub extra_ca: Vec<PathBuf>,
    /// `--registry-ca NAME=FILE`: PEM files of CAs that are trusted for one registry, too.
    pub registry_ca: BTreeMap<String, PathBuf>,
}

/// Asks origins. Clones share connections and cool-offs.
#[derive(Clone)]
pub struct OriginClient {
    inner: Arc<Inner>,
    retry: RetryPolicy,
    idle: Duration,
    via: Option<HeaderValue>,
}

struct Inner {
    clients: Clients,
    /// Of the registries that have a CA of their own, by `host:port`.
    private: BTreeMap<String, Clients>,
    policy: OriginPolicy,
    folders: Folders,
    registries: Registries,
    cool_offs: Mutex<CoolOffs>,
}

/// For hosts that must not turn out to be on loopback, and for those that may. Two clients, because a resolver does not see
/// which port is asked for, and so cannot tell `host:5000` from another service of the machine. Each is made when it is first
/// needed: reading the platform's roots takes longer than many a fetch.
struct Clients {
    /// Trusted beside the platform's roots.
    extra: Vec<reqwest::Certificate>,
    far: OnceLock<reqwest::Client>,
    near: OnceLock<reqwest::Client>,
}

/// One request as the caller wants it; `secrets` go to its first host and port only.
struct Ask {
    method: Method,
    url: Url,
    headers: HeaderMap,
    secrets: HeaderMap,
}

/// Searches an error's causes for one of a kind; looks into I/O errors, which hide theirs.
fn cause_of<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inside {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    None
}

/// Whether the origin's certificate was refused.
fn is_untrusted(error: &(dyn Error + 'static)) -> bool {
    matches!(cause_of(error), Some(rustls::Error::InvalidCertificate(_)))
}

/// Reads the certificates of one CA file.
fn read_ca(path: &Path) -> Result<Vec<reqwest::Certificate>, OriginError> {
    let refused = |source: Cause| OriginError::ExtraCa { path: path.to_owned(), source };
    let pem = std::fs::read(path).map_err(|error| refused(error.into()))?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| refused(error.into()))?;
    if certificates.is_empty() {
        return Err(refused("no certificate in it".into()));
    }
    Ok(certificates)
}

/// A client that trusts the platform's roots and `extra`.
///
/// On Linux the platform's roots are those of `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set (they replace the
/// system's bundle, as with OpenSSL), else the system's bundle. An image without any bundle may still speak plain HTTP.
fn build(loopback: bool, extra: &[reqwest::Certificate]) -> Result<reqwest::Client, OriginError> {
    let builder = || {
        reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .pool_idle_timeout(IDLE_LIFE)
            .dns_resolver(GuardedResolver { loopback })
            // Followed by hand: each hop is guarded and loses the credentials.
            .redirect(reqwest::redirect::Policy::none())
            // Retried by hand, with the origin's cool-off.
            .retry(reqwest::retry::never())
            // HTTP_PROXY on a node may well name Longshore's own proxy: it would ask itself for ever. A proxy would
            // also resolve names itself, past the guard.
            .no_proxy()
            // Ranges side by side are to have a TCP window each, and a reader that is held back must not hold back
            // the others: one HTTP/2 connection would do both.
            .http1_only()
    };
    builder().tls_certs_merge(extra.iter().cloned()).build().or_else(|error| {
        tracing::warn!(%error, "the platform's CA certificates cannot be used; only those of extra_ca are trusted");
        builder().tls_certs_only(extra.iter().cloned()).build().map_err(OriginError::Tls)
    })
}

/// Where an answer to a GET or HEAD sends the asker instead.
fn redirection(method: &Method, url: &Url, answer: &Answer) -> Result<Option<Url>, OriginError> {
    let moved = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
    if !moved || !matches!(*method, Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let Some(location) = answer.headers.get(header::LOCATION) else { return Ok(None) };
    let refused = |why: String| OriginError::BadUrl { url: label(url), why };
    let location = location.to_str().map_err(|_| refused("it redirects to something unreadable".into()))?;
    url.join(location).map(Some).map_err(|error| refused(format!("it redirects to no URL: {error}")))
}

// === impl Clients ===

impl Clients {
    /// Clients that trust the platform's roots and `extra`.
    fn new(extra: Vec<reqwest::Certificate>) -> Result<Self, OriginError> {
        let clients = Self { extra, far: OnceLock::new(), near: OnceLock::new() };
        if !clients.extra.is_empty() {
            // A certificate that cannot be used is told of at the start.
            clients.get(false)?;
        }
        Ok(clients)
    }

    fn get(&self, loopback: bool) -> Result<&reqwest::Client, OriginError> {
        let made = if loopback { &self.near } else { &self.far };
        if let Some(client) = made.get() {
            return Ok(client);
        }
        let client = build(loopback, &self.extra)?;
        Ok(made.get_or_init(|| client))
    }
}

// === impl Inner ===

impl Inner {
    fn client(&self, url: &Url, permit: Permit) -> Result<&reqwest::Client, OriginError> {
        self.private.get(&place(url)).unwrap_or(&self.clients).get(permit.loopback)
    }
}

// === impl Ask ===

impl Ask {
    fn new(
        method: Method,
        url: &str,
        headers: &HeaderMap,
        credentials: &Credentials,
    ) -> Result<Self, OriginError> {
        let mut ask =
            Self { method, url: parse_url(url)?, headers: headers.clone(), secrets: HeaderMap::new() };
        for name in NOT_PASSED {
            ask.headers.remove(name);
        }
        for name in SECRET {
            for value in headers.get_all(&name) {
                ask.secrets.append(&name, value.clone());
            }
            ask.headers.remove(name);
        }
        // A body in another coding than the stored one has another digest.
        ask.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for (name, value) in credentials.expose() {
            if name == Credentials::QUERY {
                let before = ask.url.query().filter(|query| !query.is_empty());
                let whole = before.map_or_else(|| value.to_owned(), |query| format!("{query}&{value}"));
                ask.url.set_query(Some(&whole));
                continue;
            }
            let bad = || OriginError::BadHeader { name: name.chars().take(64).collect() };
            // What says which content is meant is not the asker's to change: the task is named by its URL.
            if NOT_PASSED.iter().any(|reserved| reserved == name) || RESERVED.contains(&name) {
                return Err(bad());
            }
            let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
            value.set_sensitive(true);
            ask.secrets.insert(HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?, value);
        }
        Ok(ask)
    }

    fn request(&self, url: &Url, with_secrets: bool) -> reqwest::Request {
        let mut request = reqwest::Request::new(self.method.clone(), url.clone());
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        if with_secrets {
            headers.extend(self.secrets.clone());
        }
        request
    }
}

// === impl OriginClient ===

impl OriginClient {
    /// A client for the given settings. The process's TLS provider must be installed before.
    ///
    /// # Errors
    /// When a pattern, a registry's name or URL, or a CA file in the settings cannot be used.
    pub fn new(options: OriginOptions) -> Result<Self, OriginError> {
        let registries = Registries::new(&options.registries, &options.insecure_registries)?;
        let policy = OriginPolicy::new(&options.allow, &registries)?;
        let mut extra = Vec::new();
        for path in &options.extra_ca {
            extra.extend(read_ca(path)?);
        }
        let mut private = BTreeMap::new();
        for (name, path) in &options.registry_ca {
            let url = parse_url(&registries.base_url(name)?)?;
            let own = extra.iter().cloned().chain(read_ca(path)?).collect();
            private.insert(place(&url), Clients::new(own)?);
        }
        let inner = Inner {
            clients: Clients::new(extra)?,
            private,
            policy,
            folders: Folders::new(&options.folders)?,
            registries,
            cool_offs: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner), retry: RetryPolicy::default(), idle: IDLE_TIMEOUT, via: None })
    }

    /// The same client with another patience: a HEAD that a client waits for deserves fewer attempts than a download.
    pub fn with_retry(&self, retry: RetryPolicy) -> Self {
        Self { retry, ..self.clone() }
    }

    /// The same client that takes a shorter silence for a failure.
    #[cfg(test)]
    pub(super) fn with_idle_timeout(&self, idle: Duration) -> Self {
        Self { idle, ..self.clone() }
    }

    /// The registries that the settings name.
    pub fn registries(&self) -> &Registries {
        &self.inner.registries
    }

    /// Whether this URL may be asked.
    ///
    /// # Errors
    /// With the rule that forbids it.
    pub fn allows(&self, url: &str) -> Result<(), OriginError> {
        let url = parse_url(url)?;
        match url.scheme() {
            folders::SCHEME => self.inner.folders.place(&url).map(drop),
            _ => self.permit(&url).map(drop),
        }
    }

    /// Leave to ask a URL that nobody redirected to.
    pub(super) fn permit(&self, url: &Url) -> Result<Permit, OriginError> {
        let forbidden = |why| OriginError::Forbidden { url: label(url), why };
        self.inner.policy.check(url, None).map_err(forbidden)
    }

    /// The connections to use for a URL.
    pub(super) fn client_for(&self, url: &Url) -> Result<&reqwest::Client, OriginError> {
        self.inner.client(url, self.permit(url)?)
    }

    /// How long an origin (`host:port`) has asked to be left alone.
    pub fn resting(&self, place: &str) -> Duration {
        self.cool_offs().left(place, Instant::now())
    }

    /// The same client, which marks what it asks with this cluster's name, so that a proxy knows its own questions (RFC 9110,
    /// section 7.6.3).
    pub fn with_mark(&self, mark: &str) -> Self {
        let via = HeaderValue::from_str(&format!("1.1 longshore-{mark}")).ok();
        Self { via, ..self.clone() }
    }

    /// The mark on what is asked.
    pub fn via(&self) -> Option<&HeaderValue> {
        self.via.as_ref()
    }

    /// The longest silence that is borne.
    pub(super) fn idle(&self) -> Duration {
        self.idle
    }

    /// What a failed request means: the guard's refusal where the resolver found no address that may be asked.
    pub(super) fn refused_or(
        &self,
        error: reqwest::Error,
        url: &Url,
        otherwise: impl FnOnce(Cause) -> OriginError,
    ) -> OriginError {
        // reqwest's text would show the whole URL, query included.
        let error = error.without_url();
        match cause_of::<Filtered>(&error).map(|filtered| filtered.refusal(&place(url))) {
            Some(why) => OriginError::Forbidden { url: label(url), why },
            None => otherwise(error.into()),
        }
    }

    /// The same client, which does not give up as soon.
    pub(super) fn persistent(&self) -> Self {
        self.with_retry(self.retry.persistent())
    }

    pub(super) fn retry(&self) -> Retry {
        Retry::new(self.retry)
    }

    /// One request. Where the method is safe it is retried on connection errors, 408, 429 and 5xx, as [`super::retry`] says;
    /// redirects of GET and HEAD are followed. The final answer is returned whatever its status. `headers` are passed
    /// as given, without those of the connection; `credentials` and the secrets among `headers` go to the first host only.
    ///
    /// # Errors
    /// When the guard forbids a hop, or there is no answer.
    pub async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &HeaderMap,
        credentials: &Credentials,
    ) -> Result<Answer, OriginError> {
        let ask = Ask::new(method, url, headers, credentials)?;
        let mut attempts = self.retry();
        loop {
            let result = self.follow(&ask).await;
            let outcome = match &result {
                Ok(answer) => answer.outcome(),
                Err(OriginError::Unreachable { source, .. }) if !is_untrusted(&**source) => Outcome::Broken,
                // What the guard or the certificate's check refuses stays refused.
                Err(_) => return result,
            };
            if !ask.method.is_safe() {
                return result;
            }
            let Some(wait) = attempts.next(outcome, &mut rand::rng()) else { return result };
            tracing::debug!(url = label(&ask.url), ?outcome, ?wait, "asking the origin again");
            drop(result);
            tokio::time::sleep(wait).await;
        }
    }

    /// One attempt, through all redirects.
    async fn follow(&self, ask: &Ask) -> Result<Answer, OriginError> {
        let mut url = ask.url.clone();
        let mut from: Option<Url> = None;
        let mut with_secrets = true;
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.hop(ask, &url, from.as_ref(), with_secrets).await?;
            let Some(next) = redirection(&ask.method, &url, &answer)? else { return Ok(answer) };
            // Once dropped, credentials stay dropped: the way back may be somebody else's idea.
            with_secrets &= place(&next) == place(&url) && next.scheme() == url.scheme();
            from = Some(std::mem::replace(&mut url, next));
        }
        Err(OriginError::TooManyRedirects { url: label(&ask.url), limit: MAX_REDIRECTS })
    }

    /// One request to one host.
    async fn hop(
        &self,
        ask: &Ask,
        url: &Url,
        from: Option<&Url>,
        with_secrets: bool,
    ) -> Result<Answer, OriginError> {
        let forbidden = |why| OriginError::Forbidden { url: label(url), why };
        let unreachable = |source: Cause| OriginError::Unreachable {
            origin: format!("{}://{}", url.scheme(), place(url)),
            source,
        };
        if url.scheme() == folders::SCHEME && from.is_none() {
            return self.file(ask).await;
        }
        let permit = self.inner.policy.check(url, from).map_err(forbidden)?;
        self.rest(&place(url)).await;
        let client = self.inner.client(url, permit)?;
        let mut request = ask.request(url, with_secrets);
        request.headers_mut().extend(self.via.iter().map(|via| (header::VIA, via.clone())));
        let sending = client.execute(request);
        let response = match tokio::time::timeout(self.idle, sending).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.refused_or(error, url, unreachable)),
            Err(elapsed) => return Err(unreachable(elapsed.into())),
        };
        let answer = Answer::new(response, self.idle);
        if let Outcome::Answered { status, retry_after: Some(rest) } = answer.outcome()
            && matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
        {
            self.cool_offs().note(&place(url), rest, Instant::now());
        }
        Ok(answer)
    }

    /// A file of a shared folder. A network file system may be as silent as any origin.
    async fn file(&self, ask: &Ask) -> Result<Answer, OriginError> {
        let answering = self.inner.folders.answer(&ask.method, &ask.url, &ask.headers);
        let silent = |elapsed: tokio::time::error::Elapsed| OriginError::Unreachable {
            origin: label(&ask.url),
            source: elapsed.into(),
        };
        let response = tokio::time::timeout(self.idle, answering).await.map_err(silent)??;
        Ok(Answer::new(response, self.idle))
    }

    /// Waits until the origin may be asked again. Not for ever: a rest that keeps growing is looked at a few times.
    async fn rest(&self, place: &str) {
        for _ in 0..self.retry.attempts {
            let left = self.cool_offs().left(place, Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    fn cool_offs(&self) -> std::sync::MutexGuard<'_, CoolOffs> {
        // A map of times is whole whoever panicked beside it.
        self.inner.cool_offs.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "client_test.rs"]
mod tests;
