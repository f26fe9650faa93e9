//! Keeps the schedules: hears wishes, asks [`super::ledger`] what is to be done, and has it done. One task of the runtime; it waits for
//! the disk and for the clerk of the jobs, never for a registry.

use std::collections::BTreeMap;
use std::time::Duration;

use common::digest::Digest;
use common::task::Credentials;
use common::telemetry::Scheduled;
use peer::origin::registry::canonical;
use peer::store::StoreError;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::keep::{Kept, SCHEDULES};
use super::ledger::{Beginning, Standing, Step};
use super::look::{Failed, look};
use super::pace::Pace;
use super::schedule::{Refused, Rule, ScheduleId, Spec, View};
use super::{Change, Means, Order};
use crate::preheat;
use crate::shelf::Shelf;

/// Schedules of a supernode.
const MOST: usize = 256;
/// Looks under way at once, over all registries.
const LOOKS: usize = 4;
/// Runs that are shown of one schedule.
const RUNS: usize = 10;
/// How often jobs that are under way are looked at.
const GLANCE: Duration = Duration::from_secs(1);
/// The longest sleep: the wall clock may be set meanwhile.
const NAP: Duration = Duration::from_secs(30);

/// What a look found.
type Looked = (ScheduleId, Result<Digest, Failed>);

/// The clerk.
pub(super) struct Clerk {
    means: Means,
    shelf: Shelf,
    schedules: BTreeMap<ScheduleId, Standing>,
    last: u64,
    pace: Pace,
    looking: JoinSet<Looked>,
}

// === impl Clerk ===

impl Clerk {
    /// With the schedules of an earlier life. Blocks.
    pub(super) fn open(means: Means) -> Result<Self, StoreError> {
        let shelf = Shelf::new(means.store.clone(), SCHEDULES);
        let (kept, last) = shelf.read::<Kept>()?;
        let now = OffsetDateTime::now_utc();
        let mut schedules = BTreeMap::new();
        for (number, kept) in kept {
            let id = ScheduleId(number);
            match Standing::of_kept(kept, rand::random(), now) {
                Ok(standing) => drop(schedules.insert(id, standing)),
                Err(error) => {
                    tracing::warn!("the preheat schedule {id} makes no sense any more and rests: {error}")
                }
            }
        }
        Ok(Self {
            means,
            shelf,
            schedules,
            last: last.unwrap_or_default(),
            pace: Pace::default(),
            looking: JoinSet::new(),
        })
    }

