//! What users and strangers get wrong: flags, settings, digests, ports, tokens, and bytes that are no protocol.
//! Exit status 2 is "you said something that cannot be meant", 1 is "it did not work".

use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixStream};

use crate::support::client;
use crate::support::cluster::{Cluster, World, run};
use crate::support::eventually;
use crate::support::faulty::Origin;
use crate::support::image::{Image, noise};

#[tokio::test]
async fn what_cannot_be_meant_exits_with_2_and_says_what() {
    let home = TempDir::new().unwrap();
    let out = home.path().join("out").display().to_string();
    let cases: [(&[&str], &str); 8] = [
        (&["supernode", "--no-such-flag"], "--no-such-flag"),
        (&["no-such-command"], "no-such-command"),
        (&["peer", "--quota", "plenty"], "--quota"),
        (&["peer", "--keep-free", "120%"], "--keep-free"),
        (&["peer", "--low-watermark", "96%"], "--low-watermark"),
        (&["get", "http://127.0.0.1:9/x", "-o", &out, "--digest", "sha256:zz"], "sha256:zz"),
        (&["get", "http://127.0.0.1:9/x", "-o", &out, "--digest", "md5:00"], "md5"),
        (&["get", "http://:::/x", "-o", &out], ":::"),
    ];
    for (arguments, named) in cases {
        let (code, said) = run(home.path(), arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(named), "{arguments:?} is not told what is wrong: {said}");
    }
}

#[tokio::test]
async fn an_unknown_setting_exits_with_2_and_names_the_nearest() {
    let home = TempDir::new().unwrap();
    let config = home.path().join("longshore.toml");
    std::fs::write(&config, "[supernode]\nhttp-lisetn = \"127.0.0.1:0\"\n").unwrap();
    let config = config.display().to_string();
    let data = home.path().join("data").display().to_string();
    let (code, said) = run(home.path(), &["supernode", "--config", &config, "--data-dir", &data]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("http-lisetn"), "{said}");
    assert!(said.contains("http-listen"), "no suggestion: {said}");
}

#[tokio::test]
async fn a_port_in_use_exits_with_1_and_names_the_port() {
    let home = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let (listen, port) = (address.to_string(), address.port().to_string());
    let data = home.path().join("data").display().to_string();
    let arguments =
        ["supernode", "--data-dir", &data, "--quic-listen", "127.0.0.1:0", "--http-listen", &listen];
    let (code, said) = run(home.path(), &arguments).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&port), "{said}");
}

#[tokio::test]
async fn a_data_directory_that_is_a_file_exits_with_1_and_names_it() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("taken");
    std::fs::write(&file, "not a folder").unwrap();
    let data = file.display().to_string();
    let arguments =
        ["supernode", "--data-dir", &data, "--quic-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    let (code, said) = run(home.path(), &arguments).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&data), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), b"not a folder");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_another_cluster_lets_nobody_in_and_says_so() {
    let ours = Cluster::start(0, World::default()).await;
    let theirs = Cluster::start(0, World::default()).await;
    let token = theirs.join_token().display().to_string();
    let mut stranger = ours.spawn_peer_with("stranger", &token, &[], None);
    eventually("a word about the token or the CA", async || {
        let said = stranger.process().said();
        let named = said.contains("token") || said.contains("CA");
        if let Some(status) = stranger.process().ended() {
            assert!(named, "it ended ({status:?}) without a word about the token: {said}");
            assert_eq!(status.code(), Some(1), "{said}");
        }
        let trouble = ["WARN", "ERROR", "error"].iter().any(|level| said.contains(level));
        (named && trouble).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_protocol_harm_nobody() {
    let origin = Origin::start().await;
    let image = Image::single("team/app", 2 << 20, 54);
    origin.add(&image);
    let cluster = Cluster::start(1, World::registry("quay.test", &origin.url())).await;
    let (supernode, peer) = (&cluster.supernode, &cluster.peers[0]);
    let endless_header = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'a'; 1 << 20]].concat();
    let litters =
        [noise(64 << 10, 55), endless_header, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()];
    for litter in &litters {
        for door in [&supernode.at.http, &peer.at.http, &peer.at.proxy] {
            throw(TcpStream::connect(door).await.unwrap(), litter).await;
        }
        if !peer.at.socket.as_os_str().is_empty() {
            throw(UnixStream::connect(&peer.at.socket).await.unwrap(), litter).await;
        }
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for door in [&supernode.at.quic, &peer.at.quic] {
            for packet in litter.chunks(1200).take(50) {
                socket.send_to(packet, door).await.unwrap();
            }
        }
    }
    client::pull(peer.at.proxy.clone(), "quay.test".to_owned(), image).await;
    for node in [supernode, peer] {
        assert!(client::get(&node.url("/healthz")).await.status.is_success());
    }
}

/// Writes `litter` and reads what comes back, until the other side has had enough.
async fn throw(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, litter: &[u8]) {
    let talk = async {
        let _ = stream.write_all(litter).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    // a server may as well wait for the rest; the connection is then dropped by this side
    let _ = tokio::time::timeout(Duration::from_secs(2), talk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_no_pull_are_refused_and_harm_nobody() {
    let origin = Origin::start().await;
    let image = Image::single("team/app", 2 << 20, 56);
    origin.add(&image);
    let cluster = Cluster::start(1, World::registry("quay.test", &origin.url())).await;
    let proxy = &cluster.peers[0].at.proxy;
    let blob = format!("/v2/team/app/blobs/{}", image.layer().digest);
    let long = format!("/v2/{}/blobs/{}", "a/".repeat(3000), image.layer().digest);
    let mean = [
        "/v2/team/app/blobs/sha256:zz?ns=quay.test".to_owned(),
        "/v2/team/app/blobs/..%2f..%2fetc%2fpasswd?ns=quay.test".to_owned(),
        "/v2/../../../../etc/passwd?ns=quay.test".to_owned(),
        format!("{blob}?ns=169.254.169.254"),
        format!("{blob}?ns=user:pass@quay.test"),
        format!("{blob}?ns=quay.test/../other"),
        format!("{blob}?ns=%00"),
        long,
    ];
    for path in mean {
        let answer = client::http().get(format!("http://{proxy}{path}")).send().await.unwrap();
        assert!(!answer.status().is_success(), "{path}: {}", answer.status());
    }
    client::pull(proxy.clone(), "quay.test".to_owned(), image).await;
}
