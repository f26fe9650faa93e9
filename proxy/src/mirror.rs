//! The registry mirror: an OCI registry over HTTP whose content is that of other registries, to be pulled from. The peer
//! daemon serves [`Proxy::router`] on its proxy address; container runtimes ask it. [`crate::way`] says which registry a
//! request means; what comes to an HTTP proxy's port is [`crate::forward`]'s.
//!
//! Pulls are GET and HEAD below `/v2/`; no body is read of them. Whatever else there is to be done with a registry, pushes
//! above all, is handed on to it or refused, as [`Push`] says.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use common::telemetry::trace::{Span, TraceContext};
use common::telemetry::{Code, Label as _, Recipient, RequestKind};
use http::header::{ACCEPT, HeaderName, HeaderValue, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::BodyExt;
use peer::engine::Engine;
use peer::origin::guard::Pattern;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Refusal, Subject};
use crate::forward::connect::{Intercept, connect};
use crate::forward::{InterceptError, Leaves, check_loop, pass};
use crate::grants::{Grants, Terms};
use crate::path::{Target, is_push_path};
use crate::permission::is_no_answer;
use crate::readahead::ReadAhead;
use crate::upstream::{Ask, Said, Upstream, With, Words, relay};
use crate::way::{Meant, Way, is_api};
use crate::{blobs, manifests};

/// Requests that are answered at a time. A node pulls a few images of some ten layers at once; each answer holds a
/// few chunks of memory, and this keeps a client gone wild from holding all of it.
const MAX_REQUESTS: usize = 1024;
/// How long a request waits for its turn: shorter than the patience of any runtime.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// The most that a request's headers may hold: a token takes some kilobytes, and no registry takes more than this.
const MAX_HEADERS: usize = 32 << 10;
/// A client's name that is longer is cut.
const MAX_CLIENT: usize = 40;
/// What a client says of the trace that its request is part of (W3C Trace Context).
const TRACEPARENT: &str = "traceparent";
/// What every registry says of itself; old clients insist on it.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// What is done with a request that changes a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    /// A mirror refuses it; for an HTTP proxy's client it is handed on.
    AsProxy,
    /// It is handed on, also by the mirror.
    Forward,
    /// It is refused.
    Refuse,
}

/// What the settings say about the proxy.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// `--default-registry`: the registry that is meant where a request names none.
    pub default_registry: String,
    /// How long a permission is good for.
    pub terms: Terms,
    /// What is done with pushes.
    pub push: Push,
    /// Whether clients may use this as their HTTP proxy.
    pub forward: bool,
    /// `--intercept`: the hosts whose HTTPS connections are opened.
    pub intercept: Vec<Pattern>,
    /// Where the CA for them is kept.
    pub intercept_dir: PathBuf,
    /// Whether layers are fetched before they are asked for.
    pub read_ahead: bool,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            default_registry: "docker.io".to_owned(),
            terms: Terms::default(),
            push: Push::AsProxy,
            forward: true,
            intercept: Vec::new(),
            intercept_dir: PathBuf::new(),
            read_ahead: true,
        }
    }
}

impl FromStr for Push {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "as-proxy" => Ok(Self::AsProxy),
            "forward" => Ok(Self::Forward),
            "refuse" => Ok(Self::Refuse),
            other => Err(format!("push = {other:?} is none of as-proxy, forward and refuse")),
        }
    }
}

/// The mirror and HTTP proxy of one node.
pub struct Proxy(Arc<Mirror>);

/// What all requests share.
pub(crate) struct Mirror {
    pub(crate) engine: Engine,
    pub(crate) intercept: Intercept,
    options: ProxyOptions,
    turns: Arc<Semaphore>,
    ahead: ReadAhead,
    grants: Grants,
}

// === impl Proxy ===

