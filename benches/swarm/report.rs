//! What was found, for people: the nodes of a typical run, medians with their range, and ratios.

use crate::lab::Outcome;
use crate::options::{Contender, Options};

const MIB: f64 = 1_048_576.0;
/// With more of the machine busy than this the processors were the limit, not the lines.
const TOO_BUSY: f64 = 0.9;

/// A line of the summary: its title, its figure, and how many decimals that is worth.
type Line = (&'static str, fn(&Outcome) -> Option<f64>, usize);

const LINES: [Line; 14] = [
    ("last node, s", |run| Some(run.last()), 2),
    ("last node / ideal", |run| Some(run.last() / run.ideal), 3),
    ("all done after the start, s", |run| Some(run.all_done()), 2),
    ("median node / ideal", |run| Some(run.median_node() / run.ideal), 3),
    ("latest first byte, s", |run| Some(run.first_byte()), 3),
    ("left supernode or seeder / content", |run| Some(run.copies(run.supernode_sent)), 2),
    ("left registry / content", |run| Some(run.copies(run.registry_sent)), 3),
    ("into the worst zone / content", |run| run.into_zones.iter().max().map(|bytes| run.copies(*bytes)), 2),
    ("from peers, % of a node's bytes", Outcome::share_of_peers, 1),
    ("CPU s / GB delivered", |run| run.cpu_per_gb(), 2),
    ("largest peer, MiB", |run| Some(run.cost.as_ref()?.peer_peak as f64 / MIB), 0),
    ("supernode or seeder, MiB", |run| Some(run.cost.as_ref()?.supernode_peak as f64 / MIB), 0),
    ("contender's CPU, % of the machine", |run| run.share(), 0),
    ("machine busy, %", |run| Some(run.busy * 100.0), 0),
];

// === impl Outcome ===

impl Outcome {
    /// The longest wait of a node.
    pub(crate) fn last(&self) -> f64 {
        self.nodes.iter().map(|node| node.took()).fold(0.0, f64::max)
    }

    /// When the last node was done.
    pub(crate) fn all_done(&self) -> f64 {
        self.nodes.iter().map(|node| node.finish).fold(0.0, f64::max)
    }

    fn median_node(&self) -> f64 {
        median(self.nodes.iter().map(|node| node.took()).collect())
    }

    fn first_byte(&self) -> f64 {
        self.nodes.iter().map(|node| node.first_byte).fold(0.0, f64::max)
    }

    fn copies(&self, bytes: u64) -> f64 {
        bytes as f64 / self.size as f64
    }

    fn share_of_peers(&self) -> Option<f64> {
        let sources = self.cost.as_ref()?.sources.as_ref()?;
        let (peers, all) = sources.iter().fold((0, 0), |(peers, all), node| {
            (peers + node.peer, all + node.peer + node.seed + node.origin)
        });
        Some(100.0 * peers as f64 / all as f64)
    }

    /// The part of all processors that the contender's own processes had.
    fn share(&self) -> Option<f64> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        Some(100.0 * self.cost.as_ref()?.cpu / (self.all_done() * processors))
    }

    fn cpu_per_gb(&self) -> Option<f64> {
        let delivered = self.size as f64 * self.nodes.len() as f64 / 1e9;
        Some(self.cost.as_ref()?.cpu / delivered)
    }
}

/// One line about one run, while the others are still to come.
pub(crate) fn tell(run: u16, outcome: &Outcome) {
    eprintln!(
        "run {run}: {:9}{} last node {:.2} s = {:.3} × ideal, {:.2} × left the supernode or seeder, {:.3} × the \
         registry, machine {:.0} % busy",
        outcome.contender,
        if outcome.hostile { " with a bad peer," } else { "" },
        outcome.last(),
        outcome.last() / outcome.ideal,
        outcome.copies(outcome.supernode_sent),
        outcome.copies(outcome.registry_sent),
        outcome.busy * 100.0,
    );
}

