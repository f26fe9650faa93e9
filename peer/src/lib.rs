//! Longshore's engine: the blob store ([`store`]), fetching and serving pieces ([`exchange`]), the origin client
//! ([`origin`]), the download session ([`download`]) and what it sees of the supernode ([`coordinator`]), behind
//! one [`engine::Engine`]; questions that many ask an origin at once ([`inquiry`]); and the peer daemon around it
//! ([`daemon`], [`local_api`], [`housekeeping`]), which also offers what a container runtime has already
//! ([`content_store`]), and may ask that to pull ([`runtime`]). Who asks for whole images finds what those are in [`image`]. A
//! seed may keep whole blobs in a second place, too ([`vault`]).

pub mod content_store;
pub mod coordinator;
pub mod daemon;
pub mod download;
pub mod engine;
pub mod errand;
pub mod error;
pub mod exchange;
pub mod handle;
pub mod health;
pub mod housekeeping;
pub mod http;
pub mod image;
pub mod inquiry;
pub mod limit;
pub mod local_api;
pub mod origin;
pub mod paces;
mod provenance;
mod recheck;
pub mod record;
pub mod runtime;
pub mod socket;
pub mod store;
pub mod tasks;
pub mod trust;
pub mod vault;
