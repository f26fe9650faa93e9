//! Whole handshakes in memory: who is let in where, and as whom.

mod kept;
mod rotation;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::*;
use crate::digest::Digest;
use crate::node::Role;
use crate::wire::{enrol, hello};

const HOUR: Duration = Duration::from_secs(3600);

/// What both ends know of each other after a handshake.
#[derive(Debug)]
struct Met {
    client: Option<PeerCertificate>,
    server: PeerCertificate,
    protocol: Vec<u8>,
}

fn authority() -> Authority {
    Authority::open(tempfile::tempdir().unwrap().path()).unwrap()
}

fn member_until(authority: &Authority, role: Role, since: SystemTime, lifetime: Duration) -> Identity {
    let identity = Identity::ephemeral().unwrap();
    let issued = authority.issue_for(&identity.csr().unwrap(), role, since, lifetime).unwrap();
    assert_eq!(issued.node, identity.node());
    identity.install(&issued.chain).unwrap();
    identity
}

fn member(authority: &Authority, role: Role) -> Identity {
    member_until(authority, role, SystemTime::now(), LIFETIME)
}

/// Carries bytes between the two until neither has more to say; the first error ends it.
fn handshake(client: ClientConfig, server: ServerConfig, name: &str) -> Result<Met, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    loop {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut back = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut back).unwrap();
        }
        let mut rest = back.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        if wire.is_empty() && back.is_empty() {
            break;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.alpn_protocol(), server.alpn_protocol());
    Ok(Met {
        client: server.peer_certificates().map(|chain| read_peer_certificate(chain).unwrap()),
        server: read_peer_certificate(client.peer_certificates().unwrap()).unwrap(),
        protocol: client.alpn_protocol().unwrap().to_vec(),
    })
}

fn meet(client: &Identity, server: &Identity) -> Result<Met, rustls::Error> {
    let name = server_name(server.node());
    handshake(client.client_config().unwrap(), server.server_config(Admits::Members).unwrap(), &name)
}

#[test]
fn members_meet_and_know_each_other() {
    let authority = authority();
    let (peer, supernode) = (member(&authority, Role::Peer), member(&authority, Role::Supernode));
    let met = meet(&peer, &supernode).unwrap();
    let client = met.client.unwrap();
    assert_eq!((client.node, client.role), (peer.node(), Role::Peer));
    assert_eq!((met.server.node, met.server.role), (supernode.node(), Role::Supernode));
    assert_eq!(met.protocol, hello::ALPN);
    assert_eq!(client.not_after, peer.certificate().unwrap().not_after);

    // And the supernode is reached by its common name too, where strangers are let in as well.
    let met = handshake(
        peer.client_config().unwrap(),
        supernode.server_config(Admits::MembersAndStrangers).unwrap(),
        SUPERNODE_NAME,
    )
    .unwrap();
    assert_eq!(met.client.unwrap().node, peer.node());
}

#[test]
fn a_stranger_enrols_at_the_supernode_and_nowhere_else() {
    let authority = authority();
    let (peer, supernode) = (member(&authority, Role::Peer), member(&authority, Role::Supernode));
    let stranger = || enrolment_client_config(authority.fingerprint()).unwrap();
    let open = supernode.server_config(Admits::MembersAndStrangers).unwrap();
    let met = handshake(stranger(), open.clone(), SUPERNODE_NAME).unwrap();
    assert_eq!((met.client, met.server.role), (None, Role::Supernode));
    assert_eq!(met.protocol, enrol::ALPN);

    let closed = peer.server_config(Admits::Members).unwrap();
    handshake(stranger(), closed.clone(), &server_name(peer.node())).unwrap_err();
    // Claiming the members' protocol does not help.
    let mut pretender = stranger();
    pretender.alpn_protocols = vec![hello::ALPN.to_vec()];
    let error = handshake(pretender, closed, &server_name(peer.node())).unwrap_err();
    assert!(matches!(error, rustls::Error::NoCertificatesPresented), "{error}");
}

#[test]
fn a_token_of_another_cluster_is_refused_in_words() {
    let supernode = member(&authority(), Role::Supernode);
    let other = enrolment_client_config(Digest::of(b"another CA")).unwrap();
    let open = supernode.server_config(Admits::MembersAndStrangers).unwrap();
    let error = handshake(other, open, SUPERNODE_NAME).unwrap_err();
    assert!(error.to_string().contains("another cluster"), "{error}");
}

