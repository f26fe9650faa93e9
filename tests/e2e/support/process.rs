//! One child process of a test, in a process group of its own, with a log file. It is ended by its id when the
//! test ends, however the test ends; if the test failed, the end of its log is printed.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal};

use super::{LIMIT, LOOK, eventually};

/// How much of a log a failed test prints.
const TAIL_LINES: usize = 60;

/// Looks for the end of a daemon that was asked to stop: ten seconds.
const STOP_LOOKS: usize = 500;

/// A running (or ended) child.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

// === impl Process ===

impl Process {
    /// Starts `command`; what it says on both its outputs is appended to `log`.
    pub(crate) fn spawn(name: &str, command: &mut Command, log: &Path) -> Self {
        let out = append(log);
        let err = out.try_clone().unwrap();
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), child, log: log.to_path_buf(), ended: None }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it has said so far, earlier runs with the same log included.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Waits for its end.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        eventually(&what, async || self.ended()).await
    }

    /// Sends `signal` to it alone.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            let _ = rustix::process::kill_process(self.pid(), signal);
        }
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.end().await;
    }

    /// SIGTERM and some seconds to say good-bye; what is left is killed when this is dropped.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        for _ in 0..STOP_LOOKS {
            if self.ended().is_some() {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until it says `text`; fails early when it ends without having said so.
    pub(crate) async fn says(&mut self, text: &str) {
        let what = format!("{} saying {text:?}", self.name);
        eventually(&what, async || {
            let ended = self.ended();
            let said = self.said().contains(text);
            assert!(said || ended.is_none(), "{} ended ({ended:?}) without saying {text:?}", self.name);
            said.then_some(())
        })
        .await;
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).expect("a child's id is positive")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            let _ = rustix::process::kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            eprintln!("---- {} ({:?}), end of its log:\n{}\n----", self.name, self.ended, tail.join("\n"));
        }
    }
}

fn append(log: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(log).unwrap_or_else(|error| panic!("{log:?}: {error}"))
}

/// Runs a command that ends by itself, and gives what it said; a command that hangs is ended after [`LIMIT`].
pub(crate) async fn output(command: &Command) -> Output {
    let mut bounded = Command::new("timeout");
    bounded
        .args(["-k", "5", &LIMIT.as_secs().to_string()])
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => bounded.env(key, value),
            None => bounded.env_remove(key),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        bounded.current_dir(folder);
    }
    bounded.stdin(Stdio::null());
    tokio::task::spawn_blocking(move || bounded.output()).await.unwrap().expect("coreutils' timeout starts")
}

/// [`output`] of a command that must succeed; gives its standard output.
pub(crate) async fn succeed(command: &Command) -> String {
    let output = output(command).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// Takes the proxies of the machine's own set-up away: everything here is on loopback.
pub(crate) fn without_proxies(command: &mut Command) -> &mut Command {
    for name in ["http_proxy", "https_proxy", "no_proxy", "all_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    command
}
