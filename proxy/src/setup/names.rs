//! What a user names: registries, and where the proxy listens. The command line and the planners pass these on.

use std::fmt;
use std::str::FromStr;

use http::Uri;

/// A registry, as image names begin with it: `docker.io`, `ghcr.io`, `registry.local:5000`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Registry(String);

/// Where the peer's proxy listens, as a runtime reaches it: a URL without a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy(String);

/// What was named makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a registry.
    #[error(
        "{0:?} is no registry: name it as images do, for example docker.io, ghcr.io or registry.local:5000"
    )]
    Registry(String),
    /// Not an address of a proxy.
    #[error("{0:?} is no address of a proxy: expected http://HOST:PORT, for example http://127.0.0.1:7711")]
    Proxy(String),
}

// === impl Registry ===

impl Registry {
    /// Docker Hub, by the name that its images have.
    pub const HUB: &str = "docker.io";

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is Docker Hub.
    pub fn is_hub(&self) -> bool {
        self.0 == Self::HUB
    }

    /// Where it is reached without a mirror; `None` where the runtime knows better (plain HTTP on loopback).
    pub(super) fn server(&self) -> Option<String> {
        if self.is_hub() {
            return Some("https://registry-1.docker.io".into());
        }
        let host = self.0.split(':').next().unwrap_or(&self.0);
        let here = host == "localhost" || host.starts_with("127.");
        (!here).then(|| format!("https://{}", self.0))
    }
}

impl FromStr for Registry {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = text.to_ascii_lowercase();
        let (host, port) = match name.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (name.as_str(), None),
        };
        let label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        // An image's first part is a registry only if it looks like one.
        let looks_so = host.contains('.') || port.is_some() || host == "localhost";
        let port_is_good = port.is_none_or(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !looks_so || !port_is_good || name.len() > 255 || !host.split('.').all(label) {
            return Err(NameError::Registry(text.chars().take(140).collect()));
        }
        match name.as_str() {
            "index.docker.io" | "registry-1.docker.io" => Ok(Self(Self::HUB.into())),
            _ => Ok(Self(name)),
        }
    }
}

impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Proxy ===

impl Proxy {
    /// The URL, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.0
    }

    /// `HOST:PORT`.
    pub fn authority(&self) -> &str {
        self.0.split_once("://").map_or(self.0.as_str(), |(_, authority)| authority)
    }

    /// Whether it is spoken to without TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.0.starts_with("http://")
    }

    /// Whether a URL that a runtime's settings name is this proxy.
    pub(super) fn is(&self, url: &str) -> bool {
        url.trim_end_matches('/').eq_ignore_ascii_case(&self.0)
    }
}

impl FromStr for Proxy {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Proxy(text.chars().take(140).collect());
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong());
        };
        let bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !text.contains('#');
        let plain =
            authority.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
        if !matches!(scheme, "http" | "https")
            || !bare
            || !plain
            || authority.port_u16().is_none_or(|port| port == 0)
        {
            return Err(wrong());
        }
        Ok(Self(format!("{scheme}://{}", authority.as_str().to_ascii_lowercase())))
    }
}

impl Default for Proxy {
    fn default() -> Self {
        Self("http://127.0.0.1:7711".into())
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_read_as_image_names_begin() {
        for good in ["docker.io", "ghcr.io", "host:5000", "localhost", "127.0.0.1:5000", "a-b.c.example:443"]
        {
            assert_eq!(good.parse::<Registry>().unwrap().as_str(), good);
        }
        for hub in ["registry-1.docker.io", "index.docker.io", "Docker.IO"] {
            assert!(hub.parse::<Registry>().unwrap().is_hub());
        }
        for bad in [
            "",
            "library",
            "https://ghcr.io",
            "ghcr.io/team",
            "a..b",
            "x:0",
            "x:70000",
            "../x.y",
            "x.y:",
            "-x.y",
        ] {
            assert!(bad.parse::<Registry>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_proxy_is_a_url_without_a_path() {
        let proxy: Proxy = "http://127.0.0.1:7711/".parse().unwrap();
        assert_eq!((proxy.url(), proxy.authority()), ("http://127.0.0.1:7711", "127.0.0.1:7711"));
        assert_eq!(proxy, Proxy::default());
        assert_eq!("http://[::1]:7711".parse::<Proxy>().unwrap().authority(), "[::1]:7711");
        for bad in
            ["127.0.0.1:7711", "http://x", "ftp://x:1", "http://x:1/v2", "http://u:p@x:1", "http://x:1?a", ""]
        {
            assert!(bad.parse::<Proxy>().is_err(), "{bad}");
        }
    }
}
