//! What a supernode does with the Kubernetes API: what the user said of that ([`options`]), and the way there ([`access`]). It has
//! pods' tokens reviewed ([`crate::enrolment`]), works on ImagePreheats ([`crate::controller`]) and reads in which zones nodes are
//! ([`zones`]): each only if it was told to, for each needs a right of its own.

pub mod access;
pub mod options;
pub mod zones;

pub use access::Access;
pub use options::{Flags, JoinOptions, KubernetesError, Plan};
pub use zones::Zones;
