//! The CA's files, and how one CA takes over from another: `longshore ca` begins and ends a rotation here, the running
//! supernodes' [`super::Authority`] reads what is there.
//!
//! `ca.pem` and `ca.key` are the cluster's CA. A rotation puts `ca-next.pem` beside them: the next CA's key, its
//! certificate, and the bridge, which is the same CA signed by the present one. From then on the next CA issues, and both
//! are believed. Who has heard of neither step believes the next CA's certificates over the bridge. The end of the
//! rotation moves the next CA to `ca.pem` and `ca.key`.
//!
//! # Crash safety
//! `ca-next.pem` is one file, written whole, so a rotation has begun or not. It ends with `ca.key`, then `ca.pem`, then the
//! removal: as soon as `ca.key` is the next CA's, the rotation counts as ended, and ending it again completes it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::authority::{BACKUP, CLOCK_SKEW, LIFETIME, make_key, params, read_key};
use super::{IdentityError, certificate, files};
use crate::digest::Digest;

/// How long the CA lasts: as long as a cluster.
const CA_LIFETIME: Duration = Duration::from_secs(3652 * 24 * 60 * 60);
/// The next CA's file.
const NEXT: &str = "ca-next.pem";

/// A CA: its certificate, its key, and what signs.
pub(super) struct Pair {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

/// The CAs of a cluster at some time.
#[derive(Clone)]
pub(super) struct Ring {
    /// The one that issues.
    pub(super) present: Arc<Pair>,
    /// The one that it takes over from, and the bridge from that one.
    pub(super) former: Option<(Arc<Pair>, CertificateDer<'static>)>,
}

/// Begins and ends rotations in a cluster's folder.
pub struct Rotation<'a>(&'a Path);

/// What `longshore ca status` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationStatus {
    /// The CA that issues.
    pub present: Digest,
    /// Until when its certificate is good.
    pub expires: SystemTime,
    /// While a rotation goes on: the CA that goes, and when the rotation may end.
    pub former: Option<(Digest, SystemTime)>,
}

// === impl Pair ===

impl Pair {
    /// SHA-256 of the certificate.
    pub(super) fn fingerprint(&self) -> Digest {
        Digest::of(&self.certificate)
    }

