//! A manifest that names a blob is no permission to read it: whoever may push can write any digest into one, and a
//! registry takes some of them unseen, or reads the text otherwise than others do. Go's JSON takes `URLS` and `urlſ`
//! for `urls`, and of two keys the last.

use reqwest::{Method, StatusCode, header};
use serde_json::json;

use super::{ALICE, BOB, Port, QUAY, Word, asking};
use crate::support::client::{self, blob_url, manifest_url};
use crate::support::image::{Blob, Image, MANIFEST};
use crate::support::need;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";

/// Manifests that some registry takes from somebody who has `own` and does not have `loot`.
fn manifests(own: &Image, loot: &Blob) -> Vec<(&'static str, String)> {
    let config = json!({"mediaType": own.config.media_type, "digest": own.config.digest.to_string(),
        "size": own.config.size()});
    let (mine, his) = (own.layer().digest, loot.digest);
    let (size, his_size) = (own.layer().size(), loot.size());
    let layer = |text: &str, kind: &str| format!(r#"{{"mediaType":"{kind}",{text}}}"#);
    let hers = layer(&format!(r#""digest":"{mine}","size":{size}"#), LAYER);
    let foreign = |key: &str, kind: &str| {
        layer(&format!(r#""digest":"{his}","size":{his_size},"{key}":["https://x.test/y"]"#), kind)
    };
    let plain = layer(&format!(r#""digest":"{his}","size":{his_size}"#), LAYER);
    let two_digests = |first: &str, second: &str| {
        layer(&format!(r#""{first}":"{his}","{second}":"{mine}","size":{size}"#), LAYER)
    };
    let whole =
        |rest: &str| format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{config},{rest}}}"#);
    vec![
        ("a foreign layer", whole(&format!(r#""layers":[{}]"#, foreign("urls", FOREIGN)))),
        ("a layer with URLs", whole(&format!(r#""layers":[{}]"#, foreign("urls", LAYER)))),
        ("a layer with URLS", whole(&format!(r#""layers":[{}]"#, foreign("URLS", FOREIGN)))),
        ("a layer with urlſ", whole(&format!(r#""layers":[{}]"#, foreign("url\u{17f}", FOREIGN)))),
        ("escaped Urls", whole(&format!(r#""layers":[{}]"#, foreign("\\u0055rls", FOREIGN)))),
        ("layers and Layers", whole(&format!(r#""layers":[{plain}],"Layers":[{hers}]"#))),
        ("layers and layerſ", whole(&format!(r#""layers":[{plain}],"layer{}":[{hers}]"#, '\u{17f}'))),
        ("layers twice", whole(&format!(r#""layers":[{plain}],"layers":[{hers}]"#))),
        ("digest and Digest", whole(&format!(r#""layers":[{}]"#, two_digests("digest", "Digest")))),
        ("digest twice", whole(&format!(r#""layers":[{}]"#, two_digests("digest", "digest")))),
        ("a list of manifests beside", whole(&format!(r#""layers":[{hers}],"manifests":[{plain}]"#))),
        ("a subject", whole(&format!(r#""layers":[{hers}],"subject":{plain}"#))),
    ]
}

/// Pushes `own` and then the manifest under `own`'s repository; whether the registry takes it.
async fn plants(port: &Port, own: &Image, text: &str) -> bool {
    port.registry.push(own).await;
    let path = format!("/v2/{}/manifests/planted", own.repository);
    let put = port.registry.request(Method::PUT, &path).header(header::CONTENT_TYPE, MANIFEST);
    put.body(text.to_owned()).send().await.unwrap().status() == StatusCode::CREATED
}

/// Alice reads what she planted, and then wants the blob that it names.
async fn reaches_for(port: &Port, own: &Image, word: &Word, loot: &Blob, shape: &str) {
    let manifest = manifest_url(port.proxy(0), QUAY, &own.repository, "planted");
    let read = client::fetch(asking(Method::GET, &manifest, word)).await;
    assert_eq!(read.status, StatusCode::OK, "{shape}: her own manifest");
    let by_digest = manifest_url(port.proxy(0), QUAY, &own.repository, &read.digest.to_string());
    assert_eq!(client::fetch(asking(Method::GET, &by_digest, word)).await.status, StatusCode::OK);
    for url in [
        blob_url(port.proxy(0), QUAY, &own.repository, loot.digest),
        manifest_url(port.proxy(0), QUAY, &own.repository, &loot.digest.to_string()),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let answer = client::fetch(asking(method.clone(), &url, word)).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{shape}: {method} {url}");
            assert_ne!(answer.digest, loot.digest, "{shape}: {method} {url}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_names_anothers_blob_does_not_open_it() {
    need!("docker-registry");
    let port = Port::open(1, 1400, |world| world).await;
    port.pulls(0, &port.bobs, &port.word(Some(BOB), "team-b/app").await).await;
    let loot = &port.bobs.layers[1];
    let mut taken = 0;
    let shapes = manifests(&Image::single("any", 4 << 10, 1450), loot).len();
    for number in 0..shapes {
        let name = format!("team-a/planted{number}");
        let own = Image::single(&name, 4 << 10, 1450);
        let (shape, text) = manifests(&own, loot).swap_remove(number);
        if !plants(&port, &own, &text).await {
            println!("the registry refuses {shape}");
            continue;
        }
        taken += 1;
        let word = port.word(Some(ALICE), &name).await;
        reaches_for(&port, &own, &word, loot, shape).await;
    }
    assert!(taken > 0, "the registry took none of them: nothing was tried");
}
