//! Nobody who is no member gets anything at a node's QUIC port, whatever it knows of the blob.

use std::sync::Arc;

use common::piece::{Geometry, PieceIndex};
use common::task::TaskId;
use common::wire::codec;
use common::wire::exchange::Opening;
use common::wire::hello;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

use super::{BOB, Port};
use crate::support::cluster::{Cluster, World, longshore};
use crate::support::need;
use crate::support::process::output;
use crate::support::tls::{Ca, Leaf};

/// Trusts any server: a stranger does not care whom it robs.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_tls12_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Asks a node's QUIC port for the first piece of a task, as a neighbour does but with this certificate: what came back,
/// and how the connection ended.
async fn steal(address: &str, with: Option<&Leaf>, task: TaskId, length: u64) -> (Vec<u8>, String) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut tls = match with {
        None => builder.with_no_client_auth(),
        Some(leaf) => {
            let chain = vec![CertificateDer::from_pem_file(&leaf.certificate).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&leaf.key).unwrap()).unwrap()
        }
    };
    tls.alpn_protocols = vec![hello::ALPN.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connection = match endpoint.connect_with(config, address.parse().unwrap(), "longshore").unwrap().await
    {
        Ok(connection) => connection,
        Err(error) => return (Vec::new(), error.to_string()),
    };
    let mut got = Vec::new();
    // the first stream is the hello's, so the question is put on a second one as well
    for _ in 0..2 {
        let Ok((mut send, mut receive)) = connection.open_bi().await else { break };
        let _ = codec::send(&mut send, &Opening::Piece { task, index: PieceIndex(0) }).await;
        let geometry = Geometry::of(length).unwrap();
        let _ = codec::send(&mut send, &Opening::Link { task, geometry }).await;
        let _ = send.finish();
        got.extend(receive.read_to_end(8 << 20).await.unwrap_or_default());
    }
    (got, connection.closed().await.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_at_a_nodes_quic_port_gets_nothing() {
    need!("docker-registry");
    let port = Port::open(1, 1050, |world| world).await;
    port.pulls(0, &port.bobs, &port.word(Some(BOB), "team-b/app").await).await;
    let loot = &port.bobs.layers[2];
    let task = TaskId::of_digest(loot.digest);
    let folder = tempfile::TempDir::new().unwrap();
    let forged = Ca::new().sign(&["longshore"], folder.path());
    for node in [&port.cluster.peers[0], &port.cluster.supernode] {
        for leaf in [None, Some(&forged)] {
            let (got, end) = steal(&node.at.quic, leaf, task, loot.size()).await;
            assert!(got.is_empty(), "{} bytes for a stranger", got.len());
            assert!(end.to_lowercase().contains("certificate"), "{end}");
        }
    }
    // with a token of another cluster nobody becomes a member for a moment either
    let theirs = Cluster::start(0, World::default()).await;
    let out = folder.path().join("out");
    let mut command = longshore(folder.path());
    command.arg("get").arg(format!("{}/v2/team-b/app/blobs/{}", port.registry.url(), loot.digest));
    command
        .arg("-o")
        .arg(&out)
        .args(["--digest", &loot.digest.to_string()])
        .arg("--data-dir")
        .arg(folder.path());
    command
        .args(["--supernode", &port.cluster.supernode.at.quic, "--join-token-file"])
        .arg(theirs.join_token());
    let ended = output(&command).await;
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(!out.exists());
}
