//! `longshore node`: turns members out and lets them in again. A running supernode sees it within seconds and tells all
//! peers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use common::config::Span;
use common::identity::{RevocationBook, RevocationEntry};
use common::node::NodeId;
use serde_json::json;

use crate::cli::{Node, NodeDeed};
use crate::{cluster_folder, usage};

/// Runs the command.
#[expect(clippy::print_stdout, reason = "the command's answer")]
pub fn run(flags: Node) -> anyhow::Result<()> {
    let book = RevocationBook::new(&cluster_folder::find(&flags.folder)?);
    let now = SystemTime::now();
    let id = |text: &str| text.parse::<NodeId>().map_err(usage);
    match flags.deed {
        NodeDeed::Revoke { id: text, r#for } => {
            let (node, span) = (id(&text)?, r#for.parse::<Span>().map_err(usage)?.0);
            let until = now.checked_add(span).context("--for is beyond the end of time")?;
            let until = book.revoke(node, until, now)?;
            if flags.folder.json {
                println!("{}", json!({ "node": node.to_string(), "until": until }));
            } else {
                println!(
                    "revoked for {}; it can come back under a new key as long as it has a join token: see `longshore token`",
                    left(until, now)
                );
            }
        }
        NodeDeed::List => {
            let entries: Vec<_> = book.list()?.into_iter().filter(|entry| !entry.allowed).collect();
            let alive = entries.iter().filter(|entry| at(entry.until) > now);
            if flags.folder.json {
                println!("{}", serde_json::to_string_pretty(&alive.map(row).collect::<Vec<_>>())?);
            } else {
                println!("{:<32} REVOKED FOR ANOTHER", "NODE");
                alive.for_each(|entry| println!("{} {}", entry.node, left(entry.until, now)));
            }
        }
        NodeDeed::Allow { id: text } => {
            let node = id(&text)?;
            book.allow(node, now)?;
            if flags.folder.json {
                println!("{}", json!({ "node": node.to_string(), "allowed": true }));
            } else {
                println!("allowed");
            }
        }
    }
    Ok(())
}

fn row(entry: &RevocationEntry) -> serde_json::Value {
    json!({ "node": entry.node.to_string(), "until": entry.until })
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn left(until: u64, now: SystemTime) -> String {
    in_words(at(until).duration_since(now).unwrap_or_default())
}

/// Days and hours, or hours and minutes: rounded up, nobody needs the seconds.
pub fn in_words(span: Duration) -> String {
    let minutes = span.as_secs().div_ceil(60);
    match minutes / 60 {
        hours @ 48.. => format!("{} d {} h", hours / 24, hours % 24),
        hours => format!("{hours} h {} min", minutes % 60),
    }
}
