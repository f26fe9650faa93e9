//! Which CAs a node believes: the one of its own certificate, and while one CA takes over from another, those that its
//! supernode named. [`super::Identity`] holds it and keeps it on disk; TLS settings are made of it.
//!
//! # The bridge
//! The next CA is also signed by the present one. Nodes show that certificate, the bridge, behind their own, so that who
//! has not heard of the next CA yet believes its certificates on the present one's word.

use std::path::Path;

use pem::{EncodeConfig, LineEnding, Pem};
use rustls::pki_types::CertificateDer;

use super::{IdentityError, certificate, files};
use crate::digest::Digest;

/// Two CAs and the bridge between them are what there is; twice that leaves room for what comes.
const MOST: usize = 6;
/// A CA's certificate has some 400 bytes.
const LONGEST: usize = 4096;
/// Former CAs that are remembered: a cluster that rotates every month for years.
const REMEMBERED: usize = 64;

const CERTIFICATE: &str = "CERTIFICATE";
const FORMER: &str = "LONGSHORE FORMER CA FINGERPRINT";

/// What a supernode said of its cluster's CAs; empty before one has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Trust {
    /// The CAs, the one that issues first.
    pub(super) anchors: Vec<CertificateDer<'static>>,
    /// CAs on another CA's word.
    pub(super) bridges: Vec<CertificateDer<'static>>,
    /// Fingerprints of this cluster's CAs of former times: a join token of one is no token of another cluster.
    pub(super) former: Vec<Digest>,
}

// === impl Trust ===

impl Trust {
    /// Reads what a supernode said.
    ///
    /// # Errors
    /// When it is too much, or no CA is in it.
    pub(super) fn of(told: &[Vec<u8>]) -> Result<Self, IdentityError> {
        let refused = |why: &str| IdentityError::Certificate(why.to_owned());
        if told.len() > MOST || told.iter().any(|der| der.len() > LONGEST) {
            return Err(refused("too many CAs, or too long ones"));
        }
        let mut trust = Self::default();
        for der in told {
            let der = CertificateDer::from(der.clone());
            match certificate::authority_kind(&der)? {
                certificate::AuthorityKind::Root => trust.anchors.push(der),
                certificate::AuthorityKind::Bridge => trust.bridges.push(der),
            }
        }
        if trust.anchors.is_empty() { Err(refused("no CA is named")) } else { Ok(trust) }
    }

    /// The same, with the CAs of `old` that are no more remembered as former ones.
    pub(super) fn after(mut self, old: &Self, own: Option<Digest>) -> Self {
        let gone = old.anchors.iter().map(|ca| Digest::of(ca)).chain(own).chain(old.former.iter().copied());
        for ca in gone {
            self = self.remembering(ca);
        }
        self
    }

    /// The same, and this CA, if it is not believed, was one of the cluster's.
    pub(super) fn remembering(mut self, ca: Digest) -> Self {
        if !self.has(ca) && !self.former.contains(&ca) && self.former.len() < REMEMBERED {
            self.former.push(ca);
        }
        self
    }

    /// Whether it is believed.
    pub(super) fn has(&self, ca: Digest) -> bool {
        self.anchors.iter().any(|anchor| Digest::of(anchor) == ca)
    }

    /// What is shown behind a certificate of the CA `own`.
    pub(super) fn behind(&self, own: &CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        if self.anchors.len() < 2 {
            return Vec::new();
        }
        self.bridges.iter().chain(self.anchors.iter().filter(|ca| *ca != own)).cloned().collect()
    }

    /// What was kept in a file.
    pub(super) fn read(path: &Path) -> Result<Self, IdentityError> {
        let Some(bytes) = files::read(path)? else { return Ok(Self::default()) };
        let kept = pem::parse_many(&bytes).ok().and_then(|blocks| {
            let certificates = blocks.iter().filter(|block| block.tag() == CERTIFICATE);
            let mut trust =
                Self::of(&certificates.map(|block| block.contents().to_vec()).collect::<Vec<_>>()).ok()?;
            for block in blocks.iter().filter(|block| block.tag() == FORMER).take(REMEMBERED) {
                trust.former.push(Digest(block.contents().try_into().ok()?));
            }
            Some(trust)
        });
        kept.ok_or_else(|| IdentityError::Damaged {
            path: path.to_owned(),
            what: "CA certificates in PEM form",
            way_out: "move it aside: the supernode names the CAs again",
        })
    }

    /// Keeps it.
    pub(super) fn write(&self, path: &Path) -> Result<(), IdentityError> {
        let certificates =
            self.anchors.iter().chain(&self.bridges).map(|der| Pem::new(CERTIFICATE, der.to_vec()));
        let former = self.former.iter().map(|ca| Pem::new(FORMER, ca.0.to_vec()));
        let blocks: Vec<_> = certificates.chain(former).collect();
        let text = pem::encode_many_config(&blocks, EncodeConfig::new().set_line_ending(LineEnding::LF));
        files::write_secret(path, text.as_bytes())
    }
}