#[test]
fn a_fingerprint_shown_is_not_a_signature_given() {
    // Who knows the right CA certificate, which is public, shows it beside a leaf that it did not sign.
    let (right, wrong) = (authority(), authority());
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let mut chain = wrong.issue(csr.der(), Role::Supernode, SystemTime::now()).unwrap().chain;
    chain.push(right.certificate().to_vec());
    let only_the_ca = vec![right.certificate().to_vec(); 2];
    for shown in [chain, only_the_ca] {
        let shown = shown.into_iter().map(CertificateDer::from).collect();
        let signer =
            rustls::crypto::ring::sign::any_ecdsa_type(&key.serialize_der().try_into().unwrap()).unwrap();
        let mut lying = member(&wrong, Role::Supernode).server_config(Admits::MembersAndStrangers).unwrap();
        let certified = rustls::sign::CertifiedKey::new(shown, signer);
        lying.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(certified));
        let stranger = enrolment_client_config(right.fingerprint()).unwrap();
        let error = handshake(stranger, lying, SUPERNODE_NAME).unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
    }
}

#[test]
fn a_peer_cannot_pose_as_supernode_or_as_another_node() {
    let authority = authority();
    let (one, two) = (member(&authority, Role::Peer), member(&authority, Role::Peer));
    let listens = || two.server_config(Admits::MembersAndStrangers).unwrap();
    let strangers = enrolment_client_config(authority.fingerprint()).unwrap();
    handshake(strangers, listens(), SUPERNODE_NAME).unwrap_err();
    for name in [SUPERNODE_NAME.to_owned(), server_name(one.node())] {
        let error = handshake(one.client_config().unwrap(), listens(), &name).unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
    }
}

#[test]
fn expired_and_foreign_certificates_are_refused_at_both_ends() {
    let now = SystemTime::now();
    let authority = authority();
    let peer = member(&authority, Role::Peer);
    let expired = member_until(&authority, Role::Peer, now - 30 * HOUR, 24 * HOUR);
    let future = member_until(&authority, Role::Peer, now + 2 * HOUR, 24 * HOUR);
    let foreign = member(&self::authority(), Role::Peer);
    for other in [&expired, &future, &foreign] {
        meet(&peer, other).unwrap_err();
        meet(other, &peer).unwrap_err();
    }
    assert!(!expired.is_valid(now) && expired.renewal_due(now));

    // Where a certificate may be missing, a bad one is still no better than none. The foreign client is made to
    // trust the server, so that it is the server that refuses.
    for bad in [&expired, &foreign] {
        let mut client = bad.client_config().unwrap();
        client
            .dangerous()
            .set_certificate_verifier(tls::server_verifier(&[authority.certificate()]).unwrap());
        let open = peer.server_config(Admits::MembersAndStrangers).unwrap();
        let error = handshake(client, open, &server_name(peer.node())).unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
    }
}

#[test]
fn a_renewed_certificate_is_shown_in_new_handshakes_of_old_settings() {
    let now = SystemTime::now();
    let authority = authority();
    let peer = member(&authority, Role::Peer);
    let renewing = member_until(&authority, Role::Peer, now - 30 * HOUR, 24 * HOUR);
    let (dials, listens) =
        (renewing.client_config().unwrap(), renewing.server_config(Admits::Members).unwrap());
    let try_both = || {
        let dialled =
            handshake(dials.clone(), peer.server_config(Admits::Members).unwrap(), &server_name(peer.node()));
        let asked = handshake(peer.client_config().unwrap(), listens.clone(), &server_name(renewing.node()));
        (dialled, asked)
    };
    assert!(matches!(try_both(), (Err(_), Err(_))));
    let issued = authority.issue(&renewing.csr().unwrap(), Role::Peer, now).unwrap();
    renewing.clone().install(&issued.chain).unwrap();
    let (dialled, asked) = try_both();
    assert_eq!(dialled.unwrap().client.unwrap().not_after, issued.expires);
    assert_eq!(asked.unwrap().server.not_after, issued.expires);
}

