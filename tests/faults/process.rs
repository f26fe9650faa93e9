//! One daemon on a host: started, stopped and killed as often as a schedule wants, with one log for all its lives.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time;

/// A daemon that was asked to end has ended long before this, even on a machine with much else to do.
const END_LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(10);

pub(crate) struct Process {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
    /// The most memory that it was seen with, in bytes.
    peak: u64,
}

// === impl Process ===

impl Process {
    /// Starts `command`; what it says is added to `log`.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let out = OpenOptions::new().create(true).append(true).open(log);
        let out = out.with_context(|| format!("cannot write {}", log.display()))?;
        for proxy in ["http_proxy", "https_proxy", "no_proxy", "all_proxy"] {
            command.env_remove(proxy).env_remove(proxy.to_uppercase());
        }
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        let child = command.spawn().with_context(|| format!("{name} does not start"))?;
        Ok(Self { name: name.to_owned(), child, ended: None, peak: 0 })
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.look();
        if self.ended.is_none() {
            let id =
                Pid::from_raw(self.child.id().cast_signed()).expect("invariant: a child's id is positive");
            let _ = kill_process(id, signal);
        }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.look();
        self.ended
    }

    /// Waits for its end, which somebody has asked for.
    pub(crate) async fn end(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.ended().is_none() {
            if begun.elapsed() > END_LIMIT {
                bail!("{} does not end on SIGTERM", self.name);
            }
            time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// The most memory that it has had in RAM, in bytes.
    pub(crate) fn peak(&mut self) -> u64 {
        self.look();
        self.peak
    }

    fn look(&mut self) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        self.peak = self.peak.max(peak.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024);
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
