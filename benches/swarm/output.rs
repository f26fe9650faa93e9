//! The figures for programs, and the plot: how many nodes are done, over time.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use crate::lab::Outcome;
use crate::options::Options;
use crate::plot::{Plot, Series};
use crate::report::{columns, title, typical};

/// Writes what was asked for, and the plot in any case.
pub(crate) fn write(options: &Options, outcomes: &[Outcome]) -> anyhow::Result<()> {
    if let Some(path) = &options.json {
        let figures = json!({
            "mode": options.mode.name(), "nodes": options.nodes, "rate": options.rate, "size": options.size,
            "registry_rate": options.registry_rate(), "supernode_rate": options.supernode_rate(),
            "zones": options.zones(), "zone_rate": options.zone_rate,
            "ideal": options.ideal().as_secs_f64(), "runs": outcomes,
        });
        save(path, &serde_json::to_string_pretty(&figures)?)?;
    }
    let path = options.svg.clone().unwrap_or_else(|| {
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        scratch.parent().map_or_else(|| PathBuf::from("swarm.svg"), |target| target.join("swarm.svg"))
    });
    save(&path, &plot(options, outcomes).svg())?;
    println!("plot: {}", path.display());
    Ok(())
}

fn plot(options: &Options, outcomes: &[Outcome]) -> Plot {
    let series = columns(outcomes).into_iter().map(|column| {
        let run = typical(&column);
        let mut ends: Vec<f64> = run.nodes.iter().map(|node| node.finish).collect();
        ends.sort_by(f64::total_cmp);
        let steps = ends.into_iter().enumerate().flat_map(|(done, end)| {
            let done = done as f64;
            [(end, done), (end, done + 1.0)]
        });
        Series { name: title(run), points: std::iter::once((0.0, 0.0)).chain(steps).collect() }
    });
    let last = options.begins(usize::from(options.nodes.saturating_sub(1)));
    Plot {
        title: format!(
            "{}: {} nodes at {} Mbit/s, {} MiB each",
            options.mode.name(),
            options.nodes,
            options.rate as f64 / 1e6,
            options.size >> 20
        ),
        x_label: "seconds".to_owned(),
        y_label: "nodes that have everything".to_owned(),
        series: series.collect(),
        marks: vec![((last + options.ideal()).as_secs_f64(), "ideal".to_owned())],
    }
}

fn save(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
