//! What `demo --stay` shows while somebody looks: again and again a new release of the image is there, and the peers pull it,
//! slowly and not all at the same instant, as a fleet does. The release before last leaves their stores, so that a demo that is
//! forgotten fills no disk.

use std::time::Duration;

use common::task::TaskId;
use peer::limit::Rates;
use supernode::daemon::Supernode;
use tokio::task::JoinSet;

use super::origin::{Image, Origin};
use super::{base, pull};
use crate::daemons::Node;

/// A release: small enough that all peers' copies fit into any disk that the demo's first image fits into.
const SIZE: u64 = 96 << 20;
/// What a peer receives at most: a release takes some twenty seconds, time enough to look at it.
const RATE: u64 = 5 << 20;
/// The peers begin within so long.
const SPREAD: Duration = Duration::from_secs(8);
/// Between two releases.
const REST: Duration = Duration::from_secs(6);

/// Goes on until the caller drops it.
pub(super) async fn run(nodes: &[Node], supernode: &Supernode, origin: &Origin) -> anyhow::Result<()> {
    for node in nodes {
        node.peer().engine().limits().set(&Rates { download: Some(RATE), ..Rates::default() });
    }
    // Between rounds the proxies hang up on connections that rest.
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build()?;
    for number in 1.. {
        let old = origin.image();
        tokio::time::sleep(REST).await;
        origin.release(SIZE, number).await?;
        round(&client, nodes, &origin.image()).await?;
        forget(nodes, supernode, old).await?;
    }
    Ok(())
}

async fn round(client: &reqwest::Client, nodes: &[Node], image: &Image) -> anyhow::Result<()> {
    let mut pulls = JoinSet::new();
    for node in nodes {
        let (client, base, image) = (client.clone(), base(node), image.clone());
        let wait = SPREAD.mul_f64(rand::random::<f64>());
        pulls.spawn(async move {
            tokio::time::sleep(wait).await;
            pull(&client, &base, &image, |_| {}).await
        });
    }
    while let Some(pull) = pulls.join_next().await {
        pull??;
    }
    Ok(())
}

/// Takes a release away; the next one is everywhere by now, so nobody uses it.
async fn forget(nodes: &[Node], supernode: &Supernode, image: Image) -> anyhow::Result<()> {
    let engines = nodes.iter().map(|node| node.peer().engine()).chain([supernode.engine()]);
    let engines: Vec<_> = engines.cloned().collect();
    tokio::task::spawn_blocking(move || {
        let tasks: Vec<_> = image.layers.into_iter().chain([image.manifest]).map(TaskId::of_digest).collect();
        for engine in engines {
            for &task in &tasks {
                engine.store().evict(task)?;
            }
        }
        anyhow::Ok(())
    })
    .await?
}
