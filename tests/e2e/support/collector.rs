//! An OpenTelemetry collector for OTLP over HTTP: keeps the spans that it is told, as they came and as they are meant.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// The collector; it ends when it is dropped.
pub(crate) struct Collector {
    /// What `--otlp-endpoint` names it.
    pub(crate) endpoint: String,
    told: Arc<Mutex<Told>>,
    _server: AbortOnDropHandle<()>,
}

/// What it was told.
#[derive(Default)]
struct Told {
    raw: Vec<Bytes>,
    headers: Vec<HeaderMap>,
    spans: Vec<Seen>,
}

/// A span, as a test looks at it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: Vec<u8>,
    pub(crate) parent: Vec<u8>,
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) failed: bool,
    pub(crate) attributes: BTreeMap<String, String>,
}

// === impl Collector ===

impl Collector {
    /// Starts a collector.
    pub(crate) async fn start() -> Self {
        let told = Arc::<Mutex<Told>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().route("/v1/traces", post(take)).with_state(told.clone());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Self { endpoint, told, _server: AbortOnDropHandle::new(server) }
    }

    /// The spans so far.
    pub(crate) fn spans(&self) -> Vec<Seen> {
        self.told.lock().unwrap().spans.clone()
    }

    /// Every byte of every request's body.
    pub(crate) fn raw(&self) -> Vec<u8> {
        self.told.lock().unwrap().raw.concat()
    }

    /// What all requests said in this header.
    pub(crate) fn header(&self, name: &str) -> Vec<String> {
        let told = self.told.lock().unwrap();
        let text = |headers: &HeaderMap| Some(headers.get(name)?.to_str().ok()?.to_owned());
        told.headers.iter().filter_map(text).collect()
    }
}

async fn take(State(told): State<Arc<Mutex<Told>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body.clone()) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut told = told.lock().unwrap();
    for of_process in request.resource_spans {
        let process = words(&of_process.resource.unwrap_or_default().attributes);
        let spans = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
        told.spans.extend(spans.map(|span| Seen::of(span, &process)));
    }
    told.raw.push(body);
    told.headers.push(headers);
    StatusCode::OK
}

fn words(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let word = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        other => format!("{other:?}"),
    };
    let pair = |pair: &KeyValue| Some((pair.key.clone(), word(pair.value.as_ref()?.value.as_ref()?)));
    attributes.iter().filter_map(pair).collect()
}

// === impl Seen ===

impl Seen {
    fn of(span: Span, process: &BTreeMap<String, String>) -> Self {
        let mut attributes = process.clone();
        attributes.extend(words(&span.attributes));
        Self {
            name: span.name,
            trace: span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect(),
            id: span.span_id,
            parent: span.parent_span_id,
            begun: span.start_time_unix_nano,
            ended: span.end_time_unix_nano,
            failed: span.status.is_some_and(|status| status.code == 2),
            attributes,
        }
    }

    /// An attribute, of the span or of its process; empty where there is none.
    pub(crate) fn word(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }
}
