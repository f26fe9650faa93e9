//! Pulls through the mirror.

use std::sync::Arc;

use common::digest::Digest;
use common::telemetry::{Code, Recipient, RequestKind};
use http::{Method, StatusCode};

use crate::fake::{ALICE, CHALLENGE, Manners};
use crate::lab::{Lab, MANIFEST_TYPE, error_code, header};

/// What `sha512sum` says of 300000 bytes of value 7.
const SHA512_OF_SEVENS: &str = "989d01fd84b0d8fcc9c62cadce50bf74049b954f76171e6d643bf15d48c4d84d\
    43d903e4a603f99546fa0f816a0f4c38a51719fe838ac9252b1f1bf5a0945bd1";

#[tokio::test]
async fn a_blob_leaves_the_origin_once_and_each_client_is_checked() {
    let lab = Lab::start().await;
    let (path, bytes) = lab.blob("library/x", 700_000, Manners::default());
    for _ in 0..3 {
        let response = lab.get(&format!("{path}?ns=docker.io"), &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header(&response, "content-length"), "700000");
        assert_eq!(header(&response, "accept-ranges"), "bytes");
        assert_eq!(header(&response, "docker-distribution-api-version"), "registry/2.0");
        assert_eq!(header(&response, "docker-content-digest"), Digest::of(&bytes).to_string());
        assert_eq!(response.bytes().await.unwrap(), bytes);
    }
    // In one request or in several ranges: every byte once.
    let sent = lab.origin.sent(&path);
    assert_eq!(sent, 700_000, "{:?}", lab.origin.asked(Method::GET, &path));
    assert_eq!(
        lab.origin.asked(Method::HEAD, &path).len(),
        1,
        "what was granted a moment ago is not asked again"
    );
    let metrics = lab.engine.metrics();
    assert_eq!(metrics.proxy_requests.of(RequestKind::Blob, Code::Success).get(), 3);
    assert_eq!(metrics.sent_bytes.of(Recipient::Client).get(), 3 * 700_000);
}

#[tokio::test]
async fn a_cached_blob_is_no_permission() {
    let lab = Lab::start().await;
    let private = Manners { private: true, ..Manners::default() };
    let (path, bytes) = lab.blob("team-a/x", 1000, private);
    let alice = lab.get(&path, &[("authorization", ALICE)]).await;
    assert_eq!(alice.bytes().await.unwrap(), bytes);
    for headers in [&[][..], &[("authorization", "Basic Ym9iOmJvYnB3")]] {
        let response = lab.get(&path, headers).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(header(&response, "www-authenticate"), CHALLENGE);
        assert_eq!(error_code(response).await, "UNAUTHORIZED");
        let head = lab.ask(Method::HEAD, &path, headers).await;
        assert_eq!(head.status(), StatusCode::UNAUTHORIZED);
    }
    // Nor is what another repository holds.
    let elsewhere = path.replace("team-a", "team-b");
    let response = lab.get(&elsewhere, &[("authorization", ALICE)]).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(error_code(response).await, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn ranges_and_conditions_are_answered_as_http_wants_it() {
    let lab = Lab::start().await;
    let (path, bytes) = lab.blob("library/x", 600_000, Manners::default());
    let etag = format!("\"{}\"", Digest::of(&bytes));
    for (range, part) in
        [("bytes=0-0", 0..1), ("bytes=300000-", 300_000..600_000), ("bytes=-7", 599_993..600_000)]
    {
        let response = lab.get(&path, &[("range", range), ("if-range", &etag)]).await;
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        let (first, last) = (part.start, part.end - 1);
        assert_eq!(header(&response, "content-range"), format!("bytes {first}-{last}/600000"));
        assert_eq!(response.bytes().await.unwrap(), bytes[part]);
    }
    let response = lab.get(&path, &[("range", "bytes=600000-")]).await;
    assert_eq!(response.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&response, "content-range"), "bytes */600000");
    assert_eq!(response.bytes().await.unwrap().len(), 0);
    for whole in
        [[("range", "bytes=0-1,5-6"), ("accept", "*/*")], [("range", "bytes=0-1"), ("if-range", "\"x\"")]]
    {
        let response = lab.get(&path, &whole).await;
        assert_eq!((response.status(), response.bytes().await.unwrap().len()), (StatusCode::OK, 600_000));
    }
    let response = lab.get(&path, &[("if-none-match", &etag)]).await;
    assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(header(&response, "etag"), etag);
}

#[tokio::test]
async fn a_head_tells_the_length_and_downloads_nothing() {
    let lab = Lab::start().await;
    let (path, _) = lab.blob("library/x", 5000, Manners::default());
    let response = lab.ask(Method::HEAD, &path, &[]).await;
    assert_eq!((response.status(), header(&response, "content-length")), (StatusCode::OK, "5000"));
    assert_eq!(lab.gets(&path), 0);

    let (path, _) =
        lab.blob("library/quiet", 5000, Manners { head_says_nothing: true, ..Manners::default() });
    let response = lab.ask(Method::HEAD, &path, &[]).await;
    assert_eq!((response.status(), header(&response, "content-length")), (StatusCode::OK, ""));
    assert_eq!(lab.get(&path, &[]).await.bytes().await.unwrap().len(), 5000);
}

#[tokio::test]
async fn clients_that_come_at_once_share_one_download() {
    let lab = Arc::new(Lab::start().await);
    let (path, bytes) = lab.blob("library/x", 3_000_000, Manners::default());
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (lab, path) = (lab.clone(), path.clone());
        clients.spawn(async move { lab.get(&path, &[]).await.bytes().await.unwrap() });
    }
    while let Some(got) = clients.join_next().await {
        assert!(got.unwrap() == bytes);
    }
    assert_eq!(lab.origin.sent(&path), 3_000_000);
}

