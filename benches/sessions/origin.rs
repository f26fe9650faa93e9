//! An origin on loopback with any number of equally long files that differ in their first bytes. It serves one range,
//! which is all that the engine asks for.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::{Bytes, BytesMut};
use common::digest::Digest;
use common::task::Source;
use http::{HeaderMap, StatusCode, header};

/// A running origin; it ends with the runtime.
pub(crate) struct Origin {
    address: SocketAddr,
    length: u64,
}

/// Bytes `start..end` of file `number`. Nobody looks into them, so nearly all are nought.
fn content(number: u64, start: u64, end: u64) -> Bytes {
    let mut bytes = BytesMut::zeroed((end - start) as usize);
    if start == 0 && end >= 8 {
        bytes[..8].copy_from_slice(&number.to_le_bytes());
    }
    bytes.freeze()
}

// === impl Origin ===

impl Origin {
    pub(crate) async fn start(length: u64) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/{number}", get(serve)).with_state(length);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, length }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn source(&self, number: u64) -> Source {
        let digest = Digest::of(&content(number, 0, self.length));
        Source::of_digest(format!("http://{}/{number}", self.address), digest)
    }
}

async fn serve(State(length): State<u64>, Path(number): Path<u64>, headers: HeaderMap) -> Response {
    let Some((start, end)) = range(&headers, length) else {
        return content(number, 0, length).into_response();
    };
    let named = [(header::CONTENT_RANGE, format!("bytes {start}-{}/{length}", end - 1))];
    (StatusCode::PARTIAL_CONTENT, named, content(number, start, end)).into_response()
}

fn range(headers: &HeaderMap, length: u64) -> Option<(u64, u64)> {
    let (first, last) = headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let end = last.parse().map_or(length, |last: u64| length.min(last + 1));
    Some((first.parse().ok()?, end)).filter(|(start, end)| start < end)
}
