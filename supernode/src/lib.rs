//! skeleton
pub mod scheduler;
pub mod tracker;
