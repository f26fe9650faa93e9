//! The work of the supernode that leads: watches all resources, and once a second has done for each what [`super::decide`] says.
//! Dropped as soon as it leads no more.
//!
//! # Invariants
//! - No more than one thing is done at a time, so a resource never has two jobs.
//! - Requests are bounded in time, and a resource that cannot be served waits longer and longer; others do not wait for it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::DeserializeGuard;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource as _, ResourceExt as _};
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::MissedTickBehavior;

use super::begin::{Beginner, Snag};
use super::decide::{self, Deed, News};
use super::places::{self, asked};
use super::resource::{ImagePreheat, ImagePreheatStatus};
use super::wish::Owner;
use crate::preheat::{Preheats, View};

/// Between two rounds.
const PULSE: Duration = Duration::from_secs(1);
/// While a job only goes on, its status is written so often.
const PROGRESS: Duration = Duration::from_secs(5);
/// After a failure; doubled up to the most.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Objects of one answer.
const PAGE: u32 = 500;
/// An event's sentence has 1024 bytes at most.
const LONGEST_NOTE: usize = 1000;
/// Who says so.
const REPORTER: &str = "longshore-imagepreheats";

/// One time of leading.
pub(super) struct Reign {
    client: Client,
    preheats: Preheats,
    beginner: Beginner,
    /// The supernode's node id.
    node: String,
    reporter: Reporter,
    resources: HashMap<String, ImagePreheat>,
    /// While the first list comes in: what has come so far.
    listing: Option<HashMap<String, ImagePreheat>>,
    memory: HashMap<String, Memory>,
    busy: bool,
    trouble: String,
}

/// What is known of a resource besides.
#[derive(Default)]
struct Memory {
    /// What was written last, which the watch may not have shown yet.
    status: Option<ImagePreheatStatus>,
    told: Option<Instant>,
    /// Nothing is tried before, unless the resource changes.
    wait: Option<(Instant, Duration, i64)>,
}

/// Whoever does not lead has no jobs: those of an earlier reign go.
pub(super) async fn forsake(preheats: &Preheats) {
    for view in preheats.list().await.into_iter().filter(|view| Owner::of(view).is_some()) {
        let _ = preheats.remove(view.id).await;
    }
}

// === impl Reign ===

impl Reign {
    /// Begins with nothing; `me` is how the supernode is called in events.
    pub(super) fn new(client: Client, preheats: Preheats, node: String, me: String) -> Self {
        let reporter = Reporter { controller: REPORTER.to_owned(), instance: Some(me) };
        Self {
            beginner: Beginner { client: client.clone(), preheats: preheats.clone() },
            client,
            preheats,
            node,
            reporter,
            resources: HashMap::new(),
            listing: None,
            memory: HashMap::new(),
            busy: false,
            trouble: String::new(),
        }
    }

