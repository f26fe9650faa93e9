//! The supernode's API: open on the machine itself, by token beyond it, over TLS if asked for, and to nobody's web page.

use std::path::Path;

use reqwest::{Certificate, Client, Method, StatusCode, header};
use tempfile::TempDir;

use crate::support::client::install_provider;
use crate::support::cluster::{Node, run};
use crate::support::tls::Ca;

const STATUS: &str = "/api/v1/status";

async fn supernode(root: &Path, http: &str, more: &[&str]) -> Node {
    let words = ["supernode", "--quic-listen", "127.0.0.1:0", "--http-listen", http];
    let arguments = words.iter().chain(more).map(|word| (*word).to_owned()).collect();
    let mut node = Node::spawn("supernode", arguments, root, None);
    node.bound().await;
    node
}

/// Where a port that listens everywhere is reached from here.
fn port(node: &Node) -> &str {
    node.at.http.rsplit_once(':').unwrap().1
}

fn client(ca: Option<&[u8]>) -> Client {
    install_provider();
    let builder = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    match ca {
        Some(pem) => builder.tls_certs_only([Certificate::from_pem(pem).unwrap()]).build().unwrap(),
        None => builder.build().unwrap(),
    }
}

async fn asked(client: &Client, url: &str, headers: &[(header::HeaderName, &str)]) -> StatusCode {
    let request = headers.iter().fold(client.get(url), |request, (name, value)| request.header(name, *value));
    request.send().await.unwrap().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_the_api_wants_its_token() {
    let root = TempDir::new().unwrap();
    let mut node = supernode(root.path(), "0.0.0.0:0", &[]).await;
    let (client, base) = (client(None), format!("http://127.0.0.1:{}", port(&node)));
    let url = format!("{base}{STATUS}");
    let token = std::fs::read_to_string(node.data.join("api-token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());

    let refused = client.get(&url).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()[header::WWW_AUTHENTICATE], "Bearer realm=\"longshore\"");
    assert_eq!(
        asked(&client, &url, &[(header::AUTHORIZATION, "Bearer guess")]).await,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(asked(&client, &url, &[(header::AUTHORIZATION, &bearer)]).await, StatusCode::OK);
    let elsewhere = [(header::AUTHORIZATION, bearer.as_str()), (header::ORIGIN, "http://evil.example")];
    assert_eq!(asked(&client, &url, &elsewhere).await, StatusCode::FORBIDDEN);
    for open in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(asked(&client, &format!("{base}{open}"), &[]).await, StatusCode::OK, "{open}");
    }

    // Whoever may open the socket needs no token.
    let (code, said) = run(root.path(), &["status", "--data-dir", node.data.to_str().unwrap()]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("supernode") && said.contains("sessions"), "{said}");
    assert!(!node.process().said().contains(token.trim()), "the token is in the log");

    assert!(node.terminate().await.success());
    assert!(!node.data.join("supernode.sock").exists());
    node.restart_unready().await;
    assert_eq!(
        asked(&client, &url, &[(header::AUTHORIZATION, &bearer)]).await,
        StatusCode::OK,
        "it stays the same"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_loopback_no_name_but_the_machines_own_opens_it() {
    let root = TempDir::new().unwrap();
    let node = supernode(root.path(), "127.0.0.1:0", &[]).await;
    let (client, url) = (client(None), node.url(STATUS));
    assert_eq!(asked(&client, &url, &[]).await, StatusCode::OK);
    assert_eq!(asked(&client, &url, &[(header::HOST, "evil.example")]).await, StatusCode::FORBIDDEN);
    let page = [(header::HeaderName::from_static("sec-fetch-site"), "cross-site")];
    assert_eq!(asked(&client, &url, &page).await, StatusCode::FORBIDDEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_speaks_tls_with_a_certificate_from_files_or_from_the_cluster() {
    let root = TempDir::new().unwrap();
    let ca = Ca::new();
    let leaf = ca.sign(&["localhost"], root.path());
    let (chain, key) = (leaf.certificate.to_str().unwrap(), leaf.key.to_str().unwrap());
    let token = root.path().join("token");
    std::fs::write(&token, "a token of the operator's own\n").unwrap();
    let token = ["--api-token-file", token.to_str().unwrap()];
    let bearer = [(header::AUTHORIZATION, "Bearer a token of the operator's own")];

    let flags = [&token[..], &["--http-cert", chain, "--http-key", key]].concat();
    let mut node = supernode(root.path(), "127.0.0.1:0", &flags).await;
    let url = format!("https://localhost:{}{STATUS}", port(&node));
    let trusting = client(Some(ca.pem.as_bytes()));
    assert_eq!(asked(&trusting, &url, &bearer).await, StatusCode::OK);
    assert_eq!(
        asked(&trusting, &url, &[]).await,
        StatusCode::UNAUTHORIZED,
        "a token that was named is asked for"
    );
    let stranger = client(Some(Ca::new().pem.as_bytes()));
    assert!(stranger.get(&url).send().await.is_err());
    // Renewed under way.
    let other = Ca::new();
    other.sign(&["localhost"], root.path());
    let trusting = client(Some(other.pem.as_bytes()));
    assert_eq!(asked(&trusting, &url, &bearer).await, StatusCode::OK, "a renewed certificate is shown");
    assert!(node.terminate().await.success());

    let mut node =
        supernode(root.path(), "127.0.0.1:0", &[&token[..], &["--http-cert", "cluster"]].concat()).await;
    let pem = std::fs::read(node.data.join("identity/ca.pem")).unwrap();
    let address = format!("127.0.0.1:{}", port(&node)).parse().unwrap();
    let builder = Client::builder().no_proxy().tls_certs_only([Certificate::from_pem(&pem).unwrap()]);
    let member = builder.resolve("supernode.longshore", address).build().unwrap();
    let url = format!("https://supernode.longshore:{}{STATUS}", port(&node));
    assert_eq!(asked(&member, &url, &bearer).await, StatusCode::OK);
    assert!(node.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_its_files_is_said_at_the_start() {
    let root = TempDir::new().unwrap();
    let (short, empty) = (root.path().join("short"), root.path().join("empty"));
    std::fs::write(&short, "short").unwrap();
    std::fs::write(&empty, "").unwrap();
    let (short, empty) = (short.to_str().unwrap(), empty.to_str().unwrap());
    let base = ["supernode", "--quic-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    for (flags, says) in [
        (vec!["--http-cert", empty], "--http-key belong together"),
        (vec!["--http-cert", empty, "--http-key", short], "cannot use"),
        (vec!["--api-token-file", short], "at least 16 characters"),
        (vec!["--api-token-file", "/nowhere/token"], "/nowhere/token"),
    ] {
        let dir = root.path().join("data");
        let flags = [&base[..], &flags, &["--data-dir", dir.to_str().unwrap()]].concat();
        let (code, said) = run(root.path(), &flags).await;
        assert!(code.is_some_and(|code| code != 0) && said.contains(says), "{flags:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_json_that_says_why() {
    let root = TempDir::new().unwrap();
    let token = root.path().join("token");
    std::fs::write(&token, "a token of the operator's own\n").unwrap();
    let flags = ["--api-token-file", token.to_str().unwrap()];
    let node = supernode(root.path(), "127.0.0.1:0", &flags).await;
    let client = client(None);
    let ask = async |method: Method, path: &str, token: bool, body: Option<(&str, String)>| {
        let mut request = client.request(method, node.url(path));
        if token {
            request = request.bearer_auth("a token of the operator's own");
        }
        if let Some((kind, body)) = body {
            request = request.header(header::CONTENT_TYPE, kind).body(body);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        assert_eq!(headers[header::CONTENT_TYPE], "application/json", "{path}");
        let error = answer.json::<peer::local_api::ApiError>().await.unwrap().error;
        assert!(!error.is_empty() && !error.contains('\n'), "{path}: {error}");
        (status, headers)
    };
    let (log, json) = ("/api/v1/log", "application/json");
    let whole = |body: &str| Some((json, body.to_owned()));
    for (method, path, token, body, expected) in [
        (Method::GET, STATUS, false, None, 401),
        (Method::GET, "/api/v1/openapi.json", false, None, 401),
        (Method::GET, "/api/v1/nothing", false, None, 401),
        (Method::GET, "/api/v1/nothing", true, None, 404),
        (Method::GET, "/api/v1/tasks/", true, None, 404),
        (Method::DELETE, "/api/v1/tasks/12", true, None, 400),
        (Method::DELETE, "/api/v1/tasks/%ff", true, None, 400),
        (Method::PUT, log, true, whole("{"), 400),
        (Method::PUT, log, true, whole("{\"directives\": \"peer=louder\"}"), 400),
        (Method::PUT, log, true, whole("{\"directives\": 7}"), 422),
        (Method::PUT, log, true, Some(("text/plain", "debug".to_owned())), 415),
        (Method::PUT, log, true, Some((json, "x".repeat(65 << 10))), 413),
    ] {
        assert_eq!(ask(method.clone(), path, token, body).await.0, expected, "{method} {path}");
    }
    let (status, headers) = ask(Method::POST, STATUS, true, None).await;
    assert_eq!((status, &headers[header::ALLOW]), (405, &"GET,HEAD".parse().unwrap()));
}
