//! What lies between sender and receiver: the loopback, an Ethernet as fast as the machine, or one of 1 Gbit/s. The
//! latter two are a pair of virtual interfaces between two network namespaces, which needs root and iproute2.
//!
//! A namespace lives as long as a process in it that waits for the end of its input; so nothing is left behind,
//! however the measurement ends.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use clap::ValueEnum;

/// Addresses of sender and receiver.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];
const DEVICE: &str = "eth0";
/// Bytes of a full frame as the limit counts them, and what is left of it after the headers of Ethernet, IPv4, UDP and
/// QUIC, a stream frame's own and the cipher's tag.
const FRAME: f64 = 1514.0;
const CONTENT: f64 = 1440.0;

/// A kind of link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Packets of up to 64 KiB: what is measured is hashing and disk more than packets.
    Loopback,
    /// Packets of 1500 bytes, as fast as the machine takes them.
    Ethernet,
    /// Packets of 1500 bytes and 1 Gbit/s each way.
    Gigabit,
}

/// An end of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Server,
    Client,
}

/// A link with its two ends.
pub(crate) struct Link {
    kind: Kind,
    /// What keeps the namespaces alive: the server's and the client's.
    holders: Vec<Child>,
}

// === impl Kind ===

impl Kind {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Loopback => "loopback (packets of up to 6500 bytes)",
            Self::Ethernet => "Ethernet (packets of 1500 bytes), no limit",
            Self::Gigabit => "Ethernet, 1 Gbit/s each way",
        }
    }

    /// The most bytes of content a second that it carries in QUIC packets, where that is limited.
    pub(crate) fn line_rate(self) -> Option<f64> {
        (self == Self::Gigabit).then_some(1e9 / 8.0 * CONTENT / FRAME)
    }

    /// Whether it can be made here; else the reason.
    pub(crate) fn is_possible(self) -> Result<(), &'static str> {
        if self == Self::Loopback {
            return Ok(());
        }
        if !rustix::process::geteuid().is_root() {
            return Err("needs root, to make network namespaces");
        }
        let found = |tool: &str| {
            ["/sbin", "/usr/sbin", "/bin", "/usr/bin"].iter().any(|dir| Path::new(dir).join(tool).exists())
        };
        if ["ip", "tc", "nsenter", "unshare"].into_iter().all(found) {
            Ok(())
        } else {
            Err("needs Debian's iproute2 and util-linux")
        }
    }
}

// === impl Link ===

impl Link {
    pub(crate) fn make(kind: Kind) -> Self {
        let mut link = Self { kind, holders: Vec::new() };
        if kind == Kind::Loopback {
            return link;
        }
        for _ in ADDRESSES {
            let mut holder = Command::new("unshare")
                .args(["--net", "sh", "-c", "ip link set lo up && echo && exec cat"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            holder.stdout.as_mut().unwrap().read_exact(&mut [0]).expect("a network namespace cannot be made");
            link.holders.push(holder);
        }
        let other = link.holders[1].id().to_string();
        link.run(
            End::Server,
            &["ip", "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", &other],
        );
        for (end, address) in [(End::Server, ADDRESSES[0]), (End::Client, ADDRESSES[1])] {
            link.run(end, &["ip", "address", "add", &format!("{address}/24"), "dev", DEVICE]);
            link.run(end, &["ip", "link", "set", DEVICE, "up"]);
            if kind == Kind::Gigabit {
                // 10 ms of the rate at once, and a queue of 50 ms, as switches have it.
                let shape = ["rate", "1gbit", "burst", "1250000", "latency", "50ms"];
                link.run(end, &[&["tc", "qdisc", "add", "dev", DEVICE, "root", "tbf"][..], &shape].concat());
            }
        }
        link
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The address of an end.
    pub(crate) fn local(&self, end: End) -> IpAddr {
        if self.holders.is_empty() { Ipv4Addr::LOCALHOST.into() } else { ADDRESSES[end as usize].into() }
    }

    /// A program at one end.
    pub(crate) fn command(&self, end: End, program: &str) -> Command {
        let Some(holder) = self.holders.get(end as usize) else { return Command::new(program) };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", holder.id())).arg(program);
        command
    }

    fn run(&self, end: End, words: &[&str]) {
        let status = self.command(end, words[0]).args(&words[1..]).status().unwrap();
        assert!(status.success(), "{} failed", words.join(" "));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            drop(holder.stdin.take());
            let _ = holder.wait();
        }
    }
}
