//! The proxy as an HTTP and HTTPS proxy, and the ways to name a registry.

use http::{Method, StatusCode};
use proxy::{ProxyOptions, Push};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fake::{ALICE, Manners};
use crate::lab::{Lab, error_code, header};

fn through(lab: &Lab) -> reqwest::Client {
    let proxy = reqwest::Proxy::all(&lab.mirror).unwrap();
    let ca = reqwest::Certificate::from_pem(&lab.ca()).unwrap();
    reqwest::Client::builder().proxy(proxy).tls_certs_only([ca]).build().unwrap()
}

async fn opening(push: Push) -> Lab {
    let intercept = vec!["quay.test".parse().unwrap()];
    Lab::with(None, ProxyOptions { intercept, push, ..ProxyOptions::default() }).await
}

/// Sends bytes as they are and reads the answer until the connection ends or the first line is there.
async fn raw(lab: &Lab, text: &str) -> String {
    let mut stream = TcpStream::connect(lab.mirror.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(2).any(|end| end == b"\r\n") {
        if stream.read_buf(&mut answer).await.unwrap() == 0 {
            break;
        }
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_registry_is_named_before_the_repository() {
    let lab = Lab::start().await;
    let (path, bytes) = lab.blob("team/app", 1000, Manners::default());
    let named = path.replace("/v2/", "/v2/quay.test/");
    assert_eq!(lab.get(&named, &[]).await.bytes().await.unwrap(), bytes);
    let unknown = lab.get(&path.replace("/v2/", "/v2/gone.example/"), &[]).await;
    assert_eq!(unknown.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn https_is_opened_for_hosts_on_the_list_and_served_from_the_swarm() {
    let lab = opening(Push::AsProxy).await;
    let (path, bytes) = lab.blob("team/app", 300_000, Manners { private: true, ..Manners::default() });
    let client = through(&lab);
    let url = format!("https://quay.test{path}");
    for _ in 0..2 {
        let response = client.get(&url).header("authorization", ALICE).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.bytes().await.unwrap(), bytes);
    }
    assert_eq!(lab.origin.sent(&path), bytes.len(), "it left the origin once");
    assert_eq!(client.get(&url).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn plain_http_to_a_named_registry_is_served_from_the_swarm_and_the_rest_is_handed_on() {
    let lab = opening(Push::AsProxy).await;
    let (path, bytes) = lab.blob("team/app", 300_000, Manners::default());
    let client = through(&lab);
    for _ in 0..2 {
        let response = client.get(format!("http://quay.test{path}")).send().await.unwrap();
        assert_eq!(response.bytes().await.unwrap(), bytes);
    }
    assert_eq!(lab.origin.sent(&path), bytes.len());
    lab.origin.put("/token", "a token", Manners::default());
    let token = client.get(format!("{}/token", lab.origin.url)).send().await.unwrap();
    assert_eq!(token.text().await.unwrap(), "a token");
    let asked = lab.origin.asked(Method::GET, "/token");
    assert!(asked[0].headers["via"].to_str().unwrap().starts_with("1.1 longshore-"), "{asked:?}");
}

#[tokio::test]
async fn pushes_are_handed_on_or_refused_as_the_settings_say() {
    for (push, mirror, proxy) in
        [(Push::AsProxy, false, true), (Push::Forward, true, true), (Push::Refuse, false, false)]
    {
        let lab = opening(push).await;
        let path = "/v2/team/app/blobs/uploads/";
        let mirrored = lab.ask(Method::POST, &format!("{path}?ns=quay.test"), &[]).await;
        let proxied =
            through(&lab).put(format!("https://quay.test{path}1")).body("bytes").send().await.unwrap();
        let reached = |path: &str| {
            !lab.origin.asked(Method::POST, path).is_empty()
                || !lab.origin.asked(Method::PUT, path).is_empty()
        };
        assert_eq!((reached(path), reached(&format!("{path}1"))), (mirror, proxy), "{push:?}");
        for (response, passed) in [(mirrored, mirror), (proxied, proxy)] {
            let code = if passed { "FROM_THE_ORIGIN" } else { "UNSUPPORTED" };
            assert_eq!(error_code(response).await, code, "{push:?}");
        }
    }
}

#[tokio::test]
async fn other_hosts_are_tunnelled_and_forbidden_ones_are_not() {
    let lab = opening(Push::AsProxy).await;
    for never in ["169.254.169.254:443", "[fe80::1]:443", "0.0.0.0:443", "127.0.0.1:1"] {
        let answer = raw(&lab, &format!("CONNECT {never} HTTP/1.1\r\nhost: {never}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{never}: {answer}");
        let answer = raw(&lab, &format!("GET http://{never}/x HTTP/1.1\r\nhost: {never}\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{never}: {answer}");
    }
    for bad in ["quay.test", "user@quay.test:443", ":443"] {
        let answer = raw(&lab, &format!("CONNECT {bad} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{bad}: {answer}");
    }
    // The origin's own address is one that the settings name.
    let place = lab.origin.url.strip_prefix("http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(lab.mirror.strip_prefix("http://").unwrap()).await.unwrap();
    let connect = format!("CONNECT {place} HTTP/1.1\r\nhost: {place}\r\n\r\n");
    stream.write_all(connect.as_bytes()).await.unwrap();
    let mut answer = [0; 1024];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer[..read]));
    stream.write_all(b"GET /tunnelled HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.starts_with("HTTP/1.1 404"), "{rest}");
    assert!(!lab.origin.asked(Method::GET, "/tunnelled")[0].headers.contains_key("via"), "untouched");
}

#[tokio::test]
async fn a_proxy_that_is_only_a_mirror_forwards_nothing() {
    let lab = Lab::with(None, ProxyOptions { forward: false, ..ProxyOptions::default() }).await;
    let place = lab.origin.url.strip_prefix("http://").unwrap();
    for request in [
        format!("CONNECT {place} HTTP/1.1\r\nhost: {place}\r\n\r\n"),
        format!("GET {}/x HTTP/1.1\r\nhost: {place}\r\n\r\n", lab.origin.url),
    ] {
        let answer = raw(&lab, &request).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
    assert_eq!(lab.origin.requests(), 0);
}

#[tokio::test]
async fn what_came_from_this_node_is_not_handed_on_again() {
    let lab = Lab::start().await;
    lab.origin.put("/x", "x", Manners::default());
    let client = reqwest::Client::builder().proxy(reqwest::Proxy::all(&lab.mirror).unwrap()).build().unwrap();
    client.get(format!("{}/x", lab.origin.url)).send().await.unwrap();
    let asked = lab.origin.asked(Method::GET, "/x");
    let via = asked.last().unwrap().headers["via"].to_str().unwrap().to_owned();
    let looped = lab.get("/v2/", &[("via", &via)]).await;
    assert_eq!(looped.status(), StatusCode::LOOP_DETECTED);
    assert_eq!(header(&looped, "content-type"), "application/json");
}
