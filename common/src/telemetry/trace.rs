//! What a pull waits for, as spans of one trace over all nodes that it touches (W3C Trace Context). Rooms open a [`Span`] and let it
//! go; the binary collects what ended and hands it to a collector. Until [`collect`] was called there are none: a span is then a
//! `None` that is carried about, and nothing is said of it on the wire.
//!
//! # Invariants
//! - Nobody waits for a trace: what does not fit into the queue is dropped and counted.
//! - Names and keys are the program's own words. What an outsider said goes in only as far as a rule lets it: no header, no query
//!   of a URL, no text of an error.
//! - A trace that nobody upstream began is begun for one pull in so many; one that was begun is followed, and one that was
//!   begun and not sampled is not.

use std::fmt;
use std::sync::{LazyLock, OnceLock};
use std::time::SystemTime;

use prometheus::{IntCounter, IntCounterVec, Opts};
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::node::NodeId;
use crate::task::TaskId;

/// Spans that wait to be sent: some seconds of a busy node, a few megabytes.
const QUEUE: usize = 4096;
/// The flag of a trace that is followed.
const SAMPLED: u8 = 1;

static COLLECTOR: OnceLock<Collector> = OnceLock::new();
static COUNTED: LazyLock<Counted> = LazyLock::new(Counted::new);

/// Where in which trace something happens. 25 bytes on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
}

/// What happens on which side of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Between no two nodes.
    Inside,
    /// It asks another.
    Client,
    /// It was asked by another.
    Server,
}

/// What is noted of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A word.
    Text(String),
    /// A number.
    Number(i64),
    /// A yes or a no.
    Flag(bool),
}

/// Something that takes time, until it is dropped. Of a pull that is not traced it is nothing.
#[derive(Default)]
#[must_use]
pub struct Span(Option<Box<Open>>);

struct Open {
    collector: &'static Collector,
    finished: Finished,
}

/// A span that ended.
#[derive(Debug)]
pub struct Finished {
    /// The trace that it is of.
    pub trace: [u8; 16],
    /// Its own id.
    pub span: [u8; 8],
    /// The span that it is in, here or on another node.
    pub parent: Option<[u8; 8]>,
    /// Whether that one is on another node.
    pub parent_is_remote: bool,
    /// What it is.
    pub name: &'static str,
    /// On which side of a wire.
    pub side: Side,
    /// When it began.
    pub begun: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What was noted.
    pub notes: Vec<(&'static str, Note)>,
    /// It did not work.
    pub failed: bool,
}

/// Where spans go.
struct Collector {
    queue: mpsc::Sender<Finished>,
    /// Of how many of 2³² pulls that nobody upstream decided on a trace is begun.
    share: u64,
}

/// How many spans went where, over all daemons of the process.
struct Counted {
    family: IntCounterVec,
    sent: IntCounter,
    dropped: IntCounter,
}

/// Begins to collect spans; the caller takes them. Of the pulls that nobody upstream decided on, `share` (0 to 1) is traced.
/// `None` when they are collected already.
pub fn collect(share: f64) -> Option<mpsc::Receiver<Finished>> {
    let (queue, spans) = mpsc::channel(QUEUE);
    let share = (share.clamp(0.0, 1.0) * f64::from(u32::MAX)).round() as u64;
    COLLECTOR
        .set(Collector { queue, share: if share == u64::from(u32::MAX) { 1 << 32 } else { share } })
        .ok()?;
    Some(spans)
}

/// So many spans arrived at the collector.
pub fn sent(count: usize) {
    COUNTED.sent.inc_by(count as u64);
}

/// So many were lost on the way there.
pub fn dropped(count: usize) {
    COUNTED.dropped.inc_by(count as u64);
}

/// What is shown of it among a daemon's metrics.
pub(super) fn metrics() -> IntCounterVec {
    COUNTED.family.clone()
}

// === impl TraceContext ===

impl TraceContext {
    /// As a `traceparent` header says it. What is no such header, or of a future in which it means something else, is none.
    pub fn read(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.trim().split('-');
        let [version, trace, span, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        // Later versions may say more behind, and begin alike.
        let known = byte(version)? == 0 && parts.next().is_none() || !matches!(byte(version)?, 0 | 0xff);
        let (mut context, lower) = (Self { trace: [0; 16], span: [0; 8], flags: byte(flags)? }, is_lower);
        hex::decode_to_slice(Some(trace).filter(|text| lower(text))?, &mut context.trace).ok()?;
        hex::decode_to_slice(Some(span).filter(|text| lower(text))?, &mut context.span).ok()?;
        (known && context.is_valid()).then_some(context)
    }

    /// Whether the trace is followed: it is sampled, and one that there can be.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0 && self.is_valid()
    }

