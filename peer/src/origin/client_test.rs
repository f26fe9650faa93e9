//! Tests of [`super`]: retries, cool-offs, redirects, credentials, TLS.

use std::io::{Read, Write};
use std::sync::OnceLock;

use common::task::OriginFailure;

use super::super::fake::{Asked, Fake, Reply, client, client_with};
use super::super::guard::Refusal;
use super::*;

fn secret() -> Credentials {
    let mut credentials = Credentials::authorization("Bearer hunter2");
    credentials.add("X-Token", "hunter3");
    credentials
}

async fn get(client: &OriginClient, url: &str) -> Result<Answer, OriginError> {
    client.ask(Method::GET, url, &HeaderMap::new(), &secret()).await
}

#[tokio::test]
async fn failures_that_may_pass_are_asked_again_and_others_not() {
    let origin = Fake::start(|asked| match (asked.path.as_str(), asked.number) {
        ("/down", _) => Reply::new(500).body("down"),
        ("/gone", _) => Reply::new(404),
        (_, 0 | 1) => Reply::new(503),
        _ => Reply::new(200).body("well"),
    })
    .await;
    let client = client();
    assert_eq!(get(&client, &origin.url("/x")).await.unwrap().bytes(9).await.unwrap(), "well");
    assert_eq!(origin.asked().len(), 3);
    assert_eq!(get(&client, &origin.url("/gone")).await.unwrap().status, 404);
    assert_eq!(origin.asked().len(), 4);
    let down = get(&client, &origin.url("/down")).await.unwrap();
    assert_eq!((down.status.as_u16(), origin.asked().len()), (500, 9));
    assert_eq!(down.into_failure().await.body, b"down");
    let posted =
        client.ask(Method::POST, &origin.url("/down"), &HeaderMap::new(), &Credentials::none()).await;
    assert_eq!((posted.unwrap().status.as_u16(), origin.asked().len()), (500, 10));
}

#[tokio::test]
async fn all_requests_wait_for_an_origin_that_asks_for_rest() {
    let first = OnceLock::new();
    let origin = Fake::start(move |_| {
        let begun = first.get_or_init(Instant::now);
        if begun.elapsed() < Duration::from_secs(1) {
            Reply::new(429).header("Retry-After", "1")
        } else {
            Reply::new(200)
        }
    })
    .await;
    let client = client();
    let patient = tokio::spawn({
        let (client, url) = (client.clone(), origin.url("/a"));
        async move { get(&client, &url).await.unwrap().status }
    });
    while client.cool_offs().left(&origin.address.to_string(), Instant::now()).is_zero() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // This one has a single attempt, so it succeeds only if it waits before it.
    let hasty = client.with_retry(RetryPolicy { attempts: 1, ..RetryPolicy::default() });
    assert_eq!(get(&hasty, &origin.url("/b")).await.unwrap().status, 200);
    assert_eq!(patient.await.unwrap(), 200);
    assert_eq!(origin.asked().len(), 3);
}

#[tokio::test]
async fn a_rest_beyond_patience_is_the_clients_to_know() {
    let origin = Fake::start(|_| Reply::new(429).header("Retry-After", "3600").body("slow down")).await;
    let failure = get(&client(), &origin.url("/")).await.unwrap().into_failure().await;
    assert_eq!((failure.status, origin.asked().len()), (429, 1));
    assert_eq!(failure.headers, [("retry-after".to_owned(), "3600".to_owned())]);
}

#[tokio::test]
async fn requests_say_who_asks_and_want_no_coding() {
    let origin = Fake::start(|_| Reply::new(200)).await;
    let mut headers = HeaderMap::new();
    headers.insert("accept-encoding", HeaderValue::from_static("gzip"));
    headers.insert("host", HeaderValue::from_static("elsewhere"));
    headers.insert("accept", HeaderValue::from_static("a/b"));
    client().ask(Method::GET, &origin.url("/p?q=1"), &headers, &secret()).await.unwrap();
    let asked = &origin.asked()[0];
    assert_eq!(asked.path, "/p?q=1");
    for (name, value) in [
        ("accept-encoding", "identity"),
        ("accept", "a/b"),
        ("user-agent", USER_AGENT),
        ("host", &origin.address.to_string()),
        ("authorization", "Bearer hunter2"),
        ("x-token", "hunter3"),
    ] {
        assert_eq!(asked.header(name), Some(value));
    }
}

#[tokio::test]
async fn credentials_stay_with_the_host_and_port_they_are_for() {
    let storage = Fake::start(|_| Reply::new(200).body("bytes")).await;
    let there = storage.url("/blob?sig=1");
    let origin = Fake::start(move |asked| match asked.path.as_str() {
        "/here" => Reply::new(302).header("Location", "/end"),
        "/end" => Reply::new(200),
        _ => Reply::new(307).header("Location", &there),
    })
    .await;
    let mut headers = HeaderMap::new();
    headers.insert("cookie", HeaderValue::from_static("hunter4"));
    let secrets =
        |asked: &Asked| ["authorization", "x-token", "cookie"].map(|name| asked.header(name).is_some());
    for method in [Method::GET, Method::HEAD] {
        let answer = client().ask(method.clone(), &origin.url("/away"), &headers, &secret()).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.length()), (200, Some(5)));
        let asked = storage.asked().pop().unwrap();
        assert_eq!((asked.method.as_str(), asked.path.as_str()), (method.as_str(), "/blob?sig=1"));
        assert_eq!(secrets(&asked), [false; 3]);
        client().ask(method, &origin.url("/here"), &headers, &secret()).await.unwrap();
        assert_eq!(secrets(&origin.asked().pop().unwrap()), [true; 3]);
    }
}

