//! The controller's life: it runs until it is told to stop, and then gives its Lease back. Given to the daemon.

use std::time::Duration;

use common::node::NodeId;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::Api;

use tokio_util::sync::CancellationToken;

use super::ControllerOptions;
use super::lease::Keeper;
use super::reign::{self, Reign};
use crate::kubernetes::access::AccessError;
use crate::preheat::Preheats;

/// Between two tries to read the API's files.
const AGAIN: Duration = Duration::from_secs(10);

/// The controller of one supernode.
pub struct Controller {
    options: ControllerOptions,
    preheats: Preheats,
    node: NodeId,
}

// === impl Controller ===

impl Controller {
    /// Asks nobody yet; what it needs to ask is read. Blocking.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn open(options: ControllerOptions, preheats: Preheats, node: NodeId) -> Result<Self, AccessError> {
        options.access.check()?;
        Ok(Self { options, preheats, node })
    }

    /// Leads, or follows, until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let me = format!("{}_{}", host(), self.node);
        while !stop.is_cancelled() {
            match self.options.access.client().await {
                Ok(client) => self.work(client, &me, &stop).await,
                Err(error) => tracing::warn!("no ImagePreheat is worked on for now: {error}"),
            }
            stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await;
        }
    }

    /// Until the API cannot be reached for long: perhaps it has another CA now.
    async fn work(&self, client: Client, me: &str, stop: &CancellationToken) {
        let leases: Api<Lease> = Api::namespaced(client.clone(), &self.options.namespace);
        let node = self.node.to_string();
        let reign = || Reign::new(client.clone(), self.preheats.clone(), node.clone(), me.to_owned());
        let lead = || Box::pin(reign().run());
        let follow = || reign::forsake(&self.preheats);
        let mut keeper = Keeper::new(leases, me.to_owned());
        if stop.run_until_cancelled(keeper.run(lead, follow)).await.is_none() {
            keeper.give_back().await;
        }
    }
}

/// The pod's name, or the machine's: for people who look at the Lease.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().chars().take(63).collect()
}
