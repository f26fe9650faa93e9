//! URLs as they may stand in a log: without what opens doors. Signed URLs carry their permission in the query, and
//! some registries are written with a password in front of the host.

/// `url` without its userinfo, query and fragment, and without control characters, which could forge log lines.
///
/// It reads text, not only valid URLs, and rather shows too little: an authority that makes no sense, as when a
/// password holds a `/`, is left out whole.
pub fn redact(url: &str) -> String {
    let url: String = url.chars().filter(|c| !c.is_control()).collect();
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let scheme_end = url.find("://").filter(|&end| url[..end].chars().all(is_of_scheme));
    let (scheme, rest) = url.split_at(scheme_end.map_or(0, |end| end + 3));
    let (authority, path) = rest.split_at(rest.find(['/', '\\']).unwrap_or(rest.len()));
    match host_of(authority, !scheme.is_empty()) {
        Some(host) => format!("{scheme}{host}{path}"),
        // The path may be the rest of a password.
        None => format!("{scheme}[unreadable]"),
    }
}

fn is_of_scheme(c: char) -> bool {
    c.is_ascii_alphanumeric() || ['+', '-', '.'].contains(&c)
}

/// The authority without its userinfo, if what is left can be a host.
fn host_of(authority: &str, in_url: bool) -> Option<&str> {
    let host = match authority.rsplit_once('@') {
        // An image named by digest, not a host.
        Some((_, digest)) if !in_url && digest.starts_with("sha256:") => authority,
        Some((_, host)) => host,
        None => authority,
    };
    let port = host.rsplit_once(':').map_or("", |(_, port)| port);
    let is_ipv6 = host.starts_with('[') && host.ends_with(']');
    let plausible = !in_url || is_ipv6 || port.bytes().all(|byte| byte.is_ascii_digit());
    plausible.then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_opens_doors_is_left_out() {
        for (url, shown) in [
            (
                "https://registry.example/v2/a/b/blobs/sha256:00",
                "https://registry.example/v2/a/b/blobs/sha256:00",
            ),
            ("https://ann:s3cret@registry.example:5000/v2/", "https://registry.example:5000/v2/"),
            ("https://ann@registry.example", "https://registry.example"),
            ("https://ann:s3c@ret@registry.example/v2/", "https://registry.example/v2/"),
            ("https://ann:s3c/ret@registry.example/v2/", "https://[unreadable]"),
            ("https://ann:s3c?ret@registry.example/v2/", "https://[unreadable]"),
            ("https://b.s3.example/x?X-Amz-Signature=s3cret", "https://b.s3.example/x"),
            ("https://b.s3.example?token=s3cret", "https://b.s3.example"),
            ("https://b.s3.example/x#token=s3cret", "https://b.s3.example/x"),
            ("https://x/?next=https://ann:s3cret@y/", "https://x/"),
            ("https://[::1]:5000/x@y", "https://[::1]:5000/x@y"),
            ("https://[::1]/x", "https://[::1]/x"),
            ("https://ann:s3c]/ret@registry.example/v2/", "https://[unreadable]"),
            ("ann:s3cret@registry.example/x?s3cret", "registry.example/x"),
            ("ann:s3cret@registry.example/https://x", "registry.example/https://x"),
            ("docker.io/library/nginx@sha256:00", "docker.io/library/nginx@sha256:00"),
            ("nginx:1.29@sha256:00", "nginx:1.29@sha256:00"),
            ("alpine:3.22", "alpine:3.22"),
            ("/v2/a/manifests/latest?ns=docker.io", "/v2/a/manifests/latest"),
            ("https://x/a\r\nforged", "https://x/aforged"),
            ("", ""),
        ] {
            assert_eq!(redact(url), shown, "{url}");
        }
    }

    proptest! {
        #[test]
        fn secrets_in_their_places_never_show(
            user in "[a-z]{1,8}", secret in "[A-Z0-9!$&'()*+,;=%~_.@:-]{12,30}", path in "(/[a-z0-9:.]{0,8}){0,4}",
        ) {
            let url = format!("https://{user}:{secret}@host.example:5000{path}?sig={secret}&x=1#{secret}");
            prop_assert_eq!(redact(&url), format!("https://host.example:5000{path}"));
        }

        #[test]
        fn any_text_is_shown_on_one_line(text in "(\\PC|\n|[:/@?#]){0,80}") {
            let once = redact(&text);
            prop_assert!(!once.contains(|c: char| c.is_control() || c == '?' || c == '#'));
        }
    }
}
