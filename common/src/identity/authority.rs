//! The cluster's certificate authority. It lives in the supernode only, which opens it at start and signs a
//! certificate for every node that brings a join token, and again when a member renews.
//!
//! # Invariants
//! - The names in a certificate are this module's; of a request only the key counts, once it has signed for
//!   itself.
//!
//! # Crash safety
//! The key is written before the certificate. A key alone makes a certificate with the same name and key, so
//! that members' certificates still verify; a certificate alone or a pair that does not match is an error.

use std::fmt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData as _, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use time::OffsetDateTime;

use super::{IdentityError, SUPERNODE_NAME, certificate, files, server_name};
use crate::digest::Digest;
use crate::node::{NodeId, Role};

/// How long a node's certificate lasts: there is no revocation, so a lost key must be worth little.
pub const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the CA lasts: as long as a cluster.
const CA_LIFETIME: Duration = Duration::from_secs(3652 * 24 * 60 * 60);

/// How far a node's clock may be behind the supernode's.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// An uncompressed point of the P-256 curve.
const P256_POINT: usize = 65;

const BACKUP: &str = "restore it from a backup or move the folder aside to start a new cluster";

/// The cluster's CA: its certificate and its key.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
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
        if let Some(authority) = Self::load(dir)? {
            return Ok(authority);
        }
        files::make_folder(dir)?;
        // Two that start at once in one folder must not write halves of two pairs.
        let _lock = files::lock(&dir.join("ca.lock"))?;
        match Self::load(dir)? {
            Some(authority) => Ok(authority),
            None => Self::make(dir),
        }
    }

    /// SHA-256 of the CA's certificate: what join tokens carry.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.certificate)
    }

    /// The CA's certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// The CA's private key, PKCS #8 DER: for [`super::Sealer`] alone.
    pub(super) fn key_der(&self) -> Vec<u8> {
        self.issuer.key().serialize_der()
    }

    /// Signs a certificate of [`LIFETIME`] for the key of a PKCS #10 request.
    ///
    /// # Errors
    /// When the request is malformed, not signed by its own key, or the key is not P-256.
    pub fn issue(&self, csr_der: &[u8], role: Role, now: SystemTime) -> Result<Issued, IdentityError> {
        self.issue_for(csr_der, role, now, LIFETIME)
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
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
            .map_err(|error| IdentityError::Request(error.to_string()))?;
        let key = request.public_key;
        if *key.algorithm() != PKCS_ECDSA_P256_SHA256 || key.der_bytes().len() != P256_POINT {
            return Err(IdentityError::Request("its key is not ECDSA P-256".to_owned()));
        }
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
        let leaf = params.signed_by(&key, &self.issuer).map_err(IdentityError::Making)?;
        Ok(Issued { node, chain: vec![leaf.der().to_vec(), self.certificate.to_vec()], expires })
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
        let now = SystemTime::now();
        let id = Digest::of(&key.subject_public_key_info()).hex();
        let mut params = params(&format!("Longshore cluster CA {}", &id[..8]), now, now + CA_LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(IdentityError::Making)?;
        files::write_secret(&pem_path, certificate.pem().as_bytes())?;
        tracing::info!(dir = %dir.display(), "made the cluster's CA: back up ca.key and ca.pem");
        Ok(Self { certificate: certificate.into(), issuer: Issuer::new(params, key) })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
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
fn params(
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
