//! Membership: the certificate and the clock that it is read by, and whether the supernode lets this node in.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::identity::{Admits, CertificateInfo, Identity, JoinProof};
use common::node::Role;
use common::transport::{self, Transport, TransportError, TransportOptions};

use super::{Finding, Home, network};
use crate::joining::Joining;
use crate::settings::Outlook;

/// Before this build was made: a clock that shows it is wrong. The start of 2025.
const PAST: Duration = Duration::from_secs(1_735_689_600);

/// The token, each daemon's certificate, and the way to the supernode.
pub(super) async fn all(outlook: &Outlook, homes: &[Home]) -> Vec<Finding> {
    let now = SystemTime::now();
    let mut findings = vec![clock(now)];
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
    let proof = outlook.joining.proof();
    findings.extend(joining(&outlook.joining, &proof, member.as_ref()));
    let proof = proof.ok().flatten();
    for supernode in supernodes(outlook, homes) {
        findings.extend(reach(&supernode, member.as_ref(), proof.as_deref(), now).await);
    }
    findings
}

/// Whether what this node joins with can be read, and is of the cluster that it is in.
fn joining(
    files: &Joining,
    proof: &anyhow::Result<Option<Arc<dyn JoinProof>>>,
    member: Option<&Identity>,
) -> Option<Finding> {
    let check = if files.kubernetes_token.is_some() { "Kubernetes token" } else { "join token" };
    let pod = "mount a projected token with the supernode's audience, and ca.pem of its cluster folder";
    let copy = "copy it from the supernode's <data-dir>/join-token";
    let proof = match proof {
        Ok(proof) => proof.as_ref()?,
        Err(error) => {
            let mend = if files.kubernetes_token.is_some() { pod } else { copy };
            return Some(Finding::fail(check, error.to_string(), mend));
        }
    };
    let file = files.kubernetes_token.as_deref().or(files.join_token.as_deref());
    let file = file.unwrap_or(Path::new("")).display();
    let member = member.filter(|member| member.certificate().is_some());
    Some(match member {
        Some(member) if !member.is_of_cluster(proof.cluster()) => {
            let name = proof.name();
            let what = format!("the {name} in {file} is for another cluster than this node's certificate");
            let mend = if files.kubernetes_token.is_some() { pod } else { copy };
            let change = "to change clusters, move <data-dir>/identity aside and enrol again";
            Finding::fail(check, what, format!("{mend}; {change}"))
        }
        _ => Finding::ok(check, format!("{file} holds one")),
    })
}

const ENROL: &str = "start the peer with --join-token-file; the token is in the supernode's <data-dir>/join-token. In a pod, \
     --kubernetes-token-file does, too";

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
            "a peer that starts enrols again; give it --join-token-file, or in a pod --kubernetes-token-file",
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

/// Says hello to a supernode, as the member that this node is; before it is one, with the token's eyes.
async fn reach(
    name: &str,
    member: Option<&Identity>,
    proof: Option<&dyn JoinProof>,
    now: SystemTime,
) -> Vec<Finding> {
    const CHECK: &str = "way to the supernode";
    let addresses = match network::resolve(name).await {
        Ok(addresses) => addresses,
        Err(why) => {
            let what = format!("{name} has no address: {why}");
            let mend = "correct --supernode HOST:PORT, or the name service (/etc/resolv.conf)";
            return vec![Finding::fail(CHECK, what, mend)];
        }
    };
    let member = member.filter(|member| member.is_valid(now));
    let mut last = None;
    for &address in &addresses {
        let answer = match (member, proof) {
            (Some(member), _) => hello(member, address).await.map(|()| "answers and lets this node in"),
            (None, Some(proof)) => transport::knock(address, proof)
                .await
                .map(|()| "answers, and is of the cluster that the token is for"),
            (None, None) => {
                let what =
                    format!("{name} has an address; without a valid certificate it cannot be spoken to");
                return vec![Finding::warn(CHECK, what, ENROL)];
            }
        };
        match answer {
            Ok(how) => return vec![Finding::ok(CHECK, format!("{name} {how}")), network::mtu(name, address)],
            Err(error) => last = Some((address, error)),
        }
    }
    let Some((address, error)) = last else {
        return vec![Finding::fail(CHECK, format!("{name} has no address"), "correct --supernode HOST:PORT")];
    };
    if matches!(error, TransportError::Silent { .. })
        && let Some(port) = network::answers_tcp(address).await
    {
        let what = format!(
            "{address} is silent over UDP, and its TCP port {port} answers: UDP is blocked on the way"
        );
        let mend = format!(
            "let UDP to and from port {} pass every firewall and security group between the two; see that the supernode's \
             --quic-listen has that port",
            address.port()
        );
        return vec![Finding::fail(CHECK, what, mend)];
    }
    vec![Finding::fail(CHECK, error.to_string(), way_out(Some(&error)))]
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
        Some(TransportError::OtherCluster { .. }) => {
            "copy the join token of that supernode, from its <data-dir>/join-token; with a Kubernetes token, its ca.pem"
        }
        Some(TransportError::TurnedAway { reason, .. }) if reason.contains("was revoked") => {
            "ask who runs the cluster why; `longshore node allow NODE-ID` on the supernode's machine lets it in again"
        }
        Some(TransportError::Distrusted { .. } | TransportError::TurnedAway { .. }) => {
            "this node is of another cluster, or a clock is wrong: move <data-dir>/identity aside and enrol again"
        }
        _ => "see the supernode's log",
    }
}
