//! What was found, for people.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::Pulled;

pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    /// The slowest pull.
    pub(crate) slowest: Duration,
    /// Refusals and cut answers that the clients met, in all.
    pub(crate) retries: u64,
    pub(crate) copies: Option<f64>,
    pub(crate) peak: u64,
    pub(crate) note: String,
}

pub(crate) enum Verdict {
    Held,
    Failed {
        complaints: Vec<String>,
        /// Where the logs are.
        logs: Option<PathBuf>,
    },
    Skipped(String),
}

// === impl Row ===

impl Row {
    /// A row without figures.
    pub(crate) fn plain(name: &str, verdict: Verdict) -> Self {
        let (slowest, note) = (Duration::ZERO, String::new());
        Self { name: name.to_owned(), verdict, slowest, retries: 0, copies: None, peak: 0, note }
    }

    /// Takes up the figures of these pulls.
    pub(crate) fn measure(mut self, pulls: &[Pulled]) -> Self {
        self.slowest = pulls.iter().map(|pulled| pulled.took).max().unwrap_or_default();
        self.retries = pulls.iter().map(|pulled| pulled.retries).sum();
        self
    }

    pub(crate) fn line(&self) -> String {
        let Self { name, verdict, slowest, retries, copies, peak, note } = self;
        let verdict = match verdict {
            Verdict::Held => "held",
            Verdict::Failed { .. } => "FAILED",
            Verdict::Skipped(_) => "skipped",
        };
        let copies = copies.map_or_else(|| "-".to_owned(), |copies| format!("{copies:.2}"));
        let mut line = format!(
            "{name:<28} {verdict:<8} {:>7.1} {retries:>7} {copies:>7} {:>5}  {note}",
            slowest.as_secs_f64(),
            peak >> 20
        );
        line.truncate(line.trim_end().len());
        line
    }
}

/// The heading of [`Row::line`]s.
pub(crate) fn heading() -> String {
    format!(
        "{:<28} {:<8} {:>7} {:>7} {:>7} {:>5}",
        "fault × victim", "result", "slow s", "retries", "copies", "MiB"
    )
}

/// What is to be said of the rows that failed or were skipped.
pub(crate) fn remarks(rows: &[Row]) -> String {
    rows.iter().fold(String::new(), |mut all, row| {
        match &row.verdict {
            Verdict::Held => {}
            Verdict::Skipped(why) => {
                let _ = writeln!(all, "skipped: {}: {why}", row.name);
            }
            Verdict::Failed { complaints, logs } => {
                let _ = writeln!(all, "FAILED: {}", row.name);
                for complaint in complaints {
                    let _ = writeln!(all, "  {complaint}");
                }
                if let Some(logs) = logs {
                    let _ = writeln!(all, "  logs: {}", logs.display());
                }
            }
        }
        all
    })
}
