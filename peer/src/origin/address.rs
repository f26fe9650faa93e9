//! Which IP addresses may be connected to, and the resolver that lets no name get around it. Used by [`super::guard`] for
//! addresses in URLs and by [`super::client`] for names.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::guard::Refusal;

/// Metadata services that live outside the link-local ranges: Alibaba, Oracle (classic), Azure's wire server.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192), Ipv4Addr::new(168, 63, 129, 16)];
/// The same over IPv6: AWS, Google Cloud.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// Where an address lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    Open,
    Loopback,
    Never,
}

/// Sorts an address; an IPv4 address inside an IPv6 form counts as itself.
pub(super) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => embedded_v4(v6).map_or(Reach::Open, reach_v4).max(reach_v6(v6)),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    // All of 0.0.0.0/8 is "this host" (RFC 1122); Linux connects 0.0.0.0 to loopback.
    let this_host = address.octets()[0] == 0;
    if address.is_loopback() {
        Reach::Loopback
    } else if this_host
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || METADATA_V4.contains(&address)
    {
        Reach::Never
    } else {
        Reach::Open
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if address.is_loopback() {
        Reach::Loopback
    } else if address.is_unspecified()
        || address.is_unicast_link_local()
        || address.is_multicast()
        || METADATA_V6.contains(&address)
    {
        Reach::Never
    } else {
        Reach::Open
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped, compatible, NAT64 (64:ff9b::/96) or 6to4 (2002::/16).
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = address.segments();
    let of = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => of(high, low),
        [0x2002, high, low, ..] => of(high, low),
        _ => None,
    }
}

/// The system's resolver without the addresses that must not be asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct GuardedResolver {
    /// Whether loopback addresses pass.
    pub(super) loopback: bool,
}

/// All addresses of a name were filtered out.
#[derive(Debug)]
pub(super) struct Filtered {
    name: String,
    reach: Reach,
}

// === impl Filtered ===

impl Filtered {
    /// The refusal to tell the user; `place` is the `host:port` that was asked.
    pub(super) fn refusal(&self, place: &str) -> Refusal {
        match self.reach {
            Reach::Loopback => Refusal::Loopback(place.to_owned()),
            Reach::Open | Reach::Never => Refusal::Never(format!("what {} resolves to", self.name)),
        }
    }
}

impl fmt::Display for Filtered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} resolves only to addresses that must not be asked", self.name)
    }
}

impl std::error::Error for Filtered {}

// === impl GuardedResolver ===

impl GuardedResolver {
    fn filter(self, name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Filtered> {
        let limit = if self.loopback { Reach::Loopback } else { Reach::Open };
        // Among refusals the one that a setting can lift is the more useful to hear.
        let mildest = found.iter().map(|address| reach(address.ip())).min();
        let kept: Vec<_> = found.into_iter().filter(|address| reach(address.ip()) <= limit).collect();
        match mildest {
            Some(reach) if kept.is_empty() => Err(Filtered { name: name.to_owned(), reach }),
            _ => Ok(kept),
        }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = *self;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let kept = guard.filter(name.as_str(), found)?;
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_resolver_drops_what_must_not_be_asked() {
        let found =
            || ["169.254.169.254:0", "127.0.0.1:0", "10.0.0.1:0"].map(|a| a.parse().unwrap()).to_vec();
        let far = GuardedResolver { loopback: false };
        let near = GuardedResolver { loopback: true };
        assert_eq!(far.filter("n", found()).unwrap().len(), 1);
        assert_eq!(near.filter("n", found()).unwrap().len(), 2);
        let refusal = |guard: GuardedResolver, keep| guard.filter("n", found()[..keep].to_vec()).unwrap_err();
        assert!(matches!(refusal(far, 2).refusal("n:80"), Refusal::Loopback(_)));
        assert!(matches!(refusal(near, 1).refusal("n:80"), Refusal::Never(_)));
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_judged_alike_in_every_ipv6_form(bits: u32) {
            let v4 = Ipv4Addr::from(bits);
            let s = [(bits >> 16) as u16, bits as u16];
            let forms = [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, s[0], s[1]),
                Ipv6Addr::new(0x2002, s[0], s[1], 0, 0, 0, 0, 1),
            ];
            for form in forms {
                prop_assert_eq!(reach(form.into()), reach(v4.into()));
            }
        }
    }
}
