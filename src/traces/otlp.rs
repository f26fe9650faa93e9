//! Hands spans to an OpenTelemetry collector: OTLP over HTTP, as protobuf, in batches. One task of the runtime, begun by
//! [`super::Traces`].
//!
//! # Invariants
//! - Nobody waits for it: a collector that is away or slow costs the spans that do not fit into the queue meanwhile, counted.
//! - The collector's answer is not read beyond its status.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use common::telemetry::trace::{self, Finished, Note, Side};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url, redirect};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Spans go out this often: soon enough to look at a pull that has just ended.
const PAUSE: Duration = Duration::from_secs(1);
/// Spans in one request: some hundred kilobytes, and collectors take a few megabytes.
const BATCH: usize = 512;
/// A collector is near, and answers at once.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where collectors take traces, below the endpoint.
const PATH: &str = "/v1/traces";
/// `key=value,…`, as the standard says: headers that open the collector.
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
/// The parent is on another node; and that it is known whether it is. (OTLP, `SpanFlags`)
const REMOTE: u32 = 0x100 | 0x200;
const LOCAL: u32 = 0x100;

/// The way to a collector.
pub(super) struct Exporter {
    client: Client,
    url: Url,
    headers: HeaderMap,
    resource: Resource,
    /// Whether the last batch arrived.
    arrives: bool,
}

// === impl Exporter ===

impl Exporter {
    /// A collector at this endpoint.
    pub(super) fn new(endpoint: &str) -> anyhow::Result<Self> {
        let url = url_of(endpoint)?;
        // Past any HTTP proxy: it may be this very node, which would trace what it sends.
        let client = Client::builder().timeout(TIMEOUT).redirect(redirect::Policy::none()).no_proxy();
        let client = client.build().context("the way to --otlp-endpoint cannot be had")?;
        let headers = headers_of(&std::env::var(HEADERS).unwrap_or_default());
        Ok(Self { client, url, headers, resource: resource(), arrives: true })
    }

    /// Sends until it is stopped, and then what is left.
    pub(super) async fn run(mut self, mut spans: mpsc::Receiver<Finished>, stop: CancellationToken) {
        let mut pause = interval(PAUSE);
        pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let last = tokio::select! {
                _ = pause.tick() => false,
                () = stop.cancelled() => true,
            };
            while let Some(batch) = next(&mut spans) {
                self.send(batch).await;
            }
            if last {
                return;
            }
        }
    }

    async fn send(&mut self, batch: Vec<Finished>) {
        let count = batch.len();
        let failure = self.post(request(&self.resource, batch)).await.err();
        match &failure {
            None => trace::sent(count),
            Some(_) => trace::dropped(count),
        }
        match &failure {
            Some(why) if self.arrives => tracing::warn!("traces are lost: {why}; pulls go on"),
            None if !self.arrives => tracing::info!("traces arrive again"),
            // The same again and again is one line in the log.
            Some(_) | None => {}
        }
        self.arrives = failure.is_none();
    }

    async fn post(&self, request: ExportTraceServiceRequest) -> Result<(), String> {
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        let post = self.client.post(self.url.clone()).headers(self.headers.clone());
        let answer = post.header(CONTENT_TYPE, protobuf).body(request.encode_to_vec()).send().await;
        // Its URL may name a password.
        let answer = answer.map_err(|error| format!("{:#}", anyhow::Error::from(error.without_url())))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("the collector answered {status}")) }
    }
}

/// What waits, as far as it fits into one request.
fn next(spans: &mut mpsc::Receiver<Finished>) -> Option<Vec<Finished>> {
    let batch: Vec<_> = std::iter::from_fn(|| spans.try_recv().ok()).take(BATCH).collect();
    (!batch.is_empty()).then_some(batch)
}

/// Where traces go, given an endpoint as the standard means it: a base.
fn url_of(endpoint: &str) -> anyhow::Result<Url> {
    let complaint = "--otlp-endpoint wants the URL of a collector, for example http://127.0.0.1:4318";
    let mut url: Url = endpoint.parse().context(complaint)?;
    anyhow::ensure!(matches!(url.scheme(), "http" | "https") && url.has_host(), complaint);
    let base = url.path().trim_end_matches('/').to_owned();
    if !base.ends_with(PATH) {
        url.set_path(&format!("{base}{PATH}"));
    }
    Ok(url)
}

