//! A process's numbers, as Prometheus reads them. Each daemon makes one [`Metrics`] and hands clones to its rooms;
//! every series is resolved when it is made, so counting a piece is one atomic addition.
//!
//! # Invariants
//! - Names start with `longshore_`; counters end in `_total`; units are bytes and seconds.
//! - Every series is there from the start, at 0: a rate over it misses no first event.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result, TextEncoder};

use super::labels::{
    ByteSource, Code, Enrolment, Eviction, FaultKind, Label, Notified, Outcome, Preheated, Recipient,
    RejectReason, RequestKind, Scheduled, TurnedAway,
};
use super::process::Process;
use super::trace;

/// One process's metrics; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Series>);

/// The series of one process: what [`Metrics`] leads to.
#[non_exhaustive]
pub struct Series {
    registry: Registry,
    /// Bytes of verified pieces, by where they came from.
    pub received_bytes: Counters<ByteSource>,
    /// Bytes sent.
    pub sent_bytes: Counters<Recipient>,
    /// Pieces that were asked for and not taken.
    pub pieces_rejected: Counters<RejectReason>,
    /// Downloads that ended.
    pub downloads: Counters<Outcome>,
    /// What neighbours did wrong, as this node saw it.
    pub neighbour_faults: Counters<FaultKind>,
    /// Neighbours that nothing is taken from now.
    pub neighbours_barred: IntGauge,
    /// Connected peers that are quarantined or worse, at a supernode.
    pub peers_distrusted: IntGauge,
    /// Downloads that go on: [`hold`] it.
    pub downloads_active: IntGauge,
    /// Links to other nodes, one a task and neighbour: [`hold`] it.
    pub links: IntGauge,
    /// Connections to other nodes: [`hold`] it.
    pub connections: IntGauge,
    /// What the data folder takes on the disk, as `du` counts.
    pub store_bytes: IntGauge,
    /// Bytes of blob data in it.
    pub store_blob_bytes: IntGauge,
    /// What its index takes on the disk.
    pub store_index_bytes: IntGauge,
    /// Bytes of tasks that are pinned.
    pub store_pinned_bytes: IntGauge,
    /// What the data folder may take; 0 is no limit.
    pub store_quota_bytes: IntGauge,
    /// What its disk has free.
    pub store_free_bytes: IntGauge,
    /// Tasks that had to leave the store.
    pub evictions: Counters<Eviction>,
    /// Their bytes.
    pub evicted_bytes: Counters<Eviction>,
    /// Tasks in the store.
    pub store_tasks: IntGauge,
    /// Blobs that are read from a content store of somebody else.
    pub adopted_blobs: IntGauge,
    /// Their bytes: none of the store's own room.
    pub adopted_bytes: IntGauge,
    /// Requests to origins.
    pub origin_requests: Counters<Code>,
    /// Requests that the proxy answered.
    pub proxy_requests: ProxyRequests,
    /// Sessions with supernodes.
    pub supernode_connected: IntGauge,
    /// Places taken in swarms, over all tasks.
    pub swarm_members: IntGauge,
    /// Tasks with a swarm.
    pub swarm_tasks: IntGauge,
    /// Peers let into a swarm.
    pub joins: IntCounter,
    /// Requests for membership.
    pub enrolments: Counters<Enrolment>,
    /// Neighbours and requests turned away.
    pub turned_away: Counters<TurnedAway>,
    /// Events that registries told of.
    pub notifications: Counters<Notified>,
    /// Preheat jobs that ended.
    pub preheat_jobs: Counters<Preheated>,
    /// Preheat jobs that have not.
    pub preheat_jobs_open: IntGauge,
    /// Runs of preheat schedules.
    pub preheat_runs: Counters<Scheduled>,
    /// Pieces asked of a second neighbour because the first was slow.
    pub hedged_requests: IntCounter,
    /// When this node's certificate ends, in Unix time; 0 while it has none.
    pub certificate_expiry: IntGauge,
}

/// A counter for each value of a label.
pub struct Counters<L> {
    by_index: Vec<IntCounter>,
    label: PhantomData<L>,
}

/// A counter for each kind of request and class of answer.
pub struct ProxyRequests(Vec<Counters<Code>>);

/// One more on a gauge, until it is dropped.
#[must_use]
pub struct Held(IntGauge);

/// Raises the gauge by one until the answer is dropped: for what is counted while it lives.
pub fn hold(gauge: &IntGauge) -> Held {
    gauge.inc();
    Held(gauge.clone())
}

// === impl Metrics ===

impl Metrics {
    /// All metrics at 0, in a registry of their own.
    pub fn new() -> Self {
        Self(Arc::new(Series::new().expect("invariant: the metrics' names are valid and differ")))
    }

    /// Where they are registered; a room may add its own.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Prometheus' text format, version 0.0.4.
    pub fn render(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            // A room registered something broken; a scrape must not end the process.
            tracing::error!(%error, "cannot write the metrics");
            String::new()
        })
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Metrics {
    type Target = Series;

    fn deref(&self) -> &Series {
        &self.0
    }
}

