//! Keeps the preheat jobs: hears wishes and what nodes report, asks [`super::ledger`] what follows, and has it done. One task of the
//! runtime; it waits for nobody but the disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use common::node::NodeId;
use common::task::Credentials;
use common::telemetry::Preheated;
use peer::errand::Failed;
use peer::image::ImageError;
use peer::store::StoreError;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError, JoinSet};

use super::choice::Candidate;
use super::contents::Load;
use super::job::{JobId, Refused, Spec, State, Target, View};
use super::keep::{JOBS, Kept};
use super::ledger::{Job, Now};
use super::plan::{Command, Event};
use super::work::{Means, Report, Voice, Work};
use super::{Change, Order};
use crate::shelf::Shelf;

/// Jobs that are not over; each has some thousand nodes at most.
const MAX_OPEN: usize = 256;
/// Jobs that are over and still shown, and nodes and names of all of them: some hundred bytes each.
const MAX_OVER: usize = 1000;
const MAX_OVER_NODES: usize = 200_000;
/// Registries are asked about so many jobs at once.
const MAX_FINDERS: usize = 16;
/// Reports of nodes that wait to be heard.
const REPORTS: usize = 1024;
/// What changed is written down so often, and old jobs forgotten; a large job more rarely, by so much for each node.
const WRITE_EVERY: Duration = Duration::from_secs(1);
const WRITE_A_NODE: Duration = Duration::from_millis(1);
/// After a restart jobs wait so long for peers to come back, which takes them ten seconds: whoever is there then can be chosen.
const SETTLE: Duration = Duration::from_secs(15);
/// What a registry may take to say what an image is, retries and tokens included.
pub(crate) const FIND_TIMEOUT: Duration = Duration::from_secs(120);

/// What was found out about a job's image.
type Found = (JobId, Result<Load, Failed>);

/// The clerk.
pub(super) struct Clerk {
    means: Means,
    shelf: Shelf,
    jobs: BTreeMap<JobId, Job>,
    last: u64,
    /// Whether the peers of an earlier life had time to come back.
    settled: bool,
    finding: JoinSet<Found>,
    finders: HashMap<JobId, AbortHandle>,
    working: JoinSet<()>,
    workers: HashMap<(JobId, NodeId), (u64, AbortHandle)>,
    attempts: u64,
    /// What changed since it was written down.
    dirty: BTreeSet<JobId>,
    reports: (mpsc::Sender<Report>, Option<mpsc::Receiver<Report>>),
}

// === impl Clerk ===

impl Clerk {
    /// With the jobs of an earlier life. Blocks.
    pub(super) fn open(means: Means) -> Result<Self, StoreError> {
        let shelf = Shelf::new(means.engine.store().clone(), JOBS);
        let (kept, last) = shelf.read::<Kept>()?;
        if last.is_none() {
            // The next life will know that it is not the first.
            shelf.give(0)?;
        }
        let now = Now::read();
        let jobs: BTreeMap<_, _> =
            kept.into_iter().map(|(id, kept)| (JobId(id), Job::of_kept(kept, now))).collect();
        let (sender, receiver) = mpsc::channel(REPORTS);
        Ok(Self {
            means,
            shelf,
            dirty: jobs.keys().copied().collect(),
            jobs,
            settled: last.is_none(),
            last: last.unwrap_or_default(),
            finding: JoinSet::new(),
            finders: HashMap::new(),
            working: JoinSet::new(),
            workers: HashMap::new(),
            attempts: 0,
            reports: (sender, Some(receiver)),
        })
    }

