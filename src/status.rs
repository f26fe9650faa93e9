//! `longshore status`: how the local daemon is, as a table or as JSON.

use peer::local_api::pulls::Pulls;
use peer::record::explain::Summary;
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
    let pulls: Pulls = serde_json::from_value(daemon.json("/pulls").await?)?;
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
    for pull in pulls.pulls.iter().filter(|pull| pull.state == "running") {
        println!("  {:<16} {}", "pulling", going_on(pull));
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

/// How far a pull is, how fast, and from where.
fn going_on(pull: &Summary) -> String {
    let count: u64 = pull.sources.values().sum();
    let of = pull.length.map_or_else(String::new, |length| format!(" of {}", bytes(length)));
    let speed = bytes((count as f64 / pull.seconds.max(0.001)) as u64);
    let from = pull.sources.iter().filter(|(_, count)| **count > 0);
    let from: Vec<_> = from.map(|(name, count)| format!("{name} {}", bytes(*count))).collect();
    let from = if from.is_empty() { String::new() } else { format!(": {}", from.join(", ")) };
    format!("{:.12} {}{of} at {speed}/s{from}", pull.task, bytes(count))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_that_goes_on_says_how_fast_and_from_where() {
        let mut pull = Summary {
            task: "ab".repeat(32),
            name: None,
            client: None,
            begun: 0,
            seconds: 2.0,
            length: None,
            sources: [("peer".to_owned(), 0)].into(),
            first_byte: None,
            state: "running".into(),
            error: None,
        };
        assert_eq!(going_on(&pull), "abababababab 0 B at 0 B/s");
        pull.length = Some(8 << 20);
        pull.sources = [("peer".to_owned(), 3 << 20), ("seed".to_owned(), 1 << 20)].into();
        let said = "abababababab 4.00 MiB of 8.00 MiB at 2.00 MiB/s: peer 3.00 MiB, seed 1.00 MiB";
        assert_eq!(going_on(&pull), said);
    }
}
