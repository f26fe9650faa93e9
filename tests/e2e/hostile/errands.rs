//! Errands are a supernode's to send: from anybody else they are not even answered, whatever he calls himself.

use common::node::Role;
use common::task::{Credentials, Source};
use common::wire::codec::FrameReader;
use common::wire::errand::{Errand, Report};
use common::wire::exchange::Opening;
use common::wire::hello::Reply;

use super::villain::{greet, say};
use super::{REGISTRY, field, hung};
use crate::support::client;
use crate::support::cluster::{Cluster, World, sample};
use crate::support::faulty::Origin;
use crate::support::image::Image;

#[tokio::test(flavor = "multi_thread")]
async fn an_errand_of_a_member_that_is_no_supernode_is_refused() {
    let (origin, hanging) = (Origin::start().await, hung().await);
    let world = World::registry(REGISTRY, &origin.url()).allowing(&origin.address);
    let cluster = Cluster::start(1, world).await;
    let image = Image::single("team/app", 1 << 20, 9800);
    origin.add(&image);
    client::pull(cluster.proxies()[0].clone(), REGISTRY.to_owned(), image.clone()).await;
    let url = origin.add_file("wanted.bin", vec![7; 1 << 20]);
    let field = field(&cluster, &image, origin, hanging).await;
    let villain = field.villain().await;
    let malformed = async || {
        sample(&cluster.peers[0].metrics().await, "longshore_turned_away_total", "reason=\"malformed\"")
    };
    let before = malformed().await;

    let connection = villain.meet(&field.peer).await;
    let source = Source { url, digest: None, tag: String::new(), accept: None };
    let fetch = Errand::Fetch { sources: vec![source], credentials: Credentials::none() };
    let image = "quay.test/team/app:1".to_owned();
    let pull = Errand::Pull { image, login: None, timeout_millis: 1000 };
    for errand in [fetch, pull] {
        let (mut send, receive) = connection.open_bi().await.unwrap();
        assert!(say(&mut send, &Opening::Errand).await);
        // The stream may be closed already.
        say(&mut send, &errand).await;
        let report = FrameReader::new(receive).next::<Report>().await;
        assert!(!matches!(report, Ok(Some(_))), "{report:?}");
    }
    assert_eq!(malformed().await - before, 2);
    assert_eq!(field.origin.answers("/files/wanted.bin"), 0);

    // Nor does it help to call oneself one: the certificate says what somebody is.
    let connection = villain.connect(&field.peer).await;
    let reply =
        greet(&connection, &common::wire::hello::Hello { role: Role::Supernode, ..villain.hello() }).await;
    assert!(!matches!(reply, Some(Reply::Welcome(_))), "{reply:?}");
}
