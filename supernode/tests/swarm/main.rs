//! Swarms on real sockets: a supernode and its peers in this process, each with its own port, store and identity, an
//! HTTP origin that counts what it serves, and neighbours that cheat. Unlike the end-to-end tests these look
//! inside: into metrics, stores and the scheduler's view.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends where it stands")]

mod cluster;
mod evil;
mod old;
mod origin;

mod cheats;
mod doors;
mod fleets;
mod losses;
mod pulls;
mod versions;
