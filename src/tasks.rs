//! `longshore tasks`: what the store of the local daemon has, and what of it is to stay or to go. Of `longshore up` that is
//! the peer's.

use std::time::{Duration, SystemTime};

use anyhow::bail;
use hyper::Method;
use peer::local_api::stored::StoredTask;

use crate::cli::{At, TaskDeed, TaskIds, Tasks};
use crate::local::{self, Daemon, Kind};
use crate::progress::bytes;

/// Fewer digits are a slip of the finger rather than a name.
const LEAST: usize = 8;
/// Digits of an id in a table: enough to name it by.
const SHOWN: usize = 12;

/// Runs the command.
pub async fn run(flags: Tasks) -> anyhow::Result<()> {
    match flags.deed {
        None => {
            let stored = list(&mut daemon(&flags.list.at).await?).await?;
            show(stored, flags.list.json)
        }
        Some(TaskDeed::Pin(ids)) => each(ids, Method::POST, "/pin").await,
        Some(TaskDeed::Unpin(ids)) => each(ids, Method::DELETE, "/pin").await,
        Some(TaskDeed::Remove(ids)) => each(ids, Method::DELETE, "").await,
    }
}

async fn daemon(at: &At) -> anyhow::Result<Daemon> {
    local::daemon(at, &[Kind::Peer, Kind::Supernode]).await
}

async fn list(daemon: &mut Daemon) -> anyhow::Result<Vec<StoredTask>> {
    Ok(serde_json::from_value(daemon.json("/tasks").await?)?)
}

/// Does the same to each task. All are looked up first: a slip in the last one changes nothing.
async fn each(ids: TaskIds, method: Method, path: &str) -> anyhow::Result<()> {
    let mut daemon = daemon(&ids.at).await?;
    let stored = list(&mut daemon).await?;
    let tasks: Vec<_> = ids.tasks.iter().map(|id| find(&stored, id)).collect::<Result<_, _>>()?;
    for task in tasks {
        daemon.ask(method.clone(), &format!("/tasks/{task}{path}"), Vec::new()).await?;
    }
    Ok(())
}

/// The one task that is meant.
fn find<'a>(stored: &'a [StoredTask], id: &str) -> anyhow::Result<&'a str> {
    let digits = id.strip_prefix("sha256:").unwrap_or(id).to_ascii_lowercase();
    if digits.len() < LEAST || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(crate::usage(anyhow::anyhow!(
            "{id:?} names no task: at least {LEAST} hexadecimal digits are expected, as `longshore tasks` lists them"
        )));
    }
    let mut found = stored.iter().filter(|stored| stored.task.starts_with(&digits));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(&one.task),
        (None, _) => bail!("no task in the store begins with {digits}: `longshore tasks` lists them"),
        (Some(_), Some(_)) => bail!("several tasks begin with {digits}: give more digits"),
    }
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn show(mut stored: Vec<StoredTask>, json: bool) -> anyhow::Result<()> {
    stored.sort_by_key(|stored| std::cmp::Reverse(stored.last_used));
    if json {
        println!("{}", serde_json::to_string_pretty(&stored)?);
        return Ok(());
    }
    if stored.is_empty() {
        println!("nothing is stored");
        return Ok(());
    }
    println!("{:<SHOWN$}  {:>10}  {:>11}  {:>8}  STATE", "TASK", "LENGTH", "PIECES", "USED");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    for task in stored {
        println!(
            "{:<SHOWN$.SHOWN$}  {:>10}  {:>11}  {:>8}  {}",
            task.task,
            bytes(task.length),
            format!("{}/{}", task.held, task.pieces),
            ago(now.saturating_sub(Duration::from_secs(task.last_used))),
            state(&task)
        );
    }
    Ok(())
}

fn state(task: &StoredTask) -> String {
    let known = [
        (task.proven, "whole"),
        (!task.proven, "partial"),
        (task.pinned, "pinned"),
        (task.adopted, "adopted"),
    ];
    known.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect::<Vec<_>>().join(", ")
}

/// A time in one unit.
fn ago(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(id: &str) -> StoredTask {
        StoredTask {
            task: format!("{id:0<64}"),
            length: 1,
            held: 1,
            pieces: 1,
            proven: true,
            pinned: true,
            adopted: false,
            last_used: 0,
        }
    }

    #[test]
    fn a_task_is_named_by_its_digest_or_as_much_of_it_as_no_other_has() {
        let kept = [stored("abcdef0123"), stored("abcdef0199")];
        assert_eq!(find(&kept, "ABCDEF0123").unwrap(), kept[0].task);
        assert_eq!(find(&kept, &format!("sha256:{}", kept[1].task)).unwrap(), kept[1].task);
        for (id, complaint) in [
            ("abcdef01", "several tasks"),
            ("00000000", "no task in the store"),
            ("abcdef", "at least 8"),
            ("../status", "at least 8"),
        ] {
            let said = find(&kept, id).unwrap_err().to_string();
            assert!(said.contains(complaint), "{id}: {said}");
        }
    }

    #[test]
    fn words_for_people() {
        assert_eq!(state(&stored("a")), "whole, pinned");
        let said = [59, 60, 7200, 200_000].map(|seconds| ago(Duration::from_secs(seconds)));
        assert_eq!(said, ["59 s", "1 min", "2 h", "2 d"]);
    }
}
