//! A raw HTTP/1.1 origin for the tests of this room: it answers what a test's handler says, byte for byte, misbehaves on
//! demand (cuts, silence, lies), and counts what it sent.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{OriginClient, OriginOptions, RetryPolicy};

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// How many requests came before.
    pub(crate) number: usize,
    pub(crate) method: String,
    pub(crate) path: String,
    headers: Vec<(String, String)>,
}

/// What the origin does with a request.
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
    length: Option<u64>,
    cut: Option<usize>,
    silent: bool,
}

#[derive(Default)]
struct Seen {
    asked: Mutex<Vec<Asked>>,
    sent: AtomicU64,
    connections: AtomicU64,
}

/// A running origin; dropping it ends it.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    _serving: JoinSet<()>,
}

/// A client that may ask fakes and does not waste a test's time.
pub(crate) fn client() -> OriginClient {
    client_with(OriginOptions { allow: vec!["127.0.0.1".into()], ..OriginOptions::default() })
}

/// The same with other options.
pub(crate) fn client_with(options: OriginOptions) -> OriginClient {
    rustls::crypto::ring::default_provider().install_default().ok();
    let retry = RetryPolicy { base: std::time::Duration::from_millis(1), ..RetryPolicy::default() };
    OriginClient::new(options).unwrap().with_retry(retry)
}

/// `length` bytes of which no two pieces are alike.
pub(crate) fn blob(length: usize) -> Bytes {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect::<Vec<u8>>().into()
}

// === impl Asked ===

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first byte and the one past the last of a `Range` header.
    pub(crate) fn range(&self) -> Option<(usize, usize)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse::<usize>().ok()? + 1))
    }
}

// === impl Reply ===

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new(), length: Some(0), cut: None, silent: false }
    }

    /// As a good origin serves `blob`.
    pub(crate) fn serve(blob: &Bytes, asked: &Asked) -> Self {
        match asked.range() {
            Some((start, end)) if start < blob.len() => {
                let end = end.min(blob.len());
                let range = format!("bytes {start}-{}/{}", end - 1, blob.len());
                Self::new(206).header("Content-Range", &range).body(blob.slice(start..end))
            }
            Some(_) if !blob.is_empty() => {
                Self::new(416).header("Content-Range", &format!("bytes */{}", blob.len()))
            }
            _ => Self::new(200).body(blob.clone()),
        }
    }

    /// As an origin without ranges serves it.
    pub(crate) fn whole(blob: &Bytes) -> Self {
        Self::new(200).body(blob.clone())
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.length = Some(self.body.len() as u64);
        self
    }

    /// Says another length than it has, or none.
    pub(crate) fn length(mut self, length: Option<u64>) -> Self {
        self.length = length;
        self
    }

    /// Hangs up after so many bytes of the body.
    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    /// Falls silent instead of hanging up.
    pub(crate) fn silent(mut self, after: usize) -> Self {
        self.silent = true;
        self.cut(after)
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} X\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.length {
            Some(length) => head.push_str(&format!("Content-Length: {length}\r\n\r\n")),
            None => head.push_str("Connection: close\r\n\r\n"),
        }
        head
    }
}

// === impl Fake ===

impl Fake {
    pub(crate) async fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let mut serving = JoinSet::new();
        let (handler, shared): (Arc<Handler>, _) = (Arc::new(handler), seen.clone());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::Relaxed);
                connections.spawn(converse(stream, handler.clone(), shared.clone()));
            }
        });
        Self { address, seen, _serving: serving }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Bytes of bodies that went out.
    pub(crate) fn sent(&self) -> u64 {
        self.seen.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.seen.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.seen.asked.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, String, Vec<(String, String)>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ').map(str::to_owned);
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Some((words.next()?, words.next()?, headers))
}

async fn converse(mut stream: TcpStream, handler: Arc<Handler>, seen: Arc<Seen>) {
    while let Some((method, path, headers)) = read_request(&mut stream).await {
        let asked = {
            let mut all = seen.asked.lock().unwrap();
            let asked = Asked { number: all.len(), method, path, headers };
            all.push(asked.clone());
            asked
        };
        let reply = handler(&asked);
        if stream.write_all(reply.head().as_bytes()).await.is_err() {
            return;
        }
        let head_only = asked.method == "HEAD";
        let end = if head_only { 0 } else { reply.cut.unwrap_or(usize::MAX).min(reply.body.len()) };
        for part in reply.body[..end].chunks(32 * 1024) {
            // Before it goes: who has the last of it may look at once.
            seen.sent.fetch_add(part.len() as u64, Ordering::Relaxed);
            if stream.write_all(part).await.is_err() {
                return;
            }
        }
        if reply.silent {
            std::future::pending::<()>().await;
        }
        if (reply.length != Some(end as u64) && !head_only) || reply.length.is_none() {
            let _ = stream.shutdown().await;
            return;
        }
    }
}
