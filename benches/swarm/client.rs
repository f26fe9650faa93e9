//! A container runtime's side of a pull, as light as it can be: it asks for everything, hashes what comes and throws
//! it away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use common::digest::{Digest, Hasher};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Client, header};
use tokio::time;

use crate::content::{Blob, Content, MANIFEST, REPOSITORY, TAG};
use crate::net::Host;

/// Blobs at a time: what containerd and Docker do unless told otherwise.
const AT_ONCE: usize = 3;

/// What is to be pulled from where.
#[derive(Clone)]
pub(crate) struct Pull {
    /// `http://HOST:PORT`
    pub(crate) base: String,
    /// The registry that is meant, if another than the one that is asked.
    pub(crate) registry: Option<String>,
    pub(crate) content: Arc<Content>,
}

/// When a node, after the common start, began, had its first byte, and had everything.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Times {
    pub(crate) begun: f64,
    pub(crate) first_byte: f64,
    pub(crate) finish: f64,
}

/// The moments by which a node is measured.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    /// The common start.
    pub(crate) start: Instant,
    /// How long after it this node begins.
    pub(crate) begins: Duration,
    /// How long it may take.
    pub(crate) limit: Duration,
}

/// What one node has got so far.
#[derive(Default)]
struct Progress {
    bytes: AtomicU64,
    /// Nanoseconds after the start of its pull; 0 is not yet.
    first_byte: AtomicU64,
}

// === impl Times ===

impl Times {
    /// How long the node itself waited.
    pub(crate) fn took(&self) -> f64 {
        self.finish - self.begun
    }
}

// === impl Clock ===

impl Clock {
    /// Seconds since the common start.
    pub(crate) fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Waits for this node's turn.
    pub(crate) async fn turn(&self) {
        time::sleep_until((self.start + self.begins).into()).await;
    }
}

/// A client of plain HTTP: no proxies, no decoding, no certificates.
pub(crate) fn plain() -> anyhow::Result<Client> {
    Ok(Client::builder().no_proxy().tls_certs_only([]).build()?)
}

/// Pulls everything on `host`.
pub(crate) async fn pull(host: Host, pull: Pull, clock: Clock) -> anyhow::Result<Times> {
    let name = host.name.clone();
    let run = async move || {
        let (client, progress) = (plain()?, Progress::default());
        clock.turn().await;
        let begun = Instant::now();
        let all = time::timeout(clock.limit, pull.run(&client, &progress, begun)).await;
        let finish = clock.now();
        let bytes = progress.bytes.load(Ordering::Relaxed);
        all.with_context(|| format!("not done after {} s", clock.limit.as_secs()))
            .flatten()
            .with_context(|| format!("it got {bytes} of {} bytes", pull.content.size()))?;
        let first = Duration::from_nanos(progress.first_byte.load(Ordering::Relaxed)).as_secs_f64();
        let begun = (begun - clock.start).as_secs_f64();
        Ok(Times { begun, first_byte: first, finish })
    };
    host.inside(run).await.with_context(|| format!("{name} failed"))
}

// === impl Pull ===

impl Pull {
    async fn run(&self, client: &Client, progress: &Progress, begun: Instant) -> anyhow::Result<()> {
        if let Some(manifest) = self.content.manifest {
            let path = format!("manifests/{TAG}");
            self.get(client, &path, manifest, &Progress::default(), begun).await?;
        }
        let blobs = stream::iter(&self.content.blobs).map(|blob| async move {
            self.get(client, &format!("blobs/{}", blob.digest), *blob, progress, begun).await
        });
        blobs.buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn get(
        &self,
        client: &Client,
        path: &str,
        blob: Blob,
        progress: &Progress,
        begun: Instant,
    ) -> anyhow::Result<()> {
        let mut url = format!("{}/v2/{REPOSITORY}/{path}", self.base);
        if let Some(registry) = &self.registry {
            url += &format!("?ns={registry}");
        }
        let mut answer = client.get(&url).header(header::ACCEPT, MANIFEST).send().await?;
        if !answer.status().is_success() {
            bail!("{url}: {}: {}", answer.status(), answer.text().await.unwrap_or_default());
        }
        let (mut hasher, mut size) = (Hasher::new(), 0);
        while let Some(bytes) = answer.chunk().await.with_context(|| format!("{url} was cut"))? {
            let now = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let _ = progress.first_byte.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
            progress.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            size += bytes.len() as u64;
            hasher.update(&bytes);
        }
        let got: Digest = hasher.finish();
        ensure!(got == blob.digest, "{url} gave {size} bytes with the digest {got}");
        Ok(())
    }
}
