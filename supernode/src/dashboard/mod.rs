//! The dashboard: a [page] for browsers, and the part of the API that it is made of. One [recorder](Dashboard::record) keeps
//! the last hour ([`history`]) and, while somebody looks, tells all open pages the same [`overview`] ([`events`]); the
//! [`routes`] answer for nodes, swarms and images. Put into the HTTP by [`crate::api`].
//!
//! # Invariants
//! - However many pages are open, an overview is made once a [`history::STEP`], and none while no page is open.
//! - Names of images are shown only to who has the token or the socket: a machine's other users may look at the figures.

pub mod events;
pub mod history;
pub mod name;
pub mod overview;
pub mod page;
pub mod routes;
pub mod tally;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use common::telemetry::{ByteSource, Code, Recipient};
use peer::engine::Engine;
use tokio::sync::{Semaphore, watch};
use tokio::time::MissedTickBehavior;

use crate::hub::Hub;
use crate::preheat::Speeds;
use events::{LISTENERS, News};
use history::{History, Totals};
use overview::{Overview, OverviewWithHistory};

/// Swarms on the first page.
const BUSIEST: usize = 8;

/// What the dashboard is made of. Cheap to clone.
#[derive(Clone)]
pub struct Dashboard {
    hub: Arc<Hub>,
    engine: Engine,
    begun: Instant,
    history: Arc<Mutex<History>>,
    news: watch::Receiver<News>,
    listeners: Arc<Semaphore>,
    /// One walk over the store at a time: asking over and over costs the asker.
    desk: Arc<Semaphore>,
    /// Whether whoever asks may read names.
    named: bool,
}

// === impl Dashboard ===

impl Dashboard {
    /// A dashboard, and what [`Self::record`] tells its pages by.
    pub fn new(hub: Arc<Hub>, engine: Engine) -> (Self, watch::Sender<News>) {
        let (sender, news) = watch::channel(News::default());
        let dashboard = Self {
            hub,
            engine,
            begun: Instant::now(),
            history: Arc::default(),
            news,
            listeners: Arc::new(Semaphore::new(LISTENERS)),
            desk: Arc::new(Semaphore::new(1)),
            named: false,
        };
        (dashboard, sender)
    }

    /// The same for whom a door lets in that shows names, or does not.
    pub fn seen_through(self, named: bool) -> Self {
        Self { named, ..self }
    }

    /// Keeps the history, and tells who listens, until the daemon drops it; then the open pages' streams end.
    pub async fn record(self, news: watch::Sender<News>) {
        let mut ticks = tokio::time::interval(history::STEP);
        // After a stall the next sample is as good as those that were missed.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let totals = self.totals();
            self.history().push(self.begun.elapsed(), totals);
            if self.listeners.available_permits() < LISTENERS {
                match serde_json::to_string(&self.overview()) {
                    Ok(text) => drop(news.send_replace(text.into())),
                    Err(error) => tracing::error!("the overview cannot be written: {error}"),
                }
            }
        }
    }

    /// The highest speeds of the last hour.
    pub fn highest_speeds(&self) -> Speeds {
        self.history().highest()
    }

    fn totals(&self) -> Totals {
        let metrics = self.engine.metrics();
        let failed = [Code::Server, Code::Error].map(|code| metrics.origin_requests.of(code).get());
        Totals {
            delivered: self.hub.delivered(),
            origin: metrics.received_bytes.of(ByteSource::Origin).get(),
            seed: metrics.sent_bytes.of(Recipient::Peer).get(),
            origin_errors: failed.iter().sum(),
        }
    }

    fn overview(&self) -> Overview {
        let (node, census) = (self.engine.node().to_string(), self.hub.census(BUSIEST));
        let room = self.engine.store().room();
        Overview::new(node, self.begun.elapsed(), census, &room, &self.history())
    }

    fn overview_with_history(&self) -> OverviewWithHistory {
        let overview = self.overview();
        OverviewWithHistory { overview, history: self.history().plot() }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // A panic in between leaves samples that are still good.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
