//! Who is no member gets nothing but words.

use std::sync::Arc;
use std::time::SystemTime;

use common::identity::{self, Admits, Authority, Identity, TokenBook, TokenOptions};
use common::node::{Contact, Role};
use common::telemetry::TurnedAway;
use common::transport::{self, Transport, TransportOptions};
use common::wire::hello;
use quinn::crypto::rustls::QuicClientConfig;
use supernode::admission::Capacity;

use crate::cluster::{Cluster, close, loopback, pull, until, within};
use crate::origin::Content;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_opens_nothing_and_says_what_to_do() {
    within(async {
        let cluster = Cluster::start().await;
        let book = TokenBook::open(&cluster.folder("elsewhere")).unwrap();
        let unknown = book.create(cluster.token.ca(), TokenOptions::default(), SystemTime::now()).unwrap();
        let foreign = Authority::open(&cluster.folder("foreign")).unwrap();
        let foreign = book.create(foreign.fingerprint(), TokenOptions::default(), SystemTime::now()).unwrap();
        for (name, token) in [("unknown", unknown), ("foreign", foreign)] {
            let Err(error) = cluster.try_peer(name, Some(token)).await else { panic!("{name} was let in") };
            let words = error.to_string();
            assert!(words.contains("longshore token create"), "{words}");
            assert!(!words.contains(cluster.token.secret()), "{words}");
        }
        assert!(cluster.status().await["peers"].as_array().unwrap().is_empty());
        close(cluster, Vec::new()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_another_cluster_is_turned_away() {
    within(async {
        let cluster = Cluster::start().await;
        let peer = cluster.peer("peer").await;
        let foreign = Authority::open(&cluster.folder("foreign")).unwrap();
        let identity = Identity::ephemeral().unwrap();
        let issued = foreign.issue(&identity.csr().unwrap(), Role::Peer, SystemTime::now()).unwrap();
        identity.install(&issued.chain).unwrap();
        let hello = transport::hello(identity.node(), Role::Peer);
        let options = TransportOptions { listen: loopback(), identity, admits: Admits::Members, hello };
        let transport = Transport::bind(options).unwrap();
        let contact = Contact { id: peer.engine().node(), address: peer.quic() };
        for error in [
            transport.dial_supernode(cluster.supernode.quic()).await.unwrap_err(),
            transport.dial(&contact).await.unwrap_err(),
        ] {
            assert!(error.to_string().contains("certificate"), "{error}");
        }
        transport.close().await;
        let engines = [cluster.supernode.engine(), peer.engine()];
        until("both counted it", async || {
            engines.iter().all(|engine| engine.metrics().turned_away.total() > 0)
        })
        .await;
        close(cluster, vec![peer]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_session_free_comes_again_and_gets_one() {
    within(async {
        let cluster = Cluster::start_with(Capacity { sessions: 1, ..Capacity::default() }).await;
        let first = cluster.peer("first").await;
        let second = cluster.try_peer("second", Some(cluster.token.clone())).await.unwrap();
        let turned_away = &cluster.supernode.engine().metrics().turned_away;
        until("it was told to come again", async || turned_away.of(TurnedAway::Busy).get() > 0).await;
        assert_eq!(cluster.status().await["sessions"], 1);
        assert!(!cluster.seen(first.engine().node()).await.is_null(), "who was there first stays");
        let source = cluster.origin.source(Content { number: 1, length: 1 << 20 });
        assert_eq!(pull(second.engine(), source.clone()).await.unwrap(), source.digest.unwrap());

        first.close().await;
        until("it has the place", async || !cluster.seen(second.engine().node()).await.is_null()).await;
        close(cluster, vec![second]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_without_a_certificate_is_turned_away_in_words() {
    within(async {
        let cluster = Cluster::start().await;
        let peer = cluster.peer("peer").await;
        let supernode = dial_bare(&cluster, cluster.supernode.quic(), identity::SUPERNODE_NAME).await;
        assert!(supernode.contains("join the cluster with a token"), "{supernode}");
        let name = identity::server_name(peer.engine().node());
        let refusal = dial_bare(&cluster, peer.quic(), &name).await;
        assert!(refusal.to_lowercase().contains("certificate"), "{refusal}");
        close(cluster, vec![peer]).await;
    })
    .await;
}

/// Dials like a member, but shows no certificate; gives the words with which the connection ended.
async fn dial_bare(cluster: &Cluster, address: std::net::SocketAddr, name: &str) -> String {
    let mut tls = identity::enrolment_client_config(cluster.token.ca()).unwrap();
    tls.alpn_protocols = vec![hello::ALPN.to_vec()];
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client(loopback()).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    match endpoint.connect_with(config, address, name).unwrap().await {
        Ok(connection) => connection.closed().await.to_string(),
        Err(error) => error.to_string(),
    }
}
