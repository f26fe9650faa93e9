//! Finds out what a job would come to, for [`super::forecast`]: what is to be brought, what the cache has, who holds what. Manifests
//! are read, and stay in the cache; nothing else moves.

use std::sync::Arc;

use common::task::Credentials;
use peer::image::ImageError;
use tokio::sync::Semaphore;

use super::choice::Candidate;
use super::clerk::FIND_TIMEOUT;
use super::forecast::{Forecast, Part, Speeds};
use super::job::{Refused, Spec, Target};
use super::work::Means;
use crate::hub::Hub;

/// Plans that are made at once: each may ask a registry.
const AT_ONCE: usize = 4;

/// Makes plans.
#[derive(Clone)]
pub(super) struct Scout {
    means: Means,
    desk: Arc<Semaphore>,
}

// === impl Scout ===

impl Scout {
    pub(super) fn new(means: Means) -> Self {
        Self { means, desk: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// What the job would come to.
    ///
    /// # Errors
    /// When the origin does not say what it is, or the store fails.
    pub(super) async fn plan(
        &self,
        spec: &Spec,
        credentials: Credentials,
        (hub, speeds): (Arc<Hub>, Speeds),
    ) -> Result<Forecast, Refused> {
        let closing = |_| Refused::Broken("the supernode is shutting down".into());
        let finding = tokio::time::timeout(FIND_TIMEOUT, async {
            let turn = self.desk.acquire().await.map_err(closing)?;
            Ok((turn, self.parts(spec, credentials).await?))
        });
        let found = finding.await;
        let (_turn, parts) = found.unwrap_or_else(|_| Err(Refused::Origin(ImageError::Slow.to_string())))?;
        if spec.to == Target::Cache {
            return Ok(Forecast::of_cache(&parts, speeds));
        }
        let peers = self.means.roster.peers().into_iter();
        let candidates: Vec<_> = peers.map(|(node, labels)| Candidate { node, labels }).collect();
        let (nodes, unknown) = spec.nodes.among(&candidates);
        // Thousands of nodes and of parts are millions of questions.
        let counting = tokio::task::spawn_blocking(move || {
            Forecast::of(&parts, &nodes, |task, nodes| hub.held(task, nodes), speeds)
        });
        let forecast = counting.await.map_err(|error| Refused::Broken(error.to_string()))?;
        Ok(Forecast { unknown, ..forecast })
    }

    async fn parts(&self, spec: &Spec, credentials: Credentials) -> Result<Vec<Part>, Refused> {
        let unsaid = |error: &dyn std::fmt::Display| Refused::Origin(error.to_string());
        let load = self.means.find(spec, credentials).await.map_err(|error| unsaid(&error))?;
        let parts = load.sources.iter().zip(load.lengths.iter());
        let parts = parts.map(|(source, &length)| Part { task: source.task(), length, cached: 0 });
        let mut parts: Vec<Part> = parts.collect();
        for part in &mut parts {
            let here = self.means.engine.is_here(part.task).await.map_err(|error| unsaid(&error))?;
            part.cached = if here { part.length } else { 0 };
        }
        Ok(parts)
    }
}
