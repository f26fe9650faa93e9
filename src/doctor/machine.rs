//! What the machine gives: a processor that hashes, buffers for packets, files to open.

use std::net::Ipv4Addr;

use common::transport::{SOCKET_BUFFER, udp_socket};
use rustix::net::sockopt::{socket_recv_buffer_size, socket_send_buffer_size};
use rustix::process::{Resource, getrlimit};

use super::{Finding, Home};
use crate::progress::bytes;

/// Below this, a node with some hundred clients and tasks runs out of files.
const OPEN_FILES: u64 = 4096;

/// Every byte is hashed when it comes, and once more when the supernode proves a blob.
pub(super) fn processor() -> Finding {
    if common::digest::accelerated() {
        return Finding::ok("processor", "it has instructions for SHA-256");
    }
    Finding::warn(
        "processor",
        "it has no instructions for SHA-256: hashing runs at about a quarter of the speed",
        "expect a core to take in some 300 MB/s; in a virtual machine, pass the host's processor model on",
    )
}

/// What the kernel holds for a socket between two looks of the thread that drives it.
pub(super) fn udp_buffers() -> Finding {
    let measured = udp_socket((Ipv4Addr::LOCALHOST, 0).into()).and_then(|socket| {
        let granted = (socket_recv_buffer_size(&socket)?, socket_send_buffer_size(&socket)?);
        // The kernel doubles what it grants, for its own accounting.
        Ok((granted.0 / 2, granted.1 / 2))
    });
    match measured {
        Ok((receive, send)) => judge_buffers(receive, send),
        Err(error) => Finding::fail(
            "UDP buffers",
            format!("no UDP socket: {error}"),
            "allow this user to open UDP sockets",
        ),
    }
}

pub(super) fn judge_buffers(receive: usize, send: usize) -> Finding {
    let size = |count: usize| bytes(count as u64);
    if receive.min(send) >= SOCKET_BUFFER {
        return Finding::ok("UDP buffers", format!("{} each way", size(SOCKET_BUFFER)));
    }
    let what = format!(
        "{} in and {} out are granted, {} are asked for: packets are lost at high speed",
        size(receive),
        size(send),
        size(SOCKET_BUFFER)
    );
    let mend = format!(
        "sysctl -w net.core.rmem_max={SOCKET_BUFFER} net.core.wmem_max={SOCKET_BUFFER} (for a container on its host), \
         and the same in /etc/sysctl.d/longshore.conf"
    );
    Finding::warn("UDP buffers", what, mend)
}

/// The limit of a running daemon, where it can be seen, else this process's.
pub(super) fn open_files(homes: &[Home]) -> Finding {
    let of_daemon = |home: &Home| {
        let limits =
            std::fs::read_to_string(format!("/proc/{}/limits", home.addresses.as_ref()?.pid)).ok()?;
        soft_limit(&limits)
    };
    match homes.iter().filter_map(of_daemon).min() {
        Some(limit) => judge_open_files("the daemon", limit),
        None => judge_open_files("this shell", getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)),
    }
}

/// Out of `Max open files  SOFT  HARD  files`.
pub(super) fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

pub(super) fn judge_open_files(whose: &str, limit: u64) -> Finding {
    if limit >= OPEN_FILES {
        let shown = if limit == u64::MAX { "any number".into() } else { limit.to_string() };
        return Finding::ok("open files", format!("{whose} may open {shown}"));
    }
    Finding::warn(
        "open files",
        format!("{whose} may open {limit}: a busy node needs {OPEN_FILES}"),
        "LimitNOFILE=65536 in the systemd unit, or ulimit -n 65536 before the start",
    )
}
