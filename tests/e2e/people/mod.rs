//! What people use to run Longshore, on real parts.

mod daemons;
mod dashboard;
mod explain;
mod monitoring;
mod openapi;
mod top;
#[cfg(feature = "otlp")]
mod traces;
