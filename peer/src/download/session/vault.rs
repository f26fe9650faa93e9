//! The vault, on the way to the origin: looked into once, before the origin is asked, and told of what it lacks.

use std::sync::Arc;
use std::time::Duration;

use super::{Session, blocking};
use crate::download::retrieval::Retrieval;
use crate::error::FetchError;
use crate::vault::{Kept, Vault};

/// A vault that takes longer to say whether it has a blob is no faster than the origin.
const LOOK: Duration = Duration::from_secs(2);

impl Session {
    /// On the way to the origin: perhaps the vault has it.
    pub(super) fn look_in_vault(&mut self) {
        let idle = self.feed.is_none() && self.finding.is_empty() && !self.is_proven();
        match self.context.vault.clone().filter(|_| idle) {
            Some(vault) => {
                let find = vault.find(self.shared.task());
                self.finding.spawn(async move { tokio::time::timeout(LOOK, find).await.ok().flatten() });
            }
            None => self.go_to_origin(),
        }
    }

    pub(super) async fn found_in_vault(&mut self, kept: Option<Kept>) -> Result<(), FetchError> {
        let known = self.shared.geometry();
        if let Some(kept) = kept.filter(|kept| known.is_none_or(|known| known == kept.geometry)) {
            let geometry = kept.geometry;
            self.kept = Some(Arc::new(kept));
            if known.is_some() {
                // The blob was begun in the name of the URL that was asked for.
                let (store, task, url) =
                    (self.context.store.clone(), self.shared.task(), self.fetched_from());
                blocking(move || store.create(task, geometry, &url)).await?;
            }
            self.origin_knows(geometry).await?;
        }
        self.go_to_origin();
        Ok(())
    }

    /// What of the vault is to be read before the origin is asked; once.
    pub(super) fn retrieval(&self) -> Option<Retrieval> {
        let (vault, kept) = (self.context.vault.clone()?, self.kept.clone()?);
        (!self.asked_again).then(|| Retrieval { vault, task: self.shared.task(), kept })
    }

    /// The URL that the bytes come from in the end: not the one that is asked for, where the vault has them from another.
    /// [`crate::provenance`] goes by it.
    pub(super) fn fetched_from(&self) -> String {
        let asked = || self.source.as_ref().map(|source| source.url.clone());
        let kept = self.kept.as_ref().map(|kept| kept.source_url.clone());
        kept.or_else(asked).unwrap_or_default()
    }

    /// The vault, where it does not hold the whole task as it was proven here.
    pub(super) fn vault_without_it(&self) -> Option<Arc<dyn Vault>> {
        self.context.vault.clone().filter(|_| self.kept.is_none() || self.from_origin)
    }

    /// The whole is wrong, and part of it may have come from the vault.
    pub(super) async fn distrust_vault(&mut self) {
        if let (Some(vault), Some(_)) = (&self.context.vault, self.kept.take()) {
            vault.forget(self.shared.task()).await;
        }
    }
}
