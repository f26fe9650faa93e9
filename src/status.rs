//! `longshore status`: how the local daemon is, as a table or as JSON.

use serde_json::Value;

use crate::cli::Status;
use crate::local::{self, Kind};
use crate::progress::bytes;

/// Runs the command.
#[expect(clippy::print_stdout, reason = "the command's answer")]
pub async fn run(flags: Status) -> anyhow::Result<()> {
    let mut daemon = local::daemon(&flags.at, &[Kind::Peer, Kind::Supernode]).await?;
    let status = daemon.json("/status").await?;
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(());
    }
    match status.get("seed") {
        Some(seed) => {
            println!("supernode");
            node(seed);
            println!("  {:<16} {}", "sessions", status["sessions"]);
            swarms(&status["tasks"]);
        }
        None => {
            println!("peer");
            node(&status);
            let session = if status["supernode"] == true { "up" } else { "down: pulls go to the origin" };
            println!("  {:<16} {session}", "supernode");
            for supernode in status["supernodes"].as_array().into_iter().flatten() {
                let session = if supernode["connected"] == true { "up" } else { "down" };
                println!("  {:<16} {} {session}", "", text(&supernode["address"]));
            }
        }
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn node(status: &Value) {
    let count = |value: &Value| bytes(value.as_u64().unwrap_or(0));
    println!("  {:<16} {}", "node", text(&status["node"]));
    println!("  {:<16} {}", "version", text(&status["version"]));
    println!("  {:<16} {} in {} tasks", "stored", count(&status["stored_bytes"]), status["stored_tasks"]);
    let quota =
        status["quota_bytes"].as_u64().map(|quota| format!(" of {}", bytes(quota))).unwrap_or_default();
    println!(
        "  {:<16} {}{quota}, {} free, {} tasks pinned",
        "disk",
        count(&status["disk_bytes"]),
        count(&status["free_bytes"]),
        status["pinned_tasks"].as_u64().unwrap_or_default()
    );
    if status["adopted_tasks"].as_u64().is_some_and(|tasks| tasks > 0) {
        println!(
            "  {:<16} {} in {} tasks",
            "adopted",
            count(&status["adopted_bytes"]),
            status["adopted_tasks"]
        );
    }
    for (direction, kinds) in [("received from", "received"), ("sent to", "sent")] {
        for (name, value) in status[kinds].as_object().into_iter().flatten() {
            println!("  {:<16} {}", format!("{direction} {name}"), count(value));
        }
    }
    for task in status["tasks"].as_array().into_iter().flatten() {
        let pieces = task["pieces"].as_u64().map_or_else(|| "?".into(), |pieces| pieces.to_string());
        let id: String = text(&task["task"]).chars().take(12).collect();
        println!("  {:<16} {id} {}/{pieces} pieces of {}", "task", task["held"], count(&task["length"]));
    }
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn swarms(tasks: &Value) {
    for summary in tasks.as_array().into_iter().flatten() {
        let id: String = text(&summary["task"]).chars().take(12).collect();
        println!("  {:<16} {id} {} members, {} complete", "swarm", summary["members"], summary["complete"]);
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