impl Proxy {
    /// A proxy over `engine`.
    ///
    /// # Errors
    /// When connections are to be opened and the CA for them cannot be had.
    pub fn new(engine: Engine, options: ProxyOptions) -> Result<Self, InterceptError> {
        let open = || Leaves::open(&options.intercept_dir, &options.intercept);
        let leaves = (!options.intercept.is_empty()).then(open).transpose()?;
        let mirror = Mirror {
            intercept: Intercept::new(options.intercept.clone(), leaves),
            turns: Arc::new(Semaphore::new(MAX_REQUESTS)),
            ahead: ReadAhead::new(engine.clone(), options.read_ahead),
            grants: Grants::new(options.terms),
            engine,
            options,
        };
        Ok(Self(Arc::new(mirror)))
    }

    /// The proxy as a service, for a listener of the caller's.
    pub fn router(&self) -> Router {
        let mirror = self.0.clone();
        Router::new().fallback(serve).with_state((mirror, None))
    }
}

/// One request as it is understood.
struct Read {
    target: Target,
    /// For what is passed through.
    query: String,
    ask: Ask,
}

/// What is to be done with a request.
enum Deed {
    Read(Box<Read>),
    /// Handed on to this URL, of this registry.
    Pass(String, String),
}

/// The host that an opened connection is to, if it is one.
type Host = Option<Arc<str>>;

/// Answers one request, whatever it is.
async fn serve(State((mirror, host)): State<(Arc<Mirror>, Host)>, mut request: Request) -> Response {
    let begun = Instant::now();
    let upstream = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let mut span = Span::begin("proxy.request", upstream);
    if let Some(trace) = span.context() {
        request.extensions_mut().insert(trace);
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (kind, registry, answer) = mirror.answer(request, host).await;
    let mut response = answer.unwrap_or_else(|refusal| {
        if refusal.is_trouble() {
            tracing::warn!(%method, registry, path, error = %refusal, "cannot answer");
        } else if !refusal.is_ordinary() {
            tracing::info!(%method, registry, path, error = %refusal, "refused");
        }
        refusal.into_response()
    });
    let status = response.status().as_u16();
    if span.context().is_some() {
        describe(&mut span, (kind, &method, status), &registry, &path);
        // Until the last byte is sent, or the client is gone.
        response = response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _lasts = &span;
                frame
            }))
        });
    }
    tracing::debug!(%method, registry, path, status, took = ?begun.elapsed(), "answered");
    mirror.engine.metrics().proxy_requests.of(kind, Code::of(status)).inc();
    if method != Method::CONNECT && kind != RequestKind::Passed {
        response.headers_mut().entry(API_VERSION).or_insert(HeaderValue::from_static("registry/2.0"));
    }
    response
}

/// What a span says of a request. Of what is handed on no more than the host: its path is nobody's business here.
fn describe(
    span: &mut Span,
    (kind, method, status): (RequestKind, &Method, u16),
    registry: &str,
    path: &str,
) {
    span.note("longshore.kind", kind.value());
    span.note("http.request.method", method.as_str());
    span.note("http.response.status_code", status);
    span.note("server.address", registry);
    if matches!(kind, RequestKind::Manifest | RequestKind::Blob) {
        span.note("url.path", path);
    }
    if status >= 500 {
        span.fail();
    }
}

// === impl Mirror ===

impl Mirror {
    /// The service for a connection that the client believes to be to `host`.
    pub(crate) fn router_for(self: Arc<Self>, host: String) -> Router {
        Router::new().fallback(serve).with_state((self, Some(host.into())))
    }

    /// What kind of request it was, of which registry, and the answer.
    async fn answer(
        self: &Arc<Self>,
        request: Request,
        host: Host,
    ) -> (RequestKind, String, Result<Response, Refusal>) {
        if request.method() == Method::CONNECT {
            // Without a user, whose password shall not stand in a log.
            let place = request.uri().host().map(str::to_owned);
            let answer = match self.options.forward && host.is_none() {
                true => connect(self, request).await,
                false => Err(Refusal::NoProxy),
            };
            return (RequestKind::Passed, place.unwrap_or_default(), answer);
        }
        let (parts, body) = request.into_parts();
        match self.deed(&parts, host) {
            Ok(Deed::Read(read)) => {
                let registry = read.ask.upstream.registry().to_owned();
                (read.target.kind(), registry, self.read(&read).await)
            }
            Ok(Deed::Pass(url, registry)) => {
                let answer = self.pass(parts, body, &url, &registry).await;
                (RequestKind::Passed, registry, answer)
            }
            Err(refusal) => (RequestKind::Other, String::new(), Err(refusal)),
        }
    }