// === impl Series ===

impl Series {
    fn new() -> Result<Self> {
        let registry = Registry::new();
        registry.register(Box::new(Process::new()?))?;
        build_info(&registry)?;
        registry.register(Box::new(trace::metrics()))?;
        let r = &registry;
        Ok(Self {
            received_bytes: Counters::new(r, "received_bytes_total", "Bytes of verified pieces")?,
            sent_bytes: Counters::new(r, "sent_bytes_total", "Bytes sent")?,
            pieces_rejected: Counters::new(r, "pieces_rejected_total", "Pieces asked for and not taken")?,
            neighbour_faults: Counters::new(r, "neighbour_faults_total", "What neighbours did wrong")?,
            neighbours_barred: gauge(r, "neighbours_barred", "Neighbours that nothing is taken from")?,
            peers_distrusted: gauge(r, "peers_distrusted", "Connected peers that others blame (supernode)")?,
            downloads: Counters::new(r, "downloads_total", "Downloads that ended")?,
            downloads_active: gauge(r, "downloads_active", "Downloads that go on")?,
            links: gauge(r, "links", "Links to other nodes, one a task and neighbour")?,
            connections: gauge(r, "connections", "Connections to other nodes")?,
            store_bytes: gauge(r, "store_bytes", "What the data folder takes on the disk")?,
            store_blob_bytes: gauge(r, "store_blob_bytes", "Bytes of blob data in the store")?,
            store_index_bytes: gauge(r, "store_index_bytes", "What the store's index takes on the disk")?,
            store_pinned_bytes: gauge(r, "store_pinned_bytes", "Bytes of tasks that are pinned")?,
            store_quota_bytes: gauge(r, "store_quota_bytes", "What the data folder may take; 0 is no limit")?,
            store_free_bytes: gauge(r, "store_free_bytes", "What the data folder's disk has free")?,
            evictions: Counters::new(r, "evictions_total", "Tasks that had to leave the store")?,
            evicted_bytes: Counters::new(r, "evicted_bytes_total", "Bytes that had to leave the store")?,
            store_tasks: gauge(r, "store_tasks", "Tasks in the store")?,
            adopted_blobs: gauge(r, "adopted_blobs", "Blobs read from a content store of somebody else")?,
            adopted_bytes: gauge(r, "adopted_bytes", "Bytes of blobs read from a content store")?,
            origin_requests: Counters::new(r, "origin_requests_total", "Requests to origins")?,
            proxy_requests: ProxyRequests::new(r)?,
            supernode_connected: gauge(r, "supernode_connected", "Sessions with supernodes")?,
            swarm_members: gauge(r, "swarm_members", "Places taken in swarms, over all tasks")?,
            swarm_tasks: gauge(r, "swarm_tasks", "Tasks with a swarm")?,
            joins: counter(r, "joins_total", "Peers let into a swarm")?,
            enrolments: Counters::new(r, "enrolments_total", "Requests for membership")?,
            turned_away: Counters::new(r, "turned_away_total", "Neighbours and requests turned away")?,
            notifications: Counters::new(r, "notifications_total", "Events that registries told of")?,
            preheat_jobs: Counters::new(r, "preheat_jobs_total", "Preheat jobs that ended")?,
            preheat_jobs_open: gauge(r, "preheat_jobs_open", "Preheat jobs that have not ended")?,
            preheat_runs: Counters::new(r, "preheat_runs_total", "Runs of preheat schedules")?,
            hedged_requests: counter(r, "hedged_requests_total", "Pieces asked of a second neighbour")?,
            certificate_expiry: gauge(
                r,
                "certificate_expiry_timestamp_seconds",
                "When this node's certificate ends, in Unix time",
            )?,
            registry,
        })
    }
}

// === impl Counters ===

impl<L: Label> Counters<L> {
    /// The counter of one value: keep a clone where it is counted often.
    pub fn of(&self, label: L) -> &IntCounter {
        &self.by_index[label.index()]
    }

    /// The sum over all values.
    pub fn total(&self) -> u64 {
        self.by_index.iter().map(IntCounter::get).sum()
    }

    fn new(registry: &Registry, name: &str, help: &str) -> Result<Self> {
        let family = register(registry, IntCounterVec::new(opts(name, help), &[L::NAME])?)?;
        Self::resolve(|value| family.get_metric_with_label_values(&[value]))
    }

    fn resolve(counter: impl Fn(&str) -> Result<IntCounter>) -> Result<Self> {
        let by_index = L::ALL.iter().map(|label| counter(label.value())).collect::<Result<_>>()?;
        Ok(Self { by_index, label: PhantomData })
    }
}

// === impl ProxyRequests ===

impl ProxyRequests {
    /// The counter of one kind and class.
    pub fn of(&self, kind: RequestKind, code: Code) -> &IntCounter {
        self.0[kind.index()].of(code)
    }

