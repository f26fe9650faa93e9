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
    let host = |peer: &Value| text(&peer["labels"]["host"]).to_owned();
    let wide = rows.iter().map(|peer| host(peer).chars().count()).max().unwrap_or_default().clamp(4, 64);
    let line = |cells: [&str; 7]| {
        let [node, host, address, zone, tasks, blames, standing] = cells;
        println!("{node:<34} {host:<wide$} {address:<22} {zone:<12} {tasks:>5} {blames:>6}  {standing}");
    };
    line(["NODE", "HOST", "ADDRESS", "ZONE", "TASKS", "BLAMES", "STANDING"]);
    for peer in rows {
        let (tasks, blames) = (peer["tasks"].to_string(), peer["blames"].to_string());
        let (zone, standing) = (text(&peer["labels"]["zone"]), text(&peer["standing"]));
        line([text(&peer["node"]), &host(peer), text(&peer["address"]), zone, &tasks, &blames, standing]);
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
