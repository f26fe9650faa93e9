//! What origins allowed to this node's clients: who may have what without another question, and what is still good when an
//! origin gives no answer. Asked by [`crate::blobs`] and [`crate::manifests`]; [`ledger`] decides, [`holder`] says who asks, [`doors`]
//! how a registry wants to be asked. In memory only: after a restart the origins are asked anew.

mod doors;
mod holder;
mod ledger;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use common::digest::Digest;
use common::task::Credentials;

use crate::manifest;
use crate::path::Reference;
use crate::upstream::{Said, Upstream};
use doors::Doors;
pub(crate) use holder::subject;
use holder::{Holder, Salt};
use ledger::Ledger;
use ledger::Public;
pub use ledger::Terms;
pub(crate) use ledger::{Grant, Known, Place, Tag};

/// All grants of a node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Grants {
    ledger: Arc<Mutex<Ledger>>,
    doors: Arc<Mutex<Doors>>,
    salt: Salt,
}

/// One client's grants in one repository.
pub(crate) struct Permission<'a> {
    grants: &'a Grants,
    place: Place,
    holder: Holder,
    credentials: &'a Credentials,
}

// === impl Grants ===

impl Grants {
    /// Nothing is known yet.
    pub(crate) fn new(terms: Terms) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::new(terms)));
        Self { ledger, doors: Arc::default(), salt: Salt::new() }
    }

    /// What the client behind `upstream` is known to be allowed in the repository whose paths begin with `path`.
    pub(crate) fn of<'a>(&'a self, upstream: &'a Upstream, path: &str) -> Permission<'a> {
        let credentials = upstream.credentials();
        let place = Place { repository: upstream.url(path).into() };
        Permission { grants: self, place, holder: self.salt.holder(credentials), credentials }
    }

    /// The registry told somebody without credentials how it wants to be spoken to at this path.
    pub(crate) fn heard(&self, upstream: &Upstream, path: &str, said: &Said) {
        if upstream.credentials().is_empty() {
            self.doors().heard(upstream.url(path), said.brief());
        }
    }

    /// What it said there last, for somebody without credentials while it gives no answer.
    pub(crate) fn words(&self, upstream: &Upstream, path: &str) -> Option<Said> {
        let doors = self.doors();
        doors.words(&upstream.url(path)).filter(|_| upstream.credentials().is_empty()).cloned()
    }

    fn doors(&self) -> MutexGuard<'_, Doors> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Permission ===

impl Permission<'_> {
    /// The grant by which the client may have a digest without another question.
    pub(crate) fn allows(&self, digest: Digest) -> Option<Grant> {
        self.grants.lock().allows(&self.place, self.holder, digest, Instant::now())
    }

    /// The same while the origin gives no answer.
    pub(crate) fn remembers(&self, digest: Digest) -> Option<Grant> {
        self.grants.lock().remembers(&self.place, self.holder, digest, Instant::now())
    }

    /// What a tag meant when the origin was last asked, while it gives no answer.
    pub(crate) fn meant(&self, tag: &Tag) -> Option<Digest> {
        self.grants.lock().meant(&self.place, self.holder, tag, Instant::now())
    }

    /// The origin gave the client this digest.
    pub(crate) fn grant(&self, digest: Digest, known: Known) {
        self.grants.lock().grant(&self.place, self.audience(), digest, known, Instant::now());
    }

    /// The origin said that the tag means this digest to the client.
    pub(crate) fn resolve(&self, tag: &Tag, digest: Digest) {
        self.grants.lock().resolve(&self.place, self.audience(), tag, digest, Instant::now());
    }

    /// The client was given a manifest, allowed by the origin at that time: what it names is allowed since then, too.
    pub(crate) fn learn(&self, bytes: &[u8], media_type: &str, claimed: bool, since: Instant) {
        // Parsed outside of the lock.
        let named = manifest::named(bytes, media_type, claimed);
        let audience = self.audience();
        let mut ledger = self.grants.lock();
        for part in named {
            let (length, media_type) = (Some(part.size), part.media_type.map(Into::into));
            let known = Known { length, media_type, claimed: true };
            ledger.grant(&self.place, audience, part.digest, known, since);
        }
    }

    /// The origin refused a digest.
    pub(crate) fn refused_digest(&self, said: &Said, digest: Digest) {
        match said.status.as_u16() {
            404 => self.grants.lock().revoke_digest(&self.place, self.audience(), digest),
            _ => self.refused(said),
        }
    }

    /// The origin refused a manifest.
    pub(crate) fn refused_reference(&self, said: &Said, reference: &Reference) {
        match reference {
            Reference::Digest(digest) => {
                digest.sha256().iter().for_each(|digest| self.refused_digest(said, *digest));
            }
            Reference::Tag(tag) if said.status == 404 => {
                self.grants.lock().revoke_tag(&self.place, self.audience(), tag);
            }
            Reference::Tag(_) => self.refused(said),
        }
    }

    fn refused(&self, said: &Said) {
        if matches!(said.status.as_u16(), 401 | 403) {
            self.grants.lock().revoke(&self.place, self.audience());
        }
    }

    fn audience(&self) -> (Holder, Public) {
        (self.holder, holder::public(self.credentials))
    }
}
