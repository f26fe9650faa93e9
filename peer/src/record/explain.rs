//! What records say, put together: [`explain`] lays the records of one pull side by side and shares its time among what was
//! waited for; [`Summary`] is one line of it. Pure: the local API serves both, and the command line draws them.
//!
//! # How the time is shared
//! An image is several tasks at once. Each moment goes in equal parts to what those who read at that moment were waiting for; a
//! moment at which nobody read is the client's, which asked for nothing. The shares add up to the whole.

use std::collections::BTreeMap;
use std::time::{Instant, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::chart::{BUCKETS, spread};
use super::{CAUSES, Cause, End, Mark, Record, Who, verdict};

/// Less of the whole than this is the rounding of the charts.
const NEGLIGIBLE: f64 = 0.005;
/// Moments that are shown.
const MAX_MOMENTS: usize = 64;

/// One pull, in a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Summary {
    /// The task.
    pub task: String,
    /// `registry/repository`, or a redacted URL, where a client asked for it.
    #[serde(default)]
    pub name: Option<String>,
    /// What the client calls itself.
    #[serde(default)]
    pub client: Option<String>,
    /// When it began: Unix milliseconds.
    pub begun: u64,
    /// How long it took, or has taken.
    pub seconds: f64,
    /// Its length, once known.
    #[serde(default)]
    pub length: Option<u64>,
    /// Bytes that came, by where from.
    pub sources: BTreeMap<String, u64>,
    /// When a client got the first byte, in seconds.
    #[serde(default)]
    pub first_byte: Option<f64>,
    /// `running`, `ok` or `failed`.
    pub state: String,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<String>,
}

/// One pull, explained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// What was pulled.
    pub title: String,
    /// By whom.
    #[serde(default)]
    pub client: Option<String>,
    /// `running`, `ok` or `failed`.
    pub state: String,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<String>,
    /// When it began: Unix milliseconds.
    pub begun: u64,
    /// How long it took.
    pub seconds: f64,
    /// Bytes that came.
    pub bytes: u64,
    /// When a client got the first byte, in seconds.
    #[serde(default)]
    pub first_byte: Option<f64>,
    /// Who gave what.
    pub sources: Vec<Source>,
    /// What was waited for, longest first.
    pub waits: Vec<Wait>,
    /// Moments worth a line.
    pub moments: Vec<Moment>,
    /// The tasks of an image, in the order in which they began.
    pub parts: Vec<Part>,
    /// What took longest, in one sentence.
    pub sentence: String,
}

/// Somebody that gave pieces, or was asked for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Source {
    /// `origin`, `cache`, `seed`, `peer` or `store`.
    pub source: String,
    /// Which node.
    #[serde(default)]
    pub node: Option<String>,
    /// Bytes that it gave.
    pub bytes: u64,
    /// Pieces that it gave.
    pub pieces: u32,
    /// Requests that came to nothing, by its fault.
    pub failures: u32,
    /// For how long requests to it were under way.
    pub seconds: f64,
    /// Bytes over time, in equal parts of the whole.
    pub chart: Vec<f64>,
}

/// Something that was waited for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Wait {
    /// `permission`, `supernode`, `upstream`, `swarm`, `limit`, `disk`, `proof`, `client`, `idle`, or a source.
    pub cause: String,
    /// Which node.
    #[serde(default)]
    pub node: Option<String>,
    /// For how long.
    pub seconds: f64,
    /// Seconds over time, in equal parts of the whole.
    pub chart: Vec<f64>,
}

/// A moment worth a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Moment {
    /// Seconds from the beginning.
    pub at: f64,
    /// Of which task.
    pub task: String,
    /// What happened.
    pub what: String,
}

/// A task of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Part {
    /// The task.
    pub task: String,
    /// Its length, once known.
    #[serde(default)]
    pub length: Option<u64>,
    /// When it began, in seconds from the beginning.
    pub from: f64,
    /// And when it was over.
    pub to: f64,
    /// Bytes that came, by where from.
    pub sources: BTreeMap<String, u64>,
    /// `running`, `ok` or `failed`.
    pub state: String,
}

/// What was waited for, over all records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Waited {
    Own(Cause),
    For(Who),
    /// The client, which asked for nothing.
    Idle,
}

type Buckets = [f32; BUCKETS];

