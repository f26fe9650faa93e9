//! The cluster's certificate authority. It lives in the supernode only, which opens it at start and signs a
//! certificate for every node that brings a join token, and again when a member renews. While one CA takes over from
//! another it holds both (`rotation`); [`Authority::reload`] notices.
//!
//! # Invariants
//! - The names in a certificate are this module's; of a request only the key counts, once it has signed for
//!   itself.
//!
//! # Crash safety
//! See `rotation`. On the first start the key is written before the certificate. A key alone makes a certificate with the same name and key, so
//! that members' certificates still verify; a certificate alone or a pair that does not match is an error.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKey, PublicKeyData as _, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use time::OffsetDateTime;

use super::rotation::{Pair, Ring};
use super::{IdentityError, SUPERNODE_NAME, Sealer, files, server_name};
use crate::digest::Digest;
use crate::node::{NodeId, Role};

/// How long a node's certificate lasts: a revocation need not be told for longer, and reaches only who is there to hear it.
pub const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How far certificates are dated back, so that a node whose clock is behind believes them. An hour off is what happens: a
/// clock that was set in the wrong zone or without daylight saving, and is then right to some minutes. A clock that is ahead
/// by as much only renews earlier.
pub const CLOCK_SKEW: Duration = Duration::from_secs(90 * 60);

/// An uncompressed point of the P-256 curve.
const P256_POINT: usize = 65;

pub(super) const BACKUP: &str = "restore it from a backup or move the folder aside to start a new cluster";

/// The cluster's CA: its certificate and its key, and in a rotation those of the CA that goes.
pub struct Authority {
    dir: PathBuf,
    lifetime: Duration,
    ring: ArcSwap<Ring>,
    sealer: Sealer,
}

/// A certificate that was given out.
#[derive(Clone, Debug)]
pub struct Issued {
    /// To whom.
    pub node: NodeId,
    /// The certificate and the CA's, DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// Until when it is valid.
    pub expires: SystemTime,
}

// === impl Authority ===

impl Authority {
    /// Loads `ca.pem` and `ca.key` from `dir`, or makes them on first start.
    ///
    /// # Errors
    /// When the files cannot be read or written, or are not a CA and its key.
    pub fn open(dir: &Path) -> Result<Self, IdentityError> {
        let ring = Ring::open(dir)?;
        let sealer = Sealer::of(&ring);
        Ok(Self { dir: dir.to_owned(), lifetime: LIFETIME, ring: ArcSwap::from_pointee(ring), sealer })
    }

    /// The same, and its certificates last so long. For tests: a cluster's do for [`LIFETIME`].
    pub fn with_lifetime(self, lifetime: Duration) -> Self {
        Self { lifetime, ..self }
    }

    /// Looks at the files again; says whether a rotation has begun or ended.
    ///
    /// # Errors
    /// When the files cannot be read: what was there is still used.
    pub fn reload(&self) -> Result<bool, IdentityError> {
        let ring =
            Ring::load(&self.dir)?.ok_or_else(|| IdentityError::AuthorityKeyMissing(self.dir.clone()))?;
        if ring.same_as(&self.ring.load()) {
            return Ok(false);
        }
        self.sealer.set(&ring);
        self.ring.store(Arc::new(ring));
        Ok(true)
    }

    /// Who gives this cluster's word.
    pub(super) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// What members are told: the CA that issues, and in a rotation the one that goes and the bridge between them.
    pub fn told(&self) -> Vec<Vec<u8>> {
        let ring = self.ring.load();
        let former =
            ring.former.iter().flat_map(|(former, bridge)| [former.certificate.to_vec(), bridge.to_vec()]);
        std::iter::once(ring.present.certificate.to_vec()).chain(former).collect()
    }

    /// Whether members of the CA with this fingerprint are members here.
    pub fn is_ours(&self, ca: Digest) -> bool {
        let ring = self.ring.load();
        ring.present.fingerprint() == ca || ring.former.iter().any(|(former, _)| former.fingerprint() == ca)
    }

