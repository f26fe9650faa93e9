//! The network between this machine and the others: whether names have addresses, whether packets fit, and whether it is
//! only UDP that does not come through.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::net::sockopt::{ip_mtu, ipv6_mtu};

use super::Finding;
use crate::settings::Outlook;

/// A name service that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_secs(5);
/// QUIC's smallest packet, 1200 bytes, with the headers of UDP and of the longer IP.
const SMALLEST: u32 = 1200 + 8 + 40;
/// Below this, packets are small for what each one costs. Usual overlays and VPNs leave more.
const COMFORTABLE: u32 = 1350;

/// The addresses of `HOST:PORT`.
pub(super) async fn resolve(name: &str) -> Result<Vec<SocketAddr>, String> {
    match tokio::time::timeout(PATIENCE, tokio::net::lookup_host(name)).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the name service does not answer".into()),
    }
}

/// The port at which a supernode's machine answers over TCP: that of its HTTP is the one after that of QUIC.
pub(super) async fn answers_tcp(quic: SocketAddr) -> Option<u16> {
    let port = quic.port().checked_add(1)?;
    listens((quic.ip(), port).into()).await.then_some(port)
}

/// Whether somebody takes a connection there.
pub(super) async fn listens(address: SocketAddr) -> bool {
    let dial = tokio::net::TcpStream::connect(address);
    matches!(tokio::time::timeout(PATIENCE, dial).await, Ok(Ok(_)))
}

/// How large a packet to an address may be, as the kernel knows it: the link's size, or a smaller one that it was told of.
pub(super) fn mtu(name: &str, address: SocketAddr) -> Finding {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let measured = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(address)?;
        Ok(if address.is_ipv4() { ip_mtu(&socket)? } else { ipv6_mtu(&socket)? })
    });
    match measured {
        Ok(mtu) => judge_mtu(name, mtu),
        Err(error) => Finding::warn(
            "packet size",
            format!("it is not known for {name}: {error}"),
            "see `ip route get` for its address",
        ),
    }
}

pub(super) fn judge_mtu(name: &str, mtu: u32) -> Finding {
    const CHECK: &str = "packet size";
    let what = format!("packets to {name} may have {mtu} bytes");
    let mend = "raise the MTU of the link, overlay or VPN that `ip route get` shows for it";
    match mtu {
        COMFORTABLE.. => Finding::ok(CHECK, what),
        SMALLEST.. => Finding::warn(CHECK, format!("{what}: transfers cost more than they need to"), mend),
        _ => Finding::fail(CHECK, format!("{what}: QUIC needs {SMALLEST}"), mend),
    }
}

/// Whether the registries that are pulled from have addresses.
pub(super) async fn registries(outlook: &Outlook, pulled: Vec<String>) -> Finding {
    const CHECK: &str = "names of registries";
    let default = outlook.default_registry.clone().unwrap_or_else(|| "docker.io".into());
    let hosts: BTreeSet<String> =
        pulled.into_iter().chain([default]).filter_map(|name| host(outlook, &name)).collect();
    let mut lost = Vec::new();
    for host in &hosts {
        if let Err(why) = resolve(host).await {
            lost.push(format!("{host} ({why})"));
        }
    }
    let all = hosts.into_iter().collect::<Vec<_>>().join(", ");
    if lost.is_empty() {
        return Finding::ok(CHECK, format!("{all} can be resolved"));
    }
    let mend = "correct the name service (/etc/resolv.conf), or say where they are with --registry NAME=URL";
    Finding::warn(CHECK, format!("no address for {}", lost.join(", ")), mend)
}

/// `HOST:PORT` at which a registry is reached.
pub(super) fn host(outlook: &Outlook, registry: &str) -> Option<String> {
    let url = match (outlook.registries.get(registry), registry) {
        (Some(url), _) => url.clone(),
        (None, "docker.io") => "https://registry-1.docker.io".into(),
        // For all that are not named.
        (None, "_default") => return None,
        (None, name) => format!("https://{name}"),
    };
    let url: reqwest::Url = url.parse().ok()?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}
