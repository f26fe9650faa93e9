//! What people use to run Longshore, on real parts.

mod daemons;
mod dashboard;
mod monitoring;
