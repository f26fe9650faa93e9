//! In which zones nodes are, by Kubernetes: from 1.35 on a pod carries its node's label `topology.kubernetes.io/zone`, and a peer says
//! it itself; before, a supernode that may read nodes fills it in, for the node that has the name of the peer's host. Given to the
//! [`sessions`](crate::sessions).
//!
//! # Invariants
//! - What a peer says itself counts.
//! - No session waits long for the API: where that is away, zones are unknown.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use common::node::Labels;
use tokio::sync::watch;
use tokio::time::timeout;

/// A session waits so long for the first list of nodes.
const PATIENCE: Duration = Duration::from_secs(3);

/// The zones of nodes. Cheap to clone; the default knows none.
#[derive(Clone, Default)]
pub struct Zones {
    /// By the nodes' names.
    known: Arc<RwLock<HashMap<String, String>>>,
    /// Whether the first list is here, or known not to come for now; none: nobody looks.
    listed: Option<watch::Receiver<bool>>,
}

// === impl Zones ===

impl Zones {
    /// Labels with the zone of their host, if they have none and it is known.
    pub async fn complete(&self, mut labels: Labels) -> Labels {
        if !labels.zone.is_empty() || labels.host.is_empty() {
            return labels;
        }
        if let Some(mut listed) = self.listed.clone() {
            let _ = timeout(PATIENCE, listed.wait_for(|listed| *listed)).await;
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            labels.zone = known.get(&labels.host).cloned().unwrap_or_default();
        }
        labels
    }
}

#[cfg(feature = "kubernetes")]
mod watching {
    use std::collections::HashMap;
    use std::pin::pin;
    use std::sync::PoisonError;
    use std::time::Duration;

    use futures_util::StreamExt as _;
    use kube::api::Api;
    use kube::core::PartialObjectMeta;
    use kube::runtime::{WatchStreamExt as _, watcher};
    use kube::{Client, ResourceExt as _};
    use tokio::sync::watch;

    use super::Zones;
    use crate::kubernetes::Access;
    use crate::kubernetes::access::AccessError;

    /// The label, as Kubernetes's well-known labels have it.
    const ZONE: &str = "topology.kubernetes.io/zone";
    /// Objects of one answer.
    const PAGE: u32 = 500;
    /// Longer ones are no labels' values.
    const LONGEST: usize = 63;
    /// Far above the largest clusters: Kubernetes is made for 5,000 nodes.
    const MOST: usize = 100_000;
    /// Between two tries to read the API's files.
    const AGAIN: Duration = Duration::from_secs(10);
    /// After so many failures in a row the files are read anew: the CA may have changed.
    const FAILURES: u32 = 8;

    /// What keeps zones up to date.
    struct Watch {
        access: Access,
        zones: Zones,
        listed: watch::Sender<bool>,
        /// While a list comes in: what has come so far.
        listing: HashMap<String, String>,
        /// What was logged last.
        trouble: String,
    }

    /// Of a node only what is above its spec: the whole of it, as a type, would be megabytes of program.
    type Node = PartialObjectMeta<k8s_openapi::api::core::v1::Node>;

    impl Zones {
        /// Zones, and what keeps them up to date for as long as it runs. Blocking.
        ///
        /// # Errors
        /// When what is needed to ask cannot be read.
        pub fn open(access: Access) -> Result<(Self, impl Future<Output = ()> + Send), AccessError> {
            access.check()?;
            let (listed, receiver) = watch::channel(false);
            let zones = Self { listed: Some(receiver), ..Self::default() };
            let (listing, trouble) = (HashMap::new(), String::new());
            let mut watch = Watch { access, zones: zones.clone(), listed, listing, trouble };
            Ok((zones, async move { watch.run().await }))
        }
    }

    // === impl Watch ===