    /// `None` when there is no certificate and nothing speaks against making one.
    fn load(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let (pem_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        let Some(pem) = files::read(&pem_path)? else { return Ok(None) };
        let Some(key) = read_key(&key_path, BACKUP)? else {
            return Err(IdentityError::AuthorityKeyMissing(dir.to_owned()));
        };
        let damaged = || IdentityError::Damaged {
            path: pem_path.clone(),
            what: "CA certificate in PEM form",
            way_out: BACKUP,
        };
        let certificate = CertificateDer::from_pem_slice(&pem).map_err(|_| damaged())?;
        if certificate::public_key(&certificate).map_err(|_| damaged())? != key.subject_public_key_info() {
            return Err(IdentityError::AuthorityMismatch(dir.to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| damaged())?;
        Ok(Some(Self { certificate, issuer }))
    }

    fn make(dir: &Path) -> Result<Self, IdentityError> {
        let (pem_path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        let key = match read_key(&key_path, BACKUP)? {
            Some(key) => {
                tracing::warn!(dir = %dir.display(),
                    "ca.key has no ca.pem beside it: making a new certificate, older join tokens end here");
                key
            }
            None => make_key(&key_path)?,
        };
        let params = authority_params(&key, SystemTime::now())?;
        let certificate = params.self_signed(&key).map_err(IdentityError::Making)?;
        files::write_secret(&pem_path, certificate.pem().as_bytes())?;
        tracing::info!(dir = %dir.display(), "made the cluster's CA: back up ca.key and ca.pem");
        Ok(Self { certificate: certificate.into(), issuer: Issuer::new(params, key) })
    }
}

// === impl Ring ===

impl Ring {
    /// What is in the folder; `None` where there is no CA yet.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>, IdentityError> {
        let alone = |present| Self { present: Arc::new(present), former: None };
        let Some((next, bridge)) = read_next(dir)? else { return Ok(Pair::load(dir)?.map(alone)) };
        let taken_over = read_key(&dir.join("ca.key"), BACKUP)?
            .is_some_and(|key| key.subject_public_key_info() == next.issuer.key().subject_public_key_info());
        if taken_over {
            return Ok(Some(alone(next)));
        }
        let former = Pair::load(dir)?.ok_or_else(|| IdentityError::AuthorityKeyMissing(dir.to_owned()))?;
        Ok(Some(Self { present: Arc::new(next), former: Some((Arc::new(former), bridge)) }))
    }

    /// What is in the folder, or a new CA.
    pub(super) fn open(dir: &Path) -> Result<Self, IdentityError> {
        if let Some(ring) = Self::load(dir)? {
            return Ok(ring);
        }
        files::make_folder(dir)?;
        // Two that start at once in one folder must not write halves of two pairs.
        let _lock = lock(dir)?;
        match Self::load(dir)? {
            Some(ring) => Ok(ring),
            None => Ok(Self { present: Arc::new(Pair::make(dir)?), former: None }),
        }
    }

    pub(super) fn same_as(&self, other: &Self) -> bool {
        let names = |ring: &Self| {
            (ring.present.fingerprint(), ring.former.as_ref().map(|(former, _)| former.fingerprint()))
        };
        names(self) == names(other)
    }
}

// === impl Rotation ===

impl<'a> Rotation<'a> {
    /// The rotation in a cluster's folder.
    pub fn of(dir: &'a Path) -> Self {
        Self(dir)
    }

    /// How things stand.
    ///
    /// # Errors
    /// When there is no CA, or its files cannot be read.
    pub fn status(&self) -> Result<RotationStatus, IdentityError> {
        let ring = self.ring()?;
        let (since, expires) = certificate::validity(&ring.present.certificate)?;
        let former = ring.former.map(|(former, _)| (former.fingerprint(), since + CLOCK_SKEW + LIFETIME));
        Ok(RotationStatus { present: ring.present.fingerprint(), expires, former })
    }

    /// Makes the next CA, which issues from now on.
    ///
    /// # Errors
    /// When a rotation goes on, or the folder cannot be written.
    pub fn begin(&self, now: SystemTime) -> Result<(), IdentityError> {
        let _lock = lock(self.0)?;
        let present = self.ring()?.present;
        if files::read(&self.0.join(NEXT))?.is_some() {
            return Err(IdentityError::Rotation(
                "a rotation of the CA goes on already: end it with `longshore ca finish`".to_owned(),
            ));
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Making)?;
        let params = authority_params(&key, now)?;
        let own = params.self_signed(&key).map_err(IdentityError::Making)?;
        let bridge = params.signed_by(&key, &present.issuer).map_err(IdentityError::Making)?;
        let blocks = [
            Pem::new("PRIVATE KEY", key.serialize_der()),
            Pem::new("CERTIFICATE", own.der().to_vec()),
            Pem::new("CERTIFICATE", bridge.der().to_vec()),
        ];
        let text = pem::encode_many_config(&blocks, EncodeConfig::new().set_line_ending(LineEnding::LF));
        files::write_secret(&self.0.join(NEXT), text.as_bytes())
    }

    /// Ends the rotation: the former CA is believed no more. Before the former CA's last certificate has ended that cuts
    /// off the nodes that have been away, and has to be forced.
    ///
    /// # Errors
    /// When no rotation goes on, it is too early, or the folder cannot be written.
    pub fn finish(&self, now: SystemTime, force: bool) -> Result<(), IdentityError> {
        let _lock = lock(self.0)?;
        let Some((next, _)) = read_next(self.0)? else {
            return Err(IdentityError::Rotation(
                "no rotation of the CA goes on: begin one with `longshore ca rotate`".to_owned(),
            ));
        };
        let early = self.status()?.former.and_then(|(_, ready)| ready.duration_since(now).ok());
        if let Some(early) = early.filter(|early| !early.is_zero() && !force) {
            let minutes = early.as_secs().div_ceil(60);
            return Err(IdentityError::Rotation(format!(
                "certificates of the former CA may be good for another {} h {} min: wait, or cut off the nodes that have \
                 not renewed with --force",
                minutes / 60,
                minutes % 60
            )));
        }
        let certificate = Pem::new("CERTIFICATE", next.certificate.to_vec());
        let certificate =
            pem::encode_config(&certificate, EncodeConfig::new().set_line_ending(LineEnding::LF));
        files::write_secret(&self.0.join("ca.key"), next.issuer.key().serialize_pem().as_bytes())?;
        files::write_secret(&self.0.join("ca.pem"), certificate.as_bytes())?;
        files::remove(&self.0.join(NEXT))
    }

    fn ring(&self) -> Result<Ring, IdentityError> {
        Ring::load(self.0)?.ok_or_else(|| IdentityError::AuthorityKeyMissing(self.0.to_owned()))
    }
}

/// The next CA and the bridge to it, while a rotation goes on.
fn read_next(dir: &Path) -> Result<Option<(Pair, CertificateDer<'static>)>, IdentityError> {
    let path = dir.join(NEXT);
    let Some(bytes) = files::read_secret(&path)? else { return Ok(None) };
    let next = || {
        let key = KeyPair::from_pem_and_sign_algo(std::str::from_utf8(&bytes).ok()?, &PKCS_ECDSA_P256_SHA256)
            .ok()?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let [own, bridge] = <[_; 2]>::try_from(certificates.ok()?).ok()?;
        let public = key.subject_public_key_info();
        let ours = |certificate| certificate::public_key(certificate).is_ok_and(|key| key == public);
        if !ours(&own) || !ours(&bridge) {
            return None;
        }
        let issuer = Issuer::from_ca_cert_der(&own, key).ok()?;
        Some((Pair { certificate: own, issuer }, bridge))
    };
    next().map(Some).ok_or(IdentityError::Damaged {
        path,
        what: "next CA with its key and bridge",
        way_out: "restore it from a backup, or move it aside to give the rotation up",
    })
}

fn lock(dir: &Path) -> Result<std::fs::File, IdentityError> {
    files::lock(&dir.join("ca.lock"))
}

/// What a CA's certificate says, by whomever it is signed.
fn authority_params(key: &KeyPair, now: SystemTime) -> Result<CertificateParams, IdentityError> {
    let id = Digest::of(&key.subject_public_key_info()).hex();
    let expires = now.checked_add(CA_LIFETIME).unwrap_or(UNIX_EPOCH);
    let mut params = params(&format!("Longshore cluster CA {}", &id[..8]), now, expires)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}
