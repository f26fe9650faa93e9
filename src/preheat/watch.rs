//! A job while it goes: a bar for the job and one for each node at work; plain lines where there is no terminal.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use supernode::preheat::{JobId, NodeState, NodeView, View};

use super::show;
use crate::local::Daemon;

/// How often the supernode is asked.
const LOOK: Duration = Duration::from_millis(500);
/// Nodes shown at once: what fits on a screen.
const SHOWN: usize = 16;

/// Watches until it is over; gives what came of it.
pub(super) async fn run(daemon: &mut Daemon, id: JobId, quiet: bool) -> anyhow::Result<View> {
    let mut screen = Screen::new(quiet);
    loop {
        let view: View = serde_json::from_value(daemon.json(&format!("/preheats/{id}")).await?)?;
        screen.show(&view);
        if view.state.is_over() {
            screen.bars.clear()?;
            return Ok(view);
        }
        tokio::time::sleep(LOOK).await;
    }
}

struct Screen {
    bars: MultiProgress,
    job: ProgressBar,
    nodes: BTreeMap<String, ProgressBar>,
    /// Where there is no terminal, and what was said last.
    lines: Option<String>,
}

// === impl Screen ===

impl Screen {
    fn new(quiet: bool) -> Self {
        let bars = MultiProgress::new();
        let terminal = std::io::stderr().is_terminal();
        if quiet || !terminal {
            bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        let job = bars.add(ProgressBar::new(0));
        let style = ProgressStyle::with_template("{prefix:>24} [{bar:30}] {pos}/{len} nodes {msg}");
        job.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        Self { bars, job, nodes: BTreeMap::new(), lines: (!quiet && !terminal).then(String::new) }
    }

    fn show(&mut self, view: &View) {
        let word = format!("{}, {} failed", show::state(view.state), view.failed);
        self.say(format!("job {}: {} of {} nodes, {word}", view.id, view.succeeded, view.desired));
        self.job.set_prefix(format!("job {}", view.id));
        self.job.set_length(view.desired.into());
        self.job.set_position(view.succeeded.into());
        self.job.set_message(word);
        let (total, parts) = view.contents.map_or((0, 0), |contents| (contents.bytes, contents.tasks));
        let active: Vec<&NodeView> =
            view.nodes.iter().filter(|node| node.state == NodeState::Active).take(SHOWN).collect();
        self.nodes.retain(|name, bar| {
            let stays = active.iter().any(|node| node.node == *name);
            if !stays {
                bar.finish_and_clear();
                self.bars.remove(bar);
            }
            stays
        });
        for node in active {
            let bar = self.nodes.entry(node.node.clone()).or_insert_with(|| {
                let bar = self.bars.add(ProgressBar::new(total));
                let style = ProgressStyle::with_template(
                    "{prefix:>24} [{bar:30}] {binary_bytes:>10}/{binary_total_bytes} {binary_bytes_per_sec:>12} {msg}",
                );
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
                bar.set_prefix(show::called(node).chars().take(24).collect::<String>());
                bar
            });
            bar.set_length(total.max(node.bytes));
            bar.set_position(node.bytes);
            bar.set_message(format!("{}/{parts} parts", node.parts_done));
        }
    }

    /// A line, if it says something new.
    #[expect(clippy::print_stderr, reason = "progress")]
    fn say(&mut self, line: String) {
        if let Some(last) = self.lines.as_mut().filter(|last| **last != line) {
            eprintln!("{line}");
            *last = line;
        }
    }
}
