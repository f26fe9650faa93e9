//! The proxy over a real engine, asked over HTTP as clients ask it, with a registry in this process behind it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod fake;
mod forward;
mod lab;
mod mirror;
mod permission;
