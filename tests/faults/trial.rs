//! One schedule, from fresh daemons to the verdict.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time;

use crate::client::{Pull, Pulled};
use crate::cluster::{Cluster, PEERS, REGISTRY, SEED};
use crate::content::Image;
use crate::deeds;
use crate::judge::{Findings, complaints};
use crate::lab::Lab;
use crate::schedule::{Event, Fault, Schedule, Victim};
use crate::table::{Row, Verdict};

/// Peers of one swarm.
const SWARM: usize = 6;
/// How long a pull may take: many times what the worst needs, and it only ends those that hang.
pub(crate) const PULL_LIMIT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(10);

/// The clients of all peers.
pub(crate) struct Clients {
    running: JoinSet<Pulled>,
    /// Bytes that each has, by the place of its peer in the cluster.
    got: Vec<Arc<AtomicU64>>,
    all: u64,
    pub(crate) done: Vec<Pulled>,
}

/// A fault that is on.
struct Active {
    event: Event,
    index: usize,
    since: Instant,
}

/// Runs `schedule`; its row.
pub(crate) async fn run(lab: &Lab, schedule: &Schedule) -> Row {
    let name = schedule.seed.map_or_else(|| schedule.to_string(), |seed| format!("seed {seed}"));
    if schedule.has(|fault, _| fault.is_of_the_clock()) && deeds::faketime().is_none() {
        return Row::plain(&name, Verdict::Skipped("libfaketime is missing (Debian: faketime)".into()));
    }
    let mut cluster = match Cluster::start(lab, SWARM).await {
        Ok(cluster) => cluster,
        Err(error) => {
            let complaints = vec![format!("the cluster does not start: {error:#}")];
            return Row::plain(&name, Verdict::Failed { complaints, logs: None });
        }
    };
    let mut findings = Findings::default();
    let tried = attempt(lab, &mut cluster, schedule, &mut findings).await;
    let mut wrong = complaints(schedule, &findings);
    wrong.extend(tried.err().map(|error| format!("{error:#}")));
    let verdict = if wrong.is_empty() {
        Verdict::Held
    } else {
        wrong.insert(0, schedule.to_string());
        Verdict::Failed { complaints: wrong, logs: lab.keep(cluster.logs(), &name).ok() }
    };
    let mut row = Row::plain(&name, verdict).measure(&findings.pulls);
    row.copies = Some(findings.copies);
    row.peak = findings.peaks.iter().map(|(_, peak)| *peak).max().unwrap_or_default();
    if schedule.seed.is_some() {
        let events = schedule.events.iter().map(|Event { fault, victim, .. }| format!("{fault} × {victim}"));
        row.note = events.collect::<Vec<_>>().join(", ");
    }
    if findings.missed > 0 {
        row.note = format!("{} ({} came too late)", row.note, findings.missed).trim().to_owned();
    }
    row
}

async fn attempt(
    lab: &Lab,
    cluster: &mut Cluster,
    schedule: &Schedule,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let mut clients = Clients::start(cluster, &lab.image);
    let suffered = suffer(lab, cluster, schedule, &mut clients, findings).await;
    clients.finish().await;
    findings.pulls = std::mem::take(&mut clients.done);
    suffered?;
    let mut again = Clients::start(cluster, &lab.image);
    again.finish().await;
    findings.again = again.done;
    let mut after = Clients::start(cluster, &lab.after);
    after.finish().await;
    findings.after = after.done;
    findings.ended = cluster.ended();
    findings.peaks = cluster.peaks();
    findings.copies = cluster.copies(&lab.image).await;
    cluster.stop().await?;
    findings.false_proofs = cluster.false_proofs()?;
    Ok(())
}

/// Lets everything befall the cluster while the clients pull, and puts it all right again.
async fn suffer(
    lab: &Lab,
    cluster: &mut Cluster,
    schedule: &Schedule,
    clients: &mut Clients,
    findings: &mut Findings,
) -> anyhow::Result<()> {
    let mut coming = schedule.events.clone();
    let mut roles = BTreeMap::new();
    let mut active: Vec<Active> = Vec::new();
    loop {
        if clients.over() {
            findings.missed += coming.drain(..).count();
        }
        while let Some(event) = coming.first().copied().filter(|event| clients.percent() >= event.at) {
            coming.remove(0);
            let index = clients.place(event.victim, &mut roles);
            let node = &mut cluster.nodes[index];
            if event.fault == Fault::Corrupt && index != REGISTRY {
                findings.flipped.push(node.host.name.clone());
            }
            let done = deeds::inflict(lab, node, index, event.fault).await;
            done.with_context(|| format!("{} × {}", event.fault, node.host.name))?;
            active.push(Active { event, index, since: Instant::now() });
        }
        let (ended, rest): (Vec<_>, Vec<_>) =
            active.into_iter().partition(|active| active.since.elapsed() >= active.event.lasts);
        active = rest;
        for Active { event, index, .. } in ended {
            let mended = deeds::mend(lab, &mut cluster.nodes[index], index, event.fault).await;
            mended.with_context(|| format!("the end of {} × {}", event.fault, event.victim))?;
        }
        if coming.is_empty() && active.is_empty() {
            return Ok(());
        }
        time::sleep(LOOK).await;
    }
}

// === impl Clients ===

impl Clients {
    /// Every peer's client begins to pull `image`.
    pub(crate) fn start(cluster: &Cluster, image: &Arc<Image>) -> Self {
        let address = cluster.address();
        let peers = &cluster.nodes[PEERS..];
        let mut clients = Self {
            running: JoinSet::new(),
            got: Vec::new(),
            all: image.size() * peers.len() as u64,
            done: Vec::new(),
        };
        for peer in peers {
            let pull = Pull::new(image, &address, PULL_LIMIT);
            clients.got.push(pull.got.clone());
            clients.running.spawn(pull.on(peer.host.clone()));
        }
        clients
    }

    /// Waits for all.
    pub(crate) async fn finish(&mut self) {
        while let Some(pulled) = self.running.join_next().await {
            self.done.extend(pulled.ok());
        }
    }

    /// Whether all have ended.
    pub(crate) fn over(&mut self) -> bool {
        while let Some(pulled) = self.running.try_join_next() {
            self.done.extend(pulled.ok());
        }
        self.running.is_empty()
    }

    /// Who plays this part now; whoever has a part keeps it.
    fn place(&self, victim: Victim, roles: &mut BTreeMap<usize, Victim>) -> usize {
        let free = |roles: &BTreeMap<usize, Victim>| {
            let got =
                self.got.iter().enumerate().map(|(peer, got)| (got.load(Ordering::Relaxed), PEERS + peer));
            got.filter(|(_, index)| !roles.contains_key(index)).collect::<Vec<_>>()
        };
        let found = match victim {
            Victim::Origin => REGISTRY,
            Victim::Supernode => SEED,
            Victim::Parent => free(roles).into_iter().max().map_or(PEERS, |(_, index)| index),
            Victim::Child => free(roles).into_iter().min().map_or(PEERS, |(_, index)| index),
        };
        roles.insert(found, victim);
        found
    }

    /// Per cent of all bytes that are there.
    pub(crate) fn percent(&self) -> u8 {
        let got: u64 = self.got.iter().map(|got| got.load(Ordering::Relaxed)).sum();
        u8::try_from(got * 100 / self.all.max(1)).unwrap_or(100)
    }
}
