//! What people use to run Longshore, on real parts.

mod daemons;
mod monitoring;
mod openapi;
#[cfg(feature = "otlp")]
mod traces;
