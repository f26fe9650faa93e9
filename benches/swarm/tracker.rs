//! A tracker of one torrent: tells everybody who asks of everybody who has asked. This program again, on a host of
//! its own, with a hidden argument.
//!
//! Sources: BEP 3 and BEP 23.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::bail;
use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::Uri;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time;

use crate::net::Host;
use crate::options::Child;
use crate::process::Process;
use crate::torrent::{dictionary, text};

const PORT: u16 = 6969;
/// What it says once it listens.
const READY: &str = "tracker: ready";
const START_LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

type Peers = Arc<Mutex<BTreeSet<(Ipv4Addr, u16)>>>;

/// Starts one; gives the URL where it is announced to.
pub(crate) async fn start(host: &Host, logs: &Path) -> anyhow::Result<(Process, String)> {
    let mut process = Process::start("tracker", Child::Tracker.command(host)?, logs)?;
    let begun = Instant::now();
    while !process.said().contains(READY) {
        if process.ended().is_some() || begun.elapsed() > START_LIMIT {
            bail!("the tracker does not start\n{}", process.tail());
        }
        time::sleep(LOOK).await;
    }
    Ok((process, format!("http://{}:{PORT}/announce", host.address)))
}

/// The tracker's own process.
pub(crate) async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
    let router = Router::new().route("/announce", get(announce)).with_state(Peers::default());
    println!("{READY}");
    Ok(axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await?)
}

async fn announce(
    State(peers): State<Peers>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    uri: Uri,
) -> Vec<u8> {
    let mut arguments = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let port = arguments.find(|(name, _)| *name == "port").and_then(|(_, port)| port.parse().ok());
    let mut known = peers.lock().unwrap_or_else(PoisonError::into_inner);
    let (IpAddr::V4(address), Some(port)) = (from.ip(), port) else {
        return dictionary(&[("failure reason", text("no port"))]);
    };
    let asking = (address, port);
    known.insert(asking);
    let others = known.iter().filter(|peer| **peer != asking);
    let compact: Vec<u8> =
        others.flat_map(|(address, port)| [&address.octets()[..], &port.to_be_bytes()].concat()).collect();
    dictionary(&[("interval", b"i1e".to_vec()), ("peers", text(compact))])
}
