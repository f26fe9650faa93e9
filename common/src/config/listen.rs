//! Where to listen, as people write it: `127.0.0.1:7711`, `[::1]:7711`, `:7711`, `7711`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::quantity::{ParseError, text_or_integer};

const EXPECTED: &str = "an address to listen on: expected IP:PORT, :PORT (all interfaces) or PORT";

/// An address to listen on. `:PORT` (or `*:PORT`) means all interfaces; a bare `PORT` changes the port only and
/// leaves the interface as it is by default, so that it never opens a loopback listener to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// An interface and a port.
    Address(SocketAddr),
    /// A port, wherever that listener listens by default.
    Port(u16),
}

// === impl ListenAddr ===

impl ListenAddr {
    /// The address to bind, for a listener that is by default on `interface`.
    pub fn resolve(self, interface: IpAddr) -> SocketAddr {
        match self {
            Self::Address(address) => address,
            Self::Port(port) => SocketAddr::new(interface, port),
        }
    }

    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        // `parse` would take a sign, and `+80` is no port.
        let port = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
        if let Ok(address) = text.parse() {
            return Some(Self::Address(address));
        }
        let interface = |ip| move |port| Self::Address(SocketAddr::new(ip, port));
        match text.rsplit_once(':') {
            None => port(text).map(Self::Port),
            Some(("" | "*", number)) => port(number).map(interface(Ipv4Addr::UNSPECIFIED.into())),
            Some(("localhost", number)) => port(number).map(interface(Ipv4Addr::LOCALHOST.into())),
            Some(_) => None,
        }
    }
}

impl From<SocketAddr> for ListenAddr {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl FromStr for ListenAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::read(text).ok_or_else(|| ParseError::new(text, EXPECTED))
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Port(port) => port.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for ListenAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_integer(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv6Addr, SocketAddrV6};

    #[test]
    fn addresses_read_as_people_write_them() {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        for (text, bound) in [
            ("10.0.0.1:7700", "10.0.0.1:7700"),
            ("[::]:7700", "[::]:7700"),
            (":7700", "0.0.0.0:7700"),
            ("*:7700", "0.0.0.0:7700"),
            ("localhost:7700", "127.0.0.1:7700"),
            ("7700", "127.0.0.1:7700"),
            ("0", "127.0.0.1:0"),
        ] {
            let address: ListenAddr = text.parse().unwrap();
            assert_eq!(address.resolve(loopback).to_string(), bound, "{text}");
        }
        for bad in [
            "",
            ":",
            "+80",
            ":+80",
            "65536",
            "node-1:7700",
            "10.0.0.1",
            "10.0.0.1:",
            "::1:7700",
            "http://x:1",
        ] {
            assert!(bad.parse::<ListenAddr>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            let _ = text.parse::<ListenAddr>();
        }

        #[test]
        fn every_address_reads_back(v4: [u8; 4], v6: [u8; 16], port: u16, scope: u32) {
            let scoped = SocketAddrV6::new(Ipv6Addr::from(v6), port, 0, scope);
            for address in [
                ListenAddr::Port(port),
                ListenAddr::Address(SocketAddr::new(v4.into(), port)),
                ListenAddr::Address(scoped.into()),
            ] {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
