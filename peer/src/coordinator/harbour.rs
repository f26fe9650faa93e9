//! The addresses of the supernodes, and a session for each: names are looked up again and again, an address that is new is
//! dialled, and one that is named no more and has no session is let go. Owned by [`super::driver`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::node::NodeId;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::directory::Directory;
use super::remote::SupernodeView;
use super::session::{self, Shared};

/// A name server that takes longer says nothing new.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// What a name means now.
pub(super) type Lookup = (String, io::Result<Vec<SocketAddr>>);

/// Names, addresses, and the sessions there.
pub(super) struct Harbour {
    shared: Arc<Shared>,
    directory: Directory,
    lookups: JoinSet<Lookup>,
    under_way: BTreeSet<String>,
    /// Names that could not be looked up, so that this is said once.
    mute: BTreeSet<String>,
    sessions: JoinSet<()>,
    berths: BTreeMap<SocketAddr, Berth>,
}

struct Berth {
    session: AbortHandle,
    /// The supernode that was last met there.
    node: Option<NodeId>,
    /// Whether the session there is the supernode's.
    up: bool,
}

// === impl Harbour ===

impl Harbour {
    /// No address is known yet.
    pub(super) fn new(shared: Shared) -> Self {
        if shared.options.supernodes.is_empty() {
            tracing::warn!("no supernode is configured: pulls go on without one");
        }
        Self {
            directory: Directory::new(&shared.options.supernodes),
            shared: Arc::new(shared),
            lookups: JoinSet::new(),
            under_way: BTreeSet::new(),
            mute: BTreeSet::new(),
            sessions: JoinSet::new(),
            berths: BTreeMap::new(),
        }
    }

    /// What is looked up.
    pub(super) fn names(&self) -> Vec<String> {
        self.directory.names().cloned().collect()
    }

    /// Begins to look all names up.
    pub(super) fn look_up(&mut self) {
        for name in self.names() {
            if self.under_way.insert(name.clone()) {
                let asked = self.shared.options.resolver.lookup(name.clone());
                self.lookups.spawn(async move {
                    let answer = timeout(LOOKUP_TIMEOUT, asked).await;
                    (name, answer.unwrap_or_else(|elapsed| Err(elapsed.into())))
                });
            }
        }
    }

    /// The next answer. May be dropped at its await.
    pub(super) async fn looked_up(&mut self) -> Lookup {
        loop {
            match self.lookups.join_next().await {
                Some(Ok(lookup)) => return lookup,
                Some(Err(error)) => tracing::error!("a look-up of a supernode's name broke off: {error}"),
                None => std::future::pending().await,
            }
        }
    }

    /// Takes an answer; gives the addresses that are new, which are dialled already.
    pub(super) fn learn(&mut self, (name, answer): Lookup) -> Vec<SocketAddr> {
        self.under_way.remove(&name);
        match answer {
            Ok(mut addresses) => {
                self.mute.remove(&name);
                // From a socket of IPv4 the others cannot be reached.
                let ipv4 = self.shared.transport.local_addr().is_ok_and(|address| address.is_ipv4());
                addresses.retain(|address| !ipv4 || address.is_ipv4());
                self.directory.learn(&name, addresses);
            }
            Err(error) if self.mute.insert(name.clone()) => {
                tracing::warn!("{name} has no address: {error}; a supernode that is known already is kept");
            }
            Err(_) => {}
        }
        self.clear();
        let fresh: Vec<_> = self
            .directory
            .addresses()
            .into_iter()
            .filter(|address| !self.berths.contains_key(address))
            .collect();
        for address in &fresh {
            let session = self.sessions.spawn(session::run(*address, self.shared.clone()));
            self.berths.insert(*address, Berth { session, node: None, up: false });
        }
        fresh
    }

    /// Remembers who was met at an address, and whether there is a session. False where the address has been let go since,
    /// and the session with it.
    pub(super) fn met(&mut self, address: SocketAddr, node: NodeId, up: bool) -> bool {
        let berth = self.berths.get_mut(&address);
        let here = berth.map(|berth| (berth.node, berth.up) = (Some(node), up)).is_some();
        if !up {
            self.clear();
        }
        here
    }

    /// The addresses of supernodes without a session.
    pub(super) fn absent(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let up: BTreeSet<_> = self.berths.values().filter(|berth| berth.up).map(|berth| berth.node).collect();
        let absent = move |berth: &Berth| !berth.up && (berth.node.is_none() || !up.contains(&berth.node));
        self.berths.iter().filter(move |(_, berth)| absent(berth)).map(|(address, _)| *address)
    }

    /// All addresses, for people; `has` says which node has a session.
    pub(super) fn view(&self, has: impl Fn(NodeId) -> bool) -> Vec<SupernodeView> {
        let view = |(address, berth): (&SocketAddr, &Berth)| SupernodeView {
            address: *address,
            node: berth.node,
            connected: berth.node.is_some_and(&has),
        };
        self.berths.iter().map(view).collect()
    }

    /// Lets go of addresses that no name means, unless there is a session: what works is kept.
    fn clear(&mut self) {
        let named = self.directory.addresses();
        self.berths.retain(|address, berth| {
            let keep = berth.up || named.contains(address);
            if !keep {
                berth.session.abort();
            }
            keep
        });
        while self.sessions.try_join_next().is_some() {}
    }
}
