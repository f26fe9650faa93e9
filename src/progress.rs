//! Progress for people: a bar on a terminal, a line now and then where there is none, nothing when told to be quiet.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// `12.3 MiB`
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// Where progress is shown.
pub struct Screen {
    bars: MultiProgress,
    lines: bool,
}

/// The progress of one transfer.
pub struct Progress {
    bar: ProgressBar,
    name: String,
    lines: bool,
    said: Instant,
}

// === impl Screen ===

impl Screen {
    /// The terminal, if there is one.
    pub fn new(quiet: bool) -> Self {
        let bars = MultiProgress::new();
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        if quiet || !terminal {
            bars.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self { bars, lines: !quiet && !terminal }
    }

    /// A transfer of so many bytes.
    pub fn transfer(&self, name: &str, length: u64) -> Progress {
        let bar = self.bars.add(ProgressBar::new(length));
        let template = "{prefix:>12} [{bar:30}] {binary_bytes:>10}/{binary_total_bytes} {binary_bytes_per_sec:>12} {eta:>4} {msg}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(name.to_owned());
        Progress { bar, name: name.to_owned(), lines: self.lines, said: Instant::now() }
    }

    /// Does what writes a line while there may be bars.
    pub fn around<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bars.suspend(write)
    }
}

// === impl Progress ===

impl Progress {
    /// So many bytes more.
    #[expect(clippy::print_stderr, reason = "progress")]
    pub fn add(&mut self, count: u64) {
        self.bar.inc(count);
        if self.lines && self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            let (at, length) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let percent = at * 100 / length.max(1);
            eprintln!("{}: {} of {} ({percent} %)", self.name, bytes(at), bytes(length));
        }
    }

    /// So much was there before it began.
    pub fn begin_at(&mut self, count: u64) {
        self.bar.set_position(count);
        self.bar.reset_eta();
    }

    /// A word beside the bar.
    pub fn remark(&self, word: &str) {
        self.bar.set_message(word.to_owned());
    }

    /// It is over.
    pub fn finish(self) {
        self.bar.finish();
    }

    /// It is over, and something else says so.
    pub fn vanish(self) {
        self.bar.finish_and_clear();
    }
}
