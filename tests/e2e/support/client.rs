//! A runtime's side of a pull in plain HTTP: what the tests use where they need to see every byte and header.

use std::sync::OnceLock;

use common::digest::{Digest, Hasher};
use reqwest::header;
use reqwest::{Certificate, Client, RequestBuilder, StatusCode};
use tokio::task::JoinSet;

use super::image::{Image, MANIFEST, TAG};
use super::tls::Ca;

/// What came back of one GET.
#[derive(Debug)]
pub(crate) struct Pulled {
    pub(crate) status: StatusCode,
    /// Bytes of the body that arrived.
    pub(crate) length: u64,
    pub(crate) digest: Digest,
    /// The body ended as its framing promised.
    pub(crate) finished: bool,
}

/// A client that follows the rules of a container runtime: no proxies, no decoding.
pub(crate) fn http() -> Client {
    of(&[])
}

/// The same, which trusts what `ca` has signed.
pub(crate) fn https(ca: &Ca) -> Client {
    of(&[ca.pem.as_bytes()])
}

/// Whoever makes a client of his own needs it first.
pub(crate) fn install_provider() {
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

fn of(authorities: &[&[u8]]) -> Client {
    install_provider();
    let trusted = authorities.iter().map(|pem| Certificate::from_pem(pem).expect("a certificate"));
    Client::builder().no_proxy().tls_certs_only(trusted).build().expect("a plain client")
}

/// The mirror's address of a blob.
pub(crate) fn blob_url(proxy: &str, registry: &str, repository: &str, digest: Digest) -> String {
    format!("http://{proxy}/v2/{repository}/blobs/{digest}?ns={registry}")
}

/// The mirror's address of a manifest.
pub(crate) fn manifest_url(proxy: &str, registry: &str, repository: &str, reference: &str) -> String {
    format!("http://{proxy}/v2/{repository}/manifests/{reference}?ns={registry}")
}

/// GETs `url` and hashes the body as it arrives.
pub(crate) async fn get(url: &str) -> Pulled {
    fetch(http().get(url).header(header::ACCEPT, MANIFEST)).await
}

/// Sends `request` and hashes the body as it arrives.
pub(crate) async fn fetch(request: RequestBuilder) -> Pulled {
    let mut answer = request.send().await.expect("an answer");
    let status = answer.status();
    let (mut hasher, mut length) = (Hasher::new(), 0);
    let finished = loop {
        match answer.chunk().await {
            Ok(Some(bytes)) => {
                hasher.update(&bytes);
                length += bytes.len() as u64;
            }
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    Pulled { status, length, digest: hasher.finish(), finished }
}

/// Pulls every part of `image` through `proxy` as a runtime does: the manifest by its tag, then all blobs at
/// once. Panics unless every byte is right.
pub(crate) async fn pull(proxy: String, registry: String, image: Image) {
    let manifest = get(&manifest_url(&proxy, &registry, &image.repository, TAG)).await;
    assert_eq!(manifest.status, StatusCode::OK, "manifest through {proxy}");
    assert_eq!(manifest.digest, image.manifest.digest, "manifest through {proxy}");
    let mut blobs = JoinSet::new();
    for digest in image.blobs().map(|blob| blob.digest) {
        let url = blob_url(&proxy, &registry, &image.repository, digest);
        blobs.spawn(async move { (digest, get(&url).await) });
    }
    while let Some(blob) = blobs.join_next().await {
        let (digest, pulled) = blob.unwrap();
        pulled.is(digest);
    }
}

// === impl Pulled ===

impl Pulled {
    /// Asserts a whole, right answer.
    pub(crate) fn is(&self, digest: Digest) {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        assert!(self.finished, "the body was cut: {self:?}");
        assert_eq!(self.digest, digest, "{self:?}");
    }

    /// Whether a client would take this answer for the whole of a blob.
    pub(crate) fn looks_finished(&self) -> bool {
        self.status == StatusCode::OK && self.finished
    }
}
