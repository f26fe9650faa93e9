//! The supernode under measurement: the built binary as a child process, and what the kernel says of it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::identity::JoinToken;
use rustix::process::{Pid, Signal};

/// It starts, and ends, in a fraction of this.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// A running supernode; killed when dropped.
pub(crate) struct Supernode {
    process: Child,
    data: PathBuf,
    quic: SocketAddr,
    http: SocketAddr,
}

// === impl Supernode ===

impl Supernode {
    /// Starts one on the data below `folder`, which may fetch from `origin`.
    pub(crate) async fn start(folder: &Path, origin: &str) -> Self {
        let data = folder.join("supernode");
        let log = File::create(folder.join("log")).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_longshore"))
            .args(["supernode", "--quic-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
            .args(["--origin-allow", origin, "--data-dir"])
            .arg(&data)
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let begun = Instant::now();
        loop {
            if let Some([quic, http]) = addresses(&data, process.id()) {
                return Self { process, data, quic, http };
            }
            let ended = process.try_wait().unwrap().is_some() || begun.elapsed() > PATIENCE;
            assert!(!ended, "no supernode: {}", std::fs::read_to_string(folder.join("log")).unwrap());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lets it end in order.
    pub(crate) async fn stop(&mut self) {
        rustix::process::kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let begun = Instant::now();
        while self.process.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "the supernode does not end");
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) fn quic(&self) -> SocketAddr {
        self.quic
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    pub(crate) fn token(&self) -> JoinToken {
        JoinToken::read(&self.data.join("join-token")).unwrap()
    }

    /// Resident bytes that are its own; the pages of its files (the index, the binary) can be dropped at any time.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    /// CPU time of all its threads that still run, to the nanosecond; a blocking thread lives on for seconds.
    pub(crate) fn cpu(&self) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let nanos = threads.filter_map(|thread| {
            let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Supernode {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The ports that it took; a file of the run before may still be there.
fn addresses(data: &Path, id: u32) -> Option<[SocketAddr; 2]> {
    let bytes = std::fs::read(data.join("addresses.json")).ok()?;
    let json: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let of = |port: &str| json[port].as_str()?.parse().ok();
    (json["pid"].as_u64() == Some(u64::from(id))).then(|| Some([of("quic")?, of("http")?])).flatten()
}
