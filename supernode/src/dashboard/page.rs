//! The dashboard's files, compiled in: one page, a style sheet, a few scripts. Nothing is asked of any other place. Served by
//! [`router`] without a token, for they hold no figure: those come from the API, which asks for one.

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use common::digest::Digest;

/// The page may load what is here and nothing else, and nobody may put it into a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Said with every file.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // It is asked each time whether the file is still the same: another release may be here.
    (header::CACHE_CONTROL, "no-cache"),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Path, type, text.
const FILES: [(&str, &str, &str); 14] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/dashboard/style.css", CSS, include_str!("page/style.css")),
    ("/dashboard/icon.svg", SVG, include_str!("page/icon.svg")),
    ("/dashboard/app.js", SCRIPT, include_str!("page/app.js")),
    ("/dashboard/api.js", SCRIPT, include_str!("page/api.js")),
    ("/dashboard/text.js", SCRIPT, include_str!("page/text.js")),
    ("/dashboard/ui.js", SCRIPT, include_str!("page/ui.js")),
    ("/dashboard/plot.js", SCRIPT, include_str!("page/plot.js")),
    ("/dashboard/graph.js", SCRIPT, include_str!("page/graph.js")),
    ("/dashboard/overview.js", SCRIPT, include_str!("page/overview.js")),
    ("/dashboard/swarms.js", SCRIPT, include_str!("page/swarms.js")),
    ("/dashboard/nodes.js", SCRIPT, include_str!("page/nodes.js")),
    ("/dashboard/images.js", SCRIPT, include_str!("page/images.js")),
    ("/dashboard/preheats.js", SCRIPT, include_str!("page/preheats.js")),
];

/// The routes of the files.
pub fn router() -> Router {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, text)| {
        let tag = HeaderValue::from_str(&format!("\"{}\"", &Digest::of(text.as_bytes()).hex()[..16]));
        let tag = tag.expect("invariant: hexadecimal digits in quotes are a header's value");
        router.route(path, get(async move |headers: HeaderMap| answer(&headers, kind, tag, text)))
    })
}

fn answer(asked: &HeaderMap, kind: &'static str, tag: HeaderValue, text: &'static str) -> Response {
    let known = asked.get(header::IF_NONE_MATCH) == Some(&tag);
    let mut answer = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, kind)], text).into_response(),
    };
    answer.headers_mut().insert(header::ETAG, tag);
    answer.headers_mut().extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a page over a slow line may weigh, the first figures included; the issue says 100 KB.
    const MOST: usize = 84 * 1024;

    #[test]
    fn the_files_are_light_and_name_no_other_place() {
        let weight: usize = FILES.iter().map(|(.., text)| text.len()).sum();
        assert!(weight <= MOST, "{weight} bytes");
        for (path, _, text) in FILES {
            for elsewhere in ["https://", "//cdn", "@import", "url("] {
                assert!(!text.contains(elsewhere), "{path}: {elsewhere}");
            }
            // An icon has to say which language it speaks.
            let places = text.matches("http://").count() - text.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(places, 0, "{path}");
            for inline in [" style=", " onclick=", "<script>", "innerHTML", "eval("] {
                assert!(!text.contains(inline), "{path}: {inline}");
            }
        }
    }

    #[test]
    fn a_file_that_is_known_is_not_sent_again() {
        let tag = HeaderValue::from_static("\"one\"");
        let fresh = answer(&HeaderMap::new(), HTML, tag.clone(), "text");
        assert_eq!(fresh.status(), StatusCode::OK);
        assert_eq!(fresh.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
        let known = [(header::IF_NONE_MATCH, tag.clone())].into_iter().collect();
        assert_eq!(answer(&known, HTML, tag, "text").status(), StatusCode::NOT_MODIFIED);
        let other = [(header::IF_NONE_MATCH, HeaderValue::from_static("\"two\""))].into_iter().collect();
        assert_eq!(
            answer(&other, HTML, HeaderValue::from_static("\"one\""), "text").status(),
            StatusCode::OK
        );
    }
}
