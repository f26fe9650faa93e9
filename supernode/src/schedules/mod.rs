//! Schedules: preheat jobs that begin by themselves, at times that a table says ([`calendar`]) or when a tag moves ([`look`]).
//! [`Schedules`] takes them on ([`schedule`]), the [clerk](clerk) keeps them: it asks each what is to be done now ([`ledger`]), asks
//! registries no more often than is fair ([`pace`]), begins jobs of [`crate::preheat`], and writes down what became of them ([`keep`]).
//! Asked by the HTTP API.
//!
//! # Invariants
//! - What was taken on is on the disk before it is answered, and goes on after a restart; what a tag meant when it was last
//!   brought is written down with the job that brings it, so that a restart brings nothing twice.
//! - One job of a schedule at a time: a run that comes while the one before is under way is skipped, and shown so.
//! - However many runs were missed, one is made up for.
//! - Credentials live in memory only, as a job's do.

pub mod calendar;
mod clerk;
mod keep;
mod ledger;
mod look;
mod pace;
pub mod schedule;

use common::task::Credentials;
use common::telemetry::Metrics;
use peer::origin::OriginClient;
use peer::store::{Store, StoreError};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

pub use self::schedule::{Held, Reason, Refused, Run, RunResult, ScheduleId, Spec, View};

use self::clerk::Clerk;
use crate::preheat::{Logins, Preheats};

/// Wishes that wait for the clerk: each is heard within milliseconds.
const ORDERS: usize = 64;

/// The way to the schedules. Cheap to clone.
#[derive(Clone)]
pub struct Schedules {
    orders: mpsc::Sender<Order>,
}

/// What is to become of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ScheduleChange)]
pub enum Change {
    /// Nothing begins by itself until it is resumed.
    Pause,
    /// It goes on; what was missed meanwhile is not made up for.
    Resume,
    /// It runs now, paused or not.
    Run,
}

/// What the clerk is asked, and where the answer goes.
enum Order {
    Create(Box<Spec>, Credentials, oneshot::Sender<Result<(View, bool), Refused>>),
    Show(ScheduleId, oneshot::Sender<Result<View, Refused>>),
    List(oneshot::Sender<Vec<View>>),
    Change(ScheduleId, Change, oneshot::Sender<Result<View, Refused>>),
    Remove(ScheduleId, oneshot::Sender<Result<(), Refused>>),
}

/// What the clerk works with.
pub struct Means {
    /// Where jobs are begun.
    pub preheats: Preheats,
    /// What registries are asked by.
    pub origin: OriginClient,
    /// What opens them for who brings nothing.
    pub logins: Logins,
    /// Where schedules are written down.
    pub store: Store,
    /// Where their runs are counted.
    pub metrics: Metrics,
}

// === impl Schedules ===

impl Schedules {
    /// Opens the schedules in the seed's store; the future keeps them, and is to be run. Blocks for a moment.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn open(means: Means) -> Result<(Self, impl Future<Output = ()> + Send + 'static), StoreError> {
        let (orders, receiver) = mpsc::channel(ORDERS);
        let clerk = Clerk::open(means)?;
        Ok((Self { orders }, clerk.run(receiver)))
    }

    /// Takes a schedule on, and whether it is new: the same one is given as it is, with these credentials from now on.
    ///
    /// # Errors
    /// When it makes no sense, or there are too many.
    pub async fn create(
        &self,
        mut spec: Spec,
        mut credentials: Credentials,
    ) -> Result<(View, bool), Refused> {
        spec.check()?;
        let taken = spec.preheat.take_keys(&mut credentials);
        taken.map_err(|error| Refused::Nonsense(error.to_string()))?;
        self.ask(|answer| Order::Create(Box::new(spec), credentials, answer)).await?
    }

    /// A schedule with its last runs.
    ///
    /// # Errors
    /// When there is none.
    pub async fn show(&self, id: ScheduleId) -> Result<View, Refused> {
        self.ask(|answer| Order::Show(id, answer)).await?
    }

    /// All of them, the newest first, each with its last run.
    pub async fn list(&self) -> Vec<View> {
        self.ask(Order::List).await.unwrap_or_default()
    }

    /// Pauses, resumes or runs one.
    ///
    /// # Errors
    /// When there is none, or it is to run and does.
    pub async fn change(&self, id: ScheduleId, change: Change) -> Result<View, Refused> {
        self.ask(|answer| Order::Change(id, change, answer)).await?
    }

    /// Forgets one. A job that it has begun goes on.
    ///
    /// # Errors
    /// When there is none.
    pub async fn remove(&self, id: ScheduleId) -> Result<(), Refused> {
        self.ask(|answer| Order::Remove(id, answer)).await?
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Refused> {
        let closing = || Refused::Broken("the supernode is shutting down".into());
        crate::clerk::ask(&self.orders, order).await.ok_or_else(closing)
    }
}
