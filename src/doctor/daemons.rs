//! The daemons of this machine: whether they run and answer, and whether images can be pulled through the proxy.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use reqwest::{Client, StatusCode};

use super::{Finding, Home};

/// They are on this machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// A reason is a line.
const MAX_REASON: usize = 300;

/// All daemons that published their ports.
pub(super) async fn all(dir: &Path, homes: &[Home]) -> Vec<Finding> {
    let client = match Client::builder().no_proxy().timeout(PATIENCE).build() {
        Ok(client) => client,
        Err(error) => {
            return vec![Finding::fail("daemon", error.to_string(), "see whether ports can be opened")];
        }
    };
    let mut findings = Vec::new();
    for addresses in homes.iter().filter_map(|home| home.addresses.as_ref()) {
        let check = if addresses.proxy.is_some() { "peer" } else { "supernode" };
        findings.push(health(&client, check, addresses.http, addresses.pid).await);
        if let Some(proxy) = addresses.proxy {
            findings.push(registry(&client, proxy).await);
        }
    }
    if findings.is_empty() {
        let what = format!("none has its ports in {}", dir.display());
        findings.push(Finding::warn("daemon", what, "start one, or name its directory with --data-dir"));
    }
    findings
}

async fn health(client: &Client, check: &'static str, http: SocketAddr, pid: u32) -> Finding {
    if let Err(why) = ask(client, http, "/healthz").await {
        let mend = if Path::new(&format!("/proc/{pid}")).exists() {
            format!("process {pid} is there: see its log, and restart it if it hangs")
        } else {
            format!("process {pid} is gone without a goodbye: see its log, and start it again")
        };
        return Finding::fail(check, format!("its HTTP port {http} does not answer: {why}"), mend);
    }
    match ask(client, http, "/readyz").await {
        Ok(()) => Finding::ok(check, format!("process {pid} is healthy and ready")),
        Err(why) => {
            let mend = "pulls go on, from the origin; see the checks of the supernode, and the daemon's log";
            Finding::warn(check, format!("process {pid} is not ready: {why}"), mend)
        }
    }
}

async fn registry(client: &Client, proxy: SocketAddr) -> Finding {
    const CHECK: &str = "proxy";
    match ask(client, proxy, "/v2/").await {
        Ok(()) => Finding::ok(CHECK, format!("http://{proxy} answers like a registry")),
        // The question is passed on to the default registry: it wants to know who asks.
        Err(No::Answered(StatusCode::UNAUTHORIZED, _)) => {
            Finding::ok(CHECK, format!("http://{proxy} answers like a registry that asks for a login"))
        }
        Err(No::Answered(_, why)) => {
            let what = format!("http://{proxy} answers, but the default registry does not: {why}");
            Finding::warn(CHECK, what, "see --default-registry, --registry and the way out of this network")
        }
        Err(No::Silent(why)) => {
            let mend = "point the container runtime elsewhere until the peer is restarted; its log says more";
            Finding::fail(CHECK, format!("http://{proxy} does not answer: {why}"), mend)
        }
    }
}

/// Why a question was not answered well.
enum No {
    Silent(String),
    Answered(StatusCode, String),
}

impl std::fmt::Display for No {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silent(why) | Self::Answered(_, why) => f.write_str(why),
        }
    }
}

/// A GET that must succeed.
async fn ask(client: &Client, address: SocketAddr, path: &str) -> Result<(), No> {
    let url = format!("http://{}{path}", dialled(address));
    let mut answer = client.get(url).send().await.map_err(|error| No::Silent(reason(&error)))?;
    if answer.status().is_success() {
        return Ok(());
    }
    let status = answer.status();
    let said = answer.chunk().await.ok().flatten().unwrap_or_default();
    Err(No::Answered(status, in_words(status, &said)))
}

/// Where a daemon that listens everywhere is found from here.
fn dialled(mut address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// The innermost cause: what is around it repeats the URL.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What was answered, on one line: a registry's error says its message in JSON, other answers are text.
pub(super) fn in_words(status: StatusCode, said: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(said).ok();
    let message = json.as_ref().and_then(|json| json.pointer("/errors/0/message")?.as_str());
    let text = message.map_or_else(|| String::from_utf8_lossy(said), Into::into);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().take(MAX_REASON).collect();
    if line.is_empty() { format!("answered {status}") } else { format!("{line} ({})", status.as_u16()) }
}
