//! What a node itself holds: its key, and the certificate that it has for it just now. The daemons open it,
//! enrol and renew with it; the transport makes its TLS settings from it once and goes on using them while the
//! certificate is swapped underneath.
//!
//! # Crash safety
//! `node.key` is made once; `node.pem` may be missing or old at any time, which only means to enrol again. So may
//! `authorities.pem`: without it the CA of the own certificate is believed alone.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use tokio::sync::watch;

use super::authority::{CLOCK_SKEW, make_key, read_key};
use super::tls::{self, Admits, Held, Slot};
use super::trust::Trust;
use super::{CertificateInfo, IdentityError, Roll, certificate, files};
use crate::digest::Digest;
use crate::node::NodeId;

const NEW_KEY: &str = "restore it from a backup or move it aside to start as a new node";
/// Over how long the certificates of a CA that goes are renewed: thousands of nodes hear of it at the same moment.
const SPREAD: Duration = Duration::from_secs(5 * 60);
const NEW_CERTIFICATE: &str = "move it aside to enrol the node again";

/// A node's key and its present certificate; a clone is another handle on the same.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

/// A certificate and its CA's that belong to the node's key.
type Checked = (CertificateDer<'static>, CertificateDer<'static>, CertificateInfo);

struct Inner {
    node: NodeId,
    key: KeyPair,
    signer: Arc<dyn SigningKey>,
    /// Where the certificate is kept; none for a temporary member.
    file: Option<PathBuf>,
    present: Slot,
    /// What supernodes said of the cluster's CAs, and where it is kept.
    trust: ArcSwap<Trust>,
    trust_file: Option<PathBuf>,
    /// When a certificate of a CA that goes is to be renewed.
    early: Mutex<Option<SystemTime>>,
    /// Told when other CAs are believed.
    changes: watch::Sender<()>,
    roll: Roll,
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
        let trust_file = dir.join("authorities.pem");
        let identity = Self::with_key(key, Some((file.clone(), trust_file.clone())))?;
        identity.0.trust.store(Arc::new(Trust::read(&trust_file)?));
        if let Some(bytes) = files::read(&file)? {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
            let chain = chain.ok().filter(|chain| chain.len() == 2).ok_or(IdentityError::Damaged {
                path: file.clone(),
                what: "certificate and CA certificate in PEM form",
                way_out: NEW_CERTIFICATE,
            })?;
            match identity.check(chain) {
                Ok((leaf, ca, info)) => {
                    let trust = identity.0.trust.load_full();
                    identity.hold(leaf, ca, info, &trust);
                }
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

    /// Takes a certificate (DER, leaf then CA) into use for all handshakes from now on, and keeps it: the renewal of one
    /// that is here, or a first one. A CA that it brings is believed beside those that are. A short blocking write.
    ///
    /// # Errors
    /// When it is not for this node's key, not signed by the CA beside it, or cannot be written.
    pub fn install(&self, chain: &[Vec<u8>]) -> Result<(), IdentityError> {
        let (leaf, ca, info) =
            self.check(chain.iter().map(|der| CertificateDer::from(der.clone())).collect())?;
        let _guard = self.0.installing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &self.0.file {
            let pems: Vec<_> = chain.iter().map(|der| Pem::new("CERTIFICATE", der.clone())).collect();
            let text = pem::encode_many_config(&pems, EncodeConfig::new().set_line_ending(LineEnding::LF));
            files::write_secret(file, text.as_bytes())?;
        }
        let mut trust = Trust::clone(&self.0.trust.load());
        let before = self.0.present.load().as_ref().map(|held| held.ca().clone()).filter(|old| *old != ca);
        if trust.anchors.is_empty() {
            trust.anchors.extend(before);
        }
        if !trust.anchors.is_empty() && !trust.has(info.ca_fingerprint) {
            trust.anchors.insert(0, ca.clone());
        }
        *self.0.early.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.hold(leaf, ca, info, &trust);
        self.believe(trust)
    }

    /// Takes the certificate that a proof was answered with: as [`Identity::install`], but of a CA that is not
    /// this cluster's it makes a member of another cluster, which has other CAs. `cluster` is the CA that the proof was for:
    /// while CAs change another one may issue, and the proof is none of another cluster for that.
    ///
    /// # Errors
    /// As [`Identity::install`].
    pub fn join(&self, chain: &[Vec<u8>], cluster: Digest) -> Result<(), IdentityError> {
        let (leaf, ca, info) =
            self.check(chain.iter().map(|der| CertificateDer::from(der.clone())).collect())?;
        let trust = self.0.trust.load_full();
        if !trust.has(info.ca_fingerprint) {
            let _guard = self.0.installing.lock().unwrap_or_else(PoisonError::into_inner);
            self.believe(Trust::default())?;
            // So that the CA that was here until now is not taken for one of the same cluster.
            self.hold(leaf, ca, info.clone(), &Trust::default());
        }
        self.install(chain)?;
        self.remember(cluster, info.ca_fingerprint)
    }

    /// That the CA `cluster` was this cluster's, if it is not believed anyway: the node must not take the proof that let it
    /// in for another cluster's, and join again and again.
    fn remember(&self, cluster: Digest, own: Digest) -> Result<(), IdentityError> {
        let _guard = self.0.installing.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut trust, held) = (Trust::clone(&self.0.trust.load()), self.0.present.load_full());
        if cluster == own || trust.has(cluster) {
            return Ok(());
        }
        if trust.anchors.is_empty() {
            // What is remembered is kept beside what is believed.
            trust.anchors.extend(held.map(|held| held.ca().clone()));
        }
        self.believe(trust.remembering(cluster))
    }

    /// Takes in what a supernode of this cluster says of its CAs: DER, the one that issues first, bridges anywhere. Says
    /// whether that is news. A short blocking write.
    ///
    /// # Errors
    /// When it makes no sense, or cannot be written.
    pub fn believe_authorities(&self, told: &[Vec<u8>]) -> Result<bool, IdentityError> {
        let _guard = self.0.installing.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, held) = (self.0.trust.load_full(), self.0.present.load_full());
        let own = held.as_ref().map(|held| held.info.ca_fingerprint);
        let trust = Trust::of(told)?.after(&old, own);
        if trust == *old {
            return Ok(false);
        }
        if let Some(held) = held {
            let leaf = held.certified.cert[0].clone();
            self.hold(leaf, held.ca().clone(), held.info.clone(), &trust);
            let outdated = Digest::of(&trust.anchors[0]) != held.info.ca_fingerprint;
            let spread = SPREAD.min(life(&held.info) / 3).mul_f64(rand::random());
            // One that nobody believes any more is of no use while it waits.
            let wait = if trust.has(held.info.ca_fingerprint) { spread } else { Duration::ZERO };
            *self.0.early.lock().unwrap_or_else(PoisonError::into_inner) =
                outdated.then(|| SystemTime::now() + wait);
        }
        self.believe(trust)?;
        Ok(true)
    }

