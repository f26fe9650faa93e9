//! Keeps the Lease while there is work to lead, and hands the work out while it is kept ([`super::leader`] decides). Called by
//! [`super::run`].

use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use tokio::time::timeout;

use super::leader::{DURATION, Elector, PERIOD, Record, Step};

/// All supernodes of a cluster agree on it.
const NAME: &str = "longshore-imagepreheats";
/// A request that takes longer would keep us from renewing.
const REQUEST: Duration = Duration::from_secs(4);

/// The Lease, as one supernode sees it.
pub(super) struct Keeper {
    api: Api<Lease>,
    elector: Elector,
    /// What was logged last.
    trouble: String,
}

// === impl Keeper ===

impl Keeper {
    /// Of this name.
    pub(super) fn new(api: Api<Lease>, me: String) -> Self {
        Self { api, elector: Elector::new(me), trouble: String::new() }
    }

    /// Runs `follow` once at each time when another leads, and `lead` while we do; it is dropped as soon as we do not. For ever.
    pub(super) async fn run<L: Future<Output = ()>, F: Future<Output = ()>>(
        &mut self,
        lead: impl Fn() -> L,
        follow: impl Fn() -> F,
    ) {
        let mut follows = false;
        loop {
            match self.attempt().await {
                Some(true) => {
                    tracing::info!(me = self.elector.me(), "leads: works on ImagePreheats");
                    follows = false;
                    tokio::select! {
                        () = lead() => {}
                        () = self.keep() => tracing::warn!("leads no more: another supernode goes on with ImagePreheats"),
                    }
                }
                Some(false) if !follows => {
                    follows = true;
                    follow().await;
                }
                _ => {}
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Renews it until it is lost.
    async fn keep(&mut self) {
        while let Some(until) = self.elector.leads_until() {
            let next = Instant::now() + PERIOD;
            if next >= until {
                tokio::time::sleep_until(until.into()).await;
            } else {
                tokio::time::sleep_until(next.into()).await;
                // A request that is under way when time is up is no renewal.
                let asked = tokio::time::timeout_at(until.into(), self.attempt()).await;
                if matches!(asked, Ok(Some(false))) {
                    return;
                }
            }
            if self.elector.leads_until().is_some_and(|until| until <= Instant::now()) {
                self.elector.lost();
            }
        }
    }

    /// Leaves it to the others at once, who would otherwise wait for its end. Said when the work has ended.
    pub(super) async fn give_back(&mut self) {
        if self.elector.leads_until().is_none() {
            return;
        }
        self.elector.lost();
        let giving = async {
            let Some(lease) = self.api.get_opt(NAME).await? else { return Ok(()) };
            // Somebody may have been faster.
            if record(&lease).holder != self.elector.me() {
                return Ok(());
            }
            let mut lease = self.ours(lease, false);
            // Nobody holds it, as Kubernetes's own controllers write it.
            lease.spec.get_or_insert_default().holder_identity = Some(String::new());
            self.api.replace(NAME, &PostParams::default(), &lease).await.map(drop)
        };
        match timeout(REQUEST, giving).await {
            Ok(Ok(())) => tracing::info!("the Lease {NAME} is given back"),
            Ok(Err(error)) => tracing::info!("the Lease {NAME} is left to run out: {error}"),
            Err(_) => tracing::info!("the Lease {NAME} is left to run out: no answer"),
        }
    }

    /// Looks, and takes it where that is right: whether we lead; `None` where nobody could tell.
    async fn attempt(&mut self) -> Option<bool> {
        let told = match timeout(REQUEST, self.api.get_opt(NAME)).await {
            Ok(Ok(lease)) => self.step(lease).await,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        };
        match told {
            Ok(leads) => {
                if !self.trouble.is_empty() {
                    tracing::info!("the Lease {NAME} can be asked for again");
                    self.trouble.clear();
                }
                Some(leads)
            }
            Err(trouble) => {
                if self.trouble != trouble {
                    let namespace = self.api.namespace().unwrap_or_default();
                    tracing::warn!("the Lease {NAME} in {namespace} cannot be had: {trouble}");
                    self.trouble = trouble;
                }
                None
            }
        }
    }

    async fn step(&mut self, lease: Option<Lease>) -> Result<bool, String> {
        let begun = Instant::now();
        let step = self.elector.look(lease.as_ref().map(record), begun);
        let post = PostParams::default();
        let written = match step {
            Step::Follow => {
                self.elector.lost();
                return Ok(false);
            }
            Step::Create => {
                let lease = self.ours(Lease::default(), true);
                timeout(REQUEST, self.api.create(&post, &lease)).await
            }
            Step::Hold { new } => {
                let lease = self.ours(lease.unwrap_or_default(), new);
                timeout(REQUEST, self.api.replace(NAME, &post, &lease)).await
            }
        };
        match written {
            Ok(Ok(_)) => {
                self.elector.held(begun);
                Ok(true)
            }
            // Somebody was faster; whether that was a leader is seen at the next look.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => {
                Err("others ask for it, too".to_owned())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    }

    /// This Lease with ourselves in it. Its version stays, so that a write that another one's has overtaken is refused.
    fn ours(&self, lease: Lease, new: bool) -> Lease {
        let now = MicroTime(Timestamp::try_from(SystemTime::now()).unwrap_or_default());
        let before = lease.spec.unwrap_or_default();
        let transitions = before.lease_transitions.unwrap_or_default();
        Lease {
            metadata: ObjectMeta { name: Some(NAME.to_owned()), ..lease.metadata },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.elector.me().to_owned()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: if new { Some(now.clone()) } else { before.acquire_time },
                renew_time: Some(now),
                lease_transitions: Some(if new { transitions.saturating_add(1) } else { transitions }),
                ..LeaseSpec::default()
            }),
        }
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        // What somebody wrote by hand must not keep everybody waiting.
        duration: seconds.map_or(DURATION, Duration::from_secs).min(DURATION * 4),
        renewed: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}
