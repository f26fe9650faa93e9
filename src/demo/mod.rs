//! `longshore demo`: the main job with nothing else installed. A built-in origin holds a generated image; a
//! supernode and several peers run in this process, each with its own folder and ports on loopback; every peer's
//! proxy is asked for the whole image at the same moment; then a table says who got what from whom.

mod origin;
mod rounds;
mod table;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use common::config::ByteSize;
use common::digest::{Digest, Hasher};
use common::identity::JoinToken;
use common::node::Labels;
use futures_util::StreamExt as _;
use peer::daemon::PeerOptions;
use peer::origin::OriginOptions;
use proxy::ProxyOptions;
use supernode::api::guard::API_TOKEN as TOKEN;
use supernode::daemon::{Supernode, SupernodeOptions, WebOptions};
use tokio::task::JoinSet;

use crate::daemons::Node;
use crate::progress::{Screen, bytes};
use crate::settings::PeerPlan;
use crate::{cli, shutdown, usage};
use origin::{Image, Origin};

/// A generated image larger than this would fill somebody's disk: it is kept once a peer.
const MAX_SIZE: u64 = 8 << 30;

/// Where its peers stand while somebody looks at them.
const ZONES: [&str; 3] = ["east", "north", "west"];

/// What a peer's client saw.
struct Pull {
    peer: usize,
    took: Duration,
    first_byte: Duration,
}

/// A temporary folder, removed when dropped.
struct Folder(PathBuf);

/// Runs the command.
pub async fn run(flags: cli::Demo) -> anyhow::Result<()> {
    let ByteSize(size) = flags.size.parse().map_err(usage)?;
    if !(1..=MAX_SIZE).contains(&size) {
        return Err(usage(anyhow!("--size {} is out of range: 1 byte to {}", flags.size, bytes(MAX_SIZE))));
    }
    tokio::select! {
        done = show(&flags, size) => done,
        asked = shutdown::asked() => {
            asked?;
            bail!("interrupted")
        }
    }
}

#[expect(clippy::print_stdout, reason = "the demo is for people")]
async fn show(flags: &cli::Demo, size: u64) -> anyhow::Result<()> {
    let folder = Folder::new()?;
    let origin = Origin::start(size).await?;
    let image = origin.image();
    println!(
        "an origin at http://{} with an image of {} in {} layers; a supernode; {} peers, all pulling at once",
        origin.address(),
        bytes(image.bytes),
        image.layers.len(),
        flags.peers
    );
    let supernode = start_supernode(&folder, origin.address()).await?;
    let mut nodes = Vec::new();
    for number in 1..=usize::from(flags.peers) {
        nodes.push(start_peer(&folder, number, flags.stay, (&supernode, origin.address())).await?);
    }
    for node in &nodes {
        let mut connected = node.peer().connected();
        tokio::time::timeout(Duration::from_secs(20), connected.wait_for(|connected| *connected))
            .await
            .context("a peer got no session with the supernode")??;
    }
    let begun = Instant::now();
    let pulls = pull_everywhere(&nodes, &image).await?;
    let took = begun.elapsed();
    table::print(&nodes, &supernode, &pulls, image.bytes);
    let copies = origin.sent() as f64 / image.bytes as f64;
    println!(
        "\norigin: {} sent, {copies:.2} × the image; {} pulls ended in {:.1} s; every digest verified",
        bytes(origin.sent()),
        pulls.len(),
        took.as_secs_f64()
    );
    if flags.stay {
        println!("\nthe proxies stay until Ctrl-C:");
        for node in &nodes {
            println!("  http://{}  (metrics: http://{}/metrics)", node.proxy(), show_http(node));
        }
        println!(
            "\nthe dashboard, with new releases of the image to watch:\n  {}",
            dashboard(&folder, &supernode)?
        );
        tokio::select! {
            asked = shutdown::asked() => asked?,
            ended = rounds::run(&nodes, &supernode, &origin) => ended?,
        }
    }
    for node in nodes {
        node.close().await;
    }
    supernode.close().await;
    Ok(())
}

/// Where the dashboard is. What follows the `#` is the token: it stays in the browser.
fn dashboard(folder: &Folder, supernode: &Supernode) -> anyhow::Result<String> {
    let token = std::fs::read_to_string(folder.0.join("supernode").join(TOKEN))?;
    Ok(format!("http://{}/#token={}", supernode.http(), token.trim()))
}

