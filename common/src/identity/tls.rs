//! TLS settings for the three ways to meet: member with member, stranger with supernode, supernode with both.
//! Called by [`super::Identity`] and, for strangers, by whoever enrols.
//!
//! # Invariants
//! - No resumption and no early data: a resumed session would not look at certificates again, and so outlive
//!   them.
//! - A stranger trusts one certificate, the one whose digest its token carries or whose file it was given, and the CA that
//!   this one hands over to.

use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwapOption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion, WantsVerifier,
};

use super::{CertificateInfo, IdentityError};
use crate::digest::Digest;
use crate::wire::{enrol, hello};

const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// Ring, with AES-128 in front: the cheapest suite per byte on machines with AES instructions, and bulk bytes
/// are what these connections carry.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let cipher_suites = vec![
        ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..ring::default_provider() })
});

/// Whom a listener lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admits {
    /// Members only: a client certificate is required.
    Members,
    /// Members, and strangers that come to enrol: a client certificate may be missing, but an offered one is
    /// verified. That a stranger speaks enrolment only is the transport's to enforce.
    MembersAndStrangers,
}

/// A certificate in use.
#[derive(Debug)]
pub(super) struct Held {
    /// The leaf, its CA, what leads from another CA to that one, and the key.
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) info: CertificateInfo,
}

/// Where a node's present certificate stands: handshakes read it while renewals replace it.
pub(super) type Slot = Arc<ArcSwapOption<Held>>;

/// Installs ring as rustls's provider for the whole process; doing so again changes nothing.
pub fn install_crypto_provider() {
    // An error says that one is installed already.
    let _ = ring::default_provider().install_default();
}

/// TLS from a stranger to a supernode, dialled as [`super::SUPERNODE_NAME`]: trusts exactly the CA whose
/// fingerprint the join token carries.
///
/// # Errors
/// When TLS cannot be set up.
pub fn enrolment_client_config(ca: Digest) -> Result<ClientConfig, IdentityError> {
    let verifier = Arc::new(PinnedAuthority(ca));
    let config = client()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok(speaking(enrol::ALPN, config))
}

fn client() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, IdentityError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER));
    builder.with_protocol_versions(VERSIONS).map_err(refused)
}

/// One protocol, and a full handshake every time.
fn speaking(protocol: &[u8], mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

pub(super) fn client_config(
    present: &Slot,
    anchors: &[CertificateDer<'static>],
) -> Result<ClientConfig, IdentityError> {
    let shown = Arc::new(Shown(Arc::clone(present)));
    let config = client()?.with_root_certificates(roots(anchors)?).with_client_cert_resolver(shown);
    Ok(speaking(hello::ALPN, config))
}

pub(super) fn server_config(
    present: &Slot,
    anchors: &[CertificateDer<'static>],
    admits: Admits,
) -> Result<ServerConfig, IdentityError> {
    let clients = WebPkiClientVerifier::builder_with_provider(roots(anchors)?, Arc::clone(&PROVIDER));
    let (clients, protocols) = match admits {
        Admits::Members => (clients, vec![hello::ALPN.to_vec()]),
        Admits::MembersAndStrangers => {
            (clients.allow_unauthenticated(), vec![hello::ALPN.to_vec(), enrol::ALPN.to_vec()])
        }
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(VERSIONS)
        .map_err(refused)?
        .with_client_cert_verifier(clients.build().map_err(refused)?)
        .with_cert_resolver(Arc::new(Shown(Arc::clone(present))));
    config.alpn_protocols = protocols;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// TLS for browsers and programs that are no members: this node's certificate, and nobody else's is asked for.
pub(super) fn web_config(present: &Slot) -> Result<ServerConfig, IdentityError> {
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&PROVIDER)).with_safe_default_protocol_versions();
    let shown = Arc::new(Shown(Arc::clone(present)));
    Ok(builder.map_err(refused)?.with_no_client_auth().with_cert_resolver(shown))
}

/// Verifies servers against some CAs.
pub(super) fn server_verifier(
    anchors: &[CertificateDer<'static>],
) -> Result<Arc<WebPkiServerVerifier>, IdentityError> {
    WebPkiServerVerifier::builder_with_provider(roots(anchors)?, Arc::clone(&PROVIDER))
        .build()
        .map_err(refused)
}

fn roots(anchors: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, IdentityError> {
    let mut roots = RootCertStore::empty();
    for ca in anchors {
        roots.add(ca.clone()).map_err(|_| {
            IdentityError::Certificate("the CA certificate beside it is not an X.509 certificate".to_owned())
        })?;
    }
    Ok(Arc::new(roots))
}

fn refused(error: impl std::fmt::Display) -> IdentityError {
    IdentityError::Tls(error.to_string())
}

// === impl Held ===

impl Held {
    pub(super) fn ca(&self) -> &CertificateDer<'static> {
        self.certified.cert.get(1).expect("invariant: a held chain has two certificates")
    }
}

/// Shows the present certificate, as a server and as a client.
#[derive(Debug)]
struct Shown(Slot);

// === impl Shown ===

impl Shown {
    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|held| Arc::clone(&held.certified))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}

/// Trusts the one CA certificate that has this digest, found in the chain that the server shows.
#[derive(Debug)]
struct PinnedAuthority(Digest);

// === impl PinnedAuthority ===

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca =
            intermediates.iter().find(|certificate| Digest::of(certificate) == self.0).ok_or_else(|| {
                rustls::Error::General(
                    "the join token or CA file belongs to another cluster than this supernode".to_owned(),
                )
            })?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let algorithms = PROVIDER.signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &leaf,
            &roots,
            intermediates,
            now,
            algorithms,
        )?;
        rustls::client::verify_server_name(&leaf, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}
