//! Who may read what, with the origin there and without it.

use std::time::Duration;

use common::digest::Digest;
use http::{Method, StatusCode};
use proxy::{ProxyOptions, Terms};

use crate::fake::{ALICE, BEARER, CHALLENGE, Manners};
use crate::lab::{Lab, MANIFEST_TYPE, header};

const REPOSITORY: &str = "/v2/team/app";
/// A token of somebody who had no account: its claims are `{"sub":""}`.
const NOBODYS: &str = "Bearer e30.eyJzdWIiOiIifQ.c2ln";
/// One of somebody's: `{"sub":"bob"}`.
const BOBS: &str = "Bearer e30.eyJzdWIiOiJib2IifQ.c2ln";

/// An image: a tag, a manifest and one layer.
struct Image {
    lab: Lab,
    tag: String,
    manifest: (String, Vec<u8>),
    layer: (String, Vec<u8>),
}

impl Image {
    async fn with(manners: Manners, options: ProxyOptions) -> Self {
        let lab = Lab::with(None, options).await;
        let layer = b"the layer of the image".repeat(1000);
        let digest = Digest::of(&layer);
        let manifest =
            format!(r#"{{"layers":[{{"digest":"{digest}","size":{},"mediaType":"x"}}]}}"#, layer.len());
        let (manifest, layer_path) = (manifest.into_bytes(), format!("{REPOSITORY}/blobs/{digest}"));
        lab.origin.put(&layer_path, layer.clone(), manners.clone());
        let digest = Digest::of(&manifest).to_string();
        let tag = format!("{REPOSITORY}/manifests/latest");
        let by_digest = format!("{REPOSITORY}/manifests/{digest}");
        let headers = vec![("content-type", MANIFEST_TYPE.to_owned()), ("docker-content-digest", digest)];
        for path in [&tag, &by_digest] {
            lab.origin.put(path, manifest.clone(), Manners { headers: headers.clone(), ..manners.clone() });
        }
        Self { lab, tag, manifest: (by_digest, manifest), layer: (layer_path, layer) }
    }

    async fn of(manners: Manners) -> Self {
        Self::with(manners, ProxyOptions::default()).await
    }

    fn paths(&self) -> [(&str, &[u8]); 3] {
        [(&self.tag, &self.manifest.1), (&self.manifest.0, &self.manifest.1), (&self.layer.0, &self.layer.1)]
    }

    async fn status(&self, path: &str, who: Option<&str>) -> StatusCode {
        self.lab.get(path, &headers(who)).await.status()
    }

    /// Pulls all of it.
    async fn pulls(&self, who: Option<&str>) {
        for (path, bytes) in self.paths() {
            let response = self.lab.get(path, &headers(who)).await;
            assert_eq!(response.status(), StatusCode::OK, "{path} for {who:?}");
            assert_eq!(response.bytes().await.unwrap(), bytes, "{path}");
        }
    }

    /// Gets none of it.
    async fn is_kept_from(&self, who: Option<&str>) {
        for (path, _) in self.paths() {
            let status = self.status(path, who).await;
            assert!(!status.is_success(), "{path} for {who:?}: {status}");
        }
    }
}

fn headers(who: Option<&str>) -> Vec<(&str, &str)> {
    who.map(|who| ("authorization", who)).into_iter().collect()
}

fn private() -> Manners {
    Manners { private: true, ..Manners::default() }
}

#[tokio::test]
async fn a_pull_asks_the_origin_once_for_the_permission_to_all_of_it() {
    let image = Image::of(private()).await;
    image.pulls(Some(ALICE)).await;
    let origin = &image.lab.origin;
    assert_eq!(origin.asked(Method::HEAD, &image.tag).len(), 1);
    assert_eq!(origin.asked(Method::HEAD, &image.manifest.0).len(), 0);
    assert_eq!(origin.asked(Method::HEAD, &image.layer.0).len(), 0);
    // What Alice is allowed says nothing of anybody else.
    for stranger in [None, Some("Basic Ym9iOngK"), Some(BOBS)] {
        for (path, _) in image.paths() {
            let refusal = image.lab.get(path, &headers(stranger)).await;
            assert_eq!(refusal.status(), StatusCode::UNAUTHORIZED, "{path} for {stranger:?}");
            assert_eq!(header(&refusal, "www-authenticate"), CHALLENGE);
        }
    }
    let head = image.lab.ask(Method::HEAD, &image.layer.0, &headers(Some(ALICE))).await;
    assert_eq!(header(&head, "content-length"), image.layer.1.len().to_string());
}

#[tokio::test]
async fn a_layer_is_allowed_in_the_repository_of_its_manifest_only() {
    let image = Image::of(private()).await;
    image.pulls(Some(ALICE)).await;
    let digest = image.layer.0.rsplit('/').next().unwrap();
    for path in [format!("/v2/team/other/blobs/{digest}"), format!("/v2/other/blobs/{digest}")] {
        assert_eq!(image.status(&path, Some(ALICE)).await, StatusCode::NOT_FOUND, "{path}");
    }
    let elsewhere = format!("{}?ns=gone.example", image.layer.0);
    assert_eq!(image.status(&elsewhere, Some(ALICE)).await, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn without_the_origin_private_content_stays_with_its_reader() {
    let image = Image::of(private()).await;
    image.status("/v2/", None).await;
    image.status(&image.tag, None).await;
    image.pulls(Some(ALICE)).await;
    image.lab.origin.set_down(true);
    image.pulls(Some(ALICE)).await;
    image.is_kept_from(None).await;
    image.is_kept_from(Some(BOBS)).await;
    // Clients ask without a credential first, and show theirs only to whom asks for it.
    let refusal = image.lab.get(&image.tag, &[]).await;
    assert_eq!(header(&refusal, "www-authenticate"), CHALLENGE);
    image.lab.origin.set_down(false);
    image.pulls(Some(ALICE)).await;
    image.is_kept_from(None).await;
}

#[tokio::test]
async fn the_grace_time_ends() {
    let terms = Terms { life: Duration::ZERO, grace: Duration::from_millis(1500) };
    let image = Image::with(private(), ProxyOptions { terms, ..ProxyOptions::default() }).await;
    image.pulls(Some(ALICE)).await;
    image.lab.origin.set_down(true);
    while image.status(&image.layer.0, Some(ALICE)).await == StatusCode::OK {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    image.is_kept_from(Some(ALICE)).await;
    let none = Terms { life: Duration::ZERO, grace: Duration::ZERO };
    let image = Image::with(private(), ProxyOptions { terms: none, ..ProxyOptions::default() }).await;
    image.pulls(Some(ALICE)).await;
    image.lab.origin.set_down(true);
    image.is_kept_from(Some(ALICE)).await;
}

#[tokio::test]
async fn without_the_origin_public_content_stays_readable() {
    let terms = Terms { life: Duration::ZERO, grace: Duration::ZERO };
    for (manners, reader) in [
        (Manners::default(), None),
        (Manners { token: Some(NOBODYS.to_owned()), ..Manners::default() }, Some(NOBODYS)),
    ] {
        let image = Image::with(manners, ProxyOptions { terms, ..ProxyOptions::default() }).await;
        if reader.is_some() {
            let refusal = image.lab.get(&image.tag, &[]).await;
            assert_eq!(header(&refusal, "www-authenticate"), BEARER);
        }
        image.pulls(reader).await;
        image.lab.origin.set_down(true);
        image.pulls(reader).await;
        image.pulls(Some(BOBS)).await;
    }
}

#[tokio::test]
async fn a_token_of_somebody_makes_nothing_public() {
    let image = Image::of(Manners { token: Some(BOBS.to_owned()), ..Manners::default() }).await;
    image.pulls(Some(BOBS)).await;
    image.lab.origin.set_down(true);
    image.pulls(Some(BOBS)).await;
    image.is_kept_from(Some(NOBODYS)).await;
    image.is_kept_from(None).await;
}

#[tokio::test]
async fn an_origin_that_says_no_is_believed() {
    let image = Image::of(private()).await;
    image.pulls(Some(ALICE)).await;
    // The repository is given to somebody else.
    let manners = Manners { token: Some(BOBS.to_owned()), ..Manners::default() };
    for (path, bytes) in image.paths() {
        image.lab.origin.put(path, bytes.to_vec(), manners.clone());
    }
    assert_eq!(image.status(&image.tag, Some(ALICE)).await, StatusCode::UNAUTHORIZED);
    image.lab.origin.set_down(true);
    image.is_kept_from(Some(ALICE)).await;
}

#[tokio::test]
async fn many_that_ask_at_once_are_few_requests() {
    let image = Image::of(Manners::default()).await;
    let asks = (0..100).map(|_| image.status(&image.tag, None));
    assert!(futures_util::future::join_all(asks).await.iter().all(StatusCode::is_success));
    let heads = image.lab.origin.asked(Method::HEAD, &image.tag).len();
    assert!(heads <= 8, "{heads} requests");
    let gets = image.lab.origin.asked(Method::GET, &image.manifest.0).len();
    assert_eq!((gets, image.lab.origin.asked(Method::GET, &image.tag).len()), (1, 0));
}

#[tokio::test]
async fn a_moved_tag_is_seen_at_once() {
    let image = Image::of(Manners::default()).await;
    for n in 0..6 {
        let manifest = format!(r#"{{"layers":[],"annotations":{{"n":"{n}"}}}}"#).into_bytes();
        let digest = Digest::of(&manifest).to_string();
        let headers =
            vec![("content-type", MANIFEST_TYPE.to_owned()), ("docker-content-digest", digest.clone())];
        let manners = Manners { headers, ..Manners::default() };
        image.lab.origin.put(&image.tag, manifest.clone(), manners.clone());
        image.lab.origin.put(format!("{REPOSITORY}/manifests/{digest}"), manifest.clone(), manners);
        let response = image.lab.get(&image.tag, &[]).await;
        assert_eq!(response.bytes().await.unwrap(), manifest);
    }
}

/// The digest of what a client without credentials gets of a blob through `other.test`, whole.
async fn loot(lab: &Lab, path: &str) -> Option<Digest> {
    // Cut in the middle, or before the first byte.
    let answer = lab.client.get(format!("{}{path}?ns=other.test", lab.mirror)).send().await.ok()?;
    let granted = answer.status().is_success();
    answer.bytes().await.ok().filter(|_| granted).map(|bytes| Digest::of(&bytes))
}

#[tokio::test]
async fn a_registry_that_only_claims_to_have_a_blob_opens_it_to_nobody() {
    let lab = Lab::start().await;
    for length in [3_000, 700_000] {
        let (path, bytes) = lab.blob("team/secret", length, private());
        lab.get(&path, &headers(Some(ALICE))).await.bytes().await.unwrap();
        let claimed = path.replace("team/secret", "mine/now");
        let guess: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
        lab.other.put(&claimed, guess, Manners::default());
        for _ in 0..2 {
            assert_eq!(loot(&lab, &claimed).await, None, "{length} bytes");
        }
    }
}

#[tokio::test]
async fn a_registry_that_has_a_blob_shows_some_of_it_once() {
    let lab = Lab::start().await;
    for length in [3_000, 700_000] {
        let (path, bytes) = lab.blob("team/shared", length, private());
        lab.get(&path, &headers(Some(ALICE))).await.bytes().await.unwrap();
        lab.other.put(&path, bytes.clone(), Manners::default());
        for _ in 0..2 {
            assert_eq!(loot(&lab, &path).await, Some(Digest::of(&bytes)));
        }
        assert!(lab.other.sent(&path) <= 64 << 10, "{}", lab.other.sent(&path));
    }
}

#[tokio::test]
async fn who_began_to_fetch_a_blob_in_vain_is_not_where_it_came_from() {
    let lab = Lab::start().await;
    let (path, bytes) = lab.blob("team/secret", 700_000, private());
    let claimed = path.replace("team/secret", "mine/now");
    let guess: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
    lab.other.put(&claimed, guess, Manners { cuts: usize::MAX, ..Manners::default() });
    assert_eq!(loot(&lab, &claimed).await, None, "before");
    let owner = lab.get(&path, &headers(Some(ALICE))).await;
    assert_eq!(owner.bytes().await.unwrap(), bytes);
    assert_eq!(loot(&lab, &claimed).await, None, "after");
}

#[tokio::test]
async fn a_tag_that_is_gone_is_gone_without_the_origin_too() {
    let image = Image::of(Manners::default()).await;
    image.pulls(None).await;
    image.lab.origin.remove(&image.tag);
    assert_eq!(image.status(&image.tag, None).await, StatusCode::NOT_FOUND);
    image.lab.origin.set_down(true);
    assert!(!image.status(&image.tag, None).await.is_success());
}
