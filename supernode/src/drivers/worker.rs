//! Makes jobs of the pushes that wait: asks the [`Backlog`] what is to be done, has the engine do it, and tells what came
//! of it. One at a time, for each step is a short question; the jobs themselves run in the engine. Run by the daemon.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::task::Credentials;
use common::telemetry::{Metrics, Notified};
use peer::image::reference::Reference;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Jobs;
use super::backlog::{Backlog, Ended, Step, Taken};
use crate::preheat::job::Spec;

/// Nothing is asked of the engine in a loop without a pause, whatever the backlog says.
const PAUSE: Duration = Duration::from_millis(1);

/// The backlog, and who is told when something comes.
#[derive(Clone, Default)]
pub(super) struct Waiting {
    backlog: Arc<Mutex<Backlog>>,
    news: Arc<Notify>,
}

// === impl Waiting ===

impl Waiting {
    /// Takes a push on.
    pub(super) fn push(&self, image: &Reference, spec: Spec) -> Taken {
        let taken = self.backlog().push(image, spec, Instant::now().into());
        self.news.notify_one();
        taken
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        // A panic in between leaves pushes that are still good.
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until it is dropped.
    pub(super) async fn run(self, jobs: impl Jobs, metrics: Metrics) {
        loop {
            let due = self.backlog().due();
            match due {
                None => self.news.notified().await,
                Some(due) => tokio::select! {
                    () = self.news.notified() => {}
                    () = tokio::time::sleep_until(due.into()) => {}
                },
            }
            let step = self.backlog().next(Instant::now().into());
            if let Some(step) = step {
                self.take(step, &jobs, &metrics).await;
                // More may be due.
                self.news.notify_one();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn take(&self, step: Step, jobs: &impl Jobs, metrics: &Metrics) {
        let (name, ended) = match step {
            Step::Begin(name, spec) => {
                // Events carry no credentials: the job has those that the supernode has for the registry.
                let begun = jobs.create((*spec).clone(), Credentials::none()).await;
                let begun = begun.map(|view| view.id);
                let ended = self.backlog().began(&name, &spec, begun, Instant::now().into());
                (name, ended)
            }
            Step::Look(name, job) => {
                let seen = jobs.show(job).await;
                let ended = self.backlog().looked(&name, job, seen, Instant::now().into());
                (name, ended)
            }
        };
        match ended {
            Ended::NotYet => {}
            Ended::Again(job) => {
                tracing::debug!(image = name, "the manifest of a push cannot be read yet: it is tried again");
                // Another one is made for it; only the last of those that failed is of interest.
                let _ = jobs.remove(job).await;
            }
            Ended::Begun => {
                metrics.notifications.of(Notified::Begun).inc();
                tracing::info!(image = name, "a push is being preheated");
            }
            Ended::Lost(why) => {
                metrics.notifications.of(Notified::Lost).inc();
                tracing::warn!(image = name, "a push is not preheated: {why}");
            }
        }
    }
}
