//! Fetches an image's next layers from the origin while nodes still pull the ones before: [`plan`] decides which, after the
//! manifests that passed through here ([`manifest`]). With the credentials of the node that asks, from the repository
//! that it asks: never more than it could have had by asking. It is asked for its layers as ever; this only has them
//! sooner.

mod manifest;
mod plan;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use common::digest::Digest;
use common::piece::ByteRange;
use common::task::{Credentials, Source};
use futures_util::TryStreamExt as _;
use peer::engine::{Engine, Request};
use peer::error::FetchError;
use peer::handle::Handle;
use peer::tasks::Tasks;

use manifest::Layer;
use plan::{ImageId, Plan};

/// A longer manifest is not looked into: several hundred layers.
const MAX_MANIFEST: u64 = 128 * 1024;

/// Reads ahead for all images. Cheap to clone.
#[derive(Clone)]
pub struct ReadAhead {
    engine: Engine,
    tasks: Tasks,
    plan: Arc<Mutex<Plan>>,
}

/// What a registry's URL asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    /// A manifest of the repository at this URL.
    Manifest(&'a str),
    /// A blob of it.
    Blob(&'a str),
}

// === impl ReadAhead ===

impl ReadAhead {
    /// Nothing is known yet. What runs belongs to `tasks`.
    pub fn new(engine: Engine, tasks: Tasks) -> Self {
        Self { engine, tasks, plan: Arc::default() }
    }

    /// A node that may have it was given a task: a manifest tells what will be asked for, a layer what is next.
    pub async fn given(&self, handle: &Handle, source: &Source, credentials: &Credentials) {
        let Some(digest) = source.digest else { return };
        match wanted(&source.url) {
            Some(Wanted::Manifest(repository)) if handle.length() <= MAX_MANIFEST => {
                let id = ImageId { repository: repository.into(), manifest: digest };
                let known = self.plan().knows(&id);
                if !known && let Ok(bytes) = whole(handle).await {
                    self.plan().learn(id, manifest::layers(&bytes), Instant::now());
                }
            }
            Some(Wanted::Blob(repository)) => {
                let here = handle.is_local();
                let asked = self.plan().asked(repository, digest, here, Instant::now());
                match asked {
                    Some((id, true)) => {
                        self.tasks.spawn(self.clone().await_it(
                            handle.clone(),
                            digest,
                            id,
                            credentials.clone(),
                        ));
                    }
                    Some((id, false)) => self.start(&id, credentials),
                    None => {}
                }
            }
            _ => {}
        }
    }

    async fn await_it(self, handle: Handle, layer: Digest, id: ImageId, credentials: Credentials) {
        // However it ends.
        let _ = handle.finished().await;
        self.plan().arrived(layer);
        self.start(&id, &credentials);
    }

    fn start(&self, id: &ImageId, credentials: &Credentials) {
        let walkers = self.plan().start(id);
        for _ in 0..walkers {
            self.tasks.spawn(self.clone().walk(id.clone(), credentials.clone()));
        }
    }

    async fn walk(self, id: ImageId, credentials: Credentials) {
        loop {
            // A statement of its own: the lock is not held over the fetch.
            let next = self.plan().next(&id, Instant::now());
            let Some(layer) = next else { return };
            if let Err(error) = self.fetch(&id.repository, layer, credentials.clone()).await {
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
    ) -> Result<(), FetchError> {
        let source = Source::of_digest(format!("{repository}/blobs/{}", layer.digest), layer.digest);
        self.engine.open(Request { source, credentials }).await?.finished().await
    }

    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Which repository a URL of the pull API belongs to, and what it asks of it.
fn wanted(url: &str) -> Option<Wanted<'_>> {
    let (rest, _reference) = url.rsplit_once('/')?;
    let manifest = rest.strip_suffix("/manifests").map(Wanted::Manifest);
    manifest.or_else(|| rest.strip_suffix("/blobs").map(Wanted::Blob))
}

async fn whole(handle: &Handle) -> Result<Vec<u8>, FetchError> {
    let append = |mut bytes: Vec<u8>, chunk: Bytes| async move {
        bytes.extend_from_slice(&chunk);
        Ok(bytes)
    };
    handle.read(ByteRange::new(0, handle.length())).try_fold(Vec::new(), append).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_what_its_blobs_and_manifests_share() {
        let base = "https://r.test/v2/team/app";
        assert_eq!(wanted(&format!("{base}/manifests/sha256:00")), Some(Wanted::Manifest(base)));
        assert_eq!(wanted(&format!("{base}/blobs/sha256:00")), Some(Wanted::Blob(base)));
        assert_eq!(wanted("https://files.test/a/b.tar"), None);
        assert_eq!(wanted(""), None);
    }
}
