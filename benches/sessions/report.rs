//! The figures beside what they are to be.

use std::time::Duration;

use crate::member::Answers;

/// Resident bytes of the supernode for a session.
const MEMORY: f64 = 64.0 * 1024.0;
/// From a join to its answer, at the 99th percentile.
const ANSWER: f64 = 50.0;

/// What an open page of the dashboard takes of a core, in percent.
const PAGE: f64 = 1.0;

/// All figures of a run.
pub(crate) struct Report {
    pub(crate) sessions: usize,
    /// The supernode's memory without a session, with all of them idle, and after the joins.
    pub(crate) empty: u64,
    pub(crate) idle: u64,
    pub(crate) busy: u64,
    pub(crate) connecting: Duration,
    pub(crate) cpu_connecting: Duration,
    pub(crate) warm: Burst,
    pub(crate) cold: Burst,
    /// Shares of a core in percent: without a page, and what each page adds.
    pub(crate) pages: Vec<(&'static str, f64)>,
}

/// What joins took.
#[derive(Default)]
pub(crate) struct Burst {
    joined: Vec<f64>,
    parents: Vec<f64>,
    proven: Vec<f64>,
    messages: u32,
    cpu: Duration,
}

/// One line.
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    target: Option<f64>,
}

// === impl Burst ===

impl Burst {
    pub(crate) fn new(answers: Vec<Answers>, cpu: Duration) -> Self {
        let times = |of: fn(&Answers) -> Duration| {
            answers.iter().map(|answer| of(answer).as_secs_f64() * 1e3).collect()
        };
        Self {
            joined: times(|answer| answer.joined),
            parents: times(|answer| answer.parents),
            proven: times(|answer| answer.proven),
            messages: answers.iter().map(|answer| answer.messages).sum(),
            cpu,
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.joined.extend(other.joined);
        self.parents.extend(other.parents);
        self.proven.extend(other.proven);
        self.messages += other.messages;
        self.cpu += other.cpu;
    }

    fn figures(&self, name: &str, out: &mut Vec<Figure>) {
        for (what, times) in [("joined", &self.joined), ("parents", &self.parents), ("proven", &self.proven)]
        {
            let mut times = times.clone();
            times.sort_by(f64::total_cmp);
            let last = times.len().saturating_sub(1);
            for (part, at) in [("p50", last / 2), ("p99", last * 99 / 100), ("max", last)] {
                let target = (part == "p99" && what == "joined").then_some(ANSWER);
                let value = times.get(at).copied().unwrap_or(f64::NAN);
                out.push(Figure {
                    name: format!("{name} join to {what}, {part}"),
                    value,
                    unit: "ms",
                    target,
                });
            }
        }
        let each = |total: f64| total / self.joined.len().max(1) as f64;
        let cpu = each(self.cpu.as_secs_f64() * 1e6);
        out.push(Figure { name: format!("{name} join, CPU time"), value: cpu, unit: "µs", target: None });
        let messages = each(f64::from(self.messages));
        out.push(Figure { name: format!("{name} join, messages"), value: messages, unit: "", target: None });
    }
}

// === impl Report ===

impl Report {
    fn figures(&self) -> Vec<Figure> {
        let each = |bytes: u64| bytes.saturating_sub(self.empty) as f64 / self.sessions as f64;
        let figure = |name: &str, value: f64, unit, target| Figure { name: name.into(), value, unit, target };
        let connecting = self.cpu_connecting.as_secs_f64() * 1e6 / self.sessions as f64;
        let rate = self.sessions as f64 / self.connecting.as_secs_f64();
        let mut all = vec![
            figure("sessions", self.sessions as f64, "", None),
            figure("supernode without sessions", self.empty as f64 / 1024.0, "KiB", None),
            figure("memory of an idle session", each(self.idle) / 1024.0, "KiB", Some(MEMORY / 1024.0)),
            figure("the same after the joins", each(self.busy) / 1024.0, "KiB", None),
            figure("sessions opened a second", rate, "", None),
            figure("opening a session, CPU time", connecting, "µs", None),
        ];
        for &(page, share) in &self.pages {
            let target = (page != "no page").then_some(PAGE);
            all.push(Figure {
                name: format!("dashboard, {page}, of a core"),
                value: share,
                unit: "%",
                target,
            });
        }
        self.warm.figures("warm", &mut all);
        self.cold.figures("cold", &mut all);
        all
    }

    pub(crate) fn print(&self) {
        println!("{:36} {:>12} {:4} {:>8} {:>6}", "what", "figure", "", "target", "ratio");
        for Figure { name, value, unit, target } in self.figures() {
            let (target, ratio) = match target {
                Some(target) => (format!("{target:.0}"), format!("{:.2}", value / target)),
                None => Default::default(),
            };
            println!("{name:36} {value:>12.2} {unit:4} {target:>8} {ratio:>6}");
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let figures = self.figures().into_iter().map(|Figure { name, value, unit, target }| {
            serde_json::json!({ "name": name, "value": value, "unit": unit, "target": target })
        });
        serde_json::json!({ "bench": "sessions", "figures": figures.collect::<Vec<_>>() })
    }
}
