//! The last pulls as a table: images, and what belongs to none. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use peer::local_api::pulls::Pulls;
use peer::record::explain::Summary;

use super::draw::time;
use crate::progress::bytes;

/// Rows of the table: the latest.
const ROWS: usize = 30;
/// Columns of a name.
const NAME: usize = 48;

/// What one row says.
struct Row {
    begun: u64,
    name: String,
    client: String,
    bytes: u64,
    seconds: f64,
    sources: BTreeMap<String, u64>,
    state: String,
}

/// The table, as it is seen at `now` in Unix milliseconds; nothing when there is nothing.
pub fn page(of: &Pulls, now: u64) -> String {
    let mut rows = rows(of);
    rows.sort_by_key(|row| std::cmp::Reverse(row.begun));
    if rows.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "{:<NAME$} {:>9} {:>11} {:>9}  {:<8} {:<16} FROM\n",
        "PULL", "BEGUN", "BYTES", "TIME", "STATE", "CLIENT"
    );
    for row in rows.into_iter().take(ROWS) {
        let from = row.sources.iter().filter(|(_, count)| **count > 0);
        let from: Vec<_> = from.map(|(name, count)| format!("{name} {}", bytes(*count))).collect();
        writeln!(
            text,
            "{:<NAME$} {:>5} ago {:>11} {:>9}  {:<8} {:<16.16} {}",
            row.name,
            ago(now.saturating_sub(row.begun)),
            bytes(row.bytes),
            time(row.seconds),
            row.state,
            row.client,
            from.join(", ")
        )
        .expect("invariant: text takes text");
    }
    text
}

fn rows(of: &Pulls) -> Vec<Row> {
    let mut used = BTreeSet::new();
    let mut rows = Vec::new();
    for image in &of.images {
        // The newest pull of each task; what came before the image was asked for belongs to another one.
        let belongs = |pull: &&Summary| {
            image.tasks.contains(&pull.task)
                && pull.begun as f64 + pull.seconds * 1e3 + 1.0 >= image.asked as f64
        };
        let mut pulls: BTreeMap<&str, &Summary> = BTreeMap::new();
        for pull in of.pulls.iter().filter(belongs) {
            pulls.entry(&pull.task).or_insert(pull);
        }
        used.extend(pulls.values().map(|pull| (pull.task.clone(), pull.begun)));
        rows.extend(row_of_image(image.image.clone(), (image.client.clone(), image.asked), &pulls));
    }
    let others = of.pulls.iter().filter(|pull| !used.contains(&(pull.task.clone(), pull.begun)));
    rows.extend(others.map(row_of_task));
    rows
}

fn row_of_image(
    name: String,
    (client, asked): (String, u64),
    pulls: &BTreeMap<&str, &Summary>,
) -> Option<Row> {
    let end = pulls
        .values()
        .map(|pull| pull.begun as f64 + pull.seconds * 1e3)
        .fold(None, |end: Option<f64>, at| Some(end.map_or(at, |end| end.max(at))))?;
    let mut sources = BTreeMap::new();
    for (source, count) in pulls.values().flat_map(|pull| &pull.sources) {
        *sources.entry(source.clone()).or_default() += count;
    }
    let any = |state: &&str| pulls.values().any(|pull| pull.state == *state);
    let state = ["running", "failed"].into_iter().find(any).unwrap_or("ok").to_owned();
    let seconds = (end - asked as f64).max(0.0) / 1e3;
    Some(Row { begun: asked, name, client, bytes: sources.values().sum(), seconds, sources, state })
}

fn row_of_task(pull: &Summary) -> Row {
    let name = pull.name.as_deref().unwrap_or_default();
    let room = NAME - 13;
    let from = name.chars().count().saturating_sub(room);
    // The end of a name tells more than its beginning.
    let tail: String = name.chars().skip(from).collect();
    Row {
        begun: pull.begun,
        name: format!("{:.12} {tail}", pull.task).trim_end().to_owned(),
        client: pull.client.clone().unwrap_or_default(),
        bytes: pull.sources.values().sum(),
        seconds: pull.seconds,
        sources: pull.sources.clone(),
        state: pull.state.clone(),
    }
}

/// A time in one unit.
fn ago(millis: u64) -> String {
    match millis / 1000 {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} m", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peer::local_api::pulls::ImagePull;

    fn pull(task: &str, begun: u64, state: &str) -> Summary {
        Summary {
            task: format!("{task:0<64}"),
            name: Some("quay.test/team/app".into()),
            client: Some("containerd/1.7".into()),
            begun,
            seconds: 1.5,
            length: Some(1 << 20),
            sources: [("peer".to_owned(), 1 << 20), ("seed".to_owned(), 0)].into(),
            first_byte: None,
            state: state.into(),
            error: None,
        }
    }

    #[test]
    fn an_image_is_one_row_and_what_belongs_to_none_has_its_own() {
        let image = ImagePull {
            image: "quay.test/team/app:1".into(),
            client: "containerd/1.7".into(),
            asked: 100_000,
            tasks: ["aa", "bb"].map(|task| format!("{task:0<64}")).into(),
        };
        let pulls = vec![
            pull("aa", 101_000, "ok"),
            pull("bb", 102_000, "running"),
            pull("aa", 5_000, "ok"),
            pull("cc", 99_000, "failed"),
        ];
        let page = page(&Pulls { images: vec![image], pulls }, 110_000);
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(lines.len(), 4, "{page}");
        assert!(
            lines[1].starts_with("quay.test/team/app:1 ")
                && lines[1].contains("10 s ago    2.00 MiB    3.50 s  running"),
            "{page}"
        );
        assert!(
            lines[2].starts_with("cc0000000000 quay.test/team/app") && lines[2].contains("failed"),
            "{page}"
        );
        assert!(
            lines[3].starts_with("aa0000000000")
                && lines[3].contains("1.00 MiB    1.50 s  ok       containerd/1.7   peer 1.00 MiB"),
            "{page}"
        );
        assert_eq!(super::page(&Pulls { images: Vec::new(), pulls: Vec::new() }, 0), "");
    }
}
