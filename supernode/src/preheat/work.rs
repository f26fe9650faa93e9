//! One attempt at one node: fetching into the seed's own store, or an errand for a peer ([`common::wire::errand`]). Dropping it
//! breaks it off, at the peer, too.

use std::time::Duration;

use common::node::NodeId;
use common::task::{Credentials, Source};
use common::transport::{CONTROL_PRIORITY, Connection};
use common::wire::codec::{self, FrameReader};
use common::wire::errand::{Errand, MAX_SOURCES, MAX_UNDER_WAY, Report as Told};
use common::wire::exchange::Opening;
use peer::engine::Engine;
use peer::errand::{Failed, Fetching, Seen};
use peer::image::ImageError;
use peer::image::reference::Reference;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::contents::{self, Load, login};
use super::job::{JobId, Spec, Target};
use super::logins::Logins;
use super::plan::Event;
use super::turns::Turns;
use crate::roster::Roster;

/// The first protocol version that knows errands.
const ERRANDS: u16 = 4;
/// A node that is not there may come back: it restarts, or the supernode did.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether it did.
const LOOK: Duration = Duration::from_millis(500);
/// A peer that says nothing for so long is stuck: it reports every second.
const SILENCE: Duration = Duration::from_secs(30);
/// How often the seed's own progress is told.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Letters of the URLs in one errand: it fits into a frame with room to spare.
const MAX_LETTERS: usize = 256 * 1024;

/// Who can work.
#[derive(Clone)]
pub(super) struct Means {
    /// The seed.
    pub(super) engine: Engine,
    /// The peers.
    pub(super) roster: Roster,
    /// What opens registries for who brings nothing.
    pub(super) logins: Logins,
    /// How much is asked of one node at once.
    turns: Turns,
}

/// What an attempt is to do.
pub(super) struct Work {
    /// Who is to have it: the seed's own node, for the cache.
    pub(super) node: NodeId,
    /// Where to.
    pub(super) to: Target,
    /// What.
    pub(super) load: Load,
    /// Whether it was tried before.
    pub(super) again: bool,
    /// How long it may take.
    pub(super) timeout: Duration,
}

/// What an attempt has to say, and of which job. It has a number of its own: one that was broken off may still be heard.
#[derive(Debug)]
pub(super) struct Report {
    /// Which job.
    pub(super) job: JobId,
    /// Which attempt, of all of them.
    pub(super) attempt: u64,
    /// What happened.
    pub(super) event: Event,
}

/// An attempt's way to the clerk.
#[derive(Clone)]
pub(super) struct Voice {
    /// Which job it is for.
    pub(super) job: JobId,
    /// Which attempt it is.
    pub(super) attempt: u64,
    /// Where it speaks.
    pub(super) reports: mpsc::Sender<Report>,
}

/// A part of a load that fits into one errand.
struct Parts<'a>(&'a [Source]);

// === impl Means ===

impl Means {
    pub(super) fn new(engine: Engine, roster: Roster, logins: Logins) -> Self {
        Self { engine, roster, logins, turns: Turns::default() }
    }

    /// Finds out what a job comes to: by its own credentials, or else by the supernode's login.
    ///
    /// # Errors
    /// As [`contents::find`].
    pub(super) async fn find(&self, spec: &Spec, own: Credentials) -> Result<Load, ImageError> {
        let image = spec.image.as_deref().and_then(|image| Reference::of_image(image).ok());
        let credentials = match image {
            Some(Reference { registry, .. }) => self.logins.unless(own, &registry).await,
            None => own,
        };
        contents::find(spec, credentials, &self.engine).await
    }

    /// Does the work; says how far it is, and how it ended.
    pub(super) async fn attempt(&self, work: Work, voice: Voice) {
        let node = work.node;
        let _turn = self.turns.take(node).await;
        voice.say(Event::Began(node)).await;
        let done = match work.to {
            Target::Cache => self.at_seed(&work, &voice).await,
            Target::Peers | Target::Runtime => self.at_peer(&work, &voice).await,
        };
        let end = match done {
            Ok(bytes) => Event::Done(node, bytes),
            Err(Failed { why, passing }) => Event::Failed { node, why, passing },
        };
        voice.say(end).await;
    }