fn show_http(node: &Node) -> String {
    node.peer().http().map(|address| address.to_string()).unwrap_or_default()
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// The demo's registry is reached by the name that images go by.
fn origins(origin: SocketAddr) -> OriginOptions {
    let registries = [("demo.example".to_owned(), format!("http://{origin}"))].into();
    OriginOptions { registries, ..OriginOptions::default() }
}

async fn start_supernode(folder: &Folder, origin: SocketAddr) -> anyhow::Result<Supernode> {
    let data = folder.make("supernode")?;
    let token = data.join(TOKEN);
    // With a token the dashboard shows the images' names.
    let secret: [u8; 16] = rand::random();
    common::identity::write_secret(&token, Digest::of(&secret).hex().as_bytes())?;
    let web = WebOptions { token_file: Some(token), certificate: None };
    let options = SupernodeOptions { origin: origins(origin), web, ..SupernodeOptions::local(data) };
    Ok(Supernode::start(options).await?)
}

async fn start_peer(
    folder: &Folder,
    number: usize,
    zoned: bool,
    (supernode, origin): (&Supernode, SocketAddr),
) -> anyhow::Result<Node> {
    let host = format!("peer-{number}");
    let zone = if zoned { ZONES[number % ZONES.len()] } else { "" };
    let options = PeerOptions {
        supernodes: vec![supernode.quic().to_string()],
        proof: Some(Arc::new(JoinToken::read(supernode.token())?)),
        http_listen: Some(loopback()),
        labels: Labels { host: host.clone(), zone: zone.to_owned(), ..Labels::default() },
        origin: origins(origin),
        ..PeerOptions::local(folder.make(&host)?)
    };
    let default_registry = "demo.example".to_owned();
    let proxy = ProxyOptions { default_registry, ..ProxyOptions::default() };
    Node::start(PeerPlan { options, proxy_listen: loopback(), proxy }).await
}

async fn pull_everywhere(nodes: &[Node], image: &Image) -> anyhow::Result<Vec<Pull>> {
    let screen = Screen::new(false);
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut pulls = JoinSet::new();
    for (at, node) in nodes.iter().enumerate() {
        let (client, image, base) = (client.clone(), image.clone(), base(node));
        let mut progress = screen.transfer(&format!("peer-{}", at + 1), image.bytes);
        pulls.spawn(async move {
            let (begun, mut first_byte) = (Instant::now(), None);
            pull(&client, &base, &image, |count| {
                first_byte.get_or_insert_with(|| begun.elapsed());
                progress.add(count);
            })
            .await?;
            progress.finish();
            let took = begun.elapsed();
            Ok::<_, anyhow::Error>(Pull { peer: at + 1, took, first_byte: first_byte.unwrap_or(took) })
        });
    }
    let mut done = Vec::new();
    while let Some(pull) = pulls.join_next().await {
        done.push(pull??);
    }
    done.sort_by_key(|pull| pull.peer);
    Ok(done)
}

/// Where a node's proxy has the image.
fn base(node: &Node) -> String {
    format!("http://{}/v2/{}", node.proxy(), origin::REPOSITORY)
}

/// Pulls an image as a runtime would, one layer after the other.
async fn pull(
    client: &reqwest::Client,
    base: &str,
    image: &Image,
    mut heard: impl FnMut(u64),
) -> anyhow::Result<()> {
    fetch(client, &format!("{base}/manifests/{}", origin::TAG), image.manifest, |_| {}).await?;
    for layer in &image.layers {
        fetch(client, &format!("{base}/blobs/{layer}"), *layer, &mut heard).await?;
    }
    Ok(())
}

/// Reads one blob as a runtime would, and checks its digest.
async fn fetch(
    client: &reqwest::Client,
    url: &str,
    digest: Digest,
    mut heard: impl FnMut(u64),
) -> anyhow::Result<()> {
    let response = client.get(url).send().await?.error_for_status()?;
    let (mut stream, mut hasher) = (response.bytes_stream(), Hasher::new());
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        hasher.update(&chunk);
        heard(chunk.len() as u64);
    }
    if hasher.finish() != digest {
        bail!("{url} came with wrong bytes");
    }
    Ok(())
}

// === impl Folder ===

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let name = format!("longshore-demo-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let path = std::env::temp_dir().join(name);
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    fn make(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