/// Puts records of one pull together.
pub fn explain(title: String, records: &[Record], now: Instant) -> Explanation {
    let records: Vec<Record> = records.iter().map(|record| record.settled(now)).collect();
    let start = records.iter().map(|record| record.start).min().unwrap_or(now);
    let end = records.iter().map(|record| record.until(now)).max().unwrap_or(now).max(start);
    let span = Span { start, seconds: end.duration_since(start).as_secs_f64(), now };
    let sources = span.sources(&records);
    let waits = span.waits(&records);
    let state = state_of(&records);
    let error = records.iter().find_map(Record::error);
    let begun = records.iter().map(begun).min().unwrap_or_default();
    let bytes = sources.iter().map(|source| source.bytes).sum();
    let firsts = records.iter().filter_map(|record| record.first_byte).min();
    let mut explanation = Explanation {
        title,
        client: records.iter().find_map(|record| record.by.as_ref()).map(|by| by.client.to_string()),
        state: state.to_owned(),
        error,
        begun,
        seconds: span.seconds,
        bytes,
        first_byte: firsts.map(|at| span.at(at)),
        sources,
        waits,
        moments: span.moments(&records),
        parts: records
            .iter()
            .filter(|record| !record.is_question())
            .map(|record| span.part(record))
            .collect(),
        sentence: String::new(),
    };
    explanation.parts.sort_by(|one, other| one.from.total_cmp(&other.from));
    explanation.sentence = verdict::sentence(&explanation);
    explanation
}

/// The whole of a pull, over all its records.
struct Span {
    start: Instant,
    seconds: f64,
    now: Instant,
}

// === impl Span ===

impl Span {
    fn at(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.start).as_secs_f64()
    }

    /// Width of a bucket of the whole, in microseconds.
    fn width(&self) -> f64 {
        (self.seconds * 1e6 / BUCKETS as f64).max(1e-3)
    }

    /// Adds a record's chart to one of the whole.
    fn add(&self, to: &mut Buckets, record: &Record, chart: &Buckets) {
        let (shift, width) = (self.at(record.start) * 1e6, record.axis.width() as f64);
        let end = self.at(record.until(self.now)) * 1e6;
        for (at, value) in chart.iter().enumerate().filter(|(_, value)| **value > 0.0) {
            let from = (shift + at as f64 * width).min(end);
            spread(to, self.width(), (from, (from + width).min(end)), f64::from(*value));
        }
    }

    fn sources(&self, records: &[Record]) -> Vec<Source> {
        let mut all: BTreeMap<Who, (Source, Buckets)> = BTreeMap::new();
        for (record, giver) in
            records.iter().flat_map(|record| record.givers.iter().map(move |g| (record, g)))
        {
            let new = || (Source::of(giver.who), [0.0; BUCKETS]);
            let (source, chart) = all.entry(giver.who).or_insert_with(new);
            source.bytes += giver.bytes;
            source.pieces += giver.pieces;
            source.failures += giver.failed;
            source.seconds += giver.busy as f64 / 1e6;
            self.add(chart, record, giver.sent.values());
        }
        let several = records.len() > 1;
        let drawn = |(mut source, chart): (Source, Buckets)| {
            if several {
                // Requests for several tasks at once take their time once.
                let touched = chart.iter().filter(|value| **value > 0.0).count() as f64;
                source.seconds = source.seconds.min((touched * self.width() / 1e6).max(1e-6));
            }
            source.chart = chart.iter().map(|value| f64::from(*value)).collect();
            source
        };
        let mut sources: Vec<Source> = all.into_values().map(drawn).collect();
        sources.sort_by_key(|source| std::cmp::Reverse(source.bytes));
        sources
    }

    fn waits(&self, records: &[Record]) -> Vec<Wait> {
        let mut all: BTreeMap<Waited, Buckets> = BTreeMap::new();
        for record in records {
            let own = CAUSES.iter().map(|cause| (Waited::Own(*cause), &record.causes[*cause as usize]));
            let givers = record.givers.iter().map(|giver| (Waited::For(giver.who), &giver.waited));
            for (what, meter) in own.chain(givers).filter(|(_, meter)| meter.total > 0) {
                self.add(all.entry(what).or_insert([0.0; BUCKETS]), record, meter.chart.values());
            }
        }
        let width = self.width() as f32;
        let mut idle = [0.0; BUCKETS];
        for at in 0..BUCKETS {
            let sum: f32 = all.values().map(|chart| chart[at]).sum();
            let share = if sum > width { width / sum } else { 1.0 };
            all.values_mut().for_each(|chart| chart[at] *= share);
            idle[at] = (width - sum).max(0.0);
        }
        all.insert(Waited::Idle, idle);
        let mut waits: Vec<Wait> = all.into_iter().map(|(what, chart)| Wait::of(what, &chart)).collect();
        waits.retain(|wait| wait.seconds > self.seconds * NEGLIGIBLE);
        waits.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
        waits
    }

    fn moments(&self, records: &[Record]) -> Vec<Moment> {
        let of = |record: &Record| {
            let task = record.task.hex();
            let moment = |(at, mark): &(Instant, Mark)| Moment {
                at: self.at(*at),
                task: task.clone(),
                what: said(mark),
            };
            record.marks.iter().map(moment).collect::<Vec<_>>()
        };
        let mut all: Vec<Moment> = records.iter().flat_map(of).collect();
        all.sort_by(|one, other| one.at.total_cmp(&other.at));
        all.truncate(MAX_MOMENTS);
        all
    }

    fn part(&self, record: &Record) -> Part {
        Part {
            task: record.task.hex(),
            length: record.geometry.map(|geometry| geometry.length()),
            from: self.at(record.start),
            to: self.at(record.until(self.now)),
            sources: by_source(record),
            state: record.state().to_owned(),
        }
    }
}

