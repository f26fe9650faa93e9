//! What is so of the cluster's members just now: which CA issues, which are believed, who is turned out. Watches the
//! cluster's folder, which other commands and supernodes change, and has the news for every session. The sessions renew
//! certificates here.
//!
//! # Invariants
//! - News is the whole: each telling replaces what was told before.
//! - What a peer says of other supernodes counts only under their seal.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use common::identity::{Authority, Identity, IdentityError, Revocation, RevocationBook, Sealer};
use common::node::{NodeId, Role};
use common::wire::codec;
use common::wire::swarm::{MAX_ENTRIES, ToPeer};
use tokio::sync::watch;

/// How often the folder is looked at: a revocation is to be everywhere within a minute, a look costs four small files.
pub const LOOK: Duration = Duration::from_secs(2);

/// The supernode's view of its cluster.
pub struct Membership {
    authority: Arc<Authority>,
    sealer: Sealer,
    book: RevocationBook,
    identity: Identity,
    /// What other supernodes said and could not be written down here.
    heard: Mutex<HashMap<NodeId, u64>>,
    /// Encoded messages, the same for every peer.
    news: watch::Sender<Bytes>,
    /// The trouble that was logged last.
    trouble: Mutex<String>,
}

// === impl Membership ===

impl Membership {
    /// The cluster of this folder, as the supernode `identity`; certifies it. Blocking.
    ///
    /// # Errors
    /// When the supernode cannot certify itself, or the folder's files cannot be read.
    pub fn open(authority: Arc<Authority>, identity: Identity, dir: &Path) -> Result<Self, IdentityError> {
        let book = RevocationBook::new(dir);
        book.list()?;
        let membership = Self {
            sealer: Sealer::new(&authority),
            authority,
            book,
            identity,
            heard: Mutex::default(),
            news: watch::Sender::default(),
            trouble: Mutex::default(),
        };
        membership.certify()?;
        membership.look(SystemTime::now());
        Ok(membership)
    }

    /// Looks at the folder; says whether another CA issues now. What cannot be read stays as it was. Blocking.
    pub fn look(&self, now: SystemTime) -> bool {
        let rotated = self.authority.reload();
        let looked = self.certify().and_then(|()| self.read(now));
        let trouble = rotated.as_ref().err().or(looked.as_ref().err());
        let trouble = trouble.map(ToString::to_string).unwrap_or_default();
        let mut said = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != trouble && !trouble.is_empty() {
            tracing::error!("the cluster's folder cannot be used, what was known is: {trouble}");
        }
        *said = trouble;
        rotated.unwrap_or(false)
    }

    /// The news as encoded messages, at once and whenever there are others; for peers of version 2.
    pub fn news(&self) -> watch::Receiver<Bytes> {
        let mut news = self.news.subscribe();
        news.mark_changed();
        news
    }

    /// Takes in what a peer heard of other supernodes.
    pub async fn hear(self: &Arc<Self>, entries: Vec<Revocation>) {
        let membership = self.clone();
        let heard = tokio::task::spawn_blocking(move || membership.take_in(&entries, SystemTime::now()));
        if heard.await.is_err() {
            tracing::error!("revocations that a peer told could not be taken in");
        }
    }

    /// Renews a member's certificate.
    pub fn renew(&self, csr: &[u8], (node, version): (NodeId, u16), now: SystemTime) -> ToPeer {
        if let Err(words) = self.identity.roll().admits(node, now) {
            return ToPeer::RenewalRefused(words);
        }
        match self.authority.renew(csr, now, version) {
            Ok(issued) if issued.node == node => ToPeer::Renewed(issued.chain),
            Ok(_) => ToPeer::RenewalRefused("the request is for another key".into()),
            Err(error) => ToPeer::RenewalRefused(error.to_string()),
        }
    }

    fn take_in(&self, entries: &[Revocation], now: SystemTime) {
        let known = self.turned_out(now).unwrap_or_default();
        let news: Vec<_> = entries
            .iter()
            .take(MAX_ENTRIES)
            .filter(|entry| {
                entry.is_alive(now) && known.get(&entry.node).is_none_or(|until| *until < entry.until)
            })
            .filter(|entry| entry.is_sealed(&self.sealer))
            .map(|entry| (entry.node, entry.until))
            .collect();
        if let Err(error) = self.book.take_in(&news, now) {
            tracing::info!("revocations of other supernodes are kept in memory only: {error}");
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            for (node, until) in news {
                if heard.len() < MAX_ENTRIES || heard.contains_key(&node) {
                    heard.insert(node, until);
                }
            }
        }
        self.look(now);
    }

