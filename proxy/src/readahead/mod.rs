//! Fetches an image's next layers while the client still pulls the ones before: [`plan`] decides which, after the
//! manifests that passed through here. With the credentials of the client that asks, from the repository
//! that it asks, into this node's store: nobody is given anything sooner than it asks and is granted it.

mod plan;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use common::digest::Digest;
use common::task::{Credentials, Source};
use common::telemetry::trace::{Side, Span, TraceContext};
use common::wire::swarm::Priority;
use peer::engine::{Engine, Request};
use peer::error::FetchError;
use peer::handle::Handle;

use crate::manifest::{self, Layer};
use plan::{ImageId, Plan};

/// Reads ahead for all images. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ReadAhead {
    engine: Engine,
    plan: Arc<Mutex<Plan>>,
    on: bool,
}

// === impl ReadAhead ===

impl ReadAhead {
    /// Nothing is known yet; nothing will be done unless `on`.
    pub(crate) fn new(engine: Engine, on: bool) -> Self {
        Self { engine, plan: Arc::default(), on }
    }

    /// A manifest of the repository at this URL was given to a client: it tells what will be asked for.
    pub(crate) fn gave_manifest(&self, repository: &str, manifest: Digest, bytes: &[u8]) {
        if !self.on {
            return;
        }
        let id = ImageId { repository: repository.into(), manifest };
        let known = self.plan().knows(&id);
        if !known {
            // Parsed outside of the lock.
            let layers = manifest::layers(bytes);
            self.plan().learn(id, layers, Instant::now());
        }
    }

    /// A client that was granted it, with these credentials, is being given a layer: the next ones are fetched.
    pub(crate) fn gives_layer(
        &self,
        repository: &str,
        layer: Digest,
        handle: &Handle,
        (credentials, trace): (&Credentials, Option<TraceContext>),
    ) {
        let Some((id, awaited)) = self.plan().asked(repository, layer, handle.is_local(), Instant::now())
        else {
            return;
        };
        self.start(&id, credentials, trace);
        if awaited {
            let (ahead, handle, credentials) = (self.clone(), handle.clone(), credentials.clone());
            self.engine.spawn(async move {
                // However it ends.
                let _ = handle.finished().await;
                ahead.plan().arrived(&id, layer);
                ahead.start(&id, &credentials, trace);
            });
        }
    }

    fn start(&self, id: &ImageId, credentials: &Credentials, trace: Option<TraceContext>) {
        let walkers = self.plan().start(id);
        for _ in 0..walkers {
            self.engine.spawn(self.clone().walk(id.clone(), credentials.clone(), trace));
        }
    }

    async fn walk(self, id: ImageId, credentials: Credentials, trace: Option<TraceContext>) {
        loop {
            // A statement of its own: the lock is not held over the fetch.
            let next = self.plan().next(&id, Instant::now());
            let Some(layer) = next else { return };
            if let Err(error) = self.fetch(&id.repository, layer, credentials.clone(), trace).await {
                tracing::debug!(repository = &*id.repository, digest = %layer.digest, %error, "not read ahead");
                self.plan().failed(&id);
            }
        }
    }

    async fn fetch(
        &self,
        repository: &str,
        layer: Layer,
        credentials: Credentials,
        trace: Option<TraceContext>,
    ) -> Result<(), FetchError> {
        let source = Source::of_digest(format!("{repository}/blobs/{}", layer.digest), layer.digest);
        // The runtime asks for it in a moment, and waits then.
        // Part of the request that it runs ahead of.
        let span = Span::within("proxy.readahead", trace, Side::Inside);
        let trace = span.context();
        let request = Request { source, credentials, priority: Priority::Pull, trace };
        self.engine.open(request).await?.finished().await
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
