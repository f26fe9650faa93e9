//! What a stranger sends to become a member, and what a neighbour shows as its certificate.

use std::sync::OnceLock;
use std::time::SystemTime;

use bytes::BytesMut;
use common::identity::{Authority, Identity, read_peer_certificate};
use common::node::Role;
use common::wire::codec;
use common::wire::enrol::{Reply, Request};

/// One CA for all inputs: whose it is decides nothing about how a request is read.
fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder for a CA");
        Authority::open(folder.path()).expect("a new CA")
    })
}

/// Takes the bytes for a certificate request, for a certificate, and for the frames that carry them.
pub fn enrolment(data: &[u8]) {
    request(data);
    chain(&[data.to_vec()]);
    if let Ok(Some(asked)) = codec::decode::<Request>(&mut BytesMut::from(data)) {
        assert!(!format!("{asked:?}").contains(&format!("secret: {:?}", asked.secret)), "a secret is shown");
        request(&asked.csr);
    }
    if let Ok(Some(Reply::Issued(issued))) = codec::decode::<Reply>(&mut BytesMut::from(data)) {
        chain(&issued);
    }
}

/// Whatever is asked for, what is given is a peer's, and its own key's.
fn request(csr: &[u8]) {
    let Ok(issued) = authority().issue(csr, Role::Peer, SystemTime::now()) else { return };
    let leaf = issued.chain[0].clone().into();
    let certificate = read_peer_certificate(&[leaf]).expect("what the CA issued can be read");
    assert_eq!((certificate.node, certificate.role), (issued.node, Role::Peer));
}

fn chain(chain: &[Vec<u8>]) {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    let identity = IDENTITY.get_or_init(|| Identity::ephemeral().expect("a key"));
    let shown: Vec<_> = chain.iter().map(|der| der.clone().into()).collect();
    let _ = read_peer_certificate(&shown);
    assert!(identity.install(chain).is_err(), "nobody signed anything for this key");
}