    fn new(registry: &Registry) -> Result<Self> {
        let opts = opts("proxy_requests_total", "Requests that the proxy answered");
        let family = register(registry, IntCounterVec::new(opts, &[RequestKind::NAME, Code::NAME])?)?;
        let of_kind = |kind: &RequestKind| {
            Counters::resolve(|code| family.get_metric_with_label_values(&[kind.value(), code]))
        };
        Ok(Self(RequestKind::ALL.iter().map(of_kind).collect::<Result<_>>()?))
    }
}

// === impl Held ===

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("longshore")
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge> {
    register(registry, IntGauge::with_opts(opts(name, help))?)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter> {
    register(registry, IntCounter::with_opts(opts(name, help))?)
}

/// Always 1; the label says which release runs.
fn build_info(registry: &Registry) -> Result<()> {
    let family =
        register(registry, IntGaugeVec::new(opts("build_info", "Which release runs"), &["version"])?)?;
    family.get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?.set(1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_promised_series_is_there_from_the_start() {
        let text = Metrics::new().render();
        for series in [
            r#"longshore_received_bytes_total{source="origin"} 0"#,
            r#"longshore_received_bytes_total{source="seed"} 0"#,
            r#"longshore_received_bytes_total{source="peer"} 0"#,
            r#"longshore_received_bytes_total{source="local"} 0"#,
            r#"longshore_sent_bytes_total{to="peer"} 0"#,
            r#"longshore_sent_bytes_total{to="client"} 0"#,
            r#"longshore_pieces_rejected_total{reason="refused"} 0"#,
            r#"longshore_downloads_total{result="poisoned"} 0"#,
            "longshore_downloads_active 0",
            "longshore_links 0",
            "longshore_connections 0",
            "longshore_store_bytes 0",
            "longshore_store_quota_bytes 0",
            r#"longshore_evictions_total{reason="quota"} 0"#,
            r#"longshore_evictions_total{reason="request"} 0"#,
            r#"longshore_evicted_bytes_total{reason="disk"} 0"#,
            r#"longshore_evicted_bytes_total{reason="ttl"} 0"#,
            "longshore_store_tasks 0",
            "longshore_adopted_blobs 0",
            "longshore_adopted_bytes 0",
            r#"longshore_origin_requests_total{code="error"} 0"#,
            r#"longshore_proxy_requests_total{code="2xx",kind="manifest"} 0"#,
            "longshore_supernode_connected 0",
            "longshore_swarm_members 0",
            "longshore_swarm_tasks 0",
            "longshore_joins_total 0",
            r#"longshore_enrolments_total{result="issued"} 0"#,
            r#"longshore_turned_away_total{reason="version"} 0"#,
            r#"longshore_preheat_jobs_total{result="failed"} 0"#,
            "longshore_preheat_jobs_open 0",
            r#"longshore_preheat_runs_total{result="skipped"} 0"#,
            "longshore_hedged_requests_total 0",
            "longshore_certificate_expiry_timestamp_seconds 0",
            concat!("longshore_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|line| line == series), "{series} is missing in:\n{text}");
        }
        for name in ["longshore_process_resident_memory_bytes ", "longshore_process_cpu_seconds_total "] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} is missing in:\n{text}");
        }
    }

    #[test]
    fn names_follow_the_rules() {
        for family in Metrics::new().registry().gather() {
            let (name, kind) = (family.name(), family.get_field_type());
            assert!(name.starts_with("longshore_"), "{name}");
            let is_counter = kind == prometheus::proto::MetricType::COUNTER;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
        }
    }

    #[test]
    fn each_label_value_counts_for_itself_and_clones_share() {
        let metrics = Metrics::new();
        let pieces = metrics.received_bytes.of(ByteSource::Peer).clone();
        metrics.clone().received_bytes.of(ByteSource::Origin).inc_by(5);
        pieces.inc_by(7);
        metrics.proxy_requests.of(RequestKind::Blob, Code::Success).inc();

        assert_eq!(metrics.received_bytes.total(), 12);
        let text = metrics.render();
        let lines: BTreeSet<_> = text.lines().collect();
        assert!(lines.contains(r#"longshore_received_bytes_total{source="peer"} 7"#), "{text}");
        assert!(lines.contains(r#"longshore_received_bytes_total{source="origin"} 5"#), "{text}");
        assert!(lines.contains(r#"longshore_proxy_requests_total{code="2xx",kind="blob"} 1"#), "{text}");
        assert_eq!(Metrics::new().received_bytes.total(), 0, "another process's");
    }

    #[test]
    fn a_held_gauge_falls_when_the_holder_goes() {
        let metrics = Metrics::new();
        let first = hold(&metrics.links);
        let second = hold(&metrics.links);
        assert_eq!(metrics.links.get(), 2);
        drop(first);
        assert_eq!(metrics.links.get(), 1);
        drop(second);
        assert_eq!(metrics.links.get(), 0);
    }
}
