//! One explained pull as a page of text: a time line with a row for each source and each thing that was waited for, two tables,
//! and the sentence. Pure.

use std::fmt::Write as _;

use peer::record::explain::{Explanation, Source, Wait};

use crate::progress::bytes;

/// A time line narrower than this says nothing.
const NARROWEST: usize = 16;
/// And a wider one not more: it is told in 64 parts.
const WIDEST: usize = 64;
/// Moments of one task are shown; of an image they would be hundreds.
const MAX_MOMENTS: usize = 24;
/// Columns of a row's name.
const NAME: usize = 22;

/// How a page looks.
#[derive(Clone, Copy)]
pub struct Style {
    /// Columns of the terminal.
    pub columns: usize,
    /// Whether it has block characters, as terminals have and files need not.
    pub blocks: bool,
}

/// The page, as it is seen at `now` in Unix milliseconds.
pub fn page(of: &Explanation, style: Style, now: u64) -> String {
    let mut page = head(of, now);
    page.push_str(&time_line(of, style));
    page.push_str(&sources(&of.sources));
    page.push_str(&waits(of));
    match of.parts.len() {
        0 | 1 => page.push_str(&moments(of)),
        _ => page.push_str(&parts(of)),
    }
    writeln!(page, "\n{}", of.sentence).expect("invariant: text takes text");
    page
}

fn head(of: &Explanation, now: u64) -> String {
    let client = of.client.as_ref().map_or_else(String::new, |client| format!(" for {client}"));
    let first = of.first_byte.map_or_else(String::new, |at| format!(", the first byte after {}", time(at)));
    let ago = now.saturating_sub(of.begun) / 1000;
    let state = match of.state.as_str() {
        "running" => "goes on",
        "failed" => "failed",
        _ => "done",
    };
    format!(
        "{}{client}\n{state}, begun {ago} s ago: {} in {}{first}\n",
        of.title,
        bytes(of.bytes),
        time(of.seconds)
    )
}

fn time_line(of: &Explanation, style: Style) -> String {
    let width = style.columns.saturating_sub(NAME + 3).clamp(NARROWEST, WIDEST);
    let end = time(of.seconds);
    let mut text = format!("\n{:NAME$} 0{end:>rest$}\n", "", rest = width - 1);
    let row = |name: String, chart: &[f64]| {
        format!("{name:<NAME$} {}\n", bar(chart, width, style.blocks).trim_end())
    };
    for source in of.sources.iter().filter(|source| source.bytes > 0) {
        text.push_str(&row(name(&source.source, source.node.as_deref()), &source.chart));
    }
    for wait in of.waits.iter().filter(|wait| wait.seconds >= of.seconds * 0.01) {
        text.push_str(&row(format!("- {}", waited(wait)), &wait.chart));
    }
    text
}

/// A chart as a row of so many characters, the highest of which is its greatest part.
fn bar(chart: &[f64], width: usize, blocks: bool) -> String {
    const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const PLAIN: [char; 9] = [' ', '.', '.', ':', '-', '=', '+', '*', '#'];
    let levels = if blocks { BLOCKS } else { PLAIN };
    let part = |at: usize| {
        let (from, to) = (at * chart.len() / width, ((at + 1) * chart.len()).div_ceil(width));
        let part = chart.get(from..to.min(chart.len()).max(from)).unwrap_or_default();
        if part.is_empty() { 0.0 } else { part.iter().sum::<f64>() / part.len() as f64 }
    };
    let parts: Vec<f64> = (0..width).map(part).collect();
    let most = parts.iter().copied().fold(0.0, f64::max);
    let level = |part: &f64| {
        if *part <= 0.0 || most <= 0.0 { 0 } else { ((part / most * 8.0).ceil() as usize).clamp(1, 8) }
    };
    parts.iter().map(|part| levels[level(part)]).collect()
}

fn sources(sources: &[Source]) -> String {
    let mut text = format!(
        "\n{:<NAME$} {:>11} {:>7} {:>7} {:>9} {:>13}\n",
        "FROM", "BYTES", "PIECES", "FAILED", "BUSY", "SPEED"
    );
    for source in sources {
        let speed = source.rate().map_or_else(|| "-".to_owned(), |rate| format!("{}/s", bytes(rate as u64)));
        writeln!(
            text,
            "{:<NAME$} {:>11} {:>7} {:>7} {:>9} {speed:>13}",
            name(&source.source, source.node.as_deref()),
            bytes(source.bytes),
            source.pieces,
            source.failures,
            time(source.seconds)
        )
        .expect("invariant: text takes text");
    }
    text
}

fn waits(of: &Explanation) -> String {
    let mut text = format!("\n{:<NAME$} {:>11} {:>7}\n", "WAITED FOR", "TIME", "SHARE");
    for wait in &of.waits {
        let share = wait.seconds / of.seconds.max(f64::EPSILON) * 100.0;
        writeln!(text, "{:<NAME$} {:>11} {share:>5.0} %", waited(wait), time(wait.seconds))
            .expect("invariant: text takes text");
    }
    text
}

fn moments(of: &Explanation) -> String {
    let mut text = "\nMOMENTS\n".to_owned();
    for moment in of.moments.iter().take(MAX_MOMENTS) {
        writeln!(text, "{:>9.3} s  {}", moment.at, moment.what).expect("invariant: text takes text");
    }
    text
}