    async fn at_seed(&self, work: &Work, voice: &Voice) -> Result<u64, Failed> {
        let credentials = work.load.credentials(work.again).await;
        let fetching = Fetching::default();
        let mut fetched =
            std::pin::pin!(fetching.run(&self.engine, work.load.sources.to_vec(), &credentials));
        let mut ticks = tokio::time::interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ended = &mut fetched => return ended,
                _ = ticks.tick() => voice.say(Event::Progress(work.node, fetching.seen())).await,
            }
        }
    }

    async fn at_peer(&self, work: &Work, voice: &Voice) -> Result<u64, Failed> {
        let connection = self.reach(work.node).await?;
        if connection.version() < ERRANDS {
            let why = "its peer is of an older release, which cannot preheat: update it".to_owned();
            return Err(Failed { why, passing: false });
        }
        if work.to == Target::Peers {
            return self.fetch(&connection, work, voice).await.map(|(bytes, _)| bytes);
        }
        let pull = |image: &Option<String>, timeout: Duration| Errand::Pull {
            image: image.clone().unwrap_or_default(),
            login: login(&work.load.own),
            timeout_millis: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        };
        // A runtime asks its proxy like for a container, and so gives way to nobody: what it will ask for is brought before, as
        // anything that is preheated. Where it has the image, or no runtime is there, nothing is to be brought.
        let look = pull(&work.load.pinned, Duration::ZERO);
        let so_far = match carry(&connection, look, (voice, 0, 0)).await? {
            0 => self.fetch(&connection, work, voice).await?,
            _ => (0, 0),
        };
        carry(&connection, pull(&work.load.image, work.timeout), (voice, so_far.0, so_far.1)).await
    }

    /// Has a peer fetch all parts; gives how many bytes and parts it has.
    async fn fetch(&self, connection: &Connection, work: &Work, voice: &Voice) -> Result<(u64, u32), Failed> {
        let credentials = work.load.credentials(work.again).await;
        let (mut before, mut parts) = (0, 0);
        for part in Parts(&work.load.sources) {
            let errand = Errand::Fetch { sources: part.to_vec(), credentials: credentials.clone() };
            before = carry(connection, errand, (voice, before, parts)).await?.saturating_add(before);
            parts += part.len() as u32;
        }
        Ok((before, parts))
    }

    /// The node's connection, once there is one.
    async fn reach(&self, node: NodeId) -> Result<Connection, Failed> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(connection) = self.roster.of(node) {
                return Ok(connection);
            }
            if Instant::now() >= until {
                return Err(Failed { why: "it is not connected to this supernode".into(), passing: true });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Has a peer do an errand; gives how many bytes it has in the end. They are told on top of those of errands before, and so
/// are the parts.
async fn carry(
    connection: &Connection,
    errand: Errand,
    (voice, before, parts): (&Voice, u64, u32),
) -> Result<u64, Failed> {
    let lost = |error: &dyn std::fmt::Display| Failed {
        why: format!("the connection to it broke off: {error}"),
        passing: true,
    };
    // Its end, when this is dropped, is what breaks the errand off.
    let (mut send, receive) = connection.open().await.map_err(|error| lost(&error))?;
    let _ = send.set_priority(CONTROL_PRIORITY);
    codec::send(&mut send, &Opening::Errand).await.map_err(|error| lost(&error))?;
    codec::send(&mut send, &errand).await.map_err(|error| lost(&error))?;
    let mut reports = FrameReader::new(receive);
    loop {
        let report = timeout(SILENCE, reports.expect::<Told>()).await;
        match report.map_err(|_| lost(&"it says nothing"))?.map_err(|error| lost(&error))? {
            Told::Progress { held, total, done, under_way } => {
                let placed = under_way.into_iter().take(MAX_UNDER_WAY);
                let seen = Seen {
                    held: before.saturating_add(held),
                    total,
                    done: parts.saturating_add(done),
                    under_way: placed.map(|(place, bytes)| (parts.saturating_add(place), bytes)).collect(),
                };
                voice.say(Event::Progress(connection.node(), seen)).await;
            }
            Told::Done { held } => return Ok(held),
            Told::Failed { why, passing } => return Err(Failed { why, passing }),
        }
    }
}

// === impl Voice ===

impl Voice {
    async fn say(&self, event: Event) {
        let Self { job, attempt, .. } = *self;
        // A clerk that is gone has no more use for it.
        let _ = self.reports.send(Report { job, attempt, event }).await;
    }
}

// === impl Parts ===

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [Source];

    fn next(&mut self) -> Option<Self::Item> {
        let mut letters = 0;
        let fits = |source: &&Source| {
            letters += source.url.len() + source.tag.len();
            letters <= MAX_LETTERS
        };
        let count = self.0.iter().take(MAX_SOURCES).take_while(fits).count().max(1).min(self.0.len());
        let (part, rest) = self.0.split_at(count);
        self.0 = rest;
        (!part.is_empty()).then_some(part)
    }
}

#[cfg(test)]
mod tests {
    use common::digest::Digest;

    use super::*;

    #[test]
    fn a_load_is_cut_into_errands_that_fit() {
        let source = |number: u32, letters: usize| {
            Source::of_digest("x".repeat(letters), Digest::of(&number.to_le_bytes()))
        };
        let many: Vec<_> = (0..600).map(|number| source(number, 100)).collect();
        let sizes: Vec<_> = Parts(&many).map(<[_]>::len).collect();
        assert_eq!(sizes, [256, 256, 88]);
        let long: Vec<_> = (0..40).map(|number| source(number, 8192)).collect();
        assert_eq!(Parts(&long).map(<[_]>::len).collect::<Vec<_>>(), [32, 8]);
        assert_eq!(Parts(&[]).count(), 0);
    }
}