    /// Works until it is dropped.
    pub(super) async fn run(mut self) {
        let all: Api<DeserializeGuard<ImagePreheat>> = Api::all(self.client.clone());
        let config = watcher::Config::default().page_size(PAGE);
        let mut events = std::pin::pin!(watcher(all, config).default_backoff());
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.hear(event),
                    None => return,
                },
                _ = pulse.tick(), if self.busy => self.round().await,
            }
        }
    }

    // --- what there is -----------------------------------------------------------------------------------------------

    fn hear(&mut self, event: Result<watcher::Event<DeserializeGuard<ImagePreheat>>, watcher::Error>) {
        match event {
            Ok(watcher::Event::Init) => self.listing = Some(HashMap::new()),
            Ok(watcher::Event::InitApply(one)) => {
                if let Some((uid, resource)) = read(one) {
                    self.listing.get_or_insert_default().insert(uid, resource);
                }
            }
            Ok(watcher::Event::InitDone) => {
                self.resources = self.listing.take().unwrap_or_default();
                self.memory.retain(|uid, _| self.resources.contains_key(uid));
                self.trouble.clear();
                self.busy = true;
            }
            Ok(watcher::Event::Apply(one)) => {
                if let Some((uid, resource)) = read(one) {
                    self.resources.insert(uid, resource);
                    self.busy = true;
                }
            }
            Ok(watcher::Event::Delete(one)) => {
                let uid = one.meta().uid.clone().unwrap_or_default();
                self.resources.remove(&uid);
                self.memory.remove(&uid);
                self.busy = true;
            }
            Err(error) => {
                let said = error.to_string();
                if said != self.trouble {
                    tracing::warn!("ImagePreheats cannot be watched: {said}");
                    self.trouble = said;
                }
            }
        }
    }

    /// Does what is to be done for each.
    async fn round(&mut self) {
        let mut jobs: HashMap<String, Vec<View>> = HashMap::new();
        for view in self.preheats.list().await {
            if let Some(owner) = Owner::of(&view) {
                jobs.entry(owner.uid).or_default().push(view);
            }
        }
        let orphans =
            jobs.iter().filter(|(uid, _)| !self.resources.contains_key(*uid)).flat_map(|(_, views)| views);
        for view in orphans {
            tracing::info!(job = %view.id, "its ImagePreheat is gone: the job is cancelled");
            let _ = self.preheats.remove(view.id).await;
        }
        self.busy = false;
        let uids: Vec<String> = self.resources.keys().cloned().collect();
        for uid in uids {
            let Some(resource) = self.resources.get(&uid).cloned() else { continue };
            let jobs = jobs.remove(&uid).unwrap_or_default();
            match self.see_to(&resource, jobs).await {
                Ok(settled) => self.busy |= !settled,
                Err(why) => {
                    tracing::warn!(name = %named(&resource), "ImagePreheat: {why}");
                    self.put_off(&resource);
                    self.busy = true;
                }
            }
        }
    }

    /// Does what is to be done for one; whether nothing more is to be expected until it changes.
    async fn see_to(&mut self, resource: &ImagePreheat, mut jobs: Vec<View>) -> Result<bool, String> {
        let memory = self.memory.entry(resource.uid().to_owned()).or_default();
        let generation = resource.metadata.generation.unwrap_or_default();
        if memory.wait.is_some_and(|(until, _, of)| Instant::now() < until && of == generation) {
            return Ok(false);
        }
        if resource.metadata.deletion_timestamp.is_some() {
            return Ok(true);
        }
        let last = memory.status.clone().or_else(|| resource.status.clone()).unwrap_or_default();
        if let Some(newest) = jobs.first_mut().filter(|job| job.failed > 0) {
            // With the reasons of its nodes.
            *newest = self.preheats.show(newest.id).await.unwrap_or_else(|_| newest.clone());
        }
        let now = OffsetDateTime::now_utc();
        let verdict = decide::decide(resource, &last, &jobs, &self.node, now);
        for id in verdict.stale {
            let _ = self.preheats.remove(id).await;
        }
        let (status, put_off) = match verdict.deed {
            Deed::Tell(status) => (*status, false),
            Deed::Change(id, change) => {
                self.preheats.change(id, change).await.map_err(|error| error.to_string())?;
                return Ok(false);
            }
            Deed::Remove => return self.remove(resource).await.map(|()| true),
            Deed::Begin(owner) => match self.beginner.begin(resource, &owner).await {
                Ok(job) => {
                    let sentence = format!("job {} of supernode {}", job.id, self.node);
                    self.tell(resource, News { warning: false, word: "Started", sentence }).await;
                    (decide::told(resource, &last, &job, owner.wish, &self.node), false)
                }
                Err(Snag::Later(why)) => (decide::not_begun(resource, &owner, &why, None, now), true),
                Err(Snag::Never(word, why)) => {
                    (decide::not_begun(resource, &owner, &why, Some(word), now), false)
                }
            },
        };
        if put_off {
            self.put_off(resource);
        } else if let Some(memory) = self.memory.get_mut(resource.uid()) {
            memory.wait = None;
        }
        let settled =
            status.state.is_over() && resource.spec.completion_policy.ttl_seconds_after_finished.is_none();
        self.write(resource, status, &last).await?;
        Ok(settled)
    }

    // --- what is done ------------------------------------------------------------------------------------------------

    /// Writes a status that is new, and says what there is to say.
    async fn write(
        &mut self,
        resource: &ImagePreheat,
        status: ImagePreheatStatus,
        last: &ImagePreheatStatus,
    ) -> Result<(), String> {
        if status == *last {
            return Ok(());
        }
        let told = self.memory.get(resource.uid()).and_then(|memory| memory.told);
        let turned = status.state != last.state || status.wish != last.wish || status.message != last.message;
        let seen = status.observed_generation == last.observed_generation;
        if !turned && seen && told.is_some_and(|told| told.elapsed() < PROGRESS) {
            return Ok(());
        }
        // All of it: what is not so any more must go. And only to this resource, not to another one of its name.
        let patch = serde_json::from_value(json!([
            { "op": "test", "path": "/metadata/uid", "value": resource.uid() },
            { "op": "add", "path": "/status", "value": &status },
        ]));
        let patch = Patch::Json::<ImagePreheat>(patch.map_err(|error| error.to_string())?);
        let api = self.api(resource);
        let (name, params) = (resource.name_any(), PatchParams::default());
        asked("its status", api.patch_status(&name, &params, &patch)).await?;
        let news = status.news(last);
        if let Some(memory) = self.memory.get_mut(resource.uid()) {
            (memory.status, memory.told) = (Some(status), Some(Instant::now()));
        }
        if let Some(news) = news {
            self.tell(resource, news).await;
        }
        Ok(())
    }

    /// Its time is over.
    async fn remove(&self, resource: &ImagePreheat) -> Result<(), String> {
        let preconditions = Preconditions { uid: resource.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api = self.api(resource);
        match tokio::time::timeout(places::ANSWER, api.delete(&resource.name_any(), &params)).await {
            // Somebody was faster.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
            Ok(done) => done.map(drop).map_err(|error| format!("it cannot be removed: {error}")),
            Err(_) => Err("the Kubernetes API does not answer".to_owned()),
        }
    }

    /// Says it where people look. That an event is lost is no reason to stop.
    async fn tell(&self, resource: &ImagePreheat, News { warning, word, sentence }: News) {
        let mut note = sentence;
        note.truncate(note.floor_char_boundary(LONGEST_NOTE));
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: word.to_owned(),
            note: Some(note),
            action: "Preheat".to_owned(),
            secondary: None,
        };
        // A recorder counts what it has told before, and keeps the first sentence.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        if let Err(why) = asked("an event", recorder.publish(&event, &resource.object_ref(&()))).await {
            tracing::debug!(name = %named(resource), "{why}");
        }
    }

    /// Nothing is tried for a while, the longer the more often it was in vain.
    fn put_off(&mut self, resource: &ImagePreheat) {
        let memory = self.memory.entry(resource.uid().to_owned()).or_default();
        let generation = resource.metadata.generation.unwrap_or_default();
        let wait = match memory.wait {
            Some((_, wait, of)) if of == generation => (wait * 2).min(LONGEST_WAIT),
            _ => FIRST_WAIT,
        };
        memory.wait = Some((Instant::now() + wait, wait, generation));
    }

    fn api(&self, resource: &ImagePreheat) -> Api<ImagePreheat> {
        Api::namespaced(self.client.clone(), &resource.namespace().unwrap_or_default())
    }
}

/// A resource and its uid; one that cannot be read is left alone, with a word.
fn read(one: DeserializeGuard<ImagePreheat>) -> Option<(String, ImagePreheat)> {
    let meta = one.meta().clone();
    match one.0 {
        Ok(resource) => Some((meta.uid.unwrap_or_default(), resource)),
        Err(error) => {
            let (namespace, name) = (meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
            tracing::warn!("the ImagePreheat {namespace}/{name} cannot be read: {error}");
            None
        }
    }
}

fn named(resource: &ImagePreheat) -> String {
    format!("{}/{}", resource.namespace().unwrap_or_default(), resource.name_any())
}
