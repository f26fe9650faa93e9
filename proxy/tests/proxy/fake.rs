//! A registry in this process: it serves what it is given, wants a password where it is told
//! to, misbehaves on request, and writes down what it was asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, StatusCode};

/// The only password, as `Authorization` says it.
pub(crate) const ALICE: &str = "Basic YWxpY2U6YWxpY2Vwdw==";
/// What is asked of a stranger.
pub(crate) const CHALLENGE: &str = r#"Basic realm="the lab""#;

/// What is asked of somebody without a token.
pub(crate) const BEARER: &str = r#"Bearer realm="https://auth.test/token",service="lab""#;

/// How a path is answered, beside its content.
#[derive(Clone, Default)]
pub(crate) struct Manners {
    /// Alice only.
    pub(crate) private: bool,
    /// Whoever shows this `Authorization` only; others are told to get a token.
    pub(crate) token: Option<String>,
    /// Headers of the answer.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// The bytes that are sent differ from the content in the last byte.
    pub(crate) damaged: bool,
    /// This many GETs break off after half of what they are to bring; without end, before the first byte.
    pub(crate) cuts: usize,
    /// A HEAD is answered without a length.
    pub(crate) head_says_nothing: bool,
    /// This status is the answer to every GET.
    pub(crate) get_fails: Option<u16>,
}

#[derive(Default)]
struct Content {
    bytes: Bytes,
    manners: Manners,
    /// Bytes of it in all answers, those that broke off included as far as they went.
    sent: usize,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
}

#[derive(Default)]
struct Inner {
    down: AtomicBool,
    content: Mutex<HashMap<String, Content>>,
    asked: Mutex<Vec<Asked>>,
}

/// The registry; it stops when the test's runtime does.
#[derive(Clone)]
pub(crate) struct Origin {
    inner: Arc<Inner>,
    pub(crate) url: String,
}

impl Origin {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner::default());
        let app = Router::new().fallback(answer).with_state(inner.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { inner, url }
    }

    pub(crate) fn put(&self, path: impl Into<String>, bytes: impl Into<Bytes>, manners: Manners) {
        let content = Content { bytes: bytes.into(), manners, sent: 0 };
        self.inner.content.lock().unwrap().insert(path.into(), content);
    }

    /// From now on nothing is answered but that it is down; or all is well again.
    pub(crate) fn set_down(&self, down: bool) {
        self.inner.down.store(down, Ordering::SeqCst);
    }

    /// Nothing is there any more.
    pub(crate) fn remove(&self, path: &str) {
        self.inner.content.lock().unwrap().remove(path);
    }

    /// How many requests came.
    pub(crate) fn requests(&self) -> usize {
        self.inner.asked.lock().unwrap().len()
    }

    /// Bytes of a path's content that left.
    pub(crate) fn sent(&self, path: &str) -> usize {
        self.inner.content.lock().unwrap()[path].sent
    }

    /// What was asked of a path with this method.
    pub(crate) fn asked(&self, method: Method, path: &str) -> Vec<Asked> {
        let asked = self.inner.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.method == method && asked.path == path).cloned().collect()
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let path = parts.uri.path().to_owned();
    inner.asked.lock().unwrap().push(Asked {
        method: parts.method.clone(),
        path: path.clone(),
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers.clone(),
    });
    if inner.down.load(Ordering::SeqCst) {
        return refuse(503, r#"{"errors":[{"code":"DOWN"}]}"#);
    }
    let mut content = inner.content.lock().unwrap();
    let Some(Content { bytes, manners, sent }) = content.get_mut(&path) else {
        return refuse(404, r#"{"errors":[{"code":"FROM_THE_ORIGIN"}]}"#);
    };
    if manners.private && parts.headers.get("authorization").is_none_or(|value| value != ALICE) {
        return refuse(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"says the origin"}]}"#);
    }
    if let Some(token) = &manners.token
        && parts.headers.get("authorization").is_none_or(|value| value != token)
    {
        let mut refusal = refuse(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"get a token"}]}"#);
        refusal.headers_mut().insert("www-authenticate", BEARER.parse().unwrap());
        return refusal;
    }
    let get = parts.method == Method::GET;
    if let Some(status) = manners.get_fails.filter(|_| get) {
        return refuse(status, "{}");
    }
    let (mut response, length) = send(get, &parts.headers, bytes, manners);
    *sent += length;
    for (name, value) in &manners.headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

fn send(get: bool, headers: &HeaderMap, bytes: &Bytes, manners: &mut Manners) -> (Response, usize) {
    let mut sent = bytes.to_vec();
    if manners.damaged && get {
        *sent.last_mut().unwrap() ^= 1;
    }
    let range = headers.get("range").filter(|_| get).map(|value| value.to_str().unwrap().to_owned());
    let mut response = Response::builder();
    if let Some(range) = range {
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (first, total): (usize, usize) = (first.parse().unwrap(), sent.len());
        let last: usize = last.parse().unwrap_or(total - 1).min(total - 1);
        response = response.status(206).header("content-range", format!("bytes {first}-{last}/{total}"));
        sent = sent[first..=last].to_vec();
    }
    let length = sent.len();
    response = response.header("accept-ranges", "bytes");
    if get || !manners.head_says_nothing {
        response = response.header("content-length", length);
    }
    if !get {
        let nothing = stream::empty::<Result<Bytes, std::io::Error>>();
        return (response.body(Body::from_stream(nothing)).unwrap(), 0);
    }
    if manners.cuts > 0 && length > 1 {
        let end = if manners.cuts == usize::MAX { 0 } else { length / 2 };
        manners.cuts -= usize::from(manners.cuts < usize::MAX);
        let half = Bytes::from(sent[..end].to_vec());
        // hyper sends what it has when a body makes it wait, and throws it away when a body fails at once.
        let cut = stream::iter([Ok(half)]).chain(stream::once(async {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            Err(std::io::Error::other("cut"))
        }));
        return (response.body(Body::from_stream(cut)).unwrap(), end);
    }
    (response.body(sent.into()).unwrap(), length)
}

fn refuse(status: u16, body: &'static str) -> Response {
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    if status == 401 {
        response = response.header("www-authenticate", CHALLENGE);
    }
    response.header("content-type", "application/json").body(body.into()).unwrap()
}
