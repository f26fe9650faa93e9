//! Members meet, strangers do not.

use std::time::SystemTime;

use super::*;
use crate::identity::{Authority, TokenBook, TokenOptions};
use crate::wire::codec::{self, FrameReader};
use crate::wire::enrol;

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn member(authority: &Authority, role: Role) -> Transport {
    identity::install_crypto_provider();
    let identity = Identity::ephemeral().unwrap();
    let issued = authority.issue(&identity.csr().unwrap(), role, SystemTime::now()).unwrap();
    identity.install(&issued.chain).unwrap();
    let admits = if role == Role::Supernode { Admits::MembersAndStrangers } else { Admits::Members };
    let hello = hello(identity.node(), role);
    Transport::bind(TransportOptions { listen: loopback(), identity, admits, hello }).unwrap()
}

fn contact(transport: &Transport) -> Contact {
    Contact { id: transport.node(), address: transport.local_addr().unwrap() }
}

#[tokio::test]
async fn two_members_of_one_cluster_meet_and_exchange_streams() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let (one, two) = (member(&authority, Role::Peer), member(&authority, Role::Peer));
    let target = contact(&two);
    let (dialled, accepted) = tokio::join!(one.dial(&target), two.accept());
    let (dialled, Some(Inbound::Member(accepted))) = (dialled.unwrap(), accepted) else {
        panic!("no member")
    };
    assert_eq!((dialled.node(), accepted.node()), (two.node(), one.node()));
    let (mut send, _) = dialled.open().await.unwrap();
    codec::send(&mut send, &"piece").await.unwrap();
    let (_, receive) = accepted.accept().await.unwrap();
    assert_eq!(FrameReader::new(receive).expect::<String>().await.unwrap(), "piece");
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn a_member_of_another_cluster_is_turned_away_and_both_sides_can_say_why() {
    let dirs = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ours = Authority::open(dirs.0.path()).unwrap();
    let foreign = Authority::open(dirs.1.path()).unwrap();
    let (supernode, stranger) = (member(&ours, Role::Supernode), member(&foreign, Role::Peer));
    let address = supernode.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(stranger.dial_supernode(address), supernode.accept());
    assert!(dialled.is_err());
    let Some(Inbound::TurnedAway { reason, .. }) = accepted else { panic!("let in") };
    assert!(!reason.is_empty());
}

#[tokio::test]
async fn nobody_is_taken_for_another_node() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let (one, two, three) =
        (member(&authority, Role::Peer), member(&authority, Role::Peer), member(&authority, Role::Peer));
    let wrong = Contact { id: three.node(), address: two.local_addr().unwrap() };
    assert!(one.dial(&wrong).await.is_err());
    assert!(one.dial_supernode(two.local_addr().unwrap()).await.is_err());
}

#[tokio::test]
async fn a_token_is_answered_over_the_enrolment_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let book = TokenBook::open(dir.path()).unwrap();
    let token = book.create(authority.fingerprint(), TokenOptions::default(), SystemTime::now()).unwrap();
    let supernode = member(&authority, Role::Supernode);
    let address = supernode.local_addr().unwrap();
    let newcomer = Identity::ephemeral().unwrap();
    let answering = async {
        let Some(Inbound::Enrolling(enrolling)) = supernode.accept().await else { panic!("no enrolment") };
        let request = enrolling.request().clone();
        book.redeem(&request.token_id, &request.secret, SystemTime::now()).unwrap();
        let issued = authority.issue(&request.csr, Role::Peer, SystemTime::now()).unwrap();
        enrolling.answer(&enrol::Reply::Issued(issued.chain)).await.unwrap();
    };
    let (enrolled, ()) = tokio::join!(enrol(address, &token, &newcomer), answering);
    enrolled.unwrap();
    assert!(newcomer.is_valid(SystemTime::now()));
}

#[tokio::test]
async fn a_silent_address_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let one = member(&authority, Role::Peer);
    let silent = std::net::UdpSocket::bind(loopback()).unwrap();
    let address = silent.local_addr().unwrap();
    let error = one.dial_supernode(address).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