#[test]
fn renewal_is_due_after_two_thirds_of_a_life() {
    let now = SystemTime::now();
    let authority = authority();
    let node = member(&authority, Role::Peer);
    assert!(node.is_valid(now) && !node.renewal_due(now) && !node.renewal_due(now + 15 * HOUR));
    assert!(node.renewal_due(now + 17 * HOUR) && node.is_valid(now + 17 * HOUR));
    assert!(!node.is_valid(now + 25 * HOUR) && node.is_valid(now - HOUR) && !node.is_valid(now - 2 * HOUR));
    assert_eq!(node.certificate().unwrap().ca_fingerprint, authority.fingerprint());

    let new = Identity::ephemeral().unwrap();
    assert!(new.renewal_due(now) && !new.is_valid(now) && new.certificate().is_none());
    assert!(matches!(new.client_config(), Err(IdentityError::NotEnrolled)));
    assert!(matches!(new.server_config(Admits::Members), Err(IdentityError::NotEnrolled)));
}

#[test]
fn requests_that_do_not_sign_for_their_key_are_refused() {
    let authority = authority();
    let now = SystemTime::now();
    let good = Identity::ephemeral().unwrap().csr().unwrap();
    let mut broken = good.clone();
    *broken.last_mut().unwrap() ^= 1;
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let p384 = rcgen::CertificateParams::default().serialize_request(&p384).unwrap().der().to_vec();
    for bad in [&broken, &p384, &good[..good.len() / 2].to_vec(), &Vec::new()] {
        assert!(matches!(authority.issue(bad, Role::Peer, now), Err(IdentityError::Request(_))));
    }
    authority.issue(&good, Role::Peer, now).unwrap();
}

#[test]
fn the_names_that_a_request_asks_for_are_ignored() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut asked = rcgen::CertificateParams::new(vec![SUPERNODE_NAME.to_owned()]).unwrap();
    asked.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = asked.serialize_request(&key).unwrap().der().to_vec();
    let issued = authority().issue(&csr, Role::Peer, SystemTime::now()).unwrap();
    let leaf = CertificateDer::from(issued.chain[0].clone());
    assert_eq!(read_peer_certificate(std::slice::from_ref(&leaf)).unwrap().role, Role::Peer);
    assert!(!x509_parser::parse_x509_certificate(&leaf).unwrap().1.is_ca());
}

#[test]
fn an_identity_takes_only_its_own_certificate() {
    let authority = authority();
    let now = SystemTime::now();
    let (one, two) = (Identity::ephemeral().unwrap(), Identity::ephemeral().unwrap());
    let chain = authority.issue(&two.csr().unwrap(), Role::Peer, now).unwrap().chain;
    let short = chain[..1].to_vec();
    let foreign = vec![chain[0].clone(), self::authority().certificate().to_vec()];
    assert!(matches!(one.install(&chain), Err(IdentityError::Certificate(_))));
    for bad in
        [short, foreign, Vec::new(), vec![chain[0].clone(), vec![1, 2, 3]], vec![vec![0], chain[1].clone()]]
    {
        assert!(matches!(two.install(&bad), Err(IdentityError::Certificate(_))));
    }
    assert!(two.certificate().is_none());
}

#[test]
fn installing_the_provider_twice_is_fine() {
    install_crypto_provider();
    install_crypto_provider();
    assert!(rustls::crypto::CryptoProvider::get_default().is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_is_refused_without_panic(bytes: Vec<u8>, at in 0..400_usize, bit in 0..8_u8) {
        assert!(read_peer_certificate(&[]).is_err());
        assert!(read_peer_certificate(&[CertificateDer::from(bytes.clone())]).is_err());
        let authority = authority();
        prop_assert!(authority.issue(&bytes, Role::Peer, SystemTime::now()).is_err());

        // One bit wrong anywhere: refused, or read as the node that its key says, never a panic.
        let node = Identity::ephemeral().unwrap();
        let mut csr = node.csr().unwrap();
        let mut leaf = authority.issue(&csr, Role::Peer, SystemTime::now()).unwrap().chain.swap_remove(0);
        let (in_csr, in_leaf) = (at % csr.len(), at % leaf.len());
        csr[in_csr] ^= 1 << bit;
        leaf[in_leaf] ^= 1 << bit;
        if let Ok(issued) = authority.issue(&csr, Role::Peer, SystemTime::now()) {
            prop_assert_eq!(issued.node, node.node());
        }
        if let Ok(peer) = read_peer_certificate(&[CertificateDer::from(leaf.clone())]) {
            prop_assert_eq!(peer.node, node.node());
        }
        prop_assert!(node.install(&[leaf, authority.certificate().to_vec()]).is_err());
    }
}