// === impl Source ===

impl Source {
    fn of(who: Who) -> Self {
        let (source, node) = name(who);
        Self { source, node, bytes: 0, pieces: 0, failures: 0, seconds: 0.0, chart: Vec::new() }
    }

    /// Bytes a second while requests were under way; none where nothing can be said.
    pub fn rate(&self) -> Option<f64> {
        (self.bytes > 0 && self.seconds > 1e-4).then(|| self.bytes as f64 / self.seconds)
    }
}

// === impl Wait ===

impl Wait {
    fn of(what: Waited, chart: &Buckets) -> Self {
        let (cause, node) = match what {
            Waited::For(who) => name(who),
            Waited::Own(cause) => (cause.word().to_owned(), None),
            Waited::Idle => ("idle".to_owned(), None),
        };
        let chart: Vec<f64> = chart.iter().map(|micros| f64::from(*micros) / 1e6).collect();
        Self { cause, node, seconds: chart.iter().sum(), chart }
    }
}

// === impl Summary ===

impl Summary {
    /// Of a record.
    pub fn of(record: &Record, now: Instant) -> Self {
        let until = record.until(now);
        Self {
            task: record.task.hex(),
            name: record.by.as_ref().map(|by| by.name.to_string()),
            client: record.by.as_ref().map(|by| by.client.to_string()),
            begun: begun(record),
            seconds: until.saturating_duration_since(record.start).as_secs_f64(),
            length: record.geometry.map(|geometry| geometry.length()),
            sources: by_source(record),
            first_byte: record
                .first_byte
                .map(|first| first.saturating_duration_since(record.start).as_secs_f64()),
            state: record.state().to_owned(),
            error: record.error(),
        }
    }
}

// === impl Cause ===

impl Cause {
    fn word(self) -> &'static str {
        match self {
            Self::Permission => "permission",
            Self::Supernode => "supernode",
            Self::Upstream => "upstream",
            Self::Swarm => "swarm",
            Self::Limit => "limit",
            Self::Disk => "disk",
            Self::Proof => "proof",
            Self::Client => "client",
        }
    }
}

// === impl Record ===

impl Record {
    fn state(&self) -> &'static str {
        match &self.ended {
            Some((_, End::Failed { .. })) => "failed",
            Some((_, End::Ok)) if self.active.is_empty() => "ok",
            _ => "running",
        }
    }

    fn error(&self) -> Option<String> {
        match &self.ended {
            Some((_, End::Failed { why, .. })) => Some(why.clone()),
            _ => None,
        }
    }
}

fn state_of(records: &[Record]) -> &'static str {
    let any = |state: &str| records.iter().any(|record| record.state() == state);
    ["running", "failed"].into_iter().find(|state| any(state)).unwrap_or("ok")
}

fn begun(record: &Record) -> u64 {
    record.wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn by_source(record: &Record) -> BTreeMap<String, u64> {
    let mut bytes = BTreeMap::new();
    for giver in &record.givers {
        *bytes.entry(name(giver.who).0).or_default() += giver.bytes;
    }
    bytes
}

fn name(who: Who) -> (String, Option<String>) {
    let (source, node) = match who {
        Who::Origin => ("origin", None),
        Who::Cache => ("cache", None),
        Who::Seed(node) => ("seed", Some(node)),
        Who::Peer(node) => ("peer", Some(node)),
        Who::Store => ("store", None),
        Who::Others => ("peer", None),
    };
    (source.to_owned(), node.map(|node| node.to_string()))
}

fn said(mark: &Mark) -> String {
    match mark {
        Mark::Asked => "a client asked".to_owned(),
        Mark::Permitted => "it may have it".to_owned(),
        Mark::Joining(node) => format!("joining at supernode {}", node.short()),
        Mark::Known(length) => format!("the length is known: {length} bytes"),
        Mark::Parents(count) => format!("{count} parents named"),
        Mark::ToOrigin => "the origin is asked".to_owned(),
        Mark::Lost => "the supernode is out of reach".to_owned(),
        Mark::Refused => "the supernode cannot get it".to_owned(),
        Mark::FirstByte => "the client got its first byte".to_owned(),
        Mark::Whole => "the last piece is here".to_owned(),
        Mark::Proven => "the whole is right".to_owned(),
    }
}
