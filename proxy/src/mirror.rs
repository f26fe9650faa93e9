//! The registry mirror: a read-only OCI registry over HTTP whose content is that of other registries. The peer daemon
//! serves [`router`] on its proxy address; container runtimes ask it.
//!
//! Only GET and HEAD below `/v2/` are answered, and no request body is read. `?ns=REGISTRY` says which registry is
//! meant (containerd sends it), else the default one is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use common::telemetry::{Code, Recipient, RequestKind};
use http::header::{ACCEPT, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Uri};
use http_body_util::BodyExt;
use peer::engine::Engine;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Refusal, Subject};
use crate::path::Target;
use crate::readahead::ReadAhead;
use crate::upstream::{Ask, Upstream, With, relay};
use crate::{blobs, manifests};

/// Requests that are answered at a time. A node pulls a few images of some ten layers at once; each answer holds a
/// few chunks of memory, and this keeps a client gone wild from holding all of it.
const MAX_REQUESTS: usize = 1024;
/// How long a request waits for its turn: shorter than the patience of any runtime.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// What every registry says of itself; old clients insist on it.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// What the settings say about the mirror.
#[derive(Debug, Clone)]
pub struct MirrorOptions {
    /// `--default-registry`: the registry that is meant where a request names none.
    pub default_registry: String,
}

/// What all requests share.
struct Mirror {
    engine: Engine,
    options: MirrorOptions,
    turns: Arc<Semaphore>,
    ahead: ReadAhead,
}

/// The mirror as a service, for a listener of the caller's.
pub fn router(engine: Engine, options: MirrorOptions) -> Router {
    let ahead = ReadAhead::new(engine.clone());
    let mirror = Mirror { engine, options, turns: Arc::new(Semaphore::new(MAX_REQUESTS)), ahead };
    Router::new().fallback(serve).with_state(Arc::new(mirror))
}

/// One request as it is understood.
struct Read {
    target: Target,
    /// The query without `ns`: for what is passed through.
    query: String,
    ask: Ask,
}

/// Answers one request, whatever it is.
async fn serve(State(mirror): State<Arc<Mirror>>, request: Request) -> Response {
    let begun = Instant::now();
    let (parts, _) = request.into_parts();
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    let (kind, registry, answer) = match mirror.read(parts) {
        Ok(read) => {
            let registry = read.ask.upstream.registry().to_owned();
            (read.target.kind(), registry, mirror.answer(&read).await)
        }
        Err(refusal) => (RequestKind::Other, String::new(), Err(refusal)),
    };
    let mut response = answer.unwrap_or_else(|refusal| {
        if refusal.is_trouble() {
            tracing::warn!(%method, registry, path, error = %refusal, "cannot answer");
        } else if !refusal.is_ordinary() {
            tracing::info!(%method, registry, path, error = %refusal, "refused");
        }
        refusal.into_response()
    });
    let status = response.status().as_u16();
    tracing::debug!(%method, registry, path, status, took = ?begun.elapsed(), "answered");
    mirror.engine.metrics().proxy_requests.of(kind, Code::of(status)).inc();
    response.headers_mut().entry(API_VERSION).or_insert(HeaderValue::from_static("registry/2.0"));
    response
}

// === impl Mirror ===

impl Mirror {
    /// Understands a request, or says what is wrong with it.
    fn read(&self, parts: Parts) -> Result<Read, Refusal> {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Err(Refusal::Method);
        }
        let target = parts.uri.path().parse::<Target>()?;
        let (named, query) = split_query(&parts.uri)?;
        let registry = named.as_deref().unwrap_or(&self.options.default_registry);
        let upstream = Upstream::new(&self.engine, registry, &parts.headers)?;
        let head = parts.method == Method::HEAD;
        let (upstream, ahead) = (Arc::new(upstream), self.ahead.clone());
        Ok(Read { target, query, ask: Ask { upstream, headers: parts.headers, head, ahead } })
    }

    async fn answer(&self, read: &Read) -> Result<Response, Refusal> {
        let turn = tokio::time::timeout(MAX_WAIT, self.turns.clone().acquire_owned());
        let turn = turn.await.map_err(|_| Refusal::Busy)?.map_err(|_| Refusal::Closing)?;
        let response = match &read.target {
            Target::Manifest { name, reference } => manifests::answer(&read.ask, name, reference).await?,
            Target::Blob { digest, .. } => {
                blobs::answer(&read.ask, read.target.path(), digest.clone()).await?
            }
            Target::Base | Target::Other { .. } => pass_through(read).await?,
        };
        Ok(self.counting(response, turn))
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

/// The registry that `?ns=` names, and the rest of the query as it was sent.
pub(crate) fn split_query(uri: &Uri) -> Result<(Option<String>, String), Refusal> {
    let unreadable = |_| Refusal::Registry("the query is not name=value pairs".to_owned());
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(unreadable)?;
    let mut named: Vec<String> =
        pairs.into_iter().filter(|(name, _)| name == "ns").map(|(_, value)| value).collect();
    named.dedup();
    if named.len() > 1 {
        return Err(Refusal::Registry("?ns= names more than one registry".to_owned()));
    }
    let is_ns = |pair: &&str| pair.split('=').next() == Some("ns");
    let rest: Vec<&str> = uri.query().unwrap_or_default().split('&').filter(|pair| !is_ns(pair)).collect();
    Ok((named.pop(), rest.join("&")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(query: &str) -> Result<(Option<String>, String), Refusal> {
        split_query(&format!("/v2/?{query}").parse().unwrap())
    }

    #[test]
    fn ns_names_the_registry_and_is_not_passed_on() {
        let some = |name: &str, rest: &str| (Some(name.to_owned()), rest.to_owned());
        assert_eq!(split("ns=docker.io").unwrap(), some("docker.io", ""));
        assert_eq!(
            split("n=2&ns=127.0.0.1%3A5600&last=a%2Fb").unwrap(),
            some("127.0.0.1:5600", "n=2&last=a%2Fb")
        );
        assert_eq!(split("ns=a&ns=a").unwrap(), some("a", ""));
        assert_eq!(split("n=2").unwrap(), (None, "n=2".to_owned()));
        assert_eq!(split_query(&Uri::from_static("/v2/")).unwrap(), (None, String::new()));
        assert!(split("ns=a&ns=b").is_err());
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "[a-z=&%0-9+.:]{0,40}") {
            let _ = split(&query);
        }
    }
}
