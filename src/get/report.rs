//! What `get` says while it works: a bar on a terminal, lines without one, events for programs (`--json`), or nothing.
//!
//! One JSON object a line: `{"event":"start","source","path"}`, `{"event":"progress","source","bytes","length"}`,
//! `{"event":"done","source","path","bytes","seconds","through","digest"}`, `{"event":"failed","source","error","code"}`.
//! They go to standard output, or to standard error where the content goes there.

use std::io::Write as _;
use std::time::{Duration, Instant};

use common::digest::Digest;
use serde_json::{Value, json};

use super::exit;
use super::wanted::{Target, What};
use crate::progress::{Progress, Screen, bytes};

/// Between two events of progress.
const EVENT_EVERY: Duration = Duration::from_secs(1);

/// How it is said.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    Quiet,
    People,
    Json,
}

/// Says it.
pub struct Report {
    voice: Voice,
    screen: Screen,
    /// Standard output is the content's.
    stdout_taken: bool,
}

/// One source on its way.
pub struct Transfer<'a> {
    report: &'a Report,
    source: String,
    target: &'a Target,
    begun: Instant,
    said: Instant,
    length: u64,
    at: u64,
    /// What comes is in many files, and the length is that of all: so much was there before the present one.
    before: Option<u64>,
    bar: Option<Progress>,
}

/// How it went.
#[derive(Debug)]
pub struct Done {
    pub length: u64,
    /// Who gave it.
    pub through: &'static str,
    /// What it was checked by.
    pub digest: Option<Digest>,
}

// === impl Report ===

impl Report {
    pub fn new(voice: Voice, stdout_taken: bool) -> Self {
        Self { voice, screen: Screen::new(voice != Voice::People), stdout_taken }
    }

    /// A source is begun with.
    pub fn start<'a>(&'a self, what: &What, target: &'a Target) -> Transfer<'a> {
        let (source, now) = (what.shown(), Instant::now());
        self.event(|| json!({ "event": "start", "source": source, "path": path_of(target) }));
        Transfer {
            report: self,
            source,
            target,
            begun: now,
            said: now,
            length: 0,
            at: 0,
            before: None,
            bar: None,
        }
    }

    /// Says a line for people that is no progress.
    pub fn remark(&self, line: &str) {
        if self.voice == Voice::People {
            let _ = self.screen.around(|| writeln!(std::io::stderr(), "longshore: {line}"));
        }
    }

    /// An error of one source among several. It is said whatever the voice, but for programs as an event alone.
    pub fn failed(&self, what: &What, error: &anyhow::Error, only: bool) {
        let line = format!("{error:#}").replace('\n', " ");
        self.event(
            || json!({ "event": "failed", "source": what.shown(), "error": line, "code": exit::code(error) }),
        );
        // The error of an only source is the last word of the command.
        if !only && self.voice != Voice::Json && !exit::is_silent(error) {
            let _ = self.screen.around(|| writeln!(std::io::stderr(), "longshore: {line}"));
        }
    }

    fn event(&self, event: impl FnOnce() -> Value) {
        if self.voice == Voice::Json {
            self.line(&event().to_string());
        }
    }

    /// Nobody need read it: a closed pipe is no failure.
    fn line(&self, line: &str) {
        let _ = self.screen.around(|| match self.stdout_taken {
            true => writeln!(std::io::stderr(), "{line}"),
            false => writeln!(std::io::stdout(), "{line}"),
        });
    }
}

fn path_of(target: &Target) -> Value {
    match target {
        Target::File(path) => path.display().to_string().into(),
        Target::Stdout => "-".into(),
    }
}

// === impl Transfer ===

impl Transfer<'_> {
    /// The length is known, and that so much of it is here already.
    pub fn knows(&mut self, length: u64, here: u64) {
        if let Some(before) = self.before {
            self.at = before + here;
            self.bar.iter_mut().for_each(|bar| bar.begin_at(before + here));
            return;
        }
        (self.length, self.at) = (length, here);
        let name = match self.target {
            Target::File(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
            Target::Stdout => None,
        };
        let mut bar = self.report.screen.transfer(name.as_deref().unwrap_or("-"), length);
        bar.begin_at(here);
        self.bar = Some(bar);
    }

    /// Many files come, of this length in all.
    pub fn knows_of_many(&mut self, length: u64) {
        self.before = None;
        self.knows(length, 0);
        self.next_file();
    }

    /// The next of many files begins.
    pub fn next_file(&mut self) {
        self.before = Some(self.at);
    }

    /// So many bytes more.
    pub fn add(&mut self, count: u64) {
        self.at += count;
        if let Some(bar) = &mut self.bar {
            bar.add(count);
        }
        if self.said.elapsed() >= EVENT_EVERY {
            self.said = Instant::now();
            let (source, at, length) = (&self.source, self.at, self.length);
            self.report
                .event(|| json!({ "event": "progress", "source": source, "bytes": at, "length": length }));
        }
    }

    /// How much came, or was here.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// So much of what came came from peers, in percent.
    pub fn share_of_peers(&self, percent: u64) {
        if let Some(bar) = &self.bar {
            bar.remark(&format!("{percent} % from peers"));
        }
    }

    /// It is done.
    pub fn done(self, done: &Done) {
        if let Some(bar) = self.bar {
            bar.vanish();
        }
        let (report, source, seconds) = (self.report, &self.source, self.begun.elapsed().as_secs_f64());
        let (path, digest) = (path_of(self.target), done.digest.map(|digest| digest.to_string()));
        report.event(|| {
            json!({
                "event": "done", "source": source, "path": path, "bytes": done.length, "seconds": seconds,
                "through": done.through, "digest": digest,
            })
        });
        if report.voice == Voice::People {
            let proof = if digest.is_some() { ", digest verified" } else { "" };
            let (path, size) = (self.target.shown(), bytes(done.length));
            report.line(&format!("{path}: {size} in {seconds:.1} s through {}{proof}", done.through));
        }
    }
}
