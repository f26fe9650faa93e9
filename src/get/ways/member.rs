//! As a member of a swarm for the time of the command: an engine with a store of its own, beside the output, so that a
//! finished file is only renamed. The store goes with the command, and what was not finished with it.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use common::identity::{JoinProof, JoinToken};
use common::piece::ByteRange;
use common::telemetry::ByteSource;
use common::wire::swarm::Priority;
use futures_util::StreamExt as _;
use peer::daemon::{Peer, PeerOptions};
use peer::engine::Request;
use peer::error::FetchError;
use peer::handle::Handle;
use peer::limit::Rates;
use peer::origin::{OriginOptions, look};

use super::{Done, Job, part_of, typed_by_the_user};
use crate::cli;
use crate::get::behind::Behind;
use crate::get::output::{self, Draft, receive};
use crate::get::report::Transfer;
use crate::get::wanted::Target;

/// A temporary member waits so long for its supernode before it asks the origin.
const SESSION_WAIT: Duration = Duration::from_secs(5);

/// A temporary member.
pub struct Member {
    peer: Peer,
    _store: Draft,
}

// === impl Member ===

impl Member {
    /// Joins. Files in `folders` may be asked for: the user named them.
    pub(super) async fn join(
        flags: &cli::Get,
        beside: PathBuf,
        folders: Vec<PathBuf>,
    ) -> anyhow::Result<Self> {
        let token = flags.join_token_file.as_deref().map(JoinToken::read).transpose()?;
        let store = Draft::folder(&beside)?;
        let options = PeerOptions {
            passing: true,
            supernodes: flags.supernode.clone(),
            proof: token.map(|token| Arc::new(token) as Arc<dyn JoinProof>),
            quic_listen: (Ipv4Addr::UNSPECIFIED, 0).into(),
            origin: OriginOptions { folders, ..typed_by_the_user(flags) },
            rates: Rates { download: flags.limit_bytes(), ..Rates::default() },
            ..PeerOptions::local(store.0.clone())
        };
        let peer = Peer::start(options).await?;
        let _ = tokio::time::timeout(SESSION_WAIT, peer.connected().wait_for(|connected| *connected)).await;
        Ok(Self { peer, _store: store })
    }

    /// Leaves.
    pub(super) async fn leave(self) {
        self.peer.close().await;
    }

    /// Bytes from origins and in all, so far.
    fn received(&self) -> (u64, u64) {
        let received = &self.peer.engine().metrics().received_bytes;
        let of = |source| received.of(source).get();
        let origin = of(ByteSource::Origin);
        (origin, origin + of(ByteSource::Seed) + of(ByteSource::Peer))
    }

    /// Brings it.
    pub(super) async fn bring(&self, job: &Job<'_>, transfer: &mut Transfer<'_>) -> anyhow::Result<Done> {
        let (engine, remote) = (self.peer.engine(), job.remote);
        let look = look(engine.origin(), remote.source.clone(), &remote.credentials)
            .await
            .map_err(FetchError::from)?;
        let before = self.received();
        let request = Request {
            source: look.source,
            credentials: remote.credentials.clone(),
            priority: Priority::Pull,
            trace: None,
        };
        let handle = engine.open(request).await?;
        let length = match (job.target, job.settings.excerpt) {
            (Target::File(path), None) => {
                let from = handle.path().context("the store's file is gone")?;
                let behind = Behind::of(&from)?;
                self.finish(&handle, behind, transfer, before).await?;
                let (to, finish) = (path.clone(), job.settings.finish);
                tokio::task::spawn_blocking(move || output::settle(&from, &to, finish, look.modified))
                    .await??;
                handle.length()
            }
            (_, excerpt) => {
                let range = match excerpt {
                    None => ByteRange::new(0, handle.length()),
                    Some(excerpt) => part_of(excerpt, handle.length())?,
                };
                let body = Box::pin(handle.read(range).map(|chunk| chunk.map_err(anyhow::Error::from)));
                receive(job, (range.len(), look.modified), body, transfer).await?;
                range.len()
            }
        };
        let through = if self.received().0 == before.0 { "the swarm" } else { "the origin" };
        Ok(Done { length, through, digest: remote.source.digest })
    }

    /// Waits until the whole is here and proven.
    async fn finish(
        &self,
        handle: &Handle,
        mut behind: Behind,
        transfer: &mut Transfer<'_>,
        before: (u64, u64),
    ) -> anyhow::Result<()> {
        let here =
            || (u64::from(handle.held()) * u64::from(handle.geometry().piece_length())).min(handle.length());
        let mut shown = here();
        transfer.knows(handle.length(), shown);
        let mut changes = handle.changes();
        let finished = handle.finished();
        tokio::pin!(finished);
        loop {
            tokio::select! {
                finished = &mut finished => break finished?,
                changed = changes.changed() => {
                    changed.map_err(|_| FetchError::Closing)?;
                    let grown = here().saturating_sub(shown);
                    shown += grown;
                    transfer.add(grown);
                    behind.wrote(grown)?;
                    let (origin, all) = self.received();
                    let (origin, all) = (origin - before.0, (all - before.1).max(1));
                    transfer.share_of_peers((all - origin.min(all)) * 100 / all);
                }
            }
        }
        transfer.add(handle.length().saturating_sub(shown));
        behind.end().await
    }
}
