//! The custom resource `ImagePreheat` ([`resource`]) and its controller: of the supernodes that have it, the one that [leads](leader)
//! makes each resource a [preheat](crate::preheat) job of its own ([`wish`]), and writes down what becomes of it ([`decide`],
//! [`reign`]). Off unless `--kubernetes-controller` is said; in builds with the feature `kubernetes`.
//!
//! # Invariants
//! - The resource is the truth: a job that no resource wants is cancelled and forgotten, also when its resource was deleted while
//!   nobody looked. So no finalizer is needed, and none is left behind when Longshore is removed.
//! - Whoever knows that another one leads has no job of the controller. While nobody can tell, jobs go on.
//! - What is in Secrets is in memory only, and in no log, event or status.

#[cfg(feature = "kubernetes")]
mod begin;
#[cfg(feature = "kubernetes")]
mod client;
#[cfg(feature = "kubernetes")]
mod decide;
#[cfg(feature = "kubernetes")]
mod leader;
#[cfg(feature = "kubernetes")]
mod lease;
#[cfg(feature = "kubernetes")]
mod places;
#[cfg(feature = "kubernetes")]
mod pull_secret;
#[cfg(feature = "kubernetes")]
mod reign;
#[cfg(feature = "kubernetes")]
pub mod resource;
#[cfg(feature = "kubernetes")]
mod wish;
#[cfg(feature = "kubernetes")]
pub mod workload;

use crate::kubernetes::Access;

#[cfg(feature = "kubernetes")]
pub use self::client::Controller;

/// Where a controller finds the Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerOptions {
    /// The API.
    pub access: Access,
    /// Where its Lease is kept.
    pub namespace: String,
}
