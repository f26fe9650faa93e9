//! `<data-dir>/addresses.json`: which ports a daemon took, for scripts and for the other commands. It is there
//! while the daemon runs, from the moment when all ports are open.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// The ports.
#[derive(Serialize, Deserialize)]
pub struct Addresses {
    /// Whose they are.
    pub pid: u32,
    /// UDP, for nodes.
    pub quic: SocketAddr,
    /// TCP, for metrics and health, and the supernode's API.
    pub http: SocketAddr,
    /// TCP, the registry proxy of a peer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proxy: Option<SocketAddr>,
    /// The local API of a peer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub socket: Option<PathBuf>,
}

/// The file, removed when dropped.
pub struct Published(PathBuf);

// === impl Addresses ===

impl Addresses {
    /// Writes the file, whole or not at all.
    pub fn publish(&self, dir: &Path) -> anyhow::Result<Published> {
        let path = file(dir);
        let draft = path.with_extension("json.new");
        std::fs::write(&draft, serde_json::to_vec(self)?)
            .and_then(|()| std::fs::rename(&draft, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Published(path))
    }

    /// What a daemon published there.
    pub fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(file(dir)).ok()?).ok()
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("addresses.json")
}

impl Drop for Published {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