    impl Watch {
        async fn run(&mut self) {
            loop {
                match self.access.client().await {
                    Ok(client) => self.follow(client).await,
                    Err(error) => self.fail(&error.to_string()),
                }
                tokio::time::sleep(AGAIN).await;
            }
        }

        /// Until the API cannot be reached for long.
        async fn follow(&mut self, client: Client) {
            let config = watcher::Config::default().labels(ZONE).page_size(PAGE);
            let mut events = pin!(watcher(Api::<Node>::all(client), config).default_backoff());
            let mut failures = 0;
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        failures = 0;
                        self.hear(event);
                    }
                    Err(error) => {
                        failures += 1;
                        self.fail(&error.to_string());
                        if failures == FAILURES {
                            return;
                        }
                    }
                }
            }
        }

        fn hear(&mut self, event: watcher::Event<Node>) {
            let mut known = self.zones.known.write().unwrap_or_else(PoisonError::into_inner);
            match event {
                watcher::Event::Init => self.listing.clear(),
                watcher::Event::InitApply(node) => note(&mut self.listing, &node),
                watcher::Event::InitDone => {
                    *known = std::mem::take(&mut self.listing);
                    if !self.trouble.is_empty() {
                        tracing::info!("nodes can be read again for their zones");
                        self.trouble.clear();
                    }
                    tracing::debug!(nodes = known.len(), "the zones of nodes are known");
                    let _ = self.listed.send(true);
                }
                watcher::Event::Apply(node) => note(&mut known, &node),
                watcher::Event::Delete(node) => drop(known.remove(&node.name_any())),
            }
        }

        /// The same reason again and again is one line in the log; sessions go on without.
        fn fail(&mut self, trouble: &str) {
            if self.trouble != trouble {
                tracing::warn!("zones of new nodes are unknown for now: {trouble}");
                trouble.clone_into(&mut self.trouble);
            }
            let _ = self.listed.send(true);
        }
    }

    fn note(known: &mut HashMap<String, String>, node: &Node) {
        let zone = node.labels().get(ZONE).filter(|zone| (1..=LONGEST).contains(&zone.len()));
        let name = node.name_any();
        match zone {
            Some(zone) if known.len() < MOST || known.contains_key(&name) => {
                known.insert(name, zone.clone());
            }
            _ => drop(known.remove(&name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(host: &str, zone: &str) -> Labels {
        Labels { zone: zone.into(), host: host.into(), ..Labels::default() }
    }

    #[tokio::test]
    async fn what_a_peer_does_not_say_is_filled_in_and_nothing_else_is() {
        let (sender, listed) = watch::channel(true);
        let zones = Zones { listed: Some(listed), ..Zones::default() };
        zones.known.write().unwrap().insert("node-1".into(), "a".into());
        let zone = async |host: &str, zone: &str| zones.complete(labels(host, zone)).await.zone;
        assert_eq!(zone("node-1", "").await, "a");
        assert_eq!(zone("node-1", "b").await, "b");
        assert_eq!(zone("node-2", "").await, "");
        assert_eq!(zone("", "").await, "");
        drop(sender);
        assert_eq!(zone("node-1", "").await, "a", "who kept it up to date is gone");
    }

    #[tokio::test]
    async fn a_session_waits_for_the_first_list_and_not_for_ever() {
        let (sender, listed) = watch::channel(false);
        let zones = Zones { listed: Some(listed), ..Zones::default() };
        assert_eq!(zones.complete(labels("node-1", "")).await.zone, "", "the API is away");
        let (waiting, known) = (zones.clone(), zones.known.clone());
        let asked = tokio::spawn(async move { waiting.complete(labels("node-1", "")).await.zone });
        tokio::task::yield_now().await;
        known.write().unwrap().insert("node-1".into(), "a".into());
        sender.send(true).unwrap();
        assert_eq!(asked.await.unwrap(), "a");
        assert_eq!(Zones::default().complete(labels("node-1", "")).await.zone, "", "nobody looks");
    }
}
