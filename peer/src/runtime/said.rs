//! What a runtime says, read and made fit to be shown. It quotes registries and URLs, and few of its errors have a code of their
//! own: containerd calls a registry's 401 "unknown". Pure.

use common::telemetry::redact;

use super::{Login, Refusal};

/// What is shown of a long text: its beginning, and more of its end, for in a chain of errors the cause is the last.
const BEGINNING: usize = 100;
const END: usize = 220;

/// gRPC's codes that say enough.
const INVALID_ARGUMENT: u32 = 3;
const NOT_FOUND: u32 = 5;
const PERMISSION_DENIED: u32 = 7;
const UNAUTHENTICATED: u32 = 16;
/// It ran out of the time that it was given.
pub(super) const DEADLINE_EXCEEDED: u32 = 4;
/// There is no such service, or no such call.
pub(super) const UNIMPLEMENTED: u32 = 12;

/// What runtimes and registries say when a login is missing or wrong. They come first: "pull access denied, repository does not
/// exist or may require authorization" is what Docker Hub says of both.
const UNAUTHORIZED_WORDS: [&str; 7] = [
    "unauthorized",
    "authorization failed",
    "access denied",
    "authentication required",
    "no basic auth credentials",
    "403 forbidden",
    "denied: ",
];
const NOT_FOUND_WORDS: [&str; 4] = ["not found", "manifest unknown", "name unknown", "no match for platform"];
const INVALID_WORDS: [&str; 3] =
    ["invalid reference", "invalid auth config", "failed to parse image reference"];

/// What kind of no it is.
pub(super) fn refusal(code: u32, said: &str) -> Refusal {
    match code {
        UNAUTHENTICATED | PERMISSION_DENIED => return Refusal::Unauthorized,
        NOT_FOUND => return Refusal::NotFound,
        INVALID_ARGUMENT => return Refusal::Invalid,
        _ => {}
    }
    let said = said.to_ascii_lowercase();
    let any = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if any(&INVALID_WORDS) {
        Refusal::Invalid
    } else if any(&UNAUTHORIZED_WORDS) {
        Refusal::Unauthorized
    } else if any(&NOT_FOUND_WORDS) {
        Refusal::NotFound
    } else {
        Refusal::Unavailable
    }
}

/// The text on one line, of bounded length, without the login and without what opens doors in its URLs.
pub(super) fn fit(said: &str, login: Option<&Login>) -> String {
    let mut said = said.to_owned();
    if let Some(secret) = login.map(Login::secret).filter(|secret| !secret.is_empty()) {
        said = said.replace(secret, "[redacted]");
    }
    let said = without_keys(&said);
    let said = said.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let said = said.collect::<Vec<_>>().join(" ");
    match said.chars().count() {
        0 => "it gave no reason".to_owned(),
        length if length <= BEGINNING + END => said,
        length => said.chars().take(BEGINNING).chain(['…']).chain(said.chars().skip(length - END)).collect(),
    }
}

/// Every URL in the text is redacted: signed ones come from a registry's storage.
fn without_keys(text: &str) -> String {
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("://") {
        let start =
            rest[..at].trim_end_matches(|c: char| c.is_ascii_alphanumeric() || "+-.".contains(c)).len();
        let ends = |c: char| c.is_whitespace() || "\"'`<>".contains(c);
        let end = rest[at..].find(ends).map_or(rest.len(), |length| at + length);
        shown.push_str(&rest[..start]);
        shown.push_str(&redact(&rest[start..end]));
        rest = &rest[end..];
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_no_is_known_by_its_code_or_else_by_its_words() {
        for (code, said, refusal_of_it) in [
            (16, "", Refusal::Unauthorized),
            (7, "", Refusal::Unauthorized),
            (5, "", Refusal::NotFound),
            (3, "", Refusal::Invalid),
            (14, "", Refusal::Unavailable),
            (
                2,
                "failed to resolve reference \"docker.io/a/b:c\": docker.io/a/b:c: not found",
                Refusal::NotFound,
            ),
            (
                2,
                "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
                Refusal::Unauthorized,
            ),
            (
                2,
                "pulling from host r.test failed with status code [manifests x]: 401 Unauthorized",
                Refusal::Unauthorized,
            ),
            (
                2,
                "initializing source docker://q/a:b: reading manifest b in q/a: manifest unknown",
                Refusal::NotFound,
            ),
            (2, "failed to parse image reference \"A\": invalid reference format", Refusal::Invalid),
            (2, "dial tcp 127.0.0.1:9: connect: connection refused", Refusal::Unavailable),
            (2, "unexpected status code 503 Service Unavailable", Refusal::Unavailable),
            (13, "no space left on device", Refusal::Unavailable),
        ] {
            assert_eq!(refusal(code, said), refusal_of_it, "{code} {said}");
        }
    }

    #[test]
    fn what_opens_doors_is_left_out() {
        let login = Login::Password { user: "ann".into(), password: "s3cret".into() };
        for (said, shown) in [
            (
                "failed to do request: Get \"https://ann:s3cret@q.test/v2/?x=y\": EOF",
                "failed to do request: Get \"https://q.test/v2/\": EOF",
            ),
            (
                "(https://s3.test/x?X-Amz-Signature=abc) and\nhttp://y/z#t",
                "(https://s3.test/x and http://y/z",
            ),
            ("wrong password s3cret\r\n", "wrong password [redacted]"),
            ("no URL here: // ://", "no URL here: // ://"),
            (" \n", "it gave no reason"),
        ] {
            assert_eq!(fit(said, Some(&login)), shown);
        }
        assert_eq!(fit("plain", None), "plain");
        let empty = Login::IdentityToken(String::new());
        assert_eq!(fit("plain", Some(&empty)), "plain");
        let long = fit(&format!("first{}last", "ä".repeat(5000)), None);
        assert_eq!(long.chars().count(), BEGINNING + 1 + END);
        assert!(long.starts_with("firstä") && long.contains("ä…ä") && long.ends_with("älast"), "{long}");
        assert_eq!(fit(&"ä".repeat(BEGINNING + END), None), "ä".repeat(BEGINNING + END));
    }

    proptest! {
        #[test]
        fn any_words_are_one_short_line_without_the_secret(
            before in "(\\PC|\n|[:/@?#\"]){0,60}", secret in "[A-Z0-9]{8,20}", after in "(\\PC|\n|[:/@?#\"]){0,60}",
        ) {
            let login = Login::IdentityToken(secret.clone());
            let text = format!("{before}{secret} https://q.test/x?key={secret} {after}");
            let shown = fit(&text, Some(&login));
            prop_assert!(!shown.contains(&secret) && !shown.contains(char::is_control));
            prop_assert!(shown.chars().count() <= BEGINNING + 1 + END);
            let signed = fit(&format!("{before} https://q.test/x?key={secret} {after}"), None);
            prop_assert!(!signed.contains(&secret));
        }
    }
}