    fn certify(&self) -> Result<(), IdentityError> {
        let (identity, now) = (&self.identity, SystemTime::now());
        let fingerprint = self.authority.fingerprint();
        let ours = identity.certificate().is_some_and(|own| own.ca_fingerprint == fingerprint);
        if !ours || identity.renewal_due(now) {
            let issued = self.authority.issue(&identity.csr()?, Role::Supernode, now)?;
            identity.install(&issued.chain)?;
        }
        identity.believe_authorities(&self.authority.told()).map(drop)
    }

    fn read(&self, now: SystemTime) -> Result<(), IdentityError> {
        let turned_out = self.turned_out(now)?;
        let at = |until: u64| UNIX_EPOCH + Duration::from_secs(until);
        let mut list: Vec<_> =
            turned_out.iter().map(|(node, until)| Revocation::new(*node, at(*until), &self.sealer)).collect();
        list.sort_by_key(|revocation| revocation.node);
        list.truncate(MAX_ENTRIES);
        self.identity.roll().replace(turned_out);
        let mut frames = BytesMut::new();
        for message in [ToPeer::Authorities(self.authority.told()), ToPeer::Revoked(list)] {
            match codec::encode(&message) {
                Ok(frame) => frames.extend_from_slice(&frame),
                Err(error) => tracing::error!("news of the cluster cannot be told: {error}"),
            }
        }
        let frames = frames.freeze();
        self.news.send_if_modified(|told| {
            let news = *told != frames;
            *told = frames;
            news
        });
        Ok(())
    }

    /// Who is turned out, by the book and by what could not be written into it.
    fn turned_out(&self, now: SystemTime) -> Result<HashMap<NodeId, u64>, IdentityError> {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut turned_out = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for entry in self.book.list()? {
            match turned_out.get(&entry.node) {
                Some(heard) if *heard > entry.until => {}
                _ if entry.allowed => drop(turned_out.remove(&entry.node)),
                _ => drop(turned_out.insert(entry.node, entry.until)),
            }
        }
        turned_out.retain(|_, until| seconds < *until);
        Ok(turned_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Arc<Membership> {
        let authority = Arc::new(Authority::open(dir).unwrap());
        Arc::new(Membership::open(authority, Identity::ephemeral().unwrap(), dir).unwrap())
    }

    fn told(membership: &Membership) -> Vec<NodeId> {
        let mut frames = BytesMut::from(&membership.news().borrow_and_update()[..]);
        assert!(matches!(codec::decode(&mut frames).unwrap(), Some(ToPeer::Authorities(_))));
        let Some(ToPeer::Revoked(list)) = codec::decode(&mut frames).unwrap() else { panic!("no list") };
        list.iter().map(|revocation| revocation.node).collect()
    }

    #[tokio::test]
    async fn what_other_supernodes_said_counts_under_their_seal_until_it_is_taken_back_here() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ours, foreign) = (open(here.path()), open(there.path()));
        let (node, now) = (NodeId([5; 16]), SystemTime::now());
        let until = now + Duration::from_secs(600);
        ours.hear(vec![Revocation::new(node, until, &foreign.sealer)]).await;
        assert!(told(&ours).is_empty(), "a seal of another cluster");
        let said = Revocation::new(node, until, &ours.sealer);
        ours.hear(vec![Revocation { until: said.until + 1, ..said }]).await;
        assert!(told(&ours).is_empty(), "an altered one");
        ours.hear(vec![said]).await;
        assert_eq!(told(&ours), [node]);
        assert!(ours.identity.roll().admits(node, now).is_err());
        let csr = Identity::ephemeral().unwrap().csr().unwrap();
        assert!(
            matches!(ours.renew(&csr, (node, 2), now), ToPeer::RenewalRefused(words) if words.contains("revoked"))
        );
        ours.book.allow(node, now).unwrap();
        ours.hear(vec![said]).await;
        assert!(told(&ours).is_empty() && ours.identity.roll().admits(node, now).is_ok());
    }

    #[test]
    fn a_damaged_book_turns_nobody_in_again() {
        let dir = tempfile::tempdir().unwrap();
        let membership = open(dir.path());
        let (node, now) = (NodeId([5; 16]), SystemTime::now());
        membership.book.revoke(node, now + Duration::from_secs(600), now).unwrap();
        membership.look(now);
        std::fs::write(dir.path().join("revoked.json"), b"{").unwrap();
        membership.look(now);
        assert_eq!(told(&membership), [node]);
        assert!(membership.trouble.lock().unwrap().contains("revoked.json"));
    }
}
