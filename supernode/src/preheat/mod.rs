//! Preheating: images and files brought to where they will be wanted, before they are. [`Preheats`] takes jobs on ([`job`]), the
//! [clerk](clerk) keeps them: it finds out what an image comes to ([`contents`]), chooses nodes ([`choice`]), has them work by a
//! [`plan`], an attempt at a time ([`work`], [turns](turns)), and writes down what became of it ([`keep`]). Asked by the HTTP API and by the
//! interfaces of others. What a job would come to says a [forecast], which a [scout] makes.
//!
//! # Invariants
//! - What was taken on is on the disk before it is answered, and goes on after a restart with the nodes that it was for.
//! - Credentials live in memory only: a job that was given some and is not done when the supernode restarts fails, and says so.
//!   One that was given none uses the supernode's own login for the registry ([`logins`]), and goes on.
//! - Preheating gives way to pulls: everything is fetched as [`common::wire::swarm::Priority::Preheat`].
//! - The same wish, while it is not done, is the same job; it ends with what its tag means after the last such wish.

pub mod choice;
mod clerk;
pub mod contents;
pub mod forecast;
pub mod job;
mod keep;
mod ledger;
mod logins;
pub mod plan;
mod scout;
mod turns;
mod work;

use std::sync::Arc;

use common::task::Credentials;
use peer::engine::Engine;
use peer::store::StoreError;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

pub use self::choice::Choice;
pub(crate) use self::clerk::FIND_TIMEOUT;
pub use self::forecast::{Forecast, Speeds};
pub use self::job::{
    File, JobId, NodeState, NodeView, Part, PartProgress, Refused, Spec, State, Target, View,
};
pub use self::logins::{Logins, LoginsError};

use self::clerk::Clerk;
use self::scout::Scout;
use self::work::Means;
use crate::hub::Hub;
use crate::roster::Roster;

/// Wishes that wait for the clerk: each is heard within milliseconds.
const ORDERS: usize = 64;

/// The way to the preheat jobs. Cheap to clone.
#[derive(Clone)]
pub struct Preheats {
    orders: mpsc::Sender<Order>,
    scout: Scout,
}

/// What is to become of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Nobody works on it until it is resumed.
    Pause,
    /// It goes on.
    Resume,
    /// It ends.
    Cancel,
}

/// What the clerk is asked, and where the answer goes.
enum Order {
    Create(Box<Spec>, Credentials, oneshot::Sender<Result<(View, bool), Refused>>),
    /// With its nodes, or without.
    Show(JobId, bool, oneshot::Sender<Result<View, Refused>>),
    List(oneshot::Sender<Vec<View>>),
    Change(JobId, Change, oneshot::Sender<Result<View, Refused>>),
    Remove(JobId, oneshot::Sender<Result<(), Refused>>),
}

// === impl Preheats ===

impl Preheats {
    /// Opens the jobs in the seed's store; the future keeps them, and is to be run. Blocks for a moment.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn open(
        engine: Engine,
        roster: Roster,
        logins: Logins,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static), StoreError> {
        let (orders, receiver) = mpsc::channel(ORDERS);
        let means = Means::new(engine, roster, logins);
        let scout = Scout::new(means.clone());
        let clerk = Clerk::open(means)?;
        Ok((Self { orders, scout }, clerk.run(receiver)))
    }

    /// Takes a job on, and whether it is new: the same one, while it is not done, is given as it is.
    ///
    /// # Errors
    /// When it makes no sense, or too much is going on.
    pub async fn create(
        &self,
        mut spec: Spec,
        mut credentials: Credentials,
    ) -> Result<(View, bool), Refused> {
        spec.check()?;
        spec.take_keys(&mut credentials)?;
        self.ask(|answer| Order::Create(Box::new(spec), credentials, answer)).await?
    }

    /// What a job would come to, were it begun now, with the highest speeds of late.
    ///
    /// # Errors
    /// When it makes no sense, or the origin does not say what it is.
    pub async fn plan(
        &self,
        mut spec: Spec,
        mut credentials: Credentials,
        present: (Arc<Hub>, Speeds),
    ) -> Result<Forecast, Refused> {
        spec.check()?;
        spec.take_keys(&mut credentials)?;
        self.scout.plan(&spec, credentials, present).await
    }

    /// A job with its nodes.
    ///
    /// # Errors
    /// When there is none.
    pub async fn show(&self, id: JobId) -> Result<View, Refused> {
        self.ask(|answer| Order::Show(id, true, answer)).await?
    }

    /// A job without its nodes.
    ///
    /// # Errors
    /// When there is none.
    pub async fn glance(&self, id: JobId) -> Result<View, Refused> {
        self.ask(|answer| Order::Show(id, false, answer)).await?
    }

    /// All jobs without their nodes, the newest first.
    pub async fn list(&self) -> Vec<View> {
        self.ask(Order::List).await.unwrap_or_default()
    }

    /// Pauses, resumes or cancels a job. One that is over stays as it is.
    ///
    /// # Errors
    /// When there is none.
    pub async fn change(&self, id: JobId, change: Change) -> Result<View, Refused> {
        self.ask(|answer| Order::Change(id, change, answer)).await?
    }

    /// Ends a job and forgets it.
    ///
    /// # Errors
    /// When there is none.
    pub async fn remove(&self, id: JobId) -> Result<(), Refused> {
        self.ask(|answer| Order::Remove(id, answer)).await?
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Refused> {
        let closing = || Refused::Broken("the supernode is shutting down".into());
        crate::clerk::ask(&self.orders, order).await.ok_or_else(closing)
    }
}