    /// Understands a request, or says what is wrong with it.
    fn deed(&self, parts: &Parts, host: Host) -> Result<Deed, Refusal> {
        if size_of(&parts.headers) > MAX_HEADERS {
            return Err(Refusal::Headers);
        }
        check_loop(&self.engine, &parts.headers)?;
        let way = match host {
            Some(host) => Way::on_connection_to(&host, &parts.uri),
            None => Way::of(&parts.uri, parts.version)?,
        };
        let pull = matches!(parts.method, Method::GET | Method::HEAD);
        match way {
            Way::Mirror(meant) if pull => self.understand(parts, meant),
            Way::Mirror(meant) if meant.is_ambiguous() => Err(Refusal::Ambiguous),
            Way::Mirror(meant) => match self.options.push {
                Push::Forward if is_push_path(&meant.path) => self.handed_on(meant),
                _ => Err(Refusal::Method),
            },
            Way::Proxy { .. } if !self.options.forward => Err(Refusal::NoProxy),
            Way::Proxy { .. } if !pull && self.options.push == Push::Refuse => Err(Refusal::Method),
            Way::Proxy { scheme, host, rest } => self.proxied(parts, (scheme, host, &rest), pull),
        }
    }

    /// What a proxy's client asked of `host`: a registry's content is read, everything else is handed on.
    fn proxied(
        &self,
        parts: &Parts,
        (scheme, host, rest): (&str, String, &str),
        pull: bool,
    ) -> Result<Deed, Refusal> {
        let base = self.engine.origin().registries().base_url(&host);
        let base = base.map_err(|_| Refusal::Registry("the URL's host is no host".to_owned()))?;
        // A name that the settings map is that registry, whatever the client speaks to it.
        let mapped = base.starts_with("http://");
        if !(mapped || scheme == "https") || !is_api(rest) {
            let base = if mapped { base } else { format!("{scheme}://{host}") };
            return Ok(Deed::Pass(format!("{base}{rest}"), host));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let meant = Meant { registry: Some(host), named: true, path, query };
        if pull { self.understand(parts, meant) } else { self.handed_on(meant) }
    }

    fn understand(&self, parts: &Parts, meant: Meant) -> Result<Deed, Refusal> {
        let target = meant.path.parse::<Target>()?;
        let upstream = Arc::new(self.upstream(&meant, parts)?);
        let head = parts.method == Method::HEAD;
        let (ahead, grants) = (self.ahead.clone(), self.grants.clone());
        let client = client_of(&parts.headers).into();
        let ask = Ask {
            upstream,
            headers: parts.headers.clone(),
            client,
            asked: Instant::now(),
            head,
            ahead,
            grants,
        };
        Ok(Deed::Read(Box::new(Read { target, query: meant.query, ask })))
    }

    fn upstream(&self, meant: &Meant, parts: &Parts) -> Result<Upstream, Refusal> {
        let registry = meant.registry.as_deref().unwrap_or(&self.options.default_registry);
        Upstream::new(&self.engine, registry, &parts.headers, parts.extensions.get::<TraceContext>().copied())
    }

    fn handed_on(&self, meant: Meant) -> Result<Deed, Refusal> {
        let registry = meant.registry.unwrap_or_else(|| self.options.default_registry.clone());
        let base = self.engine.origin().registries().base_url(&registry);
        let base = base.map_err(|_| Refusal::Registry("the registry that is meant is no host".to_owned()))?;
        let query = if meant.query.is_empty() { String::new() } else { format!("?{}", meant.query) };
        Ok(Deed::Pass(format!("{base}{}{query}", meant.path), registry))
    }

    async fn read(&self, read: &Read) -> Result<Response, Refusal> {
        let turn = self.turn().await?;
        let response = match &read.target {
            Target::Manifest { name, reference } => manifests::answer(&read.ask, name, reference).await?,
            Target::Blob { name, digest } => blobs::answer(&read.ask, name, digest.clone()).await?,
            Target::Base => base(read).await?,
            Target::Other { .. } => pass_through(read).await?,
        };
        Ok(self.counting(response, turn))
    }

    async fn pass(&self, parts: Parts, body: Body, url: &str, registry: &str) -> Result<Response, Refusal> {
        let turn = self.turn().await?;
        let response = pass(&self.engine, parts, body, url, registry).await?;
        Ok(self.counting(response, turn))
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let turn = tokio::time::timeout(MAX_WAIT, self.turns.clone().acquire_owned());
        turn.await.map_err(|_| Refusal::Busy)?.map_err(|_| Refusal::Closing)
    }

    /// The same response, which counts what it sends and gives its turn back once it has sent all.
    fn counting(&self, response: Response, turn: OwnedSemaphorePermit) -> Response {
        let sent = self.engine.metrics().sent_bytes.of(Recipient::Client).clone();
        response.map(|body| {
            Body::new(body.inspect_frame(move |frame| {
                let _held = &turn;
                sent.inc_by(frame.data_ref().map_or(0, |data| data.len() as u64));
            }))
        })
    }
}

/// `/v2/`: how the registry wants to be spoken to. While it gives no answer, what it said before is still true.
async fn base(read: &Read) -> Result<Response, Refusal> {
    let Ask { upstream, head, grants, .. } = &read.ask;
    let path = read.target.path();
    let said = match upstream.inquire(&path, None, Words::Wanted, Subject::Registry).await {
        Ok(said) if !is_no_answer(said.status) => {
            grants.heard(upstream, &path, &said);
            said
        }
        Ok(said) => grants.words(upstream, &path).unwrap_or(said),
        Err(refusal) if refusal.is_no_answer() => grants.words(upstream, &path).ok_or(refusal)?,
        Err(refusal) => return Err(refusal),
    };
    match said.status {
        status if status.is_success() => Ok(welcome(*head)),
        _ if *head => Ok(said.into_head()),
        _ => Err(Refusal::Origin(said.into_failure(), Subject::Registry)),
    }
}

/// The answer of a registry that speaks the protocol, to somebody whom it lets in.
fn welcome(head: bool) -> Response {
    let said = Said { status: StatusCode::OK, headers: Default::default(), body: Default::default() };
    let mut response = said.into_head();
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    if !head {
        *response.body_mut() = Body::from("{}");
    }
    response
}

/// What a client calls itself: the first word of it, which names the program. What else stands there is nobody's business.
fn client_of(headers: &HeaderMap) -> String {
    let said = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let fits = |c: &char| c.is_ascii_alphanumeric() || "/._+-".contains(*c);
    let word: String = said.chars().take_while(fits).take(MAX_CLIENT).collect();
    if word.is_empty() { "client".to_owned() } else { word }
}

/// Bytes of all names and values.
fn size_of(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// What the mirror has no opinion on is the origin's to answer.
async fn pass_through(read: &Read) -> Result<Response, Refusal> {
    let Ask { upstream, headers, head, .. } = &read.ask;
    let mut path = read.target.path();
    if !read.query.is_empty() {
        path = format!("{path}?{}", read.query);
    }
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let accept = accept.join(", ");
    let with = With { accept: (!accept.is_empty()).then_some(&accept), ..With::default() };
    let method = if *head { Method::HEAD } else { Method::GET };
    Ok(relay(upstream.ask(method, &path, with, Subject::Registry).await?, *head))
}
