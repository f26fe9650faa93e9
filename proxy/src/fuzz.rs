//! One door for the fuzz target: all text from outside that this crate parses itself. Called by nothing else.

use http::header::{IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Uri};

use crate::grants::subject;
use crate::manifest;
use crate::path::Target;
use crate::range::Wanted;
use crate::way::{Way, split_path};

/// Parses the text as a manifest, a path, a token, a request's target and a range; panics where a rule of the parsers is broken.
pub fn request(text: &str) {
    let image = "application/vnd.oci.image.manifest.v1+json";
    let _ = (manifest::layers(text.as_bytes()), manifest::named(text.as_bytes(), image));
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_breaks_the_parsers(text in "(/v2/)?[a-z0-9/:._%?=&-]{0,60}|.{0,60}") {
            super::request(&text);
        }

        #[test]
        fn no_range_breaks_the_parser(text in "bytes=[0-9]{0,22}-[0-9]{0,22}(,[0-9-]{0,9})?") {
            super::request(&text);
        }
    }
}
