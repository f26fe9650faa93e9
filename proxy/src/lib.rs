//! HTTP in front of Longshore's engine, for container runtimes: the registry [`mirror`]. A request goes
//! mirror → manifests or blobs → permission and grants → upstream, and its bytes come from the engine below; where the engine
//! cannot, straight from the origin. The layers that a client will ask for next are fetched meanwhile (readahead).

mod blobs;
mod body;
mod direct;
mod error;
mod forward;
#[doc(hidden)]
pub mod fuzz;
mod grants;
mod manifest;
mod manifests;
mod mirror;
mod path;
mod permission;
mod proof;
mod range;
mod readahead;
mod resolve;
mod upstream;
mod way;

pub use forward::InterceptError;
pub use grants::Terms;
pub use mirror::{Proxy, ProxyOptions, Push};
