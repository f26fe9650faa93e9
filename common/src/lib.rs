//! What both ends of every Longshore wire must agree on: names of bytes ([`digest`], [`piece`], [`task`]),
//! names of machines ([`node`], [`identity`]), which of them has a key ([`rendezvous`]), the messages ([`wire`]) and the connection that carries them
//! ([`transport`]); and the primitives that every room shares ([`config`], [`telemetry`]). No policy lives here.

pub mod config;
pub mod digest;
pub mod identity;
pub mod node;
pub mod piece;
pub mod rendezvous;
pub mod task;
pub mod telemetry;
pub mod transport;
pub mod wire;
