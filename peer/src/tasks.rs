//! The tasks that a part of a daemon has started: all of them are owned here and end with it. The engine and both
//! daemons keep theirs in one.

use std::time::Duration;

use axum::Router;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::{self, Listener};

/// Started tasks, and the word that ends them. Clones own the same tasks.
#[derive(Clone, Default)]
pub struct Tasks {
    running: TaskTracker,
    stop: CancellationToken,
}

// === impl Tasks ===

impl Tasks {
    /// Runs `work` until it ends, or is dropped at the next await after [`Tasks::close`].
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.running.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }

    /// Runs `work`, which is told of [`Tasks::close`], and may still end in its grace.
    pub fn spawn_told<W: Future<Output = ()> + Send + 'static>(
        &self,
        work: impl FnOnce(CancellationToken) -> W,
    ) {
        self.running.spawn(work(self.stop.clone()));
    }

    /// Serves HTTP; requests that run at [`Tasks::close`] may still end.
    pub fn serve(&self, listener: impl Listener, router: Router) {
        self.running.spawn(http::serve(listener, router, self.stop.clone()));
    }

    /// Whether [`Tasks::close`] was called.
    pub fn is_closing(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Ends all of it, and waits for that, but not longer than `grace`.
    pub async fn close(&self, grace: Duration) {
        self.stop.cancel();
        self.running.close();
        let _ = tokio::time::timeout(grace, self.running.wait()).await;
    }
}