    /// The node whose key a certificate request is for.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn node_of(csr_der: &[u8]) -> Result<NodeId, IdentityError> {
        Ok(NodeId::of_public_key(&requested(csr_der)?.subject_public_key_info()))
    }

    /// SHA-256 of the CA's certificate: what join tokens carry.
    pub fn fingerprint(&self) -> Digest {
        self.ring.load().present.fingerprint()
    }

    /// The CA's certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.ring.load().present.certificate.clone()
    }

    /// Signs a certificate of the usual lifetime for the key of a PKCS #10 request.
    ///
    /// # Errors
    /// When the request is malformed, not signed by its own key, or the key is not P-256.
    pub fn issue(&self, csr_der: &[u8], role: Role, now: SystemTime) -> Result<Issued, IdentityError> {
        self.issue_for(csr_der, role, now, self.lifetime)
    }

    /// The same for a member that speaks an old version of the protocol: before version 2 nobody is told of a CA that
    /// takes over, so the one that goes issues as long as it may.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn renew(&self, csr_der: &[u8], now: SystemTime, version: u16) -> Result<Issued, IdentityError> {
        let ring = self.ring.load_full();
        let pair = match &ring.former {
            Some((former, _)) if version < 2 => former,
            _ => &ring.present,
        };
        issue(pair, csr_der, Role::Peer, (now, self.lifetime))
    }

    /// As [`Authority::issue`], with a lifetime of the caller's choice.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_for(
        &self,
        csr_der: &[u8],
        role: Role,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Issued, IdentityError> {
        issue(&self.ring.load().present, csr_der, role, (now, lifetime))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

fn issue(
    authority: &Pair,
    csr_der: &[u8],
    role: Role,
    (now, lifetime): (SystemTime, Duration),
) -> Result<Issued, IdentityError> {
    let key = requested(csr_der)?;
    let node = NodeId::of_public_key(&key.subject_public_key_info());
    let mut names = vec![server_name(node)];
    if role == Role::Supernode {
        names.push(SUPERNODE_NAME.to_owned());
    }

    let expires = now.checked_add(lifetime).ok_or(IdentityError::Clock)?;
    let mut params = params(&node.to_string(), now, expires)?;
    for name in names {
        let name = Ia5String::try_from(name).map_err(IdentityError::Making)?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let expires = SystemTime::from(params.not_after);
    let leaf = params.signed_by(&key, &authority.issuer).map_err(IdentityError::Making)?;
    Ok(Issued { node, chain: vec![leaf.der().to_vec(), authority.certificate.to_vec()], expires })
}

/// The key of a request that has signed for itself.
fn requested(csr_der: &[u8]) -> Result<PublicKey, IdentityError> {
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
        .map_err(|error| IdentityError::Request(error.to_string()))?;
    let key = request.public_key;
    if *key.algorithm() != PKCS_ECDSA_P256_SHA256 || key.der_bytes().len() != P256_POINT {
        return Err(IdentityError::Request("its key is not ECDSA P-256".to_owned()));
    }
    Ok(key)
}

/// Reads a private key; `None` when there is no such file.
pub(super) fn read_key(path: &Path, way_out: &'static str) -> Result<Option<KeyPair>, IdentityError> {
    let Some(bytes) = files::read_secret(path)? else { return Ok(None) };
    // What is wrong with a key file is not repeated: its text might be the key.
    let key = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|pem| KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).ok());
    key.map(Some).ok_or_else(|| IdentityError::Damaged {
        path: path.to_owned(),
        what: "P-256 private key in PEM (PKCS #8) form",
        way_out,
    })
}

/// Makes a private key and keeps it.
pub(super) fn make_key(path: &Path) -> Result<KeyPair, IdentityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Making)?;
    files::write_secret(path, key.serialize_pem().as_bytes())?;
    Ok(key)
}

/// What both kinds of certificates have.
pub(super) fn params(
    common_name: &str,
    now: SystemTime,
    expires: SystemTime,
) -> Result<CertificateParams, IdentityError> {
    let mut serial: [u8; 16] = rand::random();
    serial[0] &= 0x7f; // a serial number is positive
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = date(now.checked_sub(CLOCK_SKEW).unwrap_or(UNIX_EPOCH))?;
    params.not_after = date(expires)?;
    Ok(params)
}

/// In whole seconds, as certificates have it.
fn date(time: SystemTime) -> Result<OffsetDateTime, IdentityError> {
    let seconds = time.duration_since(UNIX_EPOCH).map_err(|_| IdentityError::Clock)?.as_secs();
    let seconds = i64::try_from(seconds).map_err(|_| IdentityError::Clock)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| IdentityError::Clock)
}