fn parts(of: &Explanation) -> String {
    let mut text =
        format!("\n{:<14} {:>11} {:>9} {:>9}  {:<8} FROM\n", "PART", "LENGTH", "BEGUN", "DONE", "STATE");
    for part in &of.parts {
        let from: Vec<_> = part
            .sources
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(name, count)| format!("{name} {}", bytes(*count)))
            .collect();
        writeln!(
            text,
            "{:<14.12} {:>11} {:>9} {:>9}  {:<8} {}",
            part.task,
            part.length.map_or_else(|| "?".to_owned(), bytes),
            time(part.from),
            time(part.to),
            part.state,
            from.join(", ")
        )
        .expect("invariant: text takes text");
    }
    text
}

/// A source in a table.
fn name(source: &str, node: Option<&str>) -> String {
    node.map_or_else(|| source.to_owned(), |node| format!("{source} {node:.12}"))
}

/// What was waited for, in a table.
fn waited(wait: &Wait) -> String {
    match wait.cause.as_str() {
        "permission" => "leave of the origin".to_owned(),
        "supernode" => "answer to the join".to_owned(),
        "upstream" => "supernode's origin".to_owned(),
        "swarm" => "a free neighbour".to_owned(),
        "limit" => "own limit".to_owned(),
        "disk" => "own disk, hashing".to_owned(),
        "proof" => "proof of the whole".to_owned(),
        "client" => "the client".to_owned(),
        "idle" => "client, not asking".to_owned(),
        source => name(source, wait.node.as_deref()),
    }
}

/// `312 ms`, `4.20 s`, `2 min 5 s`
pub fn time(seconds: f64) -> String {
    match seconds {
        ..1.0 => format!("{:.0} ms", seconds.max(0.0) * 1e3),
        ..120.0 => format!("{seconds:.2} s"),
        _ => format!("{} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peer::record::explain::{Moment, Part};

    fn chart(of: &[(usize, f64)]) -> Vec<f64> {
        let mut chart = vec![0.0; 64];
        of.iter().for_each(|(at, value)| chart[*at] = *value);
        chart
    }

    fn explanation(parts: usize) -> Explanation {
        let source = |source: &str, node: Option<&str>, bytes, chart| Source {
            source: source.into(),
            node: node.map(Into::into),
            bytes,
            pieces: 3,
            failures: 1,
            seconds: 2.0,
            chart,
        };
        let part = Part {
            task: "ab".repeat(32),
            length: Some(1 << 20),
            from: 0.0,
            to: 1.0,
            sources: [("peer".to_owned(), 1 << 20)].into(),
            state: "ok".into(),
        };
        Explanation {
            title: "quay.test/team/app:1".into(),
            client: Some("containerd/1.7".into()),
            state: "ok".into(),
            error: None,
            begun: 1_000,
            seconds: 4.2,
            bytes: 3 << 20,
            first_byte: Some(0.31),
            sources: vec![
                source("peer", Some(&"7f".repeat(16)), 2 << 20, chart(&[(0, 1.0), (63, 8.0)])),
                source("seed", Some(&"11".repeat(16)), 1 << 20, chart(&[(32, 4.0)])),
                source("origin", None, 0, chart(&[])),
            ],
            waits: vec![Wait {
                cause: "peer".into(),
                node: Some("7f".repeat(16)),
                seconds: 3.1,
                chart: chart(&[(0, 0.05)]),
            }],
            moments: vec![Moment {
                at: 0.25,
                task: String::new(),
                what: "the client got its first byte".into(),
            }],
            parts: vec![part; parts],
            sentence: "Most of the time went somewhere.".into(),
        }
    }

    #[test]
    fn a_page_has_a_row_for_each_source_and_ends_with_the_sentence() {
        let page = page(&explanation(1), Style { columns: 100, blocks: true }, 13_000);
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(lines[0], "quay.test/team/app:1 for containerd/1.7");
        assert_eq!(lines[1], "done, begun 12 s ago: 3.00 MiB in 4.20 s, the first byte after 310 ms");
        assert_eq!(lines[4], format!("{:<22} ▁{}█", "peer 7f7f7f7f7f7f", " ".repeat(62)));
        assert_eq!(lines[5].trim_end(), format!("{:<22} {}█", "seed 111111111111", " ".repeat(32)));
        assert!(lines[6].starts_with("- peer 7f7f7f7f7f7f    █"), "{page}");
        assert!(page.contains("peer 7f7f7f7f7f7f           3.10 s    74 %"), "{page}");
        assert!(page.contains("    0.250 s  the client got its first byte"));
        assert_eq!(lines.last(), Some(&"Most of the time went somewhere."));
    }

    #[test]
    fn off_a_terminal_it_is_plain_and_it_fits_narrow_ones() {
        let (plain, narrow) = (Style { columns: 100, blocks: false }, Style { columns: 40, blocks: false });
        assert!(page(&explanation(3), plain, 0).is_ascii());
        let page = page(&explanation(3), narrow, 0);
        assert!(page.lines().skip(3).take(4).all(|line| line.chars().count() <= 40), "{page}");
        assert!(
            page.contains("abababababab      1.00 MiB      0 ms    1.00 s  ok       peer 1.00 MiB"),
            "{page}"
        );
    }

    #[test]
    fn times_for_people() {
        assert_eq!([0.0, 0.3104, 4.2, 125.0].map(time), ["0 ms", "310 ms", "4.20 s", "2 min 5 s"]);
    }
}
