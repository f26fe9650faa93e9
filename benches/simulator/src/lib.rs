//! A swarm in virtual time. What decides is the very code that decides in the real one: `supernode::scheduler`,
//! `peer::exchange::select` and `peer::exchange::reveal`. What is modelled is what lies between: links, sessions, feeders, and a
//! network that shares its lines ([`network`]). `docs/simulation.md` says what is left out.
//!
//! [`Scenario`] → [`run`] → [`Outcome`]; the same scenario gives the same outcome. [`faults`] draws scenarios in which things go
//! wrong, [`try_out`] runs them; [`churn`] runs for days. Used by `cargo bench --bench simulate` and by this crate's tests.

pub mod churn;
pub mod faults;
mod feed;
mod hub;
mod links;
mod member;
mod network;
mod outcome;
mod post;
mod scenario;
mod visit;
mod world;

pub use outcome::Outcome;
pub use scenario::{Arrival, Churn, Scenario};
pub use world::{run, try_out};
