//! The origin, where this node must ask it, and the way back from it.

use std::time::Instant;

use common::digest::Digest;
use common::piece::{Geometry, PieceIndex, PieceSet};
use common::telemetry::ByteSource;
use common::telemetry::trace::{Side, Span};
use common::wire::swarm::Failure;
use tokio::task::JoinSet;

use super::{PARALLEL, Session};
use crate::coordinator::Notice;
use crate::download::feed::{Fed, Feed, Manners};
use crate::download::proof;
use crate::error::FetchError;
use crate::exchange::reveal::Style;
use crate::origin::Fetch;
use crate::record::{Record, Who};

impl Session {
    pub(super) fn go_to_origin(&mut self) {
        let Some(source) = self.source.clone().filter(|_| self.feed.is_none() && !self.is_proven()) else {
            return;
        };
        let have = match (self.shared.geometry(), source.digest) {
            (Some(geometry), Some(_)) => {
                self.take_found();
                let mut have = PieceSet::new(geometry.pieces());
                let held = |index: &PieceIndex| self.shared.ready(*index, 1) == 1;
                let neighbours = |index: &PieceIndex| self.recalled && self.is_vouched_for(*index);
                let spared = |index: &PieceIndex| held(index) || neighbours(index);
                (0..geometry.pieces()).map(PieceIndex).filter(spared).for_each(|index| {
                    have.insert(index);
                });
                Some((geometry, have))
            }
            // Content without a digest may have changed: what is here is asked for again and compared, not mixed.
            (Some(geometry), None) => {
                self.found.clear();
                Some((geometry, PieceSet::new(geometry.pieces())))
            }
            (None, Some(_)) => self.stored.as_ref().map(|stored| (stored.geometry, stored.pieces.clone())),
            (None, None) => None,
        };
        if let Some(mesh) = &mut self.mesh {
            mesh.set_asking(self.recalled);
            if source.digest.is_some() && self.proof.is_empty() {
                self.proof.spawn(proof::digest(self.shared.clone()));
            }
        }
        // A registry, too, has better to do while pulls go on.
        let parallel = if self.shared.is_urgent() { PARALLEL } else { 1 };
        let wanted = Fetch { source, credentials: self.credentials.clone(), have, parallel, hashed: true };
        let origin = self.context.origin.clone();
        let span = Span::within("origin.fetch", self.span.context(), Side::Client);
        let manners = Manners { shared: self.shared.clone(), courtesy: self.context.courtesy.clone() };
        let feed = Feed::start(origin, wanted, self.retrieval(), (&self.context.limits, manners), span);
        self.shared.scribe().note(|record, now| record.feeding(giver(feed.from()), now));
        self.feed = Some(feed);
    }

    pub(super) async fn fed(&mut self, fed: Fed) -> Result<(), FetchError> {
        match fed {
            Fed::Meta(geometry) => self.origin_knows(geometry).await,
            Fed::Piece { index, chunks, digest } => {
                let vouched = self.mesh.as_ref().and_then(|mesh| mesh.vouched(index));
                let changed = |known: Option<Digest>| known.is_some_and(|known| known != digest);
                if changed(vouched) || changed(self.shared.digest(index)) {
                    return Err(FetchError::Poisoned { task: self.shared.task() });
                }
                if let (Some(feed), Some(blob)) = (&mut self.feed, self.shared.blob()) {
                    let (from, bytes) =
                        (giver(feed.from()), chunks.iter().map(|chunk| chunk.len() as u64).sum());
                    self.shared.scribe().note(|record, now| record.poured(index, from, bytes, now));
                    feed.write(blob, index, chunks, digest);
                }
                Ok(())
            }
            Fed::Written { index, digest, from, limited } => {
                let bytes = self.shared.geometry().map_or(0, |geometry| geometry.range(index).len());
                self.from_origin |= from == ByteSource::Origin;
                self.count(from, bytes);
                self.shared.scribe().note(|record, now| record.kept(index, limited, now));
                let vouched = self.is_vouched_for(index);
                self.arrived(index, digest, None, vouched || self.context.style == Style::Seed);
                self.check()
            }
            Fed::Failed(error) => self.origin_failed(error),
            Fed::Done if self.is_whole() => self.check(),
            Fed::Done if self.recalled => {
                // The neighbours have the rest; should they not give it, patience ends and the origin is asked again.
                self.end_feed();
                self.moved = Instant::now();
                Ok(())
            }
            Fed::Done if self.asked_again => {
                Err(FetchError::Swarm(format!("the origin did not give all of task {}", self.shared.task())))
            }
            Fed::Done => {
                self.asked_again = true;
                self.end_feed();
                self.go_to_origin();
                Ok(())
            }
        }
    }

