//! What a process tells about itself: log lines ([`init_logging`]), numbers ([`Metrics`]) and, if asked to, the spans of pulls
//! ([`trace`]). Every room writes to them; the binary sets them up and the HTTP servers show them.
//!
//! # Invariants
//! - No credential reaches a log line, a metric or a span: URLs pass through [`redact`], and label values are enums, never
//!   text that somebody sent.

mod labels;
mod logging;
mod metrics;
mod process;
mod redact;
pub mod trace;

pub use labels::{
    ByteSource, Code, Enrolment, Eviction, FaultKind, Label, Notified, Outcome, Preheated, Recipient,
    RejectReason, RequestKind, Scheduled, TurnedAway,
};
pub use logging::{LogFormat, init_logging, log_from_now_on, logged};
pub use metrics::{Counters, Held, Metrics, ProxyRequests, Series, hold};
pub use redact::redact;
