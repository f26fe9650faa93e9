//! A link: one stream between two nodes for one task, on which both push their piece sets. This is the thin
//! driver; what is said and what follows from it is the download session's.
//!
//! If both open one at the same moment, the one that the smaller node id opened stays ([`keeps`]).

use std::ops::Range;
use std::time::Duration;

use common::node::NodeId;
use common::piece::Geometry;
use common::task::TaskId;
use common::telemetry::trace::{Span, TraceContext};
use common::transport::{Connection, LINK_PRIORITY};
use common::wire::codec::{self, CodecError, FrameReader};
use common::wire::exchange::{Link, MAX_RUNS, Opening, Refusal};
use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A neighbour that does not take a message within this is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// A neighbour answers an opening at once.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);
/// What a neighbour may say beyond what there is to say: it costs a step a piece to hear it.
const SLACK: u64 = 256;
/// The first protocol version that can say which trace a link is part of.
const TRACED: u16 = 3;
/// Messages waiting for a neighbour: more means that it does not read.
pub const OUTBOX: usize = 512;

/// The stream of a link and who opened it.
pub struct LinkStream {
    /// The neighbour.
    pub connection: Connection,
    /// Towards it.
    pub send: SendStream,
    /// From it.
    pub reader: FrameReader<RecvStream>,
    /// Whether we opened it.
    pub ours: bool,
    /// The link, as long as it lasts, if it is part of what is traced.
    pub span: Span,
}

/// Why a link did not come about, or ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkEnd {
    /// The neighbour says no.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// It closed its side.
    #[error("closed")]
    Closed,
    /// It does not read, answer or speak properly.
    #[error("{0}")]
    Broken(String),
}

/// What the neighbour said.
#[derive(Debug)]
pub struct Said {
    /// Who.
    pub node: NodeId,
    /// On which of its links, as the session numbers them.
    pub generation: u64,
    /// Runs of pieces.
    pub runs: Vec<Range<u32>>,
    /// Whether they may be asked for.
    pub shown: bool,
}

/// Whether of two links between the same nodes the one with this opener stays.
pub fn keeps(opener: NodeId, other: NodeId) -> bool {
    opener < other
}

/// Opens a link.
///
/// # Errors
/// When the neighbour refuses or does not answer.
pub async fn open(
    connection: Connection,
    (task, geometry): (TaskId, Geometry),
    span: Span,
) -> Result<LinkStream, LinkEnd> {
    let trace = span.context().filter(|_| connection.version() >= TRACED);
    let opening = async {
        let (mut send, receive) =
            connection.open().await.map_err(|error| LinkEnd::Broken(error.to_string()))?;
        let _ = send.set_priority(LINK_PRIORITY);
        codec::send(&mut send, &opening_of(task, geometry, trace)).await.map_err(broken)?;
        let mut reader = FrameReader::new(receive);
        match reader.expect().await.map_err(broken)? {
            Link::Accepted => Ok((send, reader)),
            Link::Refused(refusal) => Err(LinkEnd::Refused(refusal)),
            other => Err(LinkEnd::Broken(format!("unexpected {other:?}"))),
        }
    };
    let (send, reader) =
        timeout(OPEN_TIMEOUT, opening).await.map_err(|_| LinkEnd::Broken("no answer".into()))??;
    Ok(LinkStream { connection, send, reader, ours: true, span })
}

fn opening_of(task: TaskId, geometry: Geometry, trace: Option<TraceContext>) -> Opening {
    match trace {
        Some(trace) => Opening::LinkTraced { task, geometry, trace },
        None => Opening::Link { task, geometry },
    }
}

/// Accepts a link that the neighbour opened.
///
/// # Errors
/// When it is gone already.
pub async fn accept(link: &mut LinkStream) -> Result<(), LinkEnd> {
    let _ = link.send.set_priority(LINK_PRIORITY);
    say(&mut link.send, &Link::Accepted).await
}

/// Refuses a link that the neighbour opened.
pub async fn refuse(mut link: LinkStream, refusal: Refusal) {
    if say(&mut link.send, &Link::Refused(refusal)).await.is_ok() {
        let _ = link.send.finish();
        let _ = timeout(SEND_TIMEOUT, link.send.stopped()).await;
    }
}