#[tokio::test]
async fn a_pull_does_not_need_room_in_the_store() {
    let lab = Lab::with_quota(Some(1)).await;
    let (path, bytes) = lab.blob("library/x", 700_000, Manners { cuts: 1, ..Manners::default() });
    let response = lab.get(&path, &[]).await;
    assert_eq!((response.status(), header(&response, "content-length")), (StatusCode::OK, "700000"));
    assert!(response.bytes().await.unwrap() == bytes);
    let response = lab.get(&path, &[("range", "bytes=5-9")]).await;
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(response.bytes().await.unwrap(), bytes[5..10]);
    assert!(lab.origin.sent(&path) > 700_000 * 2, "nothing was kept");
    let (by_tag, _, manifest) = lab.manifest("latest", true);
    assert_eq!(lab.get(&by_tag, &[]).await.bytes().await.unwrap(), manifest);

    let damaged = Manners { damaged: true, ..Manners::default() };
    let (path, _) = lab.blob("library/damaged", 700_000, damaged);
    let response = lab.get(&path, &[]).await;
    assert!(response.status() != StatusCode::OK || response.bytes().await.is_err());
}

#[tokio::test]
async fn an_origin_that_breaks_off_goes_unnoticed() {
    let lab = Lab::start().await;
    let (path, bytes) = lab.blob("library/x", 3_000_000, Manners { cuts: 2, ..Manners::default() });
    assert!(lab.get(&path, &[]).await.bytes().await.unwrap() == bytes);
}

#[tokio::test]
async fn the_origins_failure_is_the_clients_answer() {
    let lab = Lab::start().await;
    let (path, _) = lab.blob("library/x", 1000, Manners { get_fails: Some(404), ..Manners::default() });
    let response = lab.get(&path, &[]).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_manifest_leaves_the_origin_once_with_all_accept_lines() {
    let lab = Lab::start().await;
    let (by_tag, by_digest, bytes) = lab.manifest("latest", true);
    let lines = [("accept", MANIFEST_TYPE), ("accept", "application/vnd.oci.image.index.v1+json")];
    for path in [&by_tag, &by_digest, &by_tag] {
        let response = lab.get(path, &lines).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header(&response, "content-type"), MANIFEST_TYPE);
        assert_eq!(header(&response, "docker-content-digest"), Digest::of(&bytes).to_string());
        assert_eq!(header(&response, "content-length"), bytes.len().to_string());
        assert_eq!(response.bytes().await.unwrap(), bytes);
    }
    assert_eq!((lab.gets(&by_tag), lab.gets(&by_digest)), (0, 1));
    let joined = format!("{MANIFEST_TYPE}, application/vnd.oci.image.index.v1+json");
    for asked in
        lab.origin.asked(Method::HEAD, &by_tag).iter().chain(&lab.origin.asked(Method::GET, &by_digest))
    {
        let accept: Vec<_> = asked.headers.get_all("accept").iter().collect();
        assert_eq!(accept, [joined.as_str()]);
    }
    let head = lab.ask(Method::HEAD, &by_tag, &[("accept", "*/*")]).await;
    assert_eq!(header(&head, "content-length"), bytes.len().to_string());
    let asked = lab.origin.asked(Method::HEAD, &by_tag);
    let accept = asked.last().unwrap().headers["accept"].to_str().unwrap();
    assert!(accept.contains("image.index") && accept.contains("manifest.list") && accept.ends_with("*/*"));
}

#[tokio::test]
async fn a_refused_manifest_comes_with_the_origins_own_words() {
    let lab = Lab::start().await;
    let response = lab.get("/v2/library/x/manifests/nothing", &[]).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(error_code(response).await, "FROM_THE_ORIGIN");
}