    pub(super) fn end_feed(&mut self) {
        self.feed = None;
        self.shared.scribe().note(Record::fed);
    }

    fn is_vouched_for(&self, index: PieceIndex) -> bool {
        self.mesh.as_ref().is_some_and(|mesh| mesh.vouched(index).is_some())
    }

    /// Back to the swarm, if there is hope in it.
    pub(super) fn origin_failed(&mut self, error: FetchError) -> Result<(), FetchError> {
        let answered = matches!(error, FetchError::Origin(_));
        if let (Some(Failure::Origin(failure)), false) = (&self.refused, answered) {
            // This node cannot ask at all, but the supernode did, and was answered.
            return Err(FetchError::Origin(failure.clone()));
        }
        let alone = self.lost || self.deaf || self.context.style == Style::Seed;
        if alone || self.refused.is_some() || !is_of_origin(&error) {
            return Err(error);
        }
        tracing::info!(task = ?self.shared.task(), "the origin failed ({error}): back to the swarm");
        self.end_feed();
        self.proof = JoinSet::new();
        self.moved = Instant::now();
        if let Some(mesh) = &mut self.mesh {
            mesh.set_asking(true);
        }
        self.check()
    }

    /// The origin's word on the length: a stored beginning of another length is no beginning of this.
    pub(super) async fn origin_knows(&mut self, geometry: Geometry) -> Result<(), FetchError> {
        let first = self.mesh.is_none();
        self.know(geometry).await?;
        if self.is_proven() {
            return Ok(());
        }
        if let Some(mesh) = &mut self.mesh {
            mesh.set_asking(self.recalled);
        }
        if self.source.as_ref().is_some_and(|source| source.digest.is_some()) {
            self.take_found();
            if self.proof.is_empty() {
                self.proof.spawn(proof::digest(self.shared.clone()));
            }
        } else {
            self.found.clear();
        }
        if first {
            self.say(Notice::Known(geometry));
        }
        self.check()
    }

    /// Counts what is on disk as present: it was right when it was written, and the digest of the whole decides.
    pub(super) fn take_found(&mut self) {
        for (index, digest) in std::mem::take(&mut self.found) {
            self.arrived(index, digest, None, self.context.style == Style::Seed);
        }
    }

    pub(super) async fn hashed(&mut self, digest: Digest) -> Result<(), FetchError> {
        let expected = self.source.as_ref().and_then(|source| source.digest);
        if expected.is_some_and(|expected| expected != digest) {
            self.distrust_vault().await;
            return Err(FetchError::Poisoned { task: self.shared.task() });
        }
        self.prove();
        Ok(())
    }
}

/// A feed's source, as the record of the pull has it.
fn giver(from: ByteSource) -> Who {
    if from == ByteSource::Cache { Who::Cache } else { Who::Origin }
}

/// Whether a failure is one of the origin, and not of this node.
fn is_of_origin(error: &FetchError) -> bool {
    matches!(error, FetchError::Origin(_) | FetchError::Unavailable(_) | FetchError::Forbidden(_))
}
