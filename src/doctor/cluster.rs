//! Membership: the certificate and the clock that it is read by, and whether the supernode lets this node in.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use common::identity::{Admits, CertificateInfo, Identity, JoinToken};
use common::node::Role;
use common::transport::{self, Transport, TransportError, TransportOptions};

use super::{Finding, Home};
use crate::settings::Outlook;

/// Before this build was made: a clock that shows it is wrong. The start of 2025.
const PAST: Duration = Duration::from_secs(1_735_689_600);

/// The token, each daemon's certificate, and the way to the supernode.
pub(super) async fn all(outlook: &Outlook, homes: &[Home]) -> Vec<Finding> {
    let now = SystemTime::now();
    let mut findings = vec![clock(now)];
    findings.extend(outlook.join_token_file.as_deref().map(|path| match JoinToken::read(path) {
        Ok(token) => Finding::ok("join token", format!("{} holds token {}", path.display(), token.id())),
        Err(error) => Finding::fail(
            "join token",
            error.to_string(),
            "copy it from the supernode's <data-dir>/join-token",
        ),
    }));
    let mut member = None;
    for home in homes {
        match identity(home) {
            Some(Ok(identity)) => {
                findings.push(match identity.certificate() {
                    Some(info) => certificate(&info, now),
                    None => Finding::warn("certificate", "this node has none yet", ENROL),
                });
                // Where there are both, the peer is the one that dials.
                member = Some(identity);
            }
            Some(Err(finding)) => findings.push(finding),
            None => {}
        }
    }
    for supernode in supernodes(outlook, homes) {
        findings.push(reach(&supernode, member.as_ref(), now).await);
    }
    findings
}

const ENROL: &str =
    "start the peer with --join-token-file; the token is in the supernode's <data-dir>/join-token";

pub(super) fn clock(now: SystemTime) -> Finding {
    match now.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) if since >= PAST => Finding::ok("clock", "it shows a plausible time"),
        _ => Finding::fail(
            "clock",
            "it shows a time before this program was made",
            "set the clock; run an NTP client",
        ),
    }
}

/// The identity of a daemon, if it has one. Opening one that is not there would make it.
fn identity(home: &Home) -> Option<Result<Identity, Finding>> {
    let dir = home.identity();
    if !dir.join("node.key").exists() {
        return None;
    }
    Some(Identity::open(&dir).map_err(|error| {
        Finding::fail(
            "identity",
            error.to_string(),
            "run as the daemon's user; a damaged file is to be moved aside",
        )
    }))
}

/// How much of a certificate's life is left, and whether it has begun.
pub(super) fn certificate(info: &CertificateInfo, now: SystemTime) -> Finding {
    const CHECK: &str = "certificate";
    if let Ok(early) = info.not_before.duration_since(now)
        && !early.is_zero()
    {
        let what = format!("it is not valid yet: this clock is {} behind the supernode's", hours(early));
        return Finding::fail(CHECK, what, "set the clocks of both machines; run an NTP client");
    }
    let life = info.not_after.duration_since(info.not_before).unwrap_or_default();
    match info.not_after.duration_since(now) {
        Err(_) => Finding::warn(
            CHECK,
            "it has run out",
            "a peer that starts enrols again; give it --join-token-file",
        ),
        // It is renewed when a third is left.
        Ok(left) if left < life / 4 => {
            let what = format!("it runs out in {} and should have been renewed", hours(left));
            Finding::warn(CHECK, what, "see that the peer runs and has a session with its supernode")
        }
        Ok(left) => Finding::ok(CHECK, format!("it is good for another {}", hours(left))),
    }
}

fn hours(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    if minutes < 60 { format!("{minutes} min") } else { format!("{} h {} min", minutes / 60, minutes % 60) }
}

/// Those that were named, or else the one that runs here.
fn supernodes(outlook: &Outlook, homes: &[Home]) -> Vec<String> {
    if !outlook.supernodes.is_empty() {
        return outlook.supernodes.clone();
    }
    let here = homes.iter().filter_map(|home| home.addresses.as_ref());
    here.filter(|addresses| addresses.proxy.is_none()).map(|addresses| addresses.quic.to_string()).collect()
}

/// Says hello to a supernode, as the member that this node is.
async fn reach(name: &str, member: Option<&Identity>, now: SystemTime) -> Finding {
    const CHECK: &str = "way to the supernode";
    let addresses: Vec<SocketAddr> = match tokio::net::lookup_host(name).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            let what = format!("{name} has no address: {error}");
            return Finding::fail(CHECK, what, "correct --supernode HOST:PORT, or the name service");
        }
    };
    let Some(member) = member.filter(|member| member.is_valid(now)) else {
        let what = format!("{name} has an address; without a valid certificate it cannot be spoken to");
        return Finding::warn(CHECK, what, ENROL);
    };
    let mut last = None;
    for address in addresses {
        match hello(member, address).await {
            Ok(()) => return Finding::ok(CHECK, format!("{name} answers and lets this node in")),
            Err(error) => last = Some(error),
        }
    }
    let what = last.as_ref().map_or_else(|| format!("{name} has no address"), ToString::to_string);
    Finding::fail(CHECK, what, way_out(last.as_ref()))
}

async fn hello(member: &Identity, address: SocketAddr) -> Result<(), TransportError> {
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let transport = Transport::bind(TransportOptions {
        listen: any,
        identity: member.clone(),
        admits: Admits::Members,
        hello: transport::hello(member.node(), Role::Peer),
    })?;
    let answer = transport.dial_supernode(address).await;
    transport.close().await;
    answer.map(drop)
}

pub(super) fn way_out(error: Option<&TransportError>) -> &'static str {
    match error {
        Some(TransportError::Silent { .. }) => {
            "see that the supernode runs, and that UDP to its port passes every firewall on the way, both ways"
        }
        Some(TransportError::Distrusted { .. } | TransportError::TurnedAway { .. }) => {
            "this node is of another cluster, or a clock is wrong: move <data-dir>/identity aside and enrol again"
        }
        _ => "see the supernode's log",
    }
}
