//! Notifications as registries and Harbor's Kraken driver send them: `{"events":[…]}`. Keys are in lower case (distribution)
//! or capitalised as Go's fields are (Harbor), and anything may be null. Pure; bytes from outside.
//!
//! Sources: distribution's "Work with notifications"; Harbor's `notification.Notification`.
//!
//! # Invariants
//! - An event that is not understood spoils no other.
//! - A body costs little more than itself: each event is read where it lies, and what it says is all that is kept.

use std::fmt;

use common::digest::Digest;
use peer::image::reference::Reference;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::image_of::{image_of, reference};
use super::refusal::{Refusal, json};

/// Events of one body: registries send one or a few. All of them have room in an empty backlog, so that any body is taken whole
/// some time.
pub(super) const MAX_EVENTS: usize = 1000;
const _: () = assert!(MAX_EVENTS <= super::backlog::MOST);
/// What may be a manifest: what can be preheated, images and indexes.
const MANIFESTS: [&str; 4] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
];

/// What a body says.
#[derive(Debug)]
pub(super) struct Notification {
    /// Each event, in order.
    pub events: Vec<Event>,
    /// Whether it is Harbor's: a wish for one image, which wants to hear if nothing comes of it.
    pub wish: bool,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// An image was pushed: it has a tag, and the digest where that is known.
    Pushed(Reference),
    /// Something else happened.
    Other,
    /// A push of something that has no name here, and why.
    Nameless(String),
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default, deserialize_with = "present")]
    events: Option<Entries>,
    #[serde(default, rename = "Events", deserialize_with = "present")]
    wished: Option<Entries>,
}

#[derive(Default)]
struct Entries {
    read: Vec<Event>,
    more: bool,
}

#[derive(Deserialize)]
struct Said {
    #[serde(alias = "Action")]
    action: Option<String>,
    #[serde(alias = "Target")]
    target: Option<Target>,
    #[serde(alias = "Request")]
    request: Option<Asked>,
}

#[derive(Deserialize)]
struct Target {
    #[serde(rename = "mediaType", alias = "MediaType")]
    media_type: Option<String>,
    #[serde(alias = "Digest")]
    digest: Option<String>,
    #[serde(alias = "Repository")]
    repository: Option<String>,
    #[serde(alias = "Url")]
    url: Option<String>,
    #[serde(alias = "Tag")]
    tag: Option<String>,
}

#[derive(Deserialize)]
struct Asked {
    #[serde(alias = "Host")]
    host: Option<String>,
}

/// What a body says.
///
/// # Errors
/// When it is no notification.
pub(super) fn read(body: &[u8]) -> Result<Notification, Refusal> {
    let (entries, wish) = match json(body)? {
        Envelope { events: Some(entries), wished: None } => (entries, false),
        Envelope { events: None, wished: Some(entries) } => (entries, true),
        Envelope { .. } => {
            return Err(Refusal::Unfit(
                "the body has no \"events\": a registry's notifications are expected, not those of another webhook".into(),
            ));
        }
    };
    match entries.more {
        true => Err(Refusal::Many(MAX_EVENTS)),
        false => Ok(Notification { events: entries.read, wish }),
    }
}

/// Text that is there and says something.
fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

// === impl Said ===

impl Said {
    /// What an entry says, which may be anything.
    fn read(entry: &RawValue) -> Event {
        serde_json::from_str::<Self>(entry.get()).map_or(Event::Other, |said| said.event())
    }

    fn event(&self) -> Event {
        let Some(target) = self.target.as_ref().filter(|_| given(&self.action) == Some("push")) else {
            return Event::Other;
        };
        let is_manifest = match given(&target.media_type) {
            Some(kind) => MANIFESTS.contains(&kind),
            None => given(&target.url).is_some_and(|url| url.contains("/manifests/")),
        };
        if !is_manifest {
            return Event::Other;
        }
        let host = self.request.as_ref().and_then(|request| given(&request.host));
        match target.image(host) {
            Ok(image) if image.tag.is_some() => Event::Pushed(image),
            // The parts of an index are pushed so, one by one, and then the index with its tag.
            Ok(_) => Event::Other,
            Err(why) => Event::Nameless(why),
        }
    }
}

