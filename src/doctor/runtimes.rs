//! The way from the container runtimes of this machine to the proxy. What is wrong with a runtime's settings is found in
//! [`proxy::setup`]; here it becomes a finding, and the ports that they name are tried.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use proxy::setup::{self, Look, Proxy, Runtime, Tree};

use super::{Finding, Home, network};

/// Where the peer that runs here has its proxy, as a runtime on this machine reaches it.
pub(super) fn proxy_here(homes: &[Home]) -> Option<Proxy> {
    let mut at = homes.iter().find_map(|home| home.addresses.as_ref()?.proxy)?;
    if at.ip().is_unspecified() {
        at.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{at}").parse().ok()
}

/// Looks at every runtime that is here; gives the registries that they pull through the proxy, too.
pub(super) async fn all(root: &Path, proxy: &Proxy, before_start: bool) -> (Vec<Finding>, Vec<String>) {
    let tree = match Tree::open(root) {
        Ok(tree) => tree,
        Err(error) => {
            return (vec![Finding::fail("runtimes", error.to_string(), "correct --root")], vec![]);
        }
    };
    let (mut findings, mut pulled) = (Vec::new(), Vec::new());
    for runtime in Runtime::ALL.into_iter().filter(|runtime| runtime.is_here(&tree)) {
        match setup::inspect(&tree, runtime, proxy) {
            // It pulls nothing by itself, and nobody pointed it at the proxy.
            Ok(look) if look.idle && look.registries.is_empty() => {}
            Ok(look) => {
                findings.extend(judge(runtime, proxy, &look, before_start).await);
                pulled.extend(look.registries);
            }
            Err(error) => {
                findings.push(Finding::fail(runtime.name(), error.to_string(), "correct it, or restore it"));
            }
        }
    }
    (findings, pulled)
}

async fn judge(runtime: Runtime, proxy: &Proxy, look: &Look, before_start: bool) -> Vec<Finding> {
    let check = runtime.name();
    let finding = |flaw: &setup::Flaw| {
        let level = if flaw.fatal { Finding::fail } else { Finding::warn };
        level(check, flaw.what.clone(), flaw.mend.clone())
    };
    let mut findings: Vec<Finding> = look.flaws.iter().map(finding).collect();
    for mirror in &look.mirrors {
        let awaited = before_start && mirror == proxy.authority();
        if awaited || somebody_listens(mirror).await {
            continue;
        }
        let what = format!("its settings name {mirror}, and nobody listens there");
        findings.push(if mirror == proxy.authority() {
            let mend = format!(
                "start the peer (longshore peer, with --proxy-listen {mirror}), or longshore setup {check} --undo"
            );
            Finding::fail(check, what, mend)
        } else {
            Finding::warn(check, what, "start that mirror, or take it out of the settings")
        });
    }
    if findings.is_empty() {
        let what = format!("pulls of {} go to {proxy}", look.registries.join(", "));
        findings.push(Finding::ok(check, what));
    }
    findings
}

async fn somebody_listens(mirror: &str) -> bool {
    let addresses = network::resolve(mirror).await.unwrap_or_default();
    for address in addresses.into_iter().collect::<Vec<SocketAddr>>() {
        if network::listens(address).await {
            return true;
        }
    }
    false
}
