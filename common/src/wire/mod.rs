//! The messages between nodes. [`codec`] puts them on a stream, [`hello`] opens a connection, [`swarm`] is what
//! peers and the supernode say, [`exchange`] what any two nodes say about pieces, [`errand`] what a supernode has a peer do
//! ahead of need, [`inquiry`] what a supernode asks an
//! origin for many, [`enrol`] how a stranger becomes a member.
//!
//! # Compatibility
//! A message enum only grows at its end, and a struct never changes its fields: bincode numbers variants and
//! fields by position. What cannot be said so needs a new protocol version in [`hello::VERSION`].

pub mod codec;
pub mod enrol;
pub mod errand;
pub mod exchange;
pub mod hello;
pub mod inquiry;
pub mod swarm;
