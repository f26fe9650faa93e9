//! Debian's docker-registry on a host of its own, and how many bytes of what it served, by its access log.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::content::{Content, REPOSITORY};
use crate::net::Host;
use crate::process::Process;

pub(crate) const PROGRAM: &str = "docker-registry";
const PORT: u16 = 5000;
/// It starts in a fraction of this.
const START_LIMIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

pub(crate) struct Registry {
    process: Process,
    /// `IP:PORT`.
    pub(crate) address: String,
}

// === impl Registry ===

impl Registry {
    pub(crate) async fn start(
        host: &Host,
        content: &Content,
        folder: &Path,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        let (config, address) = (folder.join("registry.yml"), format!("{}:{PORT}", host.address));
        let settings = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: '{}', maxthreads: 200}}}}\nhttp: {{addr: '{address}'}}\n",
            content.store().display()
        );
        fs::write(&config, settings)?;
        let mut command = host.command(PROGRAM);
        command.arg("serve").arg(&config);
        let mut process = Process::start("registry", command, logs)?;
        let begun = Instant::now();
        while !process.said().contains("listening on") {
            if process.ended().is_some() || begun.elapsed() > START_LIMIT {
                bail!("{PROGRAM} does not start\n{}", process.tail());
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Self { process, address })
    }

    /// Bytes of bodies that were sent in answer to GETs of blobs and manifests.
    pub(crate) fn sent(&self) -> u64 {
        self.process.said().lines().filter_map(served).sum()
    }

    pub(crate) fn tail(&self) -> String {
        self.process.tail()
    }
}

/// Reads `127.0.0.1 - - [date] "METHOD PATH HTTP/1.1" STATUS BYTES "referrer" "agent"`.
fn served(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("] \"GET ")?;
    let (request, rest) = rest.split_once("\" ")?;
    let (status, rest) = rest.split_once(' ')?;
    let wanted = request.starts_with(&format!("/v2/{REPOSITORY}/")) && matches!(status, "200" | "206");
    wanted.then(|| rest.split(' ').next()?.parse().ok())?
}
