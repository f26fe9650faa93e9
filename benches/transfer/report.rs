//! Medians and ratios, as a table. A ratio is the median over the rounds of what a row did against what its base
//! did in the same round, so that a busy minute of the machine weighs on both.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Row;

/// One transfer.
#[derive(Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    /// CPU time of the sender.
    pub(crate) server: Duration,
    /// CPU time of the receiver.
    pub(crate) client: Duration,
}

pub(crate) struct Report {
    rows: Vec<Row>,
    rounds: BTreeMap<Row, Vec<Measured>>,
    /// Bytes a second that the link carries, where it has a limit.
    line_rate: Option<f64>,
}

// === impl Measured ===

impl Measured {
    /// MB/s.
    pub(crate) fn rate(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.took.as_secs_f64()
    }

    fn per_gb(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() / (self.bytes as f64 / 1e9)
    }
}

// === impl Report ===

impl Report {
    pub(crate) fn new(rows: Vec<Row>, line_rate: Option<f64>) -> Self {
        Self { rows, rounds: BTreeMap::new(), line_rate }
    }

    pub(crate) fn note(&mut self, row: Row, measured: Measured) {
        self.rounds.entry(row).or_default().push(measured);
    }

    pub(crate) fn print(&self) {
        println!(
            "{:24} {:>6} {:>18} {:>18} {:>7}",
            "what", "MB/s", "server CPU s/GB", "client CPU s/GB", "ratio"
        );
        for row in &self.rows {
            let (Some(rounds), Some(base)) = (self.rounds.get(row), self.rounds.get(&row.base())) else {
                println!("{:24} skipped: docker-registry is not installed", row.title());
                continue;
            };
            let of = |value: fn(&Measured) -> f64| median(rounds.iter().map(value).collect());
            let ratios = rounds.iter().zip(base).map(|(row, base)| row.rate() / base.rate());
            let of_line =
                self.line_rate.map(|line| format!(", {:.3} of the line", of(Measured::rate) * 1e6 / line));
            println!(
                "{:24} {:6.0} {:18.2} {:18.2} {:7.2}  of {}{}",
                row.title(),
                of(Measured::rate),
                of(|measured| measured.per_gb(measured.server)),
                of(|measured| measured.per_gb(measured.client)),
                median(ratios.collect()),
                row.base().title(),
                of_line.unwrap_or_default(),
            );
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
