//! One door for the fuzz target: all text from outside that this crate parses itself. Called by nothing else.

use http::header::{IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Uri};

use crate::grants::subject;
use crate::manifest;
use crate::path::Target;
use crate::range::Wanted;
use crate::setup::{Config, Proxy, Registry, daemon_json, hosts, registries};
use crate::way::{Way, split_path};

/// Parses the text as a manifest, a path, a token, a request's target and a range; panics where a rule of the parsers is broken.
pub fn request(text: &str) {
    let image = "application/vnd.oci.image.manifest.v1+json";
    let _ = (manifest::layers(text.as_bytes()), manifest::named(text.as_bytes(), image, false));
    if let Ok(target) = text.parse::<Target>() {
        let path = target.path();
        assert!(path.starts_with("/v2/") && !path.contains("/../"), "{text:?} became {path:?}");
    }
    if let Some((registry, path)) = split_path(text) {
        assert!(
            path.starts_with("/v2/") && !registry.contains('/'),
            "{text:?} became {registry:?} and {path:?}"
        );
    }
    let _ = subject(text);
    if let Ok(uri) = text.parse::<Uri>() {
        let _ = Way::of(&uri, http::Version::HTTP_11);
    }
    let Ok(value) = HeaderValue::from_str(text) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(RANGE, value.clone());
    for length in [0, 1, 1 << 40] {
        let range = Wanted::of(&headers, "\"tag\"", length).range(length);
        assert!(range.start <= range.end && range.end <= length, "{text:?} of {length} became {range:?}");
    }
    headers.insert(IF_RANGE, value);
    let _ = Wanted::of(&headers, "\"tag\"", 10);
}

/// Takes the text for each of the files that runtimes are set up by; panics where a change is lost or not the last.
pub fn setup(text: &str) {
    let proxy = Proxy::default();
    let _ = (text.parse::<Registry>(), text.parse::<Proxy>());
    if let Ok(changed) = daemon_json::with_mirror(text, proxy.url()) {
        assert_eq!(
            daemon_json::mirrors(&changed).ok().and_then(|all| all.into_iter().next()).as_deref(),
            Some(proxy.url())
        );
        assert_eq!(daemon_json::with_mirror(&changed, proxy.url()).as_ref(), Ok(&changed));
    }
    if let Ok(changed) = hosts::with_first(text, proxy.url()) {
        assert_eq!(hosts::with_first(&changed, proxy.url()).as_ref(), Ok(&changed));
    }
    let _ = hosts::moved(text, "_default");
    if let Ok(mut config) = Config::parse(text, None)
        && config.set_config_path("/etc/containerd/certs.d").is_ok()
    {
        let again = Config::parse(&config.text(), None).expect("invariant: what is written can be read");
        assert_eq!(again.config_path(), Some("/etc/containerd/certs.d"), "{text:?}");
    }
    if let Ok(changed) = registries::with_entry(text, &registries::plain("docker.io"), &proxy) {
        let file = registries::Registries::parse(&changed).expect("invariant: what is written can be read");
        assert!(file.entry("docker.io").is_some_and(|entry| entry.goes_through(&proxy)), "{text:?}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_breaks_the_parsers(text in "(/v2/)?[a-z0-9/:._%?=&-]{0,60}|.{0,60}") {
            super::request(&text);
        }

        #[test]
        fn no_text_breaks_setup(text in "((\\[{0,2}(host|registry|plugins|cri|\"http://x\"|\\.| )+\\]{0,2}|version = [123]|config_path|mirror|=|\"a\"|\\{|\\}|#x|,)[\n ]{0,2}){0,12}") {
            super::setup(&text);
        }

        #[test]
        fn no_range_breaks_the_parser(text in "bytes=[0-9]{0,22}-[0-9]{0,22}(,[0-9-]{0,9})?") {
            super::request(&text);
        }
    }
}
