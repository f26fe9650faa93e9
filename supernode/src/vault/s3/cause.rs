//! What may be said of a request that failed. Servers quote requests in their answers, session tokens included, so of an
//! answer only its status and the word in its `<Code>` are told. Used wherever a bucket fails.

use std::error::Error as _;

use object_store::Error;

/// The words for errors have so many characters at most (`InvalidAccessKeyId`).
const MAX_CODE: usize = 64;

/// Why, in words without secrets.
pub fn cause(error: &Error) -> String {
    let text = error.to_string();
    let what = match error {
        Error::NotFound { .. } => "not found".to_owned(),
        Error::PermissionDenied { .. } => {
            "access denied: check the credentials and the bucket's policy".to_owned()
        }
        Error::Unauthenticated { .. } => "the credentials are not accepted".to_owned(),
        _ => status(&text).map_or_else(|| transport(error, &text), |status| format!("status {status}")),
    };
    match code(&text) {
        Some(code) => format!("{what} ({code})"),
        None => what,
    }
}

/// Whether it is the bucket that is not there, and not an object in it.
pub(in crate::vault) fn is_no_bucket(error: &Error) -> bool {
    code(&error.to_string()) == Some("NoSuchBucket")
}

/// Whether there is no such range: the object is shorter than it should be.
pub(in crate::vault) fn is_no_range(error: &Error) -> bool {
    let text = error.to_string();
    status(&text) == Some("416") || code(&text) == Some("InvalidRange")
}

fn code(text: &str) -> Option<&str> {
    let (code, _) = text.split_once("<Code>")?.1.split_once("</Code>")?;
    (code.len() <= MAX_CODE && code.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(code)
}

fn status(text: &str) -> Option<&str> {
    let status = text.split_once("status code: ")?.1.get(..3)?;
    status.bytes().all(|byte| byte.is_ascii_digit()).then_some(status)
}

fn transport(error: &Error, text: &str) -> String {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() != std::io::ErrorKind::Other
        {
            return error.kind().to_string();
        }
        source = error.source();
    }
    let lower = text.to_ascii_lowercase();
    let known = [
        ("metadata/instance", "no credentials: set them, or name their file"),
        ("/meta-data/", "no credentials: set them, or name their file"),
        ("latest/api/token", "no credentials: set them, or name their file"),
        ("timed out", "no answer in time"),
        ("timeout", "no answer in time"),
        ("dns", "its name cannot be resolved"),
        ("certificate", "its certificate is not trusted"),
    ];
    let known = known.into_iter().find(|(mark, _)| lower.contains(mark));
    known.map_or("it cannot be reached, or does not speak S3", |(_, words)| words).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn answers_are_not_quoted() {
        let answer = "Server returned non-2xx status code: 400 Bad Request: <Error><Code>InvalidToken</Code>\
                      <Token-0>hunter2</Token-0></Error>";
        assert_eq!(cause(&generic(answer)), "status 400 (InvalidToken)");
        assert_eq!(cause(&generic("hunter2")), "it cannot be reached, or does not speak S3");
        assert_eq!(cause(&generic("<Code>hunter 2</Code>")), "it cannot be reached, or does not speak S3");
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(cause(&Error::Generic { store: "S3", source: refused.into() }), "connection refused");
    }
}