    fn is_valid(&self) -> bool {
        self.trace != [0; 16] && self.span != [0; 8]
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", hex::encode(self.trace), hex::encode(self.span), self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn is_lower(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn byte(text: &str) -> Option<u8> {
    let fits = text.len() == 2 && is_lower(text);
    fits.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

// === impl Span ===

impl Span {
    /// Of no trace.
    pub const fn none() -> Self {
        Self(None)
    }

    /// The first of this node: in what a client began, or by chance.
    pub fn begin(name: &'static str, upstream: Option<&str>) -> Self {
        let Some(collector) = COLLECTOR.get() else { return Self(None) };
        match upstream.and_then(TraceContext::read) {
            Some(context) if context.is_sampled() => {
                Self::open(collector, name, Side::Server, (context.trace, Some(context.span), true))
            }
            Some(_) => Self(None),
            None if u64::from(rand::rng().random::<u32>()) < collector.share => {
                Self::open(collector, name, Side::Server, (rand::random(), None, false))
            }
            None => Self(None),
        }
    }

    /// Within another of this node.
    pub fn within(name: &'static str, parent: Option<TraceContext>, side: Side) -> Self {
        Self::under(name, parent, side, false)
    }

    /// What another node asks of this one.
    pub fn asked(name: &'static str, parent: Option<TraceContext>) -> Self {
        Self::under(name, parent, Side::Server, true)
    }

    /// What others are told, to be part of it.
    pub fn context(&self) -> Option<TraceContext> {
        let Finished { trace, span, .. } = self.0.as_ref()?.finished;
        Some(TraceContext { trace, span, flags: SAMPLED })
    }

    /// Notes something of it.
    pub fn note(&mut self, key: &'static str, note: impl Into<Note>) {
        if let Some(open) = &mut self.0 {
            open.finished.notes.push((key, note.into()));
        }
    }

    /// It did not work.
    pub fn fail(&mut self) {
        if let Some(open) = &mut self.0 {
            open.finished.failed = true;
        }
    }

    fn under(name: &'static str, parent: Option<TraceContext>, side: Side, remote: bool) -> Self {
        let Some(parent) = parent.filter(TraceContext::is_sampled) else { return Self(None) };
        let Some(collector) = COLLECTOR.get() else { return Self(None) };
        Self::open(collector, name, side, (parent.trace, Some(parent.span), remote))
    }

    fn open(
        collector: &'static Collector,
        name: &'static str,
        side: Side,
        (trace, parent, parent_is_remote): ([u8; 16], Option<[u8; 8]>, bool),
    ) -> Self {
        let now = SystemTime::now();
        let finished = Finished {
            trace,
            span: rand::random(),
            parent,
            parent_is_remote,
            name,
            side,
            begun: now,
            ended: now,
            notes: Vec::new(),
            failed: false,
        };
        Self(Some(Box::new(Open { collector, finished })))
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(open) = self.0.take() else { return };
        let Open { collector, mut finished } = *open;
        finished.ended = SystemTime::now();
        if collector.queue.try_send(finished).is_err() {
            dropped(1);
        }
    }
}

// === impl Note ===

impl From<&str> for Note {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Note {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<TaskId> for Note {
    fn from(task: TaskId) -> Self {
        Self::Text(task.hex())
    }
}

impl From<NodeId> for Note {
    fn from(node: NodeId) -> Self {
        Self::Text(node.to_string())
    }
}

impl From<u64> for Note {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u16> for Note {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Note {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

// === impl Counted ===

impl Counted {
    fn new() -> Self {
        let opts = Opts::new("trace_spans_total", "Spans of traced pulls").namespace("longshore");
        let family = IntCounterVec::new(opts, &["result"]).expect("invariant: the name is valid");
        let of = |result| family.with_label_values(&[result]);
        Self { sent: of("sent"), dropped: of("dropped"), family }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_header_is_read_as_the_standard_says() {
        let read = TraceContext::read(PARENT).unwrap();
        assert!(read.is_sampled());
        assert_eq!(read.to_string(), PARENT);
        assert!(!TraceContext::read(&PARENT.replace("-01", "-00")).unwrap().is_sampled());
        assert!(TraceContext::read(&(PARENT.replacen("00", "01", 1) + "-more")).is_some(), "a later version");
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        ] {
            assert_eq!(TraceContext::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn spans_are_nothing_until_somebody_collects_them_and_then_nest() {
        let upstream = Some(PARENT);
        assert!(Span::begin("early", upstream).context().is_none());
        let mut spans = collect(0.0).unwrap();
        assert!(collect(1.0).is_none(), "once is enough");
        assert!(Span::begin("chance", None).context().is_none(), "none of all is none");
        assert!(Span::begin("unwanted", Some(&PARENT.replace("-01", "-00"))).context().is_none());
        assert!(Span::within("orphan", None, Side::Inside).context().is_none());
        assert!(spans.try_recv().is_err(), "what is nothing is not told");

        let mut outer = Span::begin("outer", upstream);
        let inner = Span::asked("inner", outer.context());
        outer.note("code", 200u16);
        outer.fail();
        drop(inner);
        drop(outer);
        let (inner, outer) = (spans.try_recv().unwrap(), spans.try_recv().unwrap());
        let told = TraceContext::read(PARENT).unwrap();
        assert_eq!((outer.trace, outer.parent), (told.trace, Some(told.span)));
        assert_eq!((inner.trace, inner.parent), (told.trace, Some(outer.span)));
        assert!(inner.begun >= outer.begun && inner.ended <= outer.ended && outer.failed && !inner.failed);
        assert_eq!(outer.notes, [("code", Note::Number(200))]);

        // A collector that is away costs a counted drop, and no waiting.
        let before = COUNTED.dropped.get();
        (0..QUEUE + 3).for_each(|_| drop(Span::begin("flood", upstream)));
        assert_eq!(COUNTED.dropped.get() - before, 3);
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_none(text in "[0-9a-fA-F-]{0,60}|\\PC{0,60}") {
            if let Some(context) = TraceContext::read(&text) {
                prop_assert_eq!(TraceContext::read(&context.to_string()), Some(context));
            }
        }
    }
}