/// `key=value,…`; values may be percent-encoded.
fn headers_of(text: &str) -> HeaderMap {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let header = |(name, value): (&str, &str)| {
        let name = name.trim().parse::<HeaderName>().ok()?;
        let mut value = HeaderValue::from_str(&decoded(value.trim())).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    };
    pairs.filter_map(header).collect()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let code = behind.get(..2).filter(|_| first == b'%').and_then(|code| std::str::from_utf8(code).ok());
        let coded = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        bytes.push(coded.unwrap_or(first));
        rest = if coded.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Which process this is.
fn resource() -> Resource {
    let name = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    let attributes = vec![
        text("service.name", name.unwrap_or_else(|| "longshore".to_owned())),
        text("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        text("host.name", crate::settings::hostname()),
        pair("process.pid", Value::IntValue(i64::from(std::process::id()))),
    ];
    Resource { attributes, ..Resource::default() }
}

fn request(resource: &Resource, batch: Vec<Finished>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope { name: "longshore".to_owned(), ..InstrumentationScope::default() };
    let spans = batch.into_iter().map(span).collect();
    let of_scope = ScopeSpans { scope: Some(scope), spans, schema_url: String::new() };
    let of_process = ResourceSpans {
        resource: Some(resource.clone()),
        scope_spans: vec![of_scope],
        schema_url: String::new(),
    };
    ExportTraceServiceRequest { resource_spans: vec![of_process] }
}

fn span(finished: Finished) -> Span {
    let kind = match finished.side {
        Side::Inside => SpanKind::Internal,
        Side::Client => SpanKind::Client,
        Side::Server => SpanKind::Server,
    };
    let nanoseconds = |at: std::time::SystemTime| {
        at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    };
    let attributes = finished.notes.into_iter().map(|(key, note)| match note {
        Note::Text(word) => text(key, word),
        Note::Number(number) => pair(key, Value::IntValue(number)),
        Note::Flag(flag) => pair(key, Value::BoolValue(flag)),
    });
    let failed = Status { code: StatusCode::Error.into(), message: String::new() };
    Span {
        trace_id: finished.trace.to_vec(),
        span_id: finished.span.to_vec(),
        parent_span_id: finished.parent.map(Vec::from).unwrap_or_default(),
        flags: if finished.parent_is_remote { REMOTE } else { LOCAL } | 1,
        name: finished.name.to_owned(),
        kind: kind.into(),
        start_time_unix_nano: nanoseconds(finished.begun),
        end_time_unix_nano: nanoseconds(finished.ended),
        attributes: attributes.collect(),
        status: finished.failed.then_some(failed),
        ..Span::default()
    }
}

fn text(key: &str, word: String) -> KeyValue {
    pair(key, Value::StringValue(word))
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_base_or_the_whole_path() {
        for (endpoint, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            ("https://collector.example/otlp", "https://collector.example/otlp/v1/traces"),
            ("https://collector.example/v1/traces", "https://collector.example/v1/traces"),
        ] {
            assert_eq!(url_of(endpoint).unwrap().as_str(), url);
        }
        for nonsense in ["", "collector:4318", "grpc://collector:4317", "127.0.0.1:4318", "file:///tmp"] {
            let said = format!("{:#}", url_of(nonsense).unwrap_err());
            assert!(said.contains("--otlp-endpoint"), "{nonsense}: {said}");
        }
    }

    #[test]
    fn headers_are_read_as_the_standard_writes_them() {
        let headers = headers_of("authorization=Bearer%20x, x-scope = a%zz ,nonsense,=none,b a=c");
        assert_eq!(headers.len(), 2);
        assert_eq!(
            (&headers["authorization"], &headers["x-scope"]),
            (&"Bearer x".parse().unwrap(), &"a%zz".parse().unwrap())
        );
        assert!(!format!("{headers:?}").contains("Bearer"), "they open the collector");
    }
}