#[tokio::test]
async fn redirects_are_guarded_and_end() {
    let origin = Fake::start(|asked| {
        let to = match asked.path.as_str() {
            "/metadata" => "http://169.254.169.254/latest/meta-data?secret",
            "/mapped" => "http://[::ffff:a9fe:a9fe]/",
            "/loopback" => "http://127.0.0.2:22/",
            "/file" => "file:///etc/passwd",
            "/user" => "http://me:hunter2@127.0.0.1:1/",
            _ => "/round",
        };
        Reply::new(302).header("Location", to)
    })
    .await;
    for (path, expected) in [
        ("/metadata", "link-local, metadata"),
        ("/mapped", "link-local, metadata"),
        ("/loopback", "--origin-allow 127.0.0.2:22"),
        ("/file", "only http and https"),
        ("/user", "user or password"),
    ] {
        let error = get(&client(), &origin.url(path)).await.err().unwrap();
        assert!(matches!(error, OriginError::Forbidden { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(expected) && !text.contains("secret") && !text.contains("hunter"), "{text}");
    }
    let before = origin.asked().len();
    let error = get(&client(), &origin.url("/round")).await.err().unwrap();
    assert!(matches!(error, OriginError::TooManyRedirects { .. }), "{error}");
    assert_eq!(origin.asked().len() - before, MAX_REDIRECTS + 1);
    let post = client().ask(Method::POST, &origin.url("/round"), &HeaderMap::new(), &secret()).await;
    assert_eq!(post.unwrap().status, 302);
}

#[tokio::test]
async fn a_name_on_loopback_is_refused_by_the_resolver() {
    // Past the check of the URL, as a name that only resolves to loopback would come.
    let client = client();
    let error = client.inner.clients.get(false).unwrap().get("http://localhost:9/").send().await.unwrap_err();
    let filtered = cause_of::<Filtered>(&error).unwrap();
    assert!(matches!(filtered.refusal("localhost:9"), Refusal::Loopback(_)));
}

#[tokio::test]
async fn an_origin_that_is_not_there_is_named_without_secrets() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = get(&client(), &format!("http://{closed}/x?secret")).await.err().unwrap();
    let mut text = error.to_string();
    assert!(matches!(error, OriginError::Unreachable { .. }) && text.contains(&closed.to_string()), "{text}");
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!("{cause} {cause:?}"));
        next = cause.source();
    }
    assert!(!text.contains("secret") && !text.contains("hunter"), "{text}");
}

#[tokio::test]
async fn bad_credentials_are_named_but_not_shown() {
    let bad = Credentials::authorization("hunter2\r\nX: y");
    let answer = client().ask(Method::GET, "http://127.0.0.1:1/", &HeaderMap::new(), &bad).await;
    let text = answer.err().unwrap().to_string();
    assert!(text.contains("authorization") && !text.contains("hunter"), "{text}");
}

#[tokio::test]
async fn bodies_are_bounded() {
    let origin = Fake::start(|asked| {
        let reply = Reply::new(400).header("Content-Type", "text/plain").body(vec![b'x'; 200_000]);
        if asked.path == "/chunked" { reply.length(None) } else { reply }
    })
    .await;
    for path in ["/known", "/chunked"] {
        let error = get(&client(), &origin.url(path)).await.unwrap().bytes(100_000).await.unwrap_err();
        assert!(matches!(error, OriginError::TooLarge { .. }), "{error}");
        let failure = get(&client(), &origin.url(path)).await.unwrap().into_failure().await;
        assert_eq!(failure.body.len(), OriginFailure::MAX_BODY);
        assert_eq!(failure.headers, [("content-type".to_owned(), "text/plain".to_owned())]);
        assert_eq!(
            get(&client(), &origin.url(path)).await.unwrap().bytes(200_000).await.unwrap().len(),
            200_000
        );
    }
}

/// An HTTPS origin with a CA of its own; serves each connection once, on a thread that ends with the test's process.
fn tls_origin() -> (std::net::SocketAddr, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    rustls::crypto::ring::default_provider().install_default().ok();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![leaf.der().clone()], key).unwrap());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let session = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(session, stream);
            let mut request = [0; 4096];
            if stream.read(&mut request).is_ok_and(|n| n > 0) {
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    (address, ca_pem)
}

#[tokio::test]
async fn certificates_are_verified_and_extra_cas_trusted() {
    let (address, ca) = tls_origin();
    let url = format!("https://{address}/");
    let error = get(&client(), &url).await.err().unwrap();
    assert!(
        matches!(&error, OriginError::Unreachable { source, .. } if is_untrusted(&**source)),
        "{error:?}"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, ca).unwrap();
    let options = |extra_ca| OriginOptions { allow: vec!["*".into()], extra_ca, ..OriginOptions::default() };
    let trusting = client_with(options(vec![path.clone()]));
    assert_eq!(get(&trusting, &url).await.unwrap().bytes(2).await.unwrap(), "ok");
    std::fs::write(&path, "nothing").unwrap();
    for bad in [path, folder.path().join("missing.pem")] {
        assert!(matches!(OriginClient::new(options(vec![bad])), Err(OriginError::ExtraCa { .. })));
    }
}