    /// Keeps the schedules until the caller drops the future, or nobody can ask any more.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut glances = tokio::time::interval(GLANCE);
        glances.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.act().await;
            let at_work = self.schedules.values().any(|standing| standing.job().is_some());
            let sleep = self.sleep(OffsetDateTime::now_utc());
            tokio::select! {
                order = orders.recv() => {
                    let Some(order) = order else { return };
                    self.obey(order).await;
                }
                Some(looked) = self.looking.join_next() => {
                    if let Ok((id, seen)) = looked {
                        self.looked(id, seen).await;
                    }
                }
                _ = glances.tick(), if at_work => self.glance().await,
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Create(spec, credentials, answer) => {
                let _ = answer.send(self.create(*spec, credentials).await);
            }
            Order::Show(id, answer) => {
                let shown = self.schedules.get(&id).map(|standing| standing.view(RUNS));
                let _ = answer.send(shown.ok_or(Refused::Unknown(id)));
            }
            Order::List(answer) => {
                let _ = answer.send(self.schedules.values().rev().map(|standing| standing.view(1)).collect());
            }
            Order::Change(id, change, answer) => {
                let _ = answer.send(self.change(id, change).await);
            }
            Order::Remove(id, answer) => {
                let _ = answer.send(self.remove(id).await);
            }
        }
    }

    async fn create(&mut self, spec: Spec, credentials: Credentials) -> Result<(View, bool), Refused> {
        if let Some(same) = self.schedules.values_mut().find(|standing| standing.spec.is_like(&spec)) {
            let id = same.id;
            if !credentials.is_empty() {
                same.open_with(credentials, OffsetDateTime::now_utc());
                self.write(id).await?;
            }
            return Ok((self.view(id)?, false));
        }
        if self.schedules.len() >= MOST {
            return Err(Refused::Crowded(self.schedules.len()));
        }
        let id = ScheduleId(self.last + 1);
        let standing = Standing::new(id, spec, credentials, OffsetDateTime::now_utc())?;
        let (shelf, kept) = (self.shelf.clone(), standing.kept());
        disk(move || shelf.give(id.0).and_then(|()| shelf.write(id.0, &kept))).await?;
        self.last = id.0;
        let Spec { preheat, schedule, follow_seconds, .. } = &standing.spec;
        tracing::info!(schedule = %id, image = preheat.image, at = schedule, follow_seconds, "preheat schedule made");
        self.schedules.insert(id, standing);
        Ok((self.view(id)?, true))
    }

    async fn change(&mut self, id: ScheduleId, change: Change) -> Result<View, Refused> {
        self.settle(id).await;
        let now = OffsetDateTime::now_utc();
        let standing = self.schedules.get_mut(&id).ok_or(Refused::Unknown(id))?;
        match change {
            Change::Pause => standing.pause(),
            Change::Resume => standing.resume(now),
            Change::Run => standing.ask(now)?,
        }
        self.write(id).await?;
        // What is due is shown as begun.
        self.act().await;
        self.view(id)
    }

    async fn remove(&mut self, id: ScheduleId) -> Result<(), Refused> {
        self.schedules.remove(&id).ok_or(Refused::Unknown(id))?;
        let shelf = self.shelf.clone();
        disk(move || shelf.forget(id.0)).await
    }

    fn view(&self, id: ScheduleId) -> Result<View, Refused> {
        self.schedules.get(&id).map(|standing| standing.view(RUNS)).ok_or(Refused::Unknown(id))
    }

    // --- what is due -------------------------------------------------------------------------------------------------

    /// How long nothing is due.
    fn sleep(&self, now: OffsetDateTime) -> Duration {
        let full = self.looking.len() >= LOOKS;
        let waiting = self.schedules.values().filter(|standing| !(full && standing.follows()));
        let next = waiting.filter_map(|standing| standing.due(now)).min();
        next.map_or(NAP, |next| Duration::try_from(next - now).unwrap_or_default().min(NAP))
    }

    /// Does what is due, first what is due for longest.
    async fn act(&mut self) {
        let now = OffsetDateTime::now_utc();
        let mut due: Vec<_> = self
            .schedules
            .values()
            .filter_map(|standing| Some((standing.due(now)?, standing.id)))
            .filter(|(due, _)| *due <= now)
            .collect();
        due.sort_unstable();
        for (_, id) in due {
            let Some(standing) = self.schedules.get_mut(&id) else { continue };
            if standing.follows() && self.looking.len() >= LOOKS {
                continue;
            }
            match standing.step(now) {
                Some(Step::Look) => self.look(id, now),
                Some(Step::Begin(beginning)) => self.begin(id, beginning).await,
                None => {
                    self.means.metrics.preheat_runs.of(Scheduled::Skipped).inc();
                    self.note(id).await;
                }
            }
        }
    }

    fn look(&mut self, id: ScheduleId, now: OffsetDateTime) {
        let Some(standing) = self.schedules.get_mut(&id) else { return };
        let Rule::Follow(image, _) = &standing.rule else { return };
        if let Err(from) = self.pace.take(&canonical(&image.registry), now) {
            standing.put_off(from);
            return;
        }
        let (image, own) = (image.clone(), standing.credentials.clone());
        let (origin, logins) = (self.means.origin.clone(), self.means.logins.clone());
        self.looking.spawn(async move {
            let credentials = logins.unless(own, &image.registry).await;
            (id, look(origin, &image, credentials).await)
        });
    }

    async fn looked(&mut self, id: ScheduleId, seen: Result<Digest, Failed>) {
        // It may have been removed meanwhile.
        let Some(standing) = self.schedules.get_mut(&id) else { return };
        let now = OffsetDateTime::now_utc();
        if let (Err(Failed { rest: Some(rest), why }), Rule::Follow(image, _)) = (&seen, &standing.rule) {
            tracing::info!(schedule = %id, registry = image.registry, seconds = rest.whole_seconds(), "the registry is left alone: {why}");
            self.pace.rest(&canonical(&image.registry), *rest, now);
        }
        if seen.is_err() {
            self.means.metrics.preheat_runs.of(Scheduled::Failed).inc();
        }
        if let Some(beginning) = standing.looked(seen, rand::random(), now) {
            self.begin(id, beginning).await;
        }
    }

    async fn begin(&mut self, id: ScheduleId, beginning: Beginning) {
        let Some(standing) = self.schedules.get_mut(&id) else { return };
        let job = (*beginning.job).clone();
        let begun = self.means.preheats.create(job, standing.credentials.clone()).await;
        let begun = begun.map(|(view, _)| view.id);
        let runs = &self.means.metrics.preheat_runs;
        match &begun {
            Ok(job) => {
                runs.of(Scheduled::Begun).inc();
                tracing::info!(schedule = %id, %job, reason = ?beginning.reason, "a preheat schedule begins a job")
            }
            Err(why) => {
                runs.of(Scheduled::Failed).inc();
                tracing::warn!(schedule = %id, reason = ?beginning.reason, "a preheat schedule begins no job: {why}")
            }
        }
        standing.began(&beginning, begun, OffsetDateTime::now_utc());
        self.note(id).await;
    }

    /// Looks how the jobs are that are under way.
    async fn glance(&mut self) {
        let open: Vec<_> = self.schedules.values().filter(|standing| standing.job().is_some()).collect();
        let open: Vec<_> = open.into_iter().map(|standing| standing.id).collect();
        for id in open {
            self.settle(id).await;
        }
    }

    /// Looks how a schedule's job is.
    async fn settle(&mut self, id: ScheduleId) {
        let Some(job) = self.schedules.get(&id).and_then(Standing::job) else { return };
        let view = match self.means.preheats.glance(job).await {
            Ok(view) => Some(view),
            Err(preheat::Refused::Unknown(_)) => None,
            Err(_) => return,
        };
        let Some(standing) = self.schedules.get_mut(&id) else { return };
        if standing.seen(view.as_ref()) {
            self.note(id).await;
        }
    }

    // --- the disk ----------------------------------------------------------------------------------------------------

    async fn write(&self, id: ScheduleId) -> Result<(), Refused> {
        let Some(standing) = self.schedules.get(&id) else { return Ok(()) };
        let (shelf, kept) = (self.shelf.clone(), standing.kept());
        disk(move || shelf.write(id.0, &kept)).await
    }

    /// Writes one down for which nobody waits.
    async fn note(&self, id: ScheduleId) {
        if let Err(error) = self.write(id).await {
            tracing::warn!(schedule = %id, "{error}");
        }
    }
}

/// Does what blocks.
async fn disk(deed: impl FnOnce() -> Result<(), StoreError> + Send + 'static) -> Result<(), Refused> {
    let broken = |error: &dyn std::fmt::Display| Refused::Broken(error.to_string());
    tokio::task::spawn_blocking(deed).await.map_err(|error| broken(&error))?.map_err(|error| broken(&error))
}
