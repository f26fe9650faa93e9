//! `longshore peers`: who takes part, and who is to blame for what. At a supernode all connected peers as it sees them, at a
//! peer the neighbours that wronged it.

use serde_json::Value;

use crate::cli::Status;
use crate::local::{self, Kind};

/// Runs the command.
#[expect(clippy::print_stdout, reason = "the command's answer")]
pub async fn run(flags: Status) -> anyhow::Result<()> {
    let mut daemon = local::daemon(&flags.at, &[Kind::Supernode, Kind::Peer]).await?;
    let of = if daemon.kind() == Kind::Supernode { "peers" } else { "neighbours" };
    let peers = daemon.json("/status").await?[of].take();
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&peers)?);
        return Ok(());
    }
    let rows: Vec<&Value> = peers.as_array().into_iter().flatten().collect();
    match rows.first() {
        None => println!("nobody"),
        Some(first) if first.get("faults").is_some() => neighbours(&rows),
        Some(_) => members(&rows),
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn members(rows: &[&Value]) {
    println!("{:<34} {:<22} {:<12} {:>5} {:>6}  STANDING", "NODE", "ADDRESS", "ZONE", "TASKS", "BLAMES");
    for peer in rows {
        println!(
            "{:<34} {:<22} {:<12} {:>5} {:>6}  {}",
            text(&peer["node"]),
            text(&peer["address"]),
            text(&peer["labels"]["zone"]),
            peer["tasks"],
            peer["blames"],
            text(&peer["standing"])
        );
    }
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn neighbours(rows: &[&Value]) {
    println!("{:<34} {:<8} FAULTS", "NODE", "TRUSTED");
    for neighbour in rows {
        let faults = neighbour["faults"].as_object().into_iter().flatten();
        let faults: Vec<_> = faults.map(|(fault, count)| format!("{fault} {count}")).collect();
        let trusted = if neighbour["barred"] == true { "no" } else { "yes" };
        println!("{:<34} {trusted:<8} {}", text(&neighbour["node"]), faults.join(", "));
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