    /// Whether this CA is the cluster's that the node is a member of: one that is believed, or was before.
    pub fn is_of_cluster(&self, ca: Digest) -> bool {
        let trust = self.0.trust.load();
        let own = self.certificate().is_some_and(|info| info.ca_fingerprint == ca);
        own || trust.has(ca) || trust.former.contains(&ca)
    }

    /// The fingerprints of the CAs that are believed.
    pub fn authorities(&self) -> Vec<Digest> {
        self.anchors().unwrap_or_default().iter().map(|ca| Digest::of(ca)).collect()
    }

    /// Told whenever other CAs are believed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Who is turned out: asked at every hello.
    pub fn roll(&self) -> &Roll {
        &self.0.roll
    }

    /// The present certificate, valid or not.
    pub fn certificate(&self) -> Option<CertificateInfo> {
        self.0.present.load().as_ref().map(|held| held.info.clone())
    }

    /// Whether there is a certificate that is valid at `now`.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.certificate().is_some_and(|info| info.not_before <= now && now <= info.not_after)
    }

    /// Whether it is time for another certificate: two thirds of this one's life are over, its CA goes, or there is
    /// none.
    pub fn renewal_due(&self, now: SystemTime) -> bool {
        let early = *self.0.early.lock().unwrap_or_else(PoisonError::into_inner);
        self.certificate().is_none_or(|info| {
            now + life(&info) / 3 >= info.not_after || early.is_some_and(|early| early <= now)
        })
    }

    /// TLS for accepting. It shows whatever certificate is present at each handshake and trusts the CAs that are
    /// believed now; make it anew when [`Identity::changes`] says so.
    ///
    /// # Errors
    /// When the node has no certificate yet.
    pub fn server_config(&self, admits: Admits) -> Result<rustls::ServerConfig, IdentityError> {
        tls::server_config(&self.0.present, &self.anchors()?, admits)
    }

    /// TLS for dialling members, with the same rule as [`Identity::server_config`].
    ///
    /// # Errors
    /// When the node has no certificate yet.
    pub fn client_config(&self) -> Result<rustls::ClientConfig, IdentityError> {
        tls::client_config(&self.0.present, &self.anchors()?)
    }

    /// TLS for an HTTP port that is open to others than members: they are asked for no certificate, and trust this one if
    /// they trust the cluster's CA. It shows whatever certificate is present at each handshake.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn web_config(&self) -> Result<rustls::ServerConfig, IdentityError> {
        tls::web_config(&self.0.present)
    }

    fn with_key(key: KeyPair, files: Option<(PathBuf, PathBuf)>) -> Result<Self, IdentityError> {
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = rustls::crypto::ring::sign::any_ecdsa_type(&der)
            .map_err(|error| IdentityError::Tls(error.to_string()))?;
        let node = NodeId::of_public_key(&key.subject_public_key_info());
        let (file, trust_file) = files.unzip();
        let inner = Inner {
            node,
            key,
            signer,
            file,
            present: Slot::default(),
            trust: ArcSwap::default(),
            trust_file,
            early: Mutex::default(),
            changes: watch::Sender::default(),
            roll: Roll::default(),
            installing: Mutex::default(),
        };
        Ok(Self(Arc::new(inner)))
    }

    fn anchors(&self) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let present = self.0.present.load();
        let held = present.as_ref().ok_or(IdentityError::NotEnrolled)?;
        let trust = self.0.trust.load();
        Ok(if trust.anchors.is_empty() { vec![held.ca().clone()] } else { trust.anchors.clone() })
    }

    /// Believes and keeps; nothing is kept where nothing was said.
    fn believe(&self, trust: Trust) -> Result<(), IdentityError> {
        if trust != **self.0.trust.load()
            && let Some(file) = &self.0.trust_file
        {
            match trust.anchors.is_empty() {
                true => files::remove(file)?,
                false => trust.write(file)?,
            }
        }
        self.0.trust.store(Arc::new(trust));
        self.0.changes.send_replace(());
        Ok(())
    }

    /// Shows this certificate from now on.
    fn hold(
        &self,
        leaf: CertificateDer<'static>,
        ca: CertificateDer<'static>,
        info: CertificateInfo,
        trust: &Trust,
    ) {
        let behind = trust.behind(&ca);
        let chain = [leaf, ca].into_iter().chain(behind).collect();
        let certified = Arc::new(CertifiedKey::new(chain, Arc::clone(&self.0.signer)));
        self.0.present.store(Some(Arc::new(Held { certified, info })));
    }

    fn check(&self, chain: Vec<CertificateDer<'static>>) -> Result<Checked, IdentityError> {
        let count = chain.len();
        let Ok([leaf, ca]) = <[_; 2]>::try_from(chain) else {
            let text = format!("a chain of {count} where the node's and the CA's are expected");
            return Err(IdentityError::Certificate(text));
        };
        let info = certificate::check_issued(self.0.node, &leaf, &ca)?;
        Ok((leaf, ca, info))
    }
}

/// How long a certificate was given out for: its beginning is dated back for clocks that are behind.
fn life(info: &CertificateInfo) -> Duration {
    let whole = info.not_after.duration_since(info.not_before).unwrap_or_default();
    whole.saturating_sub(CLOCK_SKEW)
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.certificate();
        f.debug_struct("Identity").field("node", &self.0.node).field("certificate", &certificate).finish()
    }
}
