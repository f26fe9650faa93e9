//! The controller's way to the Kubernetes API, and its life: it runs until its owner drops it. Given to the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::node::NodeId;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use kube::{Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::ControllerOptions;
use super::lease::Keeper;
use super::reign::{self, Reign};
use crate::preheat::Preheats;

/// Somebody who is there picks up in this.
const CONNECT: Duration = Duration::from_secs(3);
/// Far above a CA bundle.
const LONGEST_FILE: u64 = 1024 * 1024;
/// Between two tries to read the API's files.
const AGAIN: Duration = Duration::from_secs(10);

/// Why there is no controller.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The API's CA.
    #[error("cannot use {path}: {reason}; --kubernetes-ca-file names another", path = path.display())]
    Ca {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The supernode's own token.
    #[error("cannot use {path}: {reason}; --kubernetes-token-file names another", path = path.display())]
    Token {
        /// Which.
        path: PathBuf,
        /// What is wrong with it; nothing of the token.
        reason: String,
    },
    /// Anything else.
    #[error("cannot speak to the Kubernetes API: {0}")]
    Api(String),
}

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
    pub fn open(
        options: ControllerOptions,
        preheats: Preheats,
        node: NodeId,
    ) -> Result<Self, ControllerError> {
        certificates(&options.ca_file)?;
        let unreadable = |error: std::io::Error| ControllerError::Token {
            path: options.token_file.clone(),
            reason: error.to_string(),
        };
        std::fs::File::open(&options.token_file).map_err(unreadable)?;
        Ok(Self { options, preheats, node })
    }

    /// Leads, or follows, for ever.
    pub async fn run(self) {
        let me = format!("{}_{}", host(), self.node);
        loop {
            let options = self.options.clone();
            let certificates = tokio::task::spawn_blocking(move || certificates(&options.ca_file)).await;
            let made = certificates.unwrap_or_else(|error| Err(ControllerError::Api(error.to_string())));
            match made.and_then(|certificates| client(&self.options, certificates)) {
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

fn client(options: &ControllerOptions, certificates: Vec<Vec<u8>>) -> Result<Client, ControllerError> {
    let failed = |error: &dyn std::fmt::Display| ControllerError::Api(error.to_string());
    let mut config = Config::new(options.api.as_str().parse().map_err(|error| failed(&error))?);
    config.root_cert = Some(certificates);
    config.default_namespace.clone_from(&options.namespace);
    // Read anew as the kubelet replaces it.
    config.auth_info.token_file = Some(options.token_file.to_string_lossy().into_owned());
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).map_err(|error| failed(&error))
}

fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, ControllerError> {
    use std::io::Read as _;
    let broken = |reason: String| ControllerError::Ca { path: path.to_owned(), reason };
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LONGEST_FILE).read_to_end(&mut text));
    read.map_err(|error| broken(error.to_string()))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| broken(format!("it is no PEM: {error}")))?;
    if all.is_empty() {
        return Err(broken("no certificate is in it".to_owned()));
    }
    Ok(all.into_iter().map(|certificate| certificate.to_vec()).collect())
}

/// The pod's name, or the machine's: for people who look at the Lease.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().chars().take(63).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_that_is_none_is_named_before_anything_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.crt");
        let words = || certificates(&path).unwrap_err().to_string();
        assert!(words().contains("--kubernetes-ca-file"), "{}", words());
        std::fs::write(&path, "nothing").unwrap();
        assert!(words().contains("no certificate is in it"), "{}", words());
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
        assert!(words().contains("it is no PEM"), "{}", words());
    }
}
