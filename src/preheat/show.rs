//! Jobs as tables.
#![expect(clippy::print_stdout, reason = "the command's answer")]

use supernode::preheat::{NodeState, NodeView, State, Target, View};

use crate::progress::bytes;

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
            node.reason.as_deref().unwrap_or_default()
        );
    }
    Ok(())
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

fn target(target: Target) -> &'static str {
    match target {
        Target::Cache => "cache",
        Target::Peers => "peers",
        Target::Runtime => "runtime",
    }
}

fn what(view: &View) -> String {
    match (&view.spec.image, view.spec.files.as_slice()) {
        (Some(image), _) => image.clone(),
        (None, [file]) => common::telemetry::redact(&file.url),
        (None, files) => format!("{} files", files.len()),
    }
}

fn print(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
