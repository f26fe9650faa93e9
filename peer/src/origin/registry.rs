//! Where a registry's name is reached: `--registry NAME=URL`, `--insecure-registry`, and Docker Hub's three names.
//! Asked by the proxy for every request, and by [`super::guard`] to know which hosts the user named.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Url;

/// Docker Hub's names. Images say the first, old clients the second, and the third one answers.
pub const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// Where Docker Hub's registry answers.
const DOCKER_HUB_URL: &str = "https://registry-1.docker.io";
/// The longest host name (RFC 1035: 253) with a port.
const MAX_NAME: usize = 253 + 6;

/// A registry's name or URL that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Not `host` or `host:port`.
    #[error("{0:?} is not a registry's name: expected HOST or HOST:PORT")]
    Name(String),
    /// Not a base URL.
    #[error(
        "the URL of registry {name:?} cannot be used: {why}; write --registry {name}=https://HOST[:PORT]"
    )]
    Url {
        /// The registry.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// The registries that the settings name.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    urls: BTreeMap<String, Url>,
    insecure: BTreeSet<String>,
}

/// The one name of a registry: lower case, and `docker.io` for all names of Docker Hub.
pub fn canonical(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    if DOCKER_HUB.contains(&name.as_str()) { DOCKER_HUB[0].to_owned() } else { name }
}

/// Checks that a text is `host` or `host:port` and nothing else: no user, path, query or escape fits in.
fn check_name(name: &str) -> Result<(), RegistryError> {
    let refused = || RegistryError::Name(name.chars().take(MAX_NAME).collect());
    let (host, port) = match name.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (name, None),
    };
    let port_fits = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let host_fits = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
                && host.starts_with(|c: char| c.is_ascii_alphanumeric())
        }
    };
    if name.len() <= MAX_NAME && host_fits && port_fits { Ok(()) } else { Err(refused()) }
}

/// Checks a registry's base URL: http or https, a host, perhaps a path, nothing else.
fn check_url(name: &str, text: &str) -> Result<Url, RegistryError> {
    let refused = |why: &str| RegistryError::Url { name: name.to_owned(), why: why.to_owned() };
    let url = Url::parse(text).map_err(|error| refused(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("only http and https are spoken"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("it must not hold a user or password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refused("it must not hold a query or fragment"));
    }
    Ok(url)
}

// === impl Registries ===

impl Registries {
    /// The registries of `--registry NAME=URL` and `--insecure-registry HOST:PORT`.
    ///
    /// # Errors
    /// When a name is not `host[:port]`, or a URL is not a plain base URL.
    pub fn new(urls: &BTreeMap<String, String>, insecure: &[String]) -> Result<Self, RegistryError> {
        let mut registries = Self::default();
        for (name, url) in urls {
            check_name(name)?;
            registries.urls.insert(canonical(name), check_url(name, url)?);
        }
        for name in insecure {
            check_name(name)?;
            registries.insecure.insert(canonical(name));
        }
        Ok(registries)
    }

    /// The URL that `/v2/…` is put behind to ask the registry `name`; it has no slash at its end.
    ///
    /// # Errors
    /// When `name` is not `host[:port]`: it comes from a client's request and must not choose path or user.
    pub fn base_url(&self, name: &str) -> Result<String, RegistryError> {
        check_name(name)?;
        let name = canonical(name);
        if let Some(url) = self.urls.get(&name) {
            return Ok(url.as_str().trim_end_matches('/').to_owned());
        }
        if self.insecure.contains(&name) {
            return Ok(format!("http://{name}"));
        }
        if name == DOCKER_HUB[0] {
            return Ok(DOCKER_HUB_URL.to_owned());
        }
        Ok(format!("https://{name}"))
    }

    /// The URLs that `--registry` gives: hosts that the user named.
    pub(super) fn urls(&self) -> impl Iterator<Item = &Url> {
        self.urls.values()
    }

    /// The `host[:port]` that are spoken to in plain HTTP.
    pub(super) fn insecure(&self) -> impl Iterator<Item = &str> {
        self.insecure.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn registries(urls: &[(&str, &str)], insecure: &[&str]) -> Result<Registries, RegistryError> {
        let urls = urls.iter().map(|(name, url)| ((*name).to_owned(), (*url).to_owned())).collect();
        Registries::new(&urls, &insecure.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn docker_hub_is_one_registry_under_three_names() {
        for name in ["docker.io", "index.docker.io", "registry-1.docker.io", "Docker.IO"] {
            assert_eq!(registries(&[], &[]).unwrap().base_url(name).unwrap(), "https://registry-1.docker.io");
            let mapped = registries(&[("index.docker.io", "http://127.0.0.1:5600/")], &[]).unwrap();
            assert_eq!(mapped.base_url(name).unwrap(), "http://127.0.0.1:5600");
        }
    }

    #[test]
    fn other_names_are_hosts() {
        let registries = registries(&[("quay.io", "https://mirror/quay/")], &["reg.lan:5000"]).unwrap();
        assert_eq!(registries.base_url("quay.io").unwrap(), "https://mirror/quay");
        assert_eq!(registries.base_url("ghcr.io").unwrap(), "https://ghcr.io");
        assert_eq!(registries.base_url("REG.lan:5000").unwrap(), "http://reg.lan:5000");
        assert_eq!(registries.base_url("reg.lan").unwrap(), "https://reg.lan");
        assert_eq!(registries.base_url("[::1]:5000").unwrap(), "https://[::1]:5000");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let registries = registries(&[], &[]).unwrap();
        for bad in [
            "", ":", ":80", "a b", "a/b", "u@h", "u:p@h", "h%2f", "h:", "h:0", "h:65536", "h:+1", "h?x",
            "h#x", "[::1", "[x]", "::1", "h\\x", "-h", ".", "ä", "a:b:1", "h\n",
        ] {
            assert!(registries.base_url(bad).is_err(), "{bad:?}");
        }
        assert!(registries.base_url(&"a".repeat(300)).is_err());
    }

    #[test]
    fn what_is_no_base_url_is_refused_without_showing_secrets() {
        for bad in ["ftp://h", "h", "https://u:secret@h", "https://h/?secret", "https://", "http://h/#secret"]
        {
            let error = registries(&[("x", bad)], &[]).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert!(registries(&[("a/b", "https://h")], &[]).is_err());
        assert!(registries(&[], &["http://h"]).is_err());
    }

    proptest! {
        #[test]
        fn a_name_that_passes_is_the_host_of_its_url(name in "[a-zA-Z0-9.:@/%\\[\\]_-]{0,24}") {
            if let Ok(base) = Registries::default().base_url(&name)
                && let Ok(url) = Url::parse(&base)
            {
                prop_assert_eq!(url.path(), "/");
                prop_assert!(url.username().is_empty() && url.query().is_none());
            }
        }
    }
}
