//! What a node itself holds: its key, and the certificate that it has for it just now. The daemons open it,
//! enrol and renew with it; the transport makes its TLS settings from it once and goes on using them while the
//! certificate is swapped underneath.
//!
//! # Crash safety
//! `node.key` is made once; `node.pem` may be missing or old at any time, which only means to enrol again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use super::authority::{make_key, read_key};
use super::tls::{self, Admits, Held, Slot};
use super::{CertificateInfo, IdentityError, certificate, files};
use crate::node::NodeId;

const NEW_KEY: &str = "restore it from a backup or move it aside to start as a new node";
const NEW_CERTIFICATE: &str = "move it aside to enrol the node again";

/// A node's key and its present certificate; a clone is another handle on the same.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    node: NodeId,
    key: KeyPair,
    signer: Arc<dyn SigningKey>,
    /// Where the certificate is kept; none for a temporary member.
    file: Option<PathBuf>,
    present: Slot,
    /// Held while a certificate is installed, so that file and memory end with the same one.
    installing: Mutex<()>,
}

// === impl Identity ===

impl Identity {
    /// Loads `node.key` from `dir` or makes it, and `node.pem` if there is one that belongs to the key. An
    /// expired certificate is kept; [`Identity::is_valid`] tells.
    ///
    /// # Errors
    /// When a file cannot be read or written, or holds something else.
    pub fn open(dir: &Path) -> Result<Self, IdentityError> {
        files::make_folder(dir)?;
        let key_path = dir.join("node.key");
        let key = match read_key(&key_path, NEW_KEY)? {
            Some(key) => key,
            None => make_key(&key_path)?,
        };
        let file = dir.join("node.pem");
        let identity = Self::with_key(key, Some(file.clone()))?;
        if let Some(bytes) = files::read(&file)? {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
            let chain = chain.ok().filter(|chain| chain.len() == 2).ok_or(IdentityError::Damaged {
                path: file.clone(),
                what: "certificate and CA certificate in PEM form",
                way_out: NEW_CERTIFICATE,
            })?;
            match identity.check(chain) {
                Ok(held) => identity.0.present.store(Some(Arc::new(held))),
                Err(error) => tracing::warn!(path = %file.display(), %error,
                    "the certificate kept here is not for this node's key: the node must enrol again"),
            }
        }
        Ok(identity)
    }

    /// A key in memory only, for temporary members.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn ephemeral() -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Making)?;
        Self::with_key(key, None)
    }

    /// This node's id.
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// A certificate request (PKCS #10, DER), signed with the node's key.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn csr(&self) -> Result<Vec<u8>, IdentityError> {
        let mut params = CertificateParams::default();
        // The names are the CA's to give.
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.0.key).map_err(IdentityError::Making)?;
        Ok(request.der().to_vec())
    }

    /// Takes a certificate (DER, leaf then CA) into use for all handshakes from now on, and keeps it. A short
    /// blocking write.
    ///
    /// # Errors
    /// When it is not for this node's key, not signed by the CA beside it, or cannot be written.
    pub fn install(&self, chain: &[Vec<u8>]) -> Result<(), IdentityError> {
        let held = self.check(chain.iter().map(|der| CertificateDer::from(der.clone())).collect())?;
        let _guard = self.0.installing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &self.0.file {
            let pems: Vec<_> = chain.iter().map(|der| Pem::new("CERTIFICATE", der.clone())).collect();
            let text = pem::encode_many_config(&pems, EncodeConfig::new().set_line_ending(LineEnding::LF));
            files::write_secret(file, text.as_bytes())?;
        }
        self.0.present.store(Some(Arc::new(held)));
        Ok(())
    }

    /// The present certificate, valid or not.
    pub fn certificate(&self) -> Option<CertificateInfo> {
        self.0.present.load().as_ref().map(|held| held.info.clone())
    }

    /// Whether there is a certificate that is valid at `now`.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.certificate().is_some_and(|info| info.not_before <= now && now <= info.not_after)
    }

    /// Whether it is time for another certificate: two thirds of this one's life are over, or there is none.
    pub fn renewal_due(&self, now: SystemTime) -> bool {
        self.certificate().is_none_or(|info| {
            let life = info.not_after.duration_since(info.not_before).unwrap_or_default();
            now >= info.not_before + life * 2 / 3
        })
    }

    /// TLS for accepting. It shows whatever certificate is present at each handshake and trusts the CA that is
    /// present now; make it anew after joining another cluster.
    ///
    /// # Errors
    /// When the node has no certificate yet.
    pub fn server_config(&self, admits: Admits) -> Result<rustls::ServerConfig, IdentityError> {
        tls::server_config(&self.0.present, &self.authority()?, admits)
    }

    /// TLS for dialling members, with the same rule as [`Identity::server_config`].
    ///
    /// # Errors
    /// When the node has no certificate yet.
    pub fn client_config(&self) -> Result<rustls::ClientConfig, IdentityError> {
        tls::client_config(&self.0.present, &self.authority()?)
    }

    /// TLS for an HTTP port that is open to others than members: they are asked for no certificate, and trust this one if
    /// they trust the cluster's CA. It shows whatever certificate is present at each handshake.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn web_config(&self) -> Result<rustls::ServerConfig, IdentityError> {
        tls::web_config(&self.0.present)
    }

    fn with_key(key: KeyPair, file: Option<PathBuf>) -> Result<Self, IdentityError> {
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = rustls::crypto::ring::sign::any_ecdsa_type(&der)
            .map_err(|error| IdentityError::Tls(error.to_string()))?;
        let node = NodeId::of_public_key(&key.subject_public_key_info());
        let (present, installing) = (Slot::default(), Mutex::new(()));
        Ok(Self(Arc::new(Inner { node, key, signer, file, present, installing })))
    }

    fn authority(&self) -> Result<CertificateDer<'static>, IdentityError> {
        let present = self.0.present.load();
        present.as_ref().map(|held| held.ca().clone()).ok_or(IdentityError::NotEnrolled)
    }

    fn check(&self, chain: Vec<CertificateDer<'static>>) -> Result<Held, IdentityError> {
        let [leaf, ca] = chain.as_slice() else {
            let text = format!("a chain of {} where the node's and the CA's are expected", chain.len());
            return Err(IdentityError::Certificate(text));
        };
        let info = certificate::check_issued(self.0.node, leaf, ca)?;
        Ok(Held { certified: Arc::new(CertifiedKey::new(chain, Arc::clone(&self.0.signer))), info })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.certificate();
        f.debug_struct("Identity").field("node", &self.0.node).field("certificate", &certificate).finish()
    }
}