#[tokio::test]
async fn a_registry_that_says_no_digest_is_passed_on_and_checked_where_it_can_be() {
    let lab = Lab::start().await;
    let (by_tag, by_digest, bytes) = lab.manifest("quiet", false);
    for path in [&by_tag, &by_digest] {
        let response = lab.get(path, &[]).await;
        assert_eq!(header(&response, "content-type"), MANIFEST_TYPE);
        assert_eq!(response.bytes().await.unwrap(), bytes);
    }
    let sha512 = format!("/v2/library/x/manifests/sha512:{}", "0".repeat(128));
    lab.origin.put(&sha512, bytes, Manners::default());
    let response = lab.get(&sha512, &[]).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(error_code(response).await, "UNAVAILABLE");
}

#[tokio::test]
async fn damaged_content_is_never_finished() {
    let lab = Lab::start().await;
    for length in [10, 400_000] {
        let damaged = Manners { damaged: true, ..Manners::default() };
        let (path, bytes) = lab.blob("library/damaged", length, damaged);
        let response = lab.get(&path, &[]).await;
        let refused = response.status() == StatusCode::BAD_GATEWAY;
        assert!(refused || response.bytes().await.is_err(), "{length} of {} bytes", bytes.len());
    }
}

#[tokio::test]
async fn another_algorithm_is_streamed_from_the_origin_and_proven() {
    let lab = Lab::start().await;
    let bytes = vec![7_u8; 300_000];
    let good = SHA512_OF_SEVENS;
    let path = format!("/v2/library/x/blobs/sha512:{good}");
    lab.origin.put(&path, bytes.clone(), Manners { cuts: 2, ..Manners::default() });
    let response = lab.get(&path, &[("range", "bytes=299990-")]).await;
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(response.bytes().await.unwrap(), bytes[299_990..]);
    let ranges: Vec<_> = lab.origin.asked(Method::GET, &path);
    assert_eq!(ranges[1].headers["range"], "bytes=150000-", "it goes on where it broke off");

    let bad = format!("/v2/library/x/blobs/sha512:{}", good.replace('0', "1"));
    lab.origin.put(&bad, bytes, Manners::default());
    let response = lab.get(&bad, &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.bytes().await.is_err());
}

#[tokio::test]
async fn what_the_mirror_does_not_know_is_passed_through() {
    let lab = Lab::start().await;
    let link = "</v2/library/x/tags/list?last=b&n=2>; rel=\"next\"";
    let headers = vec![("link", link.to_owned()), ("keep-alive", "timeout=1".to_owned())];
    let path = "/v2/library/x/tags/list";
    lab.origin.put(path, "{\"tags\":[]}", Manners { headers, ..Manners::default() });
    let response = lab.get(&format!("{path}?n=2&ns=docker.io&last=a"), &[]).await;
    assert_eq!((response.status(), header(&response, "link")), (StatusCode::OK, link));
    assert_eq!(header(&response, "keep-alive"), "");
    assert_eq!(response.text().await.unwrap(), "{\"tags\":[]}");
    assert_eq!(lab.origin.asked(Method::GET, path)[0].query.as_deref(), Some("n=2&last=a"));

    lab.origin.put("/v2/", "{}", Manners { private: true, ..Manners::default() });
    let response = lab.get("/v2/", &[]).await;
    assert_eq!(
        (response.status(), header(&response, "www-authenticate")),
        (StatusCode::UNAUTHORIZED, CHALLENGE)
    );
    assert!(response.text().await.unwrap().contains("says the origin"));
    assert_eq!(lab.get("/v2/", &[("authorization", ALICE)]).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn requests_that_cannot_be_meant_are_refused_in_words() {
    let lab = Lab::start().await;
    for (path, status, code) in [
        ("/v2/library/x/blobs/sha256:zz", 400, "DIGEST_INVALID"),
        ("/v2/Library/manifests/x", 400, "NAME_INVALID"),
        ("/v2/a%2fb/manifests/x", 400, "NAME_INVALID"),
        ("/v2/a/manifests/.x", 400, "MANIFEST_INVALID"),
        ("/v2/?ns=user:secret@host", 400, "NAME_INVALID"),
        ("/v2/?ns=169.254.169.254", 403, "DENIED"),
        ("/v1/search", 404, "UNSUPPORTED"),
    ] {
        let response = lab.get(path, &[]).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert_eq!(error_code(response).await, code, "{path}");
    }
    let response = lab.ask(Method::PUT, "/v2/library/x/manifests/y", &[]).await;
    assert_eq!(
        (response.status(), header(&response, "allow")),
        (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD")
    );
    assert_eq!(error_code(response).await, "UNSUPPORTED");
}

#[tokio::test]
async fn an_origin_that_is_gone_is_named() {
    let lab = Lab::start().await;
    let response = lab.get("/v2/library/x/manifests/latest?ns=gone.example", &[]).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(response.text().await.unwrap().contains("gone.example"));
}
