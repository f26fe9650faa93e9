//! How every daemon setting is read: one TOML file, then `LONGSHORE_<SECTION>_<KEY>` from the environment, then
//! flags; a flag beats the environment, which beats the file, which beats the default. Which settings there are is
//! the callers' affair: the binary brings a [`Schema`], the layers go into [`Settings`], and each daemon takes its
//! section out as a struct of its own.
//!
//! Also the value types that people type ([`ByteSize`], [`Share`], [`Rate`], [`Span`], [`ListenAddr`]) and the data directory.
//!
//! # Invariants
//! - An unknown section, key or variable is an error that names the nearest known one: a typing mistake never
//!   silently leaves a default in force.
//! - Every error is one line and says where the setting came from. None quotes the value, which may hold a secret,
//!   unless the section's own type does: a type that reads secrets must not.

mod data_dir;
mod error;
mod listen;
mod quantity;
mod rate;
mod schema;
mod settings;
mod share;
mod size;
mod span;

pub use data_dir::{data_dir_default, prepare_data_dir};
pub use error::ConfigError;
pub use listen::ListenAddr;
pub use quantity::ParseError;
pub use rate::Rate;
pub use schema::{Key, Kind, Schema};
pub use settings::{Settings, environment};
pub use share::{Percent, Share};
pub use size::ByteSize;
pub use span::Span;