/// Carries messages about a task of so many pieces both ways until either side ends: `outbox` closed means that we want
/// nothing more.
pub async fn carry(
    mut link: LinkStream,
    pieces: u32,
    generation: u64,
    mut outbox: mpsc::Receiver<Link>,
    inbox: mpsc::Sender<Said>,
) -> LinkEnd {
    let node = link.connection.node();
    let mut allowance = Allowance::new(pieces);
    loop {
        tokio::select! {
            message = outbox.recv() => {
                let Some(message) = message else {
                    let _ = link.send.finish();
                    return LinkEnd::Closed;
                };
                if let Err(end) = say(&mut link.send, &message).await {
                    return end;
                }
            }
            message = link.reader.next::<Link>() => {
                let said = match message {
                    Ok(Some(Link::Have(runs))) => Said { node, generation, runs, shown: true },
                    Ok(Some(Link::Hold(runs))) => Said { node, generation, runs, shown: false },
                    Ok(None) => return LinkEnd::Closed,
                    Ok(Some(other)) => return LinkEnd::Broken(format!("unexpected {other:?}")),
                    Err(error) => return broken(error),
                };
                if let Err(end) = allowance.hear(&said.runs) {
                    return end;
                }
                if inbox.send(said).await.is_err() {
                    return LinkEnd::Closed;
                }
            }
        }
    }
}

/// How much a neighbour may still say on a link: of each piece that it holds it, and then that it may be asked for.
pub(super) struct Allowance(u64);

// === impl Allowance ===

impl Allowance {
    /// Of a link about a task of so many pieces.
    pub(super) fn new(pieces: u32) -> Self {
        Self(2 * u64::from(pieces) + SLACK)
    }

    /// Takes a message in, unless it makes no sense or is one too many.
    pub(super) fn hear(&mut self, runs: &[Range<u32>]) -> Result<(), LinkEnd> {
        if runs.len() > MAX_RUNS || !ascending(runs) {
            return Err(LinkEnd::Broken("runs that are too many or do not ascend".into()));
        }
        if !self.covers(runs) {
            return Err(LinkEnd::Broken("it says the same again and again".into()));
        }
        Ok(())
    }

    /// Takes a message's runs off it; false when it is used up.
    fn covers(&mut self, runs: &[Range<u32>]) -> bool {
        // An empty message is a message, too.
        let cost = runs.iter().map(|run| u64::from(run.end - run.start)).sum::<u64>().max(1);
        match self.0.checked_sub(cost) {
            Some(left) => self.0 = left,
            None => return false,
        }
        true
    }
}

/// Runs that ascend and do not overlap cost at most one step a piece, whoever sent them.
fn ascending(runs: &[Range<u32>]) -> bool {
    runs.iter().all(|run| run.start < run.end) && runs.windows(2).all(|pair| pair[0].end <= pair[1].start)
}

async fn say(send: &mut SendStream, message: &Link) -> Result<(), LinkEnd> {
    let sent = timeout(SEND_TIMEOUT, codec::send(send, message)).await;
    sent.map_err(|_| LinkEnd::Broken("it does not read".into()))?.map_err(broken)
}

fn broken(error: CodecError) -> LinkEnd {
    match error {
        CodecError::Io(_) | CodecError::Truncated => LinkEnd::Closed,
        other => LinkEnd::Broken(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn covers(allowance: &mut Allowance, run: Range<u32>) -> bool {
        allowance.covers(std::slice::from_ref(&run))
    }

    #[test]
    fn who_says_the_same_for_ever_is_cut_off() {
        let mut allowance = Allowance::new(100);
        assert_eq!((0..100).take_while(|_| covers(&mut allowance, 0..100)).count(), 4);
        let mut allowance = Allowance::new(0);
        assert!((0..SLACK).all(|_| allowance.covers(&[])));
        assert!(!allowance.covers(&[]), "empty messages cost, too");
        assert!(!covers(&mut Allowance::new(100), 0..u32::MAX), "more pieces than there are");
    }

    proptest! {
        #[test]
        fn who_says_each_piece_as_held_and_then_as_shown_is_heard(pieces in 0u32..3000, part in 1u32..300) {
            let mut allowance = Allowance::new(pieces);
            for _ in ["held", "shown"] {
                let mut parts = (0..pieces).step_by(part as usize);
                prop_assert!(parts.all(|start| covers(&mut allowance, start..(start + part).min(pieces))));
            }
        }
    }
}