// === impl Target ===

impl Target {
    fn image(&self, host: Option<&str>) -> Result<Reference, String> {
        let mut image = match (given(&self.url), host, given(&self.repository)) {
            (Some(url), ..) => image_of(url).map_err(|error| error.to_string())?.image,
            (None, Some(host), Some(repository)) => {
                let wanted = given(&self.tag).or(given(&self.digest)).unwrap_or_default();
                reference(host, repository, wanted).ok_or("its host, repository or tag is none")?
            }
            (None, ..) => return Err("it has no URL".into()),
        };
        if given(&self.repository).is_some_and(|repository| repository != image.repository) {
            return Err("its URL is of another repository".into());
        }
        if let Some(tag) = given(&self.tag) {
            let tagged = reference(&image.registry, &image.repository, tag).ok_or("its tag is none")?;
            image.tag = Some(tagged.tag.ok_or("its tag is none")?);
        }
        if let Some(digest) = given(&self.digest) {
            image.digest = Some(digest.parse::<Digest>().map_err(|_| "its digest is no sha256")?);
        }
        Ok(image)
    }
}

// === impl Entries ===

/// Null is none, and there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Entries>, D::Error> {
    Option::<Entries>::deserialize(deserializer).map(|entries| Some(entries.unwrap_or_default()))
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Few;
        impl<'de> Visitor<'de> for Few {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of events")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
                let mut entries = Entries::default();
                while entries.read.len() < MAX_EVENTS {
                    match list.next_element::<&RawValue>()? {
                        Some(entry) => entries.read.push(Said::read(entry)),
                        None => return Ok(entries),
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    entries.more = true;
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_seq(Few)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// As distribution writes it.
    fn distribution(action: &str, kind: &str, url: &str, tag: &str) -> String {
        format!(
            r#"{{"id":"320678d8-ca14-430f-8bb6-4ca139cd83f7","timestamp":"2026-11-22T19:00:00.1Z","action":"{action}",
            "target":{{"mediaType":"{kind}","size":708,"digest":"{DIGEST}","length":708,"repository":"team/app",
            "url":"{url}","tag":"{tag}"}},
            "request":{{"id":"6df24a34-0959-4923-81ca-14f09767db19","addr":"192.168.64.11:42961",
            "host":"registry.example:5000","method":"PUT","useragent":"curl/7.38.0"}},
            "actor":{{}},"source":{{"addr":"xtal.local:5000","instanceID":"a53db899-3b4b-4a62-a067-8dd013beaca4"}}}}"#
        )
    }

    fn events(events: &str) -> Vec<Event> {
        read(format!(r#"{{"events":[{events}]}}"#).as_bytes()).unwrap().events
    }

    fn name(event: &Event) -> String {
        match event {
            Event::Pushed(image) => image.spelled(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_push_as_distribution_says_it() {
        let by_digest = format!("http://registry.example:5000/v2/team/app/manifests/{DIGEST}");
        for kind in MANIFESTS {
            let pushed = events(&distribution("push", kind, &by_digest, "1.0"));
            assert_eq!(name(&pushed[0]), format!("registry.example:5000/team/app:1.0@{DIGEST}"));
        }
    }

    #[test]
    fn a_wish_as_harbors_kraken_driver_says_it() {
        let body = format!(
            r#"{{"Events":[{{"Id":"jdrjjGFDRgmEBDVF","TimeStamp":"2026-11-22T19:00:00.123456789Z","Action":"push",
            "Target":{{"MediaType":"application/vnd.docker.distribution.manifest.v2+json","Digest":"{DIGEST}",
            "Repository":"library/app","Url":"https://harbor.example/v2/library/app/manifests/1.0","Tag":"1.0"}},
            "Request":null,"Actor":null}}]}}"#
        );
        let Notification { events, wish } = read(body.as_bytes()).unwrap();
        assert!(wish);
        assert_eq!(name(&events[0]), format!("harbor.example/library/app:1.0@{DIGEST}"));
    }

    #[test]
    fn what_else_happens_is_let_be() {
        let (manifest, url) = (MANIFESTS[0], format!("http://h.io/v2/team/app/manifests/{DIGEST}"));
        for other in [
            distribution("pull", manifest, &url, "1.0"),
            distribution("delete", manifest, &url, "1.0"),
            distribution("", manifest, &url, "1.0"),
            distribution("push", "application/octet-stream", "http://h.io/v2/team/app/blobs/x", ""),
            distribution("push", manifest, &url, ""),
            r#"{"action":"push","target":null}"#.to_owned(),
            r#"{"action":5}"#.to_owned(),
            r#"{"Action":"push","action":"push"}"#.to_owned(),
            "null".to_owned(),
            "7".to_owned(),
            "[[]]".to_owned(),
        ] {
            let both = events(&format!("{other},{}", distribution("push", manifest, &url, "2")));
            assert_eq!(both[0], Event::Other, "{other}");
            assert!(matches!(both[1], Event::Pushed(_)), "{other}");
        }
    }

    #[test]
    fn a_push_without_a_name_says_why() {
        let manifest = MANIFESTS[2];
        for (url, tag, word) in [
            ("http://h.io/registry/v2/team/app/manifests/1", "1", "/v2/"),
            ("http://h.io/v2/team/other/manifests/1", "1", "another repository"),
            ("http://h.io/v2/team/app/manifests/1", "a b", "tag"),
            ("http://h.io/v2/team/app/manifests/1", DIGEST, "tag"),
        ] {
            match &events(&distribution("push", manifest, url, tag))[0] {
                Event::Nameless(why) => assert!(why.contains(word), "{why}"),
                other => panic!("{other:?}"),
            }
        }
        let odd = r#"{"action":"push","target":{"url":"http://h.io/v2/a/manifests/1","digest":"sha512:00"}}"#;
        assert!(matches!(&events(odd)[0], Event::Nameless(_)));
    }

    #[test]
    fn without_a_url_the_requests_host_is_the_registry() {
        let event = distribution("push", MANIFESTS[1], "", "1.0");
        assert_eq!(name(&events(&event)[0]), format!("registry.example:5000/team/app:1.0@{DIGEST}"));
    }

    #[test]
    fn what_is_no_notification_is_refused() {
        for empty in [r#"{"events":null}"#, r#"{"events":[]}"#, r#"{"Events":null}"#] {
            assert!(read(empty.as_bytes()).unwrap().events.is_empty(), "{empty}");
        }
        for (bad, word) in [
            ("", "ends too early"),
            ("{", "ends too early"),
            ("events", "not JSON"),
            ("[]", "no \"events\""),
            (r#"{"events":{}}"#, "shape"),
            (r#"{"events":"secret"}"#, "shape"),
            (r#"{"type":"PUSH_ARTIFACT"}"#, "no \"events\""),
            (r#"{"events":[],"Events":[]}"#, "no \"events\""),
        ] {
            let error = read(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains("secret"), "{bad}: {error}");
        }
        let few = |count: usize| format!(r#"{{"events":[{}]}}"#, vec!["1"; count].join(","));
        assert_eq!(read(few(MAX_EVENTS).as_bytes()).unwrap().events.len(), MAX_EVENTS);
        assert!(read(few(MAX_EVENTS + 1).as_bytes()).unwrap_err().to_string().contains("more than"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }

        #[test]
        fn any_texts_make_an_event(action in "push|\\PC{0,5}", url in "\\PC{0,40}", tag in "\\PC{0,10}", digest in "\\PC{0,10}") {
            let said = serde_json::json!({"events": [{"action": action, "target": {"url": url, "tag": tag, "digest": digest}}]});
            prop_assert_eq!(read(said.to_string().as_bytes()).unwrap().events.len(), 1);
        }
    }
}
