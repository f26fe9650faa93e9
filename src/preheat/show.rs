//! Jobs as tables.
#![expect(clippy::print_stdout, reason = "the command's answer")]

use supernode::preheat::{Forecast, NodeState, NodeView, Spec, State, Target, View};

use crate::progress::bytes;

/// Parts of a job that are listed.
const FEW: usize = 40;

/// A job that was just taken on.
pub(super) fn taken_on(view: &View, json: bool) -> anyhow::Result<()> {
    if json {
        return print(view);
    }
    println!("job {}: {}; watch it with: longshore preheats watch {}", view.id, state(view.state), view.id);
    Ok(())
}

/// A job with its nodes, those that failed first.
pub(super) fn one(view: &View, json: bool) -> anyhow::Result<()> {
    if json {
        return print(view);
    }
    println!("job {}: {} to {}", view.id, what(view), target(view.spec.to));
    let contents =
        view.contents.map(|contents| format!(", {} in {} parts", bytes(contents.bytes), contents.tasks));
    println!(
        "{}: {} of {} nodes have it, {} at work, {} failed{}",
        state(view.state),
        view.succeeded,
        view.desired,
        view.active,
        view.failed,
        contents.unwrap_or_default()
    );
    view.message.iter().for_each(|message| println!("{message}"));
    parts(view);
    if view.nodes.is_empty() {
        return Ok(());
    }
    let mut nodes: Vec<&NodeView> = view.nodes.iter().collect();
    nodes.sort_by_key(|node| match node.state {
        NodeState::Failed => 0,
        NodeState::Active => 1,
        NodeState::Waiting => 2,
        NodeState::Succeeded => 3,
    });
    println!("\n{:<34}  {:<9}  {:>8}  {:>10}  REASON", "NODE", "STATE", "ATTEMPTS", "BYTES");
    for node in nodes {
        println!(
            "{:<34}  {:<9}  {:>8}  {:>10}  {}",
            called(node),
            node_state(node.state),
            node.attempts,
            bytes(node.bytes),
            progress(node, view)
        );
    }
    Ok(())
}

/// What a job would come to.
pub(super) fn forecast(spec: &Spec, forecast: &Forecast, json: bool) -> anyhow::Result<()> {
    if json {
        return print(forecast);
    }
    let Forecast { contents, desired, ready, origin_bytes, node_bytes, speeds, .. } = forecast;
    println!("{}: {} in {} parts", named(spec), bytes(contents.bytes), contents.tasks);
    forecast.unknown.iter().for_each(|name| println!("no connected node is called {name:?}"));
    match spec.to {
        Target::Cache if *ready == 1 => println!("cache   has all of it"),
        Target::Cache => {}
        _ => println!("nodes   {desired}, {ready} of which have all of it"),
    }
    println!("origin  {} would be fetched, once", bytes(*origin_bytes));
    if spec.to != Target::Cache {
        println!("swarm   {} would go to nodes, from the supernode and from each other", bytes(*node_bytes));
    }
    let speed = |speed: u64| format!("{}/s", bytes(speed));
    match forecast.seconds {
        Some(0) => println!("time    none: nothing is to be brought"),
        Some(seconds) => println!(
            "time    about {}, at the highest speeds of the last hour (origin {}, nodes together {})",
            common::config::Span(std::time::Duration::from_secs(seconds)),
            speed(speeds.origin),
            speed(speeds.nodes)
        ),
        None => println!("time    unknown: nothing was moved in the last hour to judge by"),
    }
    Ok(())
}

/// What the job consists of, where that fits on a screen.
fn parts(view: &View) {
    let all = view.contents.map_or(0, |contents| contents.tasks as usize);
    if view.parts.is_empty() || all > FEW || view.parts.len() < all {
        return;
    }
    println!("\n{:>4}  {:>10}  {:<19}  MEDIA TYPE", "PART", "BYTES", "DIGEST");
    for (number, part) in view.parts.iter().enumerate() {
        let digest = part.digest.as_deref().map(|digest| digest.chars().take(19).collect::<String>());
        println!(
            "{number:>4}  {:>10}  {:<19}  {}",
            part.size.map(bytes).unwrap_or_default(),
            digest.unwrap_or_default(),
            part.media_type
        );
    }
}

/// How far a node is with its parts, and which it is fetching.
fn progress(node: &NodeView, view: &View) -> String {
    let all = view.contents.map_or(0, |contents| contents.tasks);
    let fetching: Vec<String> = node.under_way.iter().map(|part| format!("#{}", part.part)).collect();
    let fetching = if fetching.is_empty() { String::new() } else { format!(", now {}", fetching.join(" ")) };
    match node.state {
        NodeState::Active if all > 0 => format!("{}/{all} parts{fetching}", node.parts_done),
        _ => node.reason.clone().unwrap_or_default(),
    }
}

/// All jobs, a line each.
pub(super) fn all(views: &[View], json: bool) -> anyhow::Result<()> {
    if json {
        return print(&views);
    }
    if views.is_empty() {
        println!("there are no preheat jobs");
        return Ok(());
    }
    println!("{:>5}  {:<9}  {:<7}  {:>11}  {:>6}  WHAT", "JOB", "STATE", "TO", "NODES", "FAILED");
    for view in views {
        println!(
            "{:>5}  {:<9}  {:<7}  {:>11}  {:>6}  {}",
            view.id,
            state(view.state),
            target(view.spec.to),
            format!("{}/{}", view.succeeded, view.desired),
            view.failed,
            what(view)
        );
    }
    Ok(())
}

/// How a node is called.
pub(super) fn called(node: &NodeView) -> &str {
    if node.name.is_empty() { &node.node } else { &node.name }
}

pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Running => "running",
        State::Paused => "paused",
        State::Succeeded => "succeeded",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
}

fn node_state(state: NodeState) -> &'static str {
    match state {
        NodeState::Waiting => "waiting",
        NodeState::Active => "active",
        NodeState::Succeeded => "succeeded",
        NodeState::Failed => "failed",
    }
}

pub(super) fn target(target: Target) -> &'static str {
    match target {
        Target::Cache => "cache",
        Target::Peers => "peers",
        Target::Runtime => "runtime",
    }
}

fn what(view: &View) -> String {
    named(&view.spec)
}

/// What a job is to bring.
pub(super) fn named(spec: &Spec) -> String {
    match (&spec.image, spec.files.as_slice()) {
        (Some(image), _) => image.clone(),
        (None, [file]) => common::telemetry::redact(&file.url),
        (None, files) => format!("{} files", files.len()),
    }
}

pub(super) fn print(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
