//! Which bucket, as the user names it. Made by the settings; checked here, so that a bad one ends the start.

use std::path::PathBuf;

use super::CacheError;

/// S3's limits for the name of a bucket.
const BUCKET_NAME: std::ops::RangeInclusive<usize> = 3..=63;

/// Which bucket, where, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOptions {
    /// The bucket's name.
    pub bucket: String,
    /// Where in it; may be empty.
    pub prefix: String,
    /// The server; none is AWS.
    pub endpoint: Option<String>,
    /// Its region.
    pub region: Option<String>,
    /// An AWS-style credentials file; none is the environment.
    pub credentials_file: Option<PathBuf>,
}

// === impl CacheOptions ===

impl CacheOptions {
    /// Reads the settings; `None` where no bucket is named. What is refused is not quoted: it may hold a password.
    ///
    /// # Errors
    /// When one of them is not what it should be, or this build knows no buckets.
    pub fn read(
        url: Option<&str>,
        endpoint: Option<String>,
        region: Option<String>,
        credentials_file: Option<PathBuf>,
    ) -> Result<Option<Self>, CacheError> {
        let Some(url) = url else {
            let lonely = [
                ("--cache-endpoint", endpoint.is_some()),
                ("--cache-region", region.is_some()),
                ("--cache-credentials-file", credentials_file.is_some()),
            ];
            return match lonely.into_iter().find(|(_, given)| *given) {
                Some((name, _)) => Err(CacheError::Lonely(name)),
                None => Ok(None),
            };
        };
        if !cfg!(feature = "object-store") {
            return Err(CacheError::NotBuilt);
        }
        let (bucket, prefix) = place(url).map_err(CacheError::Url)?;
        if let Some(endpoint) = &endpoint {
            check_endpoint(endpoint).map_err(CacheError::Endpoint)?;
        }
        Ok(Some(Self { bucket, prefix, endpoint, region, credentials_file }))
    }
}

/// A bucket's name.
///
/// # Errors
/// When it is none, in words that do not quote it.
pub fn check_bucket(name: &str) -> Result<(), &'static str> {
    let named = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    if !BUCKET_NAME.contains(&name.len()) || !name.bytes().all(named) {
        return Err("a bucket's name has 3 to 63 of a-z, 0-9, - and .");
    }
    Ok(())
}

fn place(url: &str) -> Result<(String, String), &'static str> {
    let rest = url.strip_prefix("s3://").ok_or("it does not begin with s3://")?;
    if rest.contains('@') {
        return Err("credentials do not belong there: use --cache-credentials-file or the environment");
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    check_bucket(bucket)?;
    let prefix = prefix.trim_end_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let part = |part: &str| part.bytes().all(plain) && !part.trim_matches('.').is_empty();
    if !prefix.is_empty() && !prefix.split('/').all(part) {
        return Err("a prefix has parts of letters, digits, -, _ and . between single slashes");
    }
    Ok((bucket.to_owned(), prefix.to_owned()))
}

/// A server's address.
///
/// # Errors
/// When it is none, in words that do not quote it.
pub fn check_endpoint(endpoint: &str) -> Result<(), &'static str> {
    let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    let host = host.ok_or("it begins with neither")?.trim_end_matches('/');
    if host.contains('@') {
        return Err("credentials do not belong there: use a file or the environment");
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]/".contains(&byte);
    if host.is_empty() || host.starts_with('/') || !host.bytes().all(plain) {
        return Err("there is no host, or more than a host, a port and a path");
    }
    Ok(())
}

#[cfg(all(test, feature = "object-store"))]
mod tests {
    use super::*;

    fn read(url: &str, endpoint: Option<&str>) -> Result<Option<CacheOptions>, CacheError> {
        CacheOptions::read(Some(url), endpoint.map(str::to_owned), None, None)
    }

    #[test]
    fn a_bucket_is_named_with_or_without_a_prefix() {
        for (url, bucket, prefix) in [
            ("s3://cache", "cache", ""),
            ("s3://cache/", "cache", ""),
            ("s3://my-cache.eu/images/one/", "my-cache.eu", "images/one"),
        ] {
            let options = read(url, Some("http://127.0.0.1:9000")).unwrap().unwrap();
            assert_eq!((options.bucket.as_str(), options.prefix.as_str()), (bucket, prefix));
        }
        assert_eq!(CacheOptions::read(None, None, None, None).unwrap(), None);
    }

    #[test]
    fn what_is_no_bucket_is_refused_without_being_quoted() {
        for url in
            ["cache", "https://cache", "s3://", "s3://ab", "s3://A_B/c", "s3://cache//x", "s3://cache/../x"]
        {
            assert!(read(url, None).is_err(), "{url}");
        }
        for (url, endpoint) in [
            ("s3://key:hunter2@cache/x", None),
            ("s3://cache/x?key=hunter2", None),
            ("s3://cache", Some("https://key:hunter2@host")),
            ("s3://cache", Some("ftp://hunter2")),
            ("s3://cache", Some("https://host?hunter2")),
        ] {
            let error = read(url, endpoint).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let lonely = CacheOptions::read(None, None, Some("eu".into()), None).unwrap_err();
        assert!(lonely.to_string().contains("--cache-region"), "{lonely}");
    }
}
