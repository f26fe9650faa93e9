//! The one sentence that says what a pull spent its time on. Pure.

use super::explain::{Explanation, Source, Wait};

/// From this part of the whole on something is most of it.
const MOST: f64 = 0.5;
/// Below this nothing stands out.
const MUCH: f64 = 0.25;
/// Seconds below which one counts in thousandths.
const SHORT: f64 = 1.0;

/// What took longest.
pub(super) fn sentence(of: &Explanation) -> String {
    let Some(wait) = of.waits.first().filter(|_| of.seconds > 0.0) else {
        return match &of.error {
            Some(error) => format!("It failed at once: {error}."),
            None => "It took no time to speak of.".to_owned(),
        };
    };
    let share = wait.seconds / of.seconds;
    let times = parts(wait.seconds, of.seconds);
    let beginning = match &of.error {
        Some(error) => format!("It failed: {error}. Until then "),
        None if of.state == "running" => "It goes on. So far ".to_owned(),
        None => String::new(),
    };
    let part = match share {
        MOST.. => format!("most of the time {times} went to"),
        MUCH.. => format!("the largest part of the time {times} went to"),
        _ => format!("nothing stood out; the largest part of the time {times} went to"),
    };
    let sentence = format!("{beginning}{part} {}.", what(of, wait));
    let mut letters = sentence.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn what(of: &Explanation, wait: &Wait) -> String {
    let source = || of.sources.iter().find(|source| source.source == wait.cause && source.node == wait.node);
    let node = wait.node.as_deref().unwrap_or("several at once");
    let sent = || source().map_or_else(String::new, |source| format!(", which {}", speed(of, source)));
    match wait.cause.as_str() {
        "permission" => "asking the origin whether this client may have it".to_owned(),
        "supernode" => "waiting for the supernode's answer to the join".to_owned(),
        "upstream" => {
            "waiting for the supernode, which had not got the next piece from the origin yet".to_owned()
        }
        "swarm" => "waiting for a neighbour with the next piece and room to send it".to_owned(),
        "limit" => "this node's own download limit".to_owned(),
        "disk" => "this node's own disk and hashing".to_owned(),
        "proof" => "waiting for the word that the whole is right".to_owned(),
        "client" => format!("the client, which was slow to take the bytes{}", taken(of, wait)),
        "idle" => "the client, which asked for nothing".to_owned(),
        "origin" => format!("waiting for the origin{}", sent()),
        "cache" => format!("waiting for the bucket{}", sent()),
        "seed" => format!("waiting for supernode {node}{}", sent()),
        _ => format!("waiting for peer {node}{}", sent()),
    }
}

/// How fast it sent, and the others beside it.
fn speed(of: &Explanation, source: &Source) -> String {
    let Some(rate) = source.rate() else { return "sent nothing".to_owned() };
    let others = of.sources.iter().filter(|other| {
        (&other.source, &other.node) != (&source.source, &source.node) && other.source != "store"
    });
    let (bytes, seconds) = others
        .filter(|other| other.rate().is_some())
        .fold((0.0, 0.0), |(bytes, seconds), other| (bytes + other.bytes as f64, seconds + other.seconds));
    if seconds > 0.0 {
        format!("sent at {}/s while others sent at {}/s", size(rate), size(bytes / seconds))
    } else {
        format!("sent at {}/s", size(rate))
    }
}

/// How fast a client took what it got.
fn taken(of: &Explanation, wait: &Wait) -> String {
    if wait.seconds <= 0.0 || of.bytes == 0 {
        return String::new();
    }
    format!(": {} in {}", size(of.bytes as f64), time(of.seconds))
}

/// `1.2 MiB`
fn size(bytes: f64) -> String {
    let (mut value, mut unit) = (bytes, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if value < 10.0 && unit != "B" { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

fn time(seconds: f64) -> String {
    if seconds < SHORT { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.1} s") }
}

/// `(3.1 of 4.2 s)`
fn parts(of: f64, whole: f64) -> String {
    if whole < SHORT {
        format!("({:.0} of {:.0} ms)", of * 1e3, whole * 1e3)
    } else {
        format!("({of:.1} of {whole:.1} s)")
    }
}