/// Everything about all runs.
pub(crate) fn print(options: &Options, outcomes: &[Outcome]) {
    let columns = columns(outcomes);
    for column in &columns {
        nodes(column);
    }
    println!(
        "\n{} nodes, {}, {} Mbit/s, {:.1} MiB: ideal {:.2} s. Median of {} (least to most). Bytes of the supernode and \
         into zones are of the wire, headers included; those of the registry are bodies, by its access log.",
        options.nodes,
        options.mode.name(),
        options.rate as f64 / 1e6,
        outcomes.first().map_or(0.0, |run| run.size as f64 / MIB),
        options.ideal().as_secs_f64(),
        options.runs,
    );
    print!("{:36}", "");
    columns.iter().for_each(|column| print!("{:>26}", title(column[0])));
    println!();
    for (name, figure, decimals) in LINES {
        let cells: Vec<Option<String>> =
            columns.iter().map(|column| cell(column, figure, decimals)).collect();
        if cells.iter().any(Option::is_some) {
            print!("{name:36}");
            cells.into_iter().for_each(|cell| print!("{:>26}", cell.unwrap_or_else(|| "-".to_owned())));
            println!();
        }
    }
    ratios(&columns);
    if outcomes.iter().any(|run| run.busy > TOO_BUSY) {
        println!(
            "In some runs the machine's processors were more than {:.0} % busy: they were the limit, not the lines. Take fewer \
             nodes or a lower rate.",
            TOO_BUSY * 100.0
        );
    }
}

/// The outcomes of each contender, Longshore's without the bad peer first.
pub(crate) fn columns(outcomes: &[Outcome]) -> Vec<Vec<&Outcome>> {
    let mut columns: Vec<Vec<&Outcome>> = Vec::new();
    for outcome in outcomes {
        let same = |column: &&mut Vec<&Outcome>| {
            (column[0].contender, column[0].hostile) == (outcome.contender, outcome.hostile)
        };
        match columns.iter_mut().find(same) {
            Some(column) => column.push(outcome),
            None => columns.push(vec![outcome]),
        }
    }
    columns
}

/// The run whose last node is in the middle of all runs.
pub(crate) fn typical<'a>(column: &[&'a Outcome]) -> &'a Outcome {
    let mut runs = column.to_vec();
    runs.sort_by(|a, b| a.last().total_cmp(&b.last()));
    runs[runs.len() / 2]
}

pub(crate) fn title(run: &Outcome) -> String {
    format!("{}{}", run.contender, if run.hostile { " + bad peer" } else { "" })
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The nodes of the typical run.
fn nodes(column: &[&Outcome]) {
    let run = typical(column);
    println!("\n{}, the run in the middle", title(run));
    print!("{:>8}{:>9}{:>14}{:>11}{:>9}", "node", "begun, s", "first byte, s", "finish, s", "/ ideal");
    if run.cost.as_ref().is_some_and(|cost| cost.sources.is_some()) {
        print!("{:>14}{:>9}{:>9}{:>9}", "MiB: origin", "seed", "peer", "local");
    }
    println!();
    for (number, node) in run.nodes.iter().enumerate() {
        let (took, name) = (node.took() / run.ideal, format!("node{}", number + 1));
        print!("{name:>8}{:9.2}{:14.3}{:11.2}{took:9.3}", node.begun, node.first_byte, node.finish);
        if let Some(sources) = run.cost.as_ref().and_then(|cost| cost.sources.as_ref()?.get(number)) {
            let [origin, seed, peer, local] =
                [sources.origin, sources.seed, sources.peer, sources.local].map(|bytes| bytes as f64 / MIB);
            print!("{origin:14.1}{seed:9.1}{peer:9.1}{local:9.1}");
        }
        println!();
    }
}

fn cell(column: &[&Outcome], figure: fn(&Outcome) -> Option<f64>, decimals: usize) -> Option<String> {
    let values: Vec<f64> = column.iter().map(|run| figure(run)).collect::<Option<_>>()?;
    let (least, most) = values
        .iter()
        .fold((f64::MAX, f64::MIN), |(least, most), value| (least.min(*value), most.max(*value)));
    Some(format!("{:.decimals$} ({least:.decimals$} to {most:.decimals$})", median(values)))
}

/// How long the last node waits with Longshore against the others, run by run, so that a busy minute of the machine
/// weighs on both.
fn ratios(columns: &[Vec<&Outcome>]) {
    let Some((base, others)) = columns.split_first() else { return };
    for other in others {
        let (longshore, other) = if other[0].hostile { (other, base) } else { (base, other) };
        let pairs =
            longshore.iter().zip(other).map(|(longshore, other)| longshore.all_done() / other.all_done());
        println!("last node, {} / {}: {:.3}", title(longshore[0]), title(other[0]), median(pairs.collect()));
    }
    let slowest = others.iter().find(|column| column[0].contender == Contender::Direct.name());
    if let Some(direct) = slowest {
        let pairs =
            base.iter().zip(direct).map(|(longshore, direct)| direct.all_done() / longshore.all_done());
        println!("{:.1} times as fast as straight from the registry", median(pairs.collect()));
    }
}
