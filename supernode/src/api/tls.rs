//! TLS for the supernode's HTTP port: with a certificate from files, which may be renewed under way, or with the one that
//! the cluster's CA gave this node. Given to the HTTP server by the daemon.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use common::identity::Identity;
use peer::daemon::DaemonError;
use peer::http::Listener;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, crypto::ring};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Who connects begins at once.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What we speak over it.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// The node's own, from the cluster's CA: its name is `supernode.longshore`.
    Cluster,
    /// PEM files: the chain, leaf first, and its key.
    Files {
        /// The chain.
        chain: PathBuf,
        /// The key.
        key: PathBuf,
    },
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The files are not what they should be.
    #[error(
        "cannot use {chain} with {key} for HTTPS: {reason}; --http-cert wants a PEM chain, --http-key its key",
        chain = chain.display(), key = key.display()
    )]
    Files {
        /// The chain's file.
        chain: PathBuf,
        /// The key's.
        key: PathBuf,
        /// What is wrong; nothing of the key is in it.
        reason: String,
    },
    /// The node's own certificate.
    #[error(transparent)]
    Identity(#[from] common::identity::IdentityError),
}

impl From<TlsError> for DaemonError {
    fn from(error: TlsError) -> Self {
        Self::Other(Box::new(error))
    }
}

/// A TCP port that speaks TLS.
pub struct TlsListener {
    port: TcpListener,
    acceptor: TlsAcceptor,
}

/// The certificate in the files, read again when they change.
struct FromFiles {
    chain: PathBuf,
    key: PathBuf,
    known: Mutex<Known>,
}

struct Known {
    certified: Arc<CertifiedKey>,
    written: Option<SystemTime>,
}

// === impl TlsListener ===

impl TlsListener {
    /// Speaks TLS on the port.
    ///
    /// # Errors
    /// When the certificate cannot be had.
    pub fn new(port: TcpListener, certificate: Certificate, own: &Identity) -> Result<Self, TlsError> {
        let mut config = match certificate {
            Certificate::Cluster => own.web_config()?,
            Certificate::Files { chain, key } => {
                let resolver = Arc::new(FromFiles::open(chain, key)?);
                let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
                let builder = builder.with_safe_default_protocol_versions();
                let builder = builder.expect("invariant: ring speaks TLS 1.2 and 1.3");
                builder.with_no_client_auth().with_cert_resolver(resolver)
            }
        };
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Self { port, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

impl Listener for TlsListener {
    type Raw = TcpStream;
    type Stream = TlsStream<TcpStream>;

    async fn next(&self) -> std::io::Result<TcpStream> {
        self.port.next().await
    }

    fn open(
        &self,
        stream: TcpStream,
    ) -> impl Future<Output = std::io::Result<Self::Stream>> + Send + 'static {
        let acceptor = self.acceptor.clone();
        async move {
            let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
            timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await.map_err(late)?
        }
    }
}

// === impl FromFiles ===

impl FromFiles {
    fn open(chain: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let written = written(&chain);
        let known = Mutex::new(Known { certified: read(&chain, &key)?, written });
        Ok(Self { chain, key, known })
    }
}

impl ResolvesServerCert for FromFiles {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let now = written(&self.chain);
        if now != known.written {
            known.written = now;
            match read(&self.chain, &self.key) {
                Ok(certified) => known.certified = certified,
                // Its key may be written in a moment; the old pair is good until then.
                Err(error) => tracing::warn!("the HTTPS certificate stays what it was: {error}"),
            }
        }
        Some(known.certified.clone())
    }
}

impl fmt::Debug for FromFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FromFiles({})", self.chain.display())
    }
}

fn written(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn read(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
    let failed = |reason: String| TlsError::Files { chain: chain.to_owned(), key: key.to_owned(), reason };
    let pem = |error: rustls::pki_types::pem::Error| failed(error.to_string());
    let certificates = CertificateDer::pem_file_iter(chain).map_err(pem)?.collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(pem)?;
    if certificates.is_empty() {
        return Err(failed("there is no certificate in it".to_owned()));
    }
    // What is wrong with a key file is not repeated: its text might be the key.
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|_| failed("there is no private key in it".to_owned()))?;
    let certified = CertifiedKey::from_der(certificates, secret, &ring::default_provider());
    certified.map(Arc::new).map_err(|error| failed(error.to_string()))
}
