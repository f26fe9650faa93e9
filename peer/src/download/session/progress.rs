//! From the first piece to the proof of the whole, or to the end without it.

use std::time::Instant;

use common::digest::Digest;
use common::node::NodeId;
use common::piece::{Geometry, PieceIndex};
use common::telemetry::trace::Span;
use common::telemetry::{ByteSource, Outcome};
use tokio::task::JoinSet;

use super::{Session, blocking};
use crate::coordinator::Notice;
use crate::download::proof;
use crate::download::shared::Phase;
use crate::error::FetchError;
use crate::record::End;

impl Session {
    pub(super) fn count(&self, source: ByteSource, bytes: u64) {
        self.context.metrics.received_bytes.of(source).inc_by(bytes);
        if self.shared.is_urgent() {
            self.context.courtesy.earned(bytes, Instant::now());
        }
    }

    pub(super) fn arrived(&mut self, index: PieceIndex, digest: Digest, from: Option<NodeId>, offer: bool) {
        let now = Instant::now();
        self.moved = now;
        // Whoever waits for the piece looks at the record first.
        self.shared.scribe().note(|record, now| record.kept_before(index, now));
        self.shared.set_present(index, digest);
        if let Some(mesh) = &mut self.mesh {
            mesh.present(index, from, offer, now);
        }
        self.say(Notice::Progress(self.shared.held()));
    }

    /// Whether the task is whole, and whether that is proven.
    pub(super) fn check(&mut self) -> Result<(), FetchError> {
        let Some(geometry) = self.shared.geometry() else { return Ok(()) };
        if self.is_proven() || self.shared.held() < geometry.pieces() {
            return Ok(());
        }
        let digest = self.source.as_ref().and_then(|source| source.digest);
        let empty_and_right = geometry.pieces() == 0 && digest == Some(Digest::of(b""));
        let vouched_and_right = self.supernode_proved && self.is_vouched(geometry);
        if empty_and_right || vouched_and_right || digest.is_none() && self.trusts_itself() {
            self.prove();
        } else if self.lost && self.feed.is_none() && digest.is_some() && self.proof.is_empty() {
            self.proof.spawn(proof::digest(self.shared.clone()));
        }
        Ok(())
    }

    pub(super) fn is_whole(&self) -> bool {
        self.shared.geometry().is_some_and(|geometry| self.shared.held() == geometry.pieces())
    }

    /// Whether the supernode vouches for every piece as it is here. What came inline was compared whole.
    pub(super) fn is_vouched(&self, geometry: Geometry) -> bool {
        let Some(mesh) = &self.mesh else { return false };
        let same =
            |index| mesh.vouched(index).is_some_and(|vouched| self.shared.digest(index) == Some(vouched));
        (0..geometry.pieces()).map(PieceIndex).all(same)
    }

    /// Content without a digest is proven by having come whole: from the origin, or piece by piece as the
    /// supernode, now gone, vouched for.
    pub(super) fn trusts_itself(&self) -> bool {
        self.feed.is_some() || self.lost
    }

    pub(super) fn prove(&mut self) {
        let (Some(blob), Some(mesh)) = (self.shared.blob(), &mut self.mesh) else { return };
        mesh.offer_all();
        self.feed = None;
        self.proof = JoinSet::new();
        self.shared.scribe().end(End::Ok);
        self.shared.set_phase(Phase::Proven);
        self.context.metrics.downloads.of(Outcome::Ok).inc();
        let geometry = blob.geometry();
        self.span.note("longshore.bytes", geometry.length());
        self.span = Span::none();
        self.say(Notice::Proven(geometry));
        // Nothing more is expected of the coordinator: it knows us as one who holds the task.
        self.membership = None;
        let (task, vault) = (self.shared.task(), self.vault_without_it());
        self.background.spawn(async move {
            // Until this is on the disk, a restart finds the pieces and proves them again.
            if let Err(error) = blocking(move || blob.prove()).await {
                tracing::warn!(?task, "the finished task could not be marked as such: {error}");
            } else if let Some(vault) = vault {
                vault.keep(task);
            }
        });
    }

    pub(super) async fn fail(&mut self, error: FetchError) {
        if self.is_proven() {
            self.ended = true;
            return;
        }
        let poisoned = matches!(error, FetchError::Poisoned { .. });
        let outcome = if poisoned { Outcome::Poisoned } else { Outcome::Failed };
        self.context.metrics.downloads.of(outcome).inc();
        if poisoned || matches!(error, FetchError::StoreFull(_)) {
            // Before anybody hears of it: whoever asks again must find nothing of this.
            let (store, task) = (self.context.store.clone(), self.shared.task());
            if let Err(error) = blocking(move || store.remove(task)).await {
                tracing::warn!(?task, "cannot drop the task: {error}");
            }
        }
        // That a store is full the store says itself, once for all tasks.
        let trouble =
            !matches!(error, FetchError::Closing | FetchError::Origin(_) | FetchError::StoreFull(_));
        self.shared.scribe().end(End::Failed { why: error.to_string(), trouble });
        self.span.fail();
        self.shared.set_phase(Phase::Failed(error));
        self.say(Notice::Failed { poisoned });
        self.ended = true;
    }
}
