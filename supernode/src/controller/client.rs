//! The controller's life: it runs until its owner drops it. Given to the daemon.

use std::time::Duration;

use common::node::NodeId;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::Api;

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

    /// Leads, or follows, for ever.
    pub async fn run(self) {
        let me = format!("{}_{}", host(), self.node);
        loop {
            match self.options.access.client().await {
                Ok(client) => self.work(client, &me).await,
                Err(error) => tracing::warn!("no ImagePreheat is worked on for now: {error}"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Until the API cannot be reached for long: perhaps it has another CA now.
    async fn work(&self, client: Client, me: &str) {
        let leases: Api<Lease> = Api::namespaced(client.clone(), &self.options.namespace);
        let node = self.node.to_string();
        let reign = || Reign::new(client.clone(), self.preheats.clone(), node.clone(), me.to_owned());
        let lead = || Box::pin(reign().run());
        let follow = || reign::forsake(&self.preheats);
        Keeper::new(leases, me.to_owned()).run(lead, follow).await;
    }
}

/// The pod's name, or the machine's: for people who look at the Lease.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().chars().take(63).collect()
}
