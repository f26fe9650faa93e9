//! Where the supernodes are: the names that the user gave, and the addresses that they mean at present. A name's meaning
//! changes as supernodes are added and replaced, so [`super::harbour`] looks it up again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;

use futures_util::future::BoxFuture;

/// The addresses of one name that are used; a name server's answer holds hardly more.
const MAX_ADDRESSES: usize = 64;

/// Whoever knows what names mean.
pub trait Resolver: Send + Sync + 'static {
    /// The addresses of `HOST:PORT`.
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
}

/// The machine's own resolver.
pub struct Dns;

/// Names and their addresses.
pub(super) struct Directory {
    names: BTreeMap<String, BTreeSet<SocketAddr>>,
}

// === impl Dns ===

impl Resolver for Dns {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host(name).await?.collect()) })
    }
}

// === impl Directory ===

impl Directory {
    /// Names that mean nothing yet.
    pub(super) fn new(names: &[String]) -> Self {
        Self { names: names.iter().map(|name| (name.clone(), BTreeSet::new())).collect() }
    }

    /// The names.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.names.keys()
    }

    /// A name means this now. A look-up that failed says nothing new and is not told.
    pub(super) fn learn(&mut self, name: &str, addresses: Vec<SocketAddr>) {
        if let Some(known) = self.names.get_mut(name) {
            *known = addresses.into_iter().take(MAX_ADDRESSES).collect();
        }
    }

    /// All addresses, each once.
    pub(super) fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.names.values().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stays_while_any_name_means_it() {
        let of = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let mut directory = Directory::new(&["a:1".into(), "b:1".into()]);
        directory.learn("a:1", vec![of(1), of(2)]);
        directory.learn("b:1", vec![of(2)]);
        directory.learn("unknown:1", vec![of(3)]);
        assert_eq!(directory.addresses(), [of(1), of(2)].into());
        directory.learn("a:1", vec![of(4)]);
        assert_eq!(directory.addresses(), [of(2), of(4)].into());
    }
}
