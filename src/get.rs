//! `longshore get`: one URL into one file. Through the local peer's socket if one runs; else, with `--supernode`,
//! as a temporary member of the swarm; else straight from the origin with ranges side by side. The same engine
//! does the work in all three.
//!
//! # Invariants
//! - The file appears under its name only when it is whole and, where a digest is given, right.
//! - What a failed fetch wrote is removed.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use common::digest::{Digest, Hasher};
use common::identity::{JoinProof, JoinToken};
use common::task::{Credentials, Source};
use common::telemetry::{ByteSource, Metrics};
use common::wire::swarm::Priority;
use futures_util::{Stream, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::Method;
use peer::coordinator::Nobody;
use peer::daemon::{Peer, PeerOptions};
use peer::engine::{Engine, EngineOptions, Request};
use peer::error::FetchError;
use peer::exchange::reveal::Style;
use peer::limit::Rates;
use peer::local_api::FetchRequest;
use peer::origin::{OriginClient, OriginOptions, revised};
use peer::store::{Store, StoreOptions};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use crate::progress::{Screen, bytes};
use crate::{cli, local, shutdown, usage};

/// A temporary member waits so long for its supernode before it asks the origin.
const SESSION_WAIT: Duration = Duration::from_secs(5);

/// What is fetched, where to.
struct Wanted {
    source: Source,
    credentials: Credentials,
    output: PathBuf,
    quiet: bool,
}

/// How it went.
struct Done {
    length: u64,
    way: &'static str,
}

/// A file or folder beside the output, removed when dropped.
struct Draft(PathBuf);

/// Runs the command.
#[expect(clippy::print_stdout, reason = "the command's answer")]
pub async fn run(flags: cli::Get) -> anyhow::Result<()> {
    let wanted = understand(&flags)?;
    let begun = Instant::now();
    let fetching = async {
        if let Some(stream) = local::connect(flags.data_dir.as_deref()).await? {
            through_peer(stream, &wanted).await
        } else if flags.supernode.is_empty() {
            alone(&wanted).await
        } else {
            as_member(&flags, &wanted).await
        }
    };
    let done = tokio::select! {
        done = fetching => done.with_context(|| format!("cannot fetch {}", common::telemetry::redact(&flags.source)))?,
        asked = shutdown::asked() => {
            asked?;
            bail!("interrupted: nothing was kept");
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    let path = wanted.output.display().to_string();
    if flags.json {
        let digest = wanted.source.digest.map(|digest| digest.to_string());
        println!(
            "{}",
            json!({ "path": path, "bytes": done.length, "seconds": seconds, "through": done.way, "digest": digest })
        );
    } else if !flags.quiet {
        let proof = if wanted.source.digest.is_some() { ", digest verified" } else { "" };
        println!("{path}: {} in {seconds:.1} s through {}{proof}", bytes(done.length), done.way);
    }
    Ok(())
}

fn understand(flags: &cli::Get) -> anyhow::Result<Wanted> {
    let url = reqwest::Url::parse(&flags.source).map_err(|error| {
        usage(anyhow!(
            "{:?} is not a URL ({error}): give http://… or https://…",
            common::telemetry::redact(&flags.source)
        ))
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(usage(anyhow!("{}:// cannot be fetched: give http://… or https://…", url.scheme())));
    }
    let digest = flags.digest.as_deref().map(str::parse::<Digest>).transpose().map_err(usage)?;
    let mut credentials = Credentials::none();
    for header in &flags.headers {
        let (name, value) =
            header.split_once(':').ok_or_else(|| usage(anyhow!("a header is given as 'Name: value'")))?;
        credentials.add(name.trim(), value.trim());
    }
    let output = std::path::absolute(&flags.output)?;
    if output.is_dir() || output.file_name().is_none() {
        return Err(usage(anyhow!("{} is a folder: name the file to write", output.display())));
    }
    let folder = output.parent().filter(|folder| folder.is_dir());
    if folder.is_none() {
        bail!("the folder of {} is not there: make it first", output.display());
    }
    if output.exists() && !flags.overwrite {
        bail!("{} is there already: remove it, or give --overwrite", output.display());
    }
    let source = Source { url: flags.source.clone(), digest, tag: flags.tag.clone(), accept: None };
    Ok(Wanted { source, credentials, output, quiet: flags.quiet || flags.json })
}

// --- the three ways ------------------------------------------------------------------------------------------

async fn through_peer(stream: UnixStream, wanted: &Wanted) -> anyhow::Result<Done> {
    let request = FetchRequest {
        url: wanted.source.url.clone(),
        digest: wanted.source.digest.map(|digest| digest.to_string()),
        tag: wanted.source.tag.clone(),
        headers: wanted.credentials.clone(),
    };
    let response = local::ask(stream, Method::POST, "/v1/fetch", serde_json::to_vec(&request)?).await?;
    let length = response.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
    let length: u64 = length.context("the peer did not say how long the content is")?;
    let body = response.into_body().into_data_stream().map(|chunk| {
        chunk.map_err(|_| match wanted.source.digest {
            Some(digest) => anyhow!("the peer cut the transfer: the content is not {digest}, or its source failed; its log says which"),
            None => anyhow!("the peer cut the transfer: its log says why"),
        })
    });
    receive(wanted, length, body).await?;
    Ok(Done { length, way: "the local peer" })
}

async fn as_member(flags: &cli::Get, wanted: &Wanted) -> anyhow::Result<Done> {
    let token = flags.join_token_file.as_deref().map(JoinToken::read).transpose()?;
    let draft = Draft::folder(&wanted.output)?;
    let options = PeerOptions {
        supernodes: flags.supernode.clone(),
        proof: token.map(|token| Arc::new(token) as Arc<dyn JoinProof>),
        quic_listen: (Ipv4Addr::UNSPECIFIED, 0).into(),
        origin: typed_by_the_user(),
        ..PeerOptions::local(draft.0.clone())
    };
    let peer = Peer::start(options).await?;
    let _ = tokio::time::timeout(SESSION_WAIT, peer.connected().wait_for(|connected| *connected)).await;
    let length = keep(peer.engine(), wanted).await;
    let swarm = peer.engine().metrics().received_bytes.of(ByteSource::Origin).get() == 0;
    peer.close().await;
    Ok(Done { length: length?, way: if swarm { "the swarm" } else { "the origin" } })
}

async fn alone(wanted: &Wanted) -> anyhow::Result<Done> {
    let draft = Draft::folder(&wanted.output)?;
    let dir = draft.0.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(&dir, StoreOptions::default()));
    let engine = Engine::start(EngineOptions {
        store: opened.await??,
        transport: None,
        coordinator: Arc::new(Nobody),
        origin: OriginClient::new(typed_by_the_user())?,
        vault: None,
        metrics: Metrics::new(),
        style: Style::Peer,
        sessions: None,
        rates: Rates::default(),
    });
    let length = keep(&engine, wanted).await;
    engine.close().await;
    Ok(Done { length: length?, way: "the origin" })
}

/// The user named the origin: any but the addresses that are never asked.
fn typed_by_the_user() -> OriginOptions {
    OriginOptions { allow: vec!["*".into()], ..OriginOptions::default() }
}

// --- into the file -------------------------------------------------------------------------------------------

/// Fetches with an engine of our own and moves its finished file to the output.
async fn keep(engine: &Engine, wanted: &Wanted) -> anyhow::Result<u64> {
    let source = revised(engine.origin(), wanted.source.clone(), &wanted.credentials).await;
    let source = source.map_err(FetchError::from)?;
    let request = Request { source, credentials: wanted.credentials.clone(), priority: Priority::Pull };
    let handle = engine.open(request).await?;
    let screen = Screen::new(wanted.quiet);
    let mut progress = screen.transfer(&name(&wanted.output), handle.length());
    let (mut changes, mut shown) = (handle.changes(), 0);
    let finished = handle.finished();
    tokio::pin!(finished);
    loop {
        tokio::select! {
            finished = &mut finished => break finished?,
            _ = changes.changed() => {
                let here = (u64::from(handle.held()) * u64::from(handle.geometry().piece_length())).min(handle.length());
                progress.add(here.saturating_sub(shown));
                shown = here.max(shown);
            }
        }
    }
    progress.add(handle.length().saturating_sub(shown));
    progress.finish();
    let path = handle.path().context("the finished file is gone")?;
    std::fs::File::open(&path)?.sync_all().with_context(|| format!("cannot keep {}", path.display()))?;
    std::fs::rename(&path, &wanted.output)
        .with_context(|| format!("cannot write {}", wanted.output.display()))?;
    Ok(handle.length())
}

/// Writes a stream to a draft beside the output, checks it, and gives it its name.
async fn receive(
    wanted: &Wanted,
    length: u64,
    mut body: impl Stream<Item = anyhow::Result<Bytes>> + Unpin,
) -> anyhow::Result<()> {
    let draft = Draft(beside(&wanted.output));
    let failed = || format!("cannot write {}", draft.0.display());
    let mut file = tokio::fs::File::create_new(&draft.0).await.with_context(failed)?;
    let screen = Screen::new(wanted.quiet);
    let mut progress = screen.transfer(&name(&wanted.output), length);
    let (mut hasher, mut received) = (Hasher::new(), 0);
    while let Some(chunk) = body.next().await {
        let chunk = chunk?;
        if wanted.source.digest.is_some() {
            hasher.update(&chunk);
        }
        received += chunk.len() as u64;
        file.write_all(&chunk).await.with_context(failed)?;
        progress.add(chunk.len() as u64);
    }
    if received != length {
        bail!("the transfer ended after {received} of {length} bytes");
    }
    if let Some(digest) = wanted.source.digest
        && hasher.finish() != digest
    {
        bail!("the content is not {digest}: nothing was kept");
    }
    file.sync_all().await.with_context(failed)?;
    progress.finish();
    std::fs::rename(&draft.0, &wanted.output)
        .with_context(|| format!("cannot write {}", wanted.output.display()))
}

// === impl Draft ===

impl Draft {
    /// A folder on the output's file system, so that a finished file is only renamed.
    fn folder(output: &Path) -> anyhow::Result<Self> {
        let path = beside(output);
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ =
            if self.0.is_dir() { std::fs::remove_dir_all(&self.0) } else { std::fs::remove_file(&self.0) };
    }
}

fn beside(output: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(output.file_name().unwrap_or_default());
    // Random: containers share process ids, and whoever can guess a name in a shared folder can be there first.
    name.push(format!(".longshore-{:016x}", rand::random::<u64>()));
    output.with_file_name(name)
}

fn name(output: &Path) -> String {
    output.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
