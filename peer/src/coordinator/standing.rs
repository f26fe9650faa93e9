//! A peer's standing in its cluster: the certificate that it has to renew, the CAs that it believes, and the members that
//! it must not speak to. Every session with a supernode asks it what to say and shows it what was heard; all sessions of
//! a node share one.
//!
//! # Crash safety
//! What supernodes said is kept in `turned-out.json`, written whole, so that a restart lets nobody in. A damaged file is
//! put aside: the next session brings the list again.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use common::identity::{Identity, IdentityError, read_secret, write_secret};
use common::node::NodeId;
use common::wire::swarm::{ToPeer, ToSupernode};

use super::hearsay::Hearsay;

/// How often a session looks whether the certificate is to be renewed.
pub const LOOK: Duration = Duration::from_secs(1);
/// How often, at most, it is asked for.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// What was heard, in the identity's folder.
const NAME: &str = "turned-out.json";

/// A node's standing.
pub struct Standing {
    identity: Identity,
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    heard: Hearsay,
    /// When the renewal was asked for last.
    asked: Option<SystemTime>,
}

// === impl Standing ===

impl Standing {
    /// The standing of a node that keeps what it hears in the folder of its identity.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn open(identity: Identity, dir: &Path) -> Result<Self, IdentityError> {
        let file = dir.join(NAME);
        let mut state = State::default();
        if let Some(text) = read_secret(&file)? {
            match Hearsay::from_json(&text) {
                Some(heard) => state.heard = heard,
                None => {
                    tracing::warn!(path = %file.display(), "the list of revoked nodes is damaged: put aside");
                    let _ = std::fs::rename(&file, file.with_extension("damaged"));
                }
            }
        }
        identity.roll().replace(state.heard.turned_out(SystemTime::now()));
        Ok(Self { identity, file: Some(file), state: Mutex::new(state) })
    }

    /// What to say when a session with this supernode opens: whom the others turned out.
    pub fn greeting(&self, supernode: NodeId, version: u16) -> Option<ToSupernode> {
        let list = self.lock().heard.for_another(supernode, SystemTime::now());
        (version >= 2 && !list.is_empty()).then_some(ToSupernode::Revoked(list))
    }

    /// A certificate request, when it is time for one.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn request(&self, now: SystemTime) -> Result<Option<ToSupernode>, IdentityError> {
        if !self.identity.renewal_due(now) {
            return Ok(None);
        }
        let left = self.identity.certificate().and_then(|own| own.not_after.duration_since(now).ok());
        let pause = (left.unwrap_or_default() / 6).clamp(LOOK, MAX_PAUSE);
        let mut state = self.lock();
        // A clock that was set back meanwhile must not silence it.
        let lately =
            state.asked.is_some_and(|asked| now.duration_since(asked).is_ok_and(|since| since < pause));
        if lately {
            return Ok(None);
        }
        state.asked = Some(now);
        Ok(Some(ToSupernode::Renew(self.identity.csr()?)))
    }

    /// Takes in what a supernode says of members and CAs. A short blocking write, when it is news.
    pub fn heard(&self, supernode: NodeId, message: ToPeer) {
        let kept = match message {
            ToPeer::Revoked(list) => {
                let mut state = self.lock();
                if !state.heard.said(supernode, list) {
                    return;
                }
                let turned_out = state.heard.turned_out(SystemTime::now());
                tracing::info!(nodes = turned_out.len(), "the list of revoked nodes has changed");
                self.identity.roll().replace(turned_out);
                self.file.as_ref().map_or(Ok(()), |file| write_secret(file, &state.heard.to_json()))
            }
            ToPeer::Authorities(told) => self.identity.believe_authorities(&told).map(|news| {
                if news {
                    tracing::info!(
                        count = self.identity.authorities().len(),
                        "the cluster's CAs have changed"
                    );
                }
            }),
            _ => Ok(()),
        };
        if let Err(error) = kept {
            tracing::warn!("what the supernode said of the cluster is not kept: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in between can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::identity::{Authority, Revocation, Sealer};
    use common::node::Role;

    #[test]
    fn what_was_heard_holds_over_a_restart_and_damage_is_put_aside() {
        let (dir, ca) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sealer = Sealer::new(&Authority::open(ca.path()).unwrap());
        let (bad, here, there) = (NodeId([1; 16]), NodeId([2; 16]), NodeId([3; 16]));
        let now = SystemTime::now();
        let list = vec![Revocation::new(bad, now + Duration::from_secs(600), &sealer)];
        let open = || {
            let identity = Identity::ephemeral().unwrap();
            (identity.clone(), Standing::open(identity, dir.path()).unwrap())
        };
        let (identity, standing) = open();
        standing.heard(here, ToPeer::Revoked(list.clone()));
        assert!(identity.roll().admits(bad, now).is_err());
        let (identity, standing) = open();
        assert!(identity.roll().admits(bad, now).is_err(), "after a restart");
        assert_eq!(standing.greeting(there, 2), Some(ToSupernode::Revoked(list)));
        assert_eq!((standing.greeting(here, 2), standing.greeting(there, 1)), (None, None));
        standing.heard(here, ToPeer::Revoked(Vec::new()));
        assert!(identity.roll().admits(bad, now).is_ok() && open().0.roll().admits(bad, now).is_ok());
        std::fs::write(dir.path().join(NAME), b"{").unwrap();
        open();
        assert!(!dir.path().join(NAME).exists() && dir.path().join("turned-out.damaged").exists());
    }

    #[test]
    fn a_renewal_is_asked_for_in_time_and_not_over_and_over() {
        let (dir, ca) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let identity = Identity::ephemeral().unwrap();
        let (now, second) = (SystemTime::now(), Duration::from_secs(1));
        let authority = Authority::open(ca.path()).unwrap();
        let issued = authority.issue_for(&identity.csr().unwrap(), Role::Peer, now, 60 * second).unwrap();
        identity.install(&issued.chain).unwrap();
        let standing = Standing::open(identity, dir.path()).unwrap();
        let asks = |at: u32| standing.request(now + second * at).unwrap().is_some();
        assert_eq!([30, 41, 42, 43, 45, 58, 59].map(asks), [false, true, false, false, true, true, true]);
    }
}
