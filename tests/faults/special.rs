//! Two rows of their own: everything restarted in turn under continuous pulls, and the supernode lost for good in the
//! middle of a pull by twelve nodes, beside the same pull undisturbed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time;

use crate::client::{End, Pull, Pulled};
use crate::cluster::{Cluster, PEERS, SEED};
use crate::lab::{Lab, NODES};
use crate::table::{Row, Verdict};
use crate::trial::{Clients, PULL_LIMIT};

pub(crate) const ROLLING: &str = "rolling restart";
pub(crate) const UNDISTURBED: &str = "12 nodes, undisturbed";
pub(crate) const LOST: &str = "12 nodes, supernode lost";

/// Peers that are restarted in turn.
const ROLLED: usize = 6;
/// Per cent of the bytes that are there when the supernode goes.
const LOSS: u8 = 40;
const LOOK: Duration = Duration::from_millis(10);

/// Restarts every daemon of ours with SIGTERM, one after the other, while every node pulls one image after the other.
pub(crate) async fn rolling(lab: &Lab) -> Row {
    let (mut pulls, mut copies, mut logs) = (Vec::new(), None, None);
    let rolled = async {
        let mut cluster = Cluster::start(lab, ROLLED).await?;
        let rolled = roll(lab, &mut cluster, &mut pulls).await;
        let wrong: Vec<String> =
            pulls.iter().filter(|pulled| pulled.end != End::Right).map(|p| format!("{p:?}")).collect();
        if rolled.is_err() || !wrong.is_empty() {
            logs = lab.keep(cluster.logs(), ROLLING).ok();
        }
        rolled?;
        ensure!(wrong.is_empty(), "{}", wrong.join("\n  "));
        copies = Some(cluster.copies(&lab.stream[0]).await);
        cluster.stop().await?;
        let false_proofs = cluster.false_proofs()?;
        ensure!(false_proofs.is_empty(), "stores call proven what is not: {false_proofs:?}");
        anyhow::Ok(())
    };
    let verdict = match rolled.await {
        Ok(()) => Verdict::Held,
        Err(error) => Verdict::Failed { complaints: vec![format!("{error:#}")], logs },
    };
    let mut row = Row::plain(ROLLING, verdict).measure(&pulls);
    row.copies = copies;
    row.note = format!("{} pulls while all {} were restarted", pulls.len(), ROLLED + 1);
    row
}

async fn roll(lab: &Lab, cluster: &mut Cluster, pulls: &mut Vec<Pulled>) -> anyhow::Result<()> {
    let (over, address) = (Arc::new(AtomicBool::new(false)), cluster.address());
    let mut clients = JoinSet::new();
    for peer in &cluster.nodes[PEERS..] {
        let (host, over, address, stream) =
            (peer.host.clone(), over.clone(), address.clone(), lab.stream.clone());
        clients.spawn(async move {
            let mut done = Vec::new();
            for image in stream.iter().cycle() {
                done.push(Pull::new(image, &address, PULL_LIMIT).on(host.clone()).await);
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
            done
        });
    }
    let rolled = restart_all(cluster).await;
    over.store(true, Ordering::Relaxed);
    while let Some(done) = clients.join_next().await {
        pulls.extend(done?);
    }
    rolled
}

async fn restart_all(cluster: &mut Cluster) -> anyhow::Result<()> {
    for node in &mut cluster.nodes[SEED..] {
        node.process.signal(Signal::TERM);
        node.process.end().await?;
        node.start()?;
        if node.host.name.starts_with("node") {
            node.ready().await?;
        }
    }
    Ok(())
}

/// Twelve nodes pull 64 MB twice, each time from cold: once in peace, once with the supernode killed on the way.
pub(crate) async fn supernode_lost(lab: &Lab) -> [Row; 2] {
    let undisturbed = twelve(lab, false).await;
    let mut lost = twelve(lab, true).await;
    let ratio = lost.slowest.as_secs_f64() / undisturbed.slowest.as_secs_f64().max(f64::MIN_POSITIVE);
    lost.note = format!("{ratio:.2} times the undisturbed");
    [undisturbed, lost]
}

async fn twelve(lab: &Lab, disturbed: bool) -> Row {
    let name = if disturbed { LOST } else { UNDISTURBED };
    let (mut pulls, mut copies, mut logs) = (Vec::new(), None, None);
    let pulled = async {
        let mut cluster = Cluster::start(lab, NODES).await?;
        let mut clients = Clients::start(&cluster, &lab.large);
        if disturbed {
            while clients.percent() < LOSS && !clients.over() {
                time::sleep(LOOK).await;
            }
            ensure!(!clients.over(), "the pulls were over before the supernode was killed");
            cluster.nodes[SEED].process.signal(Signal::KILL);
        }
        clients.finish().await;
        pulls = clients.done;
        copies = Some(cluster.copies(&lab.large).await);
        let wrong: Vec<String> =
            pulls.iter().filter(|pulled| pulled.end != End::Right).map(|p| format!("{p:?}")).collect();
        if !wrong.is_empty() {
            logs = lab.keep(cluster.logs(), name).ok();
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n  "));
        anyhow::Ok(())
    };
    let verdict = match pulled.await {
        Ok(()) => Verdict::Held,
        Err(error) => Verdict::Failed { complaints: vec![format!("{error:#}")], logs },
    };
    let mut row = Row::plain(name, verdict).measure(&pulls);
    row.copies = copies;
    row
}
