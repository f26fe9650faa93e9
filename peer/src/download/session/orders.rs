//! What the coordinator and the neighbours say, and what follows from it.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use common::digest::Digest;
use common::piece::{Geometry, PieceIndex};
use common::telemetry::ByteSource;
use common::wire::exchange::Refusal;

use super::{MAX_WAITING, SALVAGE_BATCH, Session, blocking};
use crate::coordinator::{Notice, Order};
use crate::download::mesh::{Mesh, News};
use crate::error::FetchError;
use crate::exchange::link::{self, LinkStream};
use crate::record::Mark;
use crate::store::StoreError;

impl Session {
    pub(super) async fn ordered(&mut self, order: Option<Order>) -> Result<(), FetchError> {
        match order {
            Some(Order::Joined { geometry, inline }) => {
                self.lost = false;
                self.refused = None;
                // A supernode that came back vouches anew.
                self.supernode_proved = false;
                self.moved = Instant::now();
                self.know(geometry).await?;
                if let Some(bytes) = inline {
                    self.take_inline(Bytes::from(bytes)).await?;
                }
            }
            Some(Order::Digests { first, digests }) => self.vouch(first, &digests).await?,
            Some(Order::Recalled { geometry, digests }) => self.recall(geometry, &digests).await?,
            Some(Order::Joining(node)) => self.mark(Mark::Joining(node)),
            Some(Order::Parents { add, remove }) => {
                if !add.is_empty() {
                    self.mark(Mark::Parents(add.len()));
                }
                match &mut self.mesh {
                    Some(mesh) => mesh.parents(add, &remove, Instant::now()),
                    None => {
                        self.early.retain(|contact| !remove.contains(&contact.id));
                        let room = MAX_WAITING - self.early.len().min(MAX_WAITING);
                        self.early.extend(add.into_iter().take(room));
                    }
                }
            }
            Some(Order::Proven) => {
                self.supernode_proved = true;
                self.check()?;
            }
            Some(Order::Poisoned) => return Err(FetchError::Poisoned { task: self.shared.task() }),
            Some(Order::Failed(failure)) => {
                // It may have asked another registry, or with another client's credentials; the origin's answer
                // to this node's own question is what the client is to see.
                tracing::info!(task = ?self.shared.task(), "the supernode cannot get it ({failure}): asking the origin");
                self.mark(Mark::Refused);
                self.refused = Some(failure);
                self.go_to_origin();
            }
            Some(Order::GoToOrigin) => self.look_in_vault(),
            Some(Order::Lost) => self.lose()?,
            None => {
                // Nothing more will be said. Whoever sent us to the origin still listens.
                self.deaf = true;
                if self.feed.is_none() {
                    self.lose()?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn lose(&mut self) -> Result<(), FetchError> {
        if !self.lost {
            self.lost = true;
            self.mark(Mark::Lost);
            self.moved = Instant::now();
        }
        self.check()
    }

    /// The length is known: from here on there is a blob to write to.
    pub(super) async fn know(&mut self, geometry: Geometry) -> Result<(), FetchError> {
        if let Some(known) = self.shared.geometry() {
            if known == geometry {
                return Ok(());
            }
            return Err(FetchError::Swarm(format!(
                "task {} has another length than before: {} and {} bytes",
                self.shared.task(),
                known.length(),
                geometry.length()
            )));
        }
        let (store, task) = (self.context.store.clone(), self.shared.task());
        let url = self.fetched_from();
        let blob = blocking(move || store.create(task, geometry, &common::telemetry::redact(&url))).await?;
        let pieces = blob.clone();
        self.found = blocking(move || pieces.pieces()).await?.into_iter().collect();
        self.shared.scribe().note(|record, now| record.known(geometry, now));
        self.shared.start(blob);
        let mut mesh = Mesh::new(self.context.clone(), self.shared.clone(), geometry);
        mesh.part_of(self.span.context());
        mesh.parents(std::mem::take(&mut self.early), &[], Instant::now());
        self.mesh = Some(mesh);
        for (link, theirs) in std::mem::take(&mut self.waiting) {
            self.incoming(link, theirs);
        }
        self.check()
    }

    /// A small task came with the answer.
    pub(super) async fn take_inline(&mut self, bytes: Bytes) -> Result<(), FetchError> {
        let (Some(blob), Some(geometry)) = (self.shared.blob(), self.shared.geometry()) else {
            return Ok(());
        };
        let digest = Digest::of(&bytes);
        let expected = self.source.as_ref().and_then(|source| source.digest);
        let whole = geometry.pieces() <= 1 && bytes.len() as u64 == geometry.length();
        if !whole || expected.is_some_and(|expected| expected != digest) {
            return Err(FetchError::Swarm(format!(
                "the supernode sent wrong bytes for task {}",
                self.shared.task()
            )));
        }
        if geometry.pieces() == 1 {
            self.count(ByteSource::Seed, geometry.length());
            self.shared.scribe().note(|record, now| {
                record.came(PieceIndex(0), record.supernode(), geometry.length(), now);
            });
            blocking(move || blob.write_piece(PieceIndex(0), &[bytes], digest)).await?;
            if let Some(mesh) = &mut self.mesh {
                mesh.vouch(PieceIndex(0), digest);
            }
            self.arrived(PieceIndex(0), digest, None, true);
        }
        self.supernode_proved = true;
        self.check()
    }

    /// Another coordinator's work is taken up: what it vouched for is the neighbours' to give.
    async fn recall(
        &mut self,
        geometry: Geometry,
        digests: &BTreeMap<PieceIndex, Digest>,
    ) -> Result<(), FetchError> {
        // What a plain URL says may have changed since: the origin is asked for all of it.
        let is_bound = self.source.as_ref().is_some_and(|source| source.digest.is_some());
        if !is_bound || self.is_proven() {
            return Ok(());
        }
        self.know(geometry).await?;
        for (index, digest) in digests {
            self.vouch(*index, &[*digest]).await?;
        }
        if !self.recalled && !self.is_whole() {
            tracing::info!(task = ?self.shared.task(), pieces = digests.len(), "another supernode had begun this task");
            self.recalled = true;
            self.moved = Instant::now();
            if self.feed.is_some() {
                self.end_feed();
                self.go_to_origin();
            }
        }
        Ok(())
    }

    pub(super) async fn vouch(&mut self, first: PieceIndex, digests: &[Digest]) -> Result<(), FetchError> {
        let (Some(mesh), Some(blob)) = (&mut self.mesh, self.shared.blob()) else { return Ok(()) };
        let mut unclaimed = Vec::new();
        for (offset, digest) in digests.iter().enumerate() {
            let index = PieceIndex(first.0.saturating_add(offset as u32));
            let changed = |known: Option<Digest>| known.is_some_and(|known| known != *digest);
            if changed(mesh.vouched(index)) || changed(self.shared.digest(index)) {
                // Two contents under one name: what is here may be of either.
                return Err(FetchError::Poisoned { task: self.shared.task() });
            }
            mesh.vouch(index, *digest);
            unclaimed.push((index, *digest));
        }
        for (index, digest) in std::mem::take(&mut unclaimed) {
            match self.found.remove(&index) {
                Some(found) if found == digest => self.arrived(index, found, None, true),
                Some(_) => {
                    tracing::warn!(task = ?self.shared.task(), piece = index.0, "a stored piece is another one: dropped");
                    let blob = blob.clone();
                    blocking(move || blob.forget_piece(index)).await?;
                }
                None => unclaimed.push((index, digest)),
            }
        }
        if self.stored.is_some() {
            self.salvage(unclaimed).await?;
        }
        self.check()
    }

    /// Looks among the bytes that an earlier run left for pieces that its index lost.
    pub(super) async fn salvage(&mut self, pieces: Vec<(PieceIndex, Digest)>) -> Result<(), FetchError> {
        let Some(blob) = self.shared.blob() else { return Ok(()) };
        for batch in pieces.chunks(SALVAGE_BATCH) {
            let (blob, missing) = (blob.clone(), |index| self.shared.ready(index, 1) == 0);
            let batch: Vec<_> = batch.iter().copied().filter(|(index, _)| missing(*index)).collect();
            let salvaged = blocking(move || {
                let mut salvaged = Vec::new();
                for (index, digest) in batch {
                    if blob.salvage(index, digest)? {
                        salvaged.push((index, digest));
                    }
                }
                Ok::<_, StoreError>(salvaged)
            });
            for (index, digest) in salvaged.await? {
                self.arrived(index, digest, None, true);
            }
        }
        Ok(())
    }

    fn mark(&self, mark: Mark) {
        self.shared.scribe().note(|record, now| record.mark(mark, now));
    }

    pub(super) fn say(&self, notice: Notice) {
        if let Some(membership) = &self.membership {
            membership.notices.say(notice);
        }
    }

    pub(super) fn incoming(&mut self, link: LinkStream, geometry: Geometry) {
        match (&mut self.mesh, self.shared.geometry()) {
            (Some(mesh), Some(ours)) if ours == geometry => mesh.incoming(link),
            (None, _) if self.waiting.len() < MAX_WAITING => self.waiting.push((link, geometry)),
            (None, _) => self.refuse(link, Refusal::Busy),
            _ => self.refuse(link, Refusal::OtherGeometry),
        }
        self.idle_since = None;
    }

    pub(super) fn refuse(&mut self, link: LinkStream, refusal: Refusal) {
        self.background.spawn(link::refuse(link, refusal));
    }

    pub(super) fn news(&mut self, news: News) -> Result<(), FetchError> {
        match news {
            News::Piece { index, from, bytes } => {
                let seed = self.context.coordinator.is_seed(from);
                self.count(if seed { ByteSource::Seed } else { ByteSource::Peer }, bytes);
                let digest = self.mesh.as_ref().and_then(|mesh| mesh.vouched(index));
                if let Some(digest) = digest {
                    self.arrived(index, digest, Some(from), true);
                }
                self.check()
            }
            News::Blame(node, fault) => {
                self.say(Notice::Blame { node, fault });
                Ok(())
            }
            News::Store(error) => Err(error.into()),
            News::Nothing => Ok(()),
        }
    }
}