    /// Keeps the jobs until the caller drops the future, or nobody can ask any more.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut reports = self.reports.1.take().expect("invariant: a clerk runs once");
        let mut settling = std::pin::pin!(tokio::time::sleep(SETTLE));
        let mut write = tokio::time::interval(WRITE_EVERY);
        write.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.seek();
            let wake = self.jobs.values().filter_map(Job::wake).min();
            tokio::select! {
                order = orders.recv() => {
                    let Some(order) = order else { return };
                    self.obey(order).await;
                }
                Some(report) = reports.recv() => self.hear(report),
                Some(found) = self.finding.join_next() => match found {
                    Ok((id, found)) => self.found(id, found),
                    Err(error) => self.no_answer(&error),
                },
                Some(ended) = self.working.join_next() => {
                    if let Err(error) = ended {
                        self.no_report(&error);
                    }
                }
                () = until(wake) => self.tick(),
                () = &mut settling, if !self.settled => self.settled = true,
                _ = write.tick() => self.write().await,
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Create(spec, credentials, answer) => {
                let _ = answer.send(self.create(*spec, credentials).await);
            }
            Order::Show(id, nodes, answer) => {
                let _ = answer.send(self.job(id).map(|job| job.view(nodes)));
            }
            Order::List(answer) => {
                let _ = answer.send(self.jobs.values().rev().map(Job::glimpse).collect());
            }
            Order::Change(id, change, answer) => {
                let _ = answer.send(self.change(id, change));
            }
            Order::Remove(id, answer) => {
                let _ = answer.send(self.remove(id).await);
            }
        }
    }

    async fn create(&mut self, spec: Spec, credentials: Credentials) -> Result<(View, bool), Refused> {
        let mut open = self.jobs.values_mut().filter(|job| !job.state().is_over());
        if let Some(same) = open.find(|job| job.is_for(&spec)) {
            same.wish_again(credentials);
            return Ok((same.view(true), false));
        }
        let count = self.jobs.values().filter(|job| !job.state().is_over()).count();
        if count >= MAX_OPEN {
            return Err(Refused::Crowded(count));
        }
        let id = JobId(self.last + 1);
        let job = Job::new(id, spec, credentials, Now::read());
        let (shelf, kept) = (self.shelf.clone(), job.kept());
        let written =
            tokio::task::spawn_blocking(move || shelf.give(id.0).and_then(|()| shelf.write(id.0, &kept)))
                .await;
        let broken = |error: &dyn std::fmt::Display| Refused::Broken(error.to_string());
        written.map_err(|error| broken(&error))?.map_err(|error| broken(&error))?;
        self.last = id.0;
        tracing::info!(job = %id, image = job.spec.image, to = ?job.spec.to, "preheat job taken on");
        let view = job.view(true);
        self.jobs.insert(id, job);
        Ok((view, true))
    }

    fn change(&mut self, id: JobId, change: Change) -> Result<View, Refused> {
        let job = self.jobs.get_mut(&id).ok_or(Refused::Unknown(id))?;
        if job.state().is_over() {
            return Ok(job.view(true));
        }
        let now = Now::read();
        let commands = match change {
            Change::Pause => job.pause(now),
            Change::Resume => job.resume(now),
            Change::Cancel => job.cancel(now),
        };
        self.carry_out(id, commands);
        self.job(id).map(|job| job.view(true))
    }

    async fn remove(&mut self, id: JobId) -> Result<(), Refused> {
        self.change(id, Change::Cancel)?;
        self.jobs.remove(&id);
        self.dirty.remove(&id);
        let shelf = self.shelf.clone();
        let forgotten = tokio::task::spawn_blocking(move || shelf.forget(id.0)).await;
        let broken = |error: &dyn std::fmt::Display| Refused::Broken(error.to_string());
        forgotten.map_err(|error| broken(&error))?.map_err(|error| broken(&error))
    }

    fn job(&self, id: JobId) -> Result<&Job, Refused> {
        self.jobs.get(&id).ok_or(Refused::Unknown(id))
    }

    // --- what an image is --------------------------------------------------------------------------------------------

    /// Has it found out what jobs come to where that is not known, the oldest first.
    fn seek(&mut self) {
        let now = Instant::now();
        let nodes_are_here = |job: &Job| self.settled || job.spec.to == Target::Cache;
        let sought = self.jobs.values().filter(|job| job.is_to_be_found(now) && nodes_are_here(job));
        let sought = sought.filter(|job| !self.finders.contains_key(&job.id));
        let sought = sought.take(MAX_FINDERS.saturating_sub(self.finders.len()));
        let sought: Vec<_> = sought.map(|job| (job.id, job.spec.clone(), job.credentials.clone())).collect();
        for (id, spec, credentials) in sought {
            let means = self.means.clone();
            let finder = self.finding.spawn(async move {
                let found = tokio::time::timeout(FIND_TIMEOUT, means.find(&spec, credentials)).await;
                let failed = |error: ImageError| Failed { why: error.to_string(), passing: error.may_pass() };
                (id, found.unwrap_or(Err(ImageError::Slow)).map_err(failed))
            });
            self.finders.insert(id, finder);
        }
    }

    /// Nobody answers any more: who was asked broke off, or was broken off by us.
    fn no_answer(&mut self, error: &JoinError) {
        let asked = self.finders.iter().find(|(_, finder)| finder.id() == error.id());
        if let Some(id) = asked.map(|(&id, _)| id) {
            self.found(id, Err(Failed { why: format!("looking for it broke off: {error}"), passing: true }));
        }
    }

    fn found(&mut self, id: JobId, found: Result<Load, Failed>) {
        self.finders.remove(&id);
        let now = Now::read();
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.is_to_be_found(now.instant)) else { return };
        let commands = match found {
            Ok(load) => {
                let peers = self.means.roster.peers().into_iter();
                let candidates: Vec<_> = peers.map(|(node, labels)| Candidate { node, labels }).collect();
                job.found(load, self.means.engine.node(), &candidates, now)
            }
            Err(why) => {
                job.lost(why, now);
                Vec::new()
            }
        };
        self.carry_out(id, commands);
    }

    // --- what nodes do -----------------------------------------------------------------------------------------------

    fn hear(&mut self, Report { job: id, attempt, event }: Report) {
        let (Event::Began(node)
        | Event::Progress(node, _)
        | Event::Done(node, _)
        | Event::Failed { node, .. }) = event
        else {
            return;
        };
        if self.workers.get(&(id, node)).is_none_or(|(present, _)| *present != attempt) {
            return;
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Event::Began(_) | Event::Progress(..) = event {
            // Nothing follows from it, and a restart begins these nodes anew.
            job.apply(event, Now::read());
            return;
        }
        self.workers.remove(&(id, node));
        let commands = job.apply(event, Now::read());
        self.carry_out(id, commands);
    }

    /// An attempt that ended without a word, or was broken off by us.
    fn no_report(&mut self, error: &JoinError) {
        let worked = self.workers.iter().find(|(_, (_, worker))| worker.id() == error.id());
        if let Some((&(job, node), &(attempt, _))) = worked {
            let why = format!("its attempt broke off: {error}");
            self.hear(Report { job, attempt, event: Event::Failed { node, why, passing: true } });
        }
    }

    fn tick(&mut self) {
        let now = Now::read();
        let due = |job: &Job| job.wake().is_some_and(|at| at <= now.instant);
        let due: Vec<JobId> = self.jobs.values().filter(|job| due(job)).map(|job| job.id).collect();
        for id in due {
            let commands = self.jobs.get_mut(&id).map(|job| job.apply(Event::Tick, now)).unwrap_or_default();
            self.carry_out(id, commands);
        }
    }

    fn carry_out(&mut self, id: JobId, commands: Vec<Command>) {
        self.dirty.insert(id);
        for command in commands {
            match command {
                Command::Start(node) => self.start(id, node),
                Command::Stop(node) => {
                    if let Some((_, worker)) = self.workers.remove(&(id, node)) {
                        worker.abort();
                    }
                }
            }
        }
        if let Some(job) = self.jobs.get_mut(&id).filter(|job| job.state().is_over()) {
            if !job.is_over_now() {
                return;
            }
            if let Some(finder) = self.finders.remove(&id) {
                finder.abort();
            }
            let view = job.view(false);
            let result = match view.state {
                State::Succeeded => Preheated::Succeeded,
                State::Cancelled => Preheated::Cancelled,
                _ => Preheated::Failed,
            };
            self.means.engine.metrics().preheat_jobs.of(result).inc();
            tracing::info!(
                job = %id, state = ?view.state, succeeded = view.succeeded, failed = view.failed,
                "preheat job over{}", view.message.map(|why| format!(": {why}")).unwrap_or_default()
            );
        }
    }

    fn start(&mut self, id: JobId, node: NodeId) {
        let Some((job, load)) = self.jobs.get(&id).and_then(|job| Some((job, job.load.clone()?))) else {
            return;
        };
        let again = job.attempts(node) > 1;
        let work = Work { node, to: job.spec.to, load, again, timeout: job.spec.timeout() };
        self.attempts += 1;
        let (attempt, means) = (self.attempts, self.means.clone());
        let voice = Voice { job: id, attempt, reports: self.reports.0.clone() };
        let worker = self.working.spawn(async move { means.attempt(work, voice).await });
        self.workers.insert((id, node), (attempt, worker));
    }

    // --- the disk ----------------------------------------------------------------------------------------------------

    /// Writes down what changed, and forgets what is old.
    async fn write(&mut self) {
        let now = Now::read();
        let open = self.jobs.values().filter(|job| !job.state().is_over()).count();
        self.means.engine.metrics().preheat_jobs_open.set(open as i64);
        let expired = |job: &Job| job.expires().is_some_and(|at| at <= now.date);
        let mut gone: Vec<JobId> = self.jobs.values().filter(|job| expired(job)).map(|job| job.id).collect();
        let over: Vec<JobId> = self
            .jobs
            .values()
            .filter(|job| job.state().is_over() && !expired(job))
            .map(|job| job.id)
            .collect();
        let mut nodes = 0;
        let fits = |id: &&JobId| {
            let before = nodes;
            nodes += self.jobs.get(*id).map_or(0, Job::weight);
            before < MAX_OVER_NODES
        };
        let shown = over.iter().rev().take(MAX_OVER).take_while(fits).count();
        gone.extend(&over[..over.len() - shown]);
        gone.iter().for_each(|id| drop(self.jobs.remove(id)));
        let rests = |job: &Job| {
            let pause = WRITE_A_NODE * job.len() as u32;
            !job.state().is_over() && job.written.is_some_and(|at| now.instant < at + pause)
        };
        self.dirty.retain(|id| self.jobs.contains_key(id));
        let due = |id: &JobId| !self.jobs.get(id).is_some_and(rests);
        let (dirty, later): (BTreeSet<_>, BTreeSet<_>) =
            std::mem::take(&mut self.dirty).into_iter().partition(due);
        self.dirty = later;
        let mut kept = Vec::new();
        for id in &dirty {
            let Some(job) = self.jobs.get_mut(id) else { continue };
            job.written = Some(now.instant);
            kept.push(job.kept());
        }
        if kept.is_empty() && gone.is_empty() {
            return;
        }
        let shelf = self.shelf.clone();
        let written = tokio::task::spawn_blocking(move || {
            gone.into_iter().try_for_each(|id| shelf.forget(id.0))?;
            kept.iter().try_for_each(|kept| shelf.write(kept.id.0, kept))
        });
        let error = match written.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!("preheat jobs cannot be written down: {error}");
        self.dirty.extend(dirty);
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
