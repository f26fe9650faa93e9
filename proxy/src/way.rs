//! How a request says which registry it means: as a mirror's client, as an HTTP proxy's, or as the client of an opened
//! HTTPS connection. Pure; [`crate::mirror`] asks here first of all.
//!
//! A mirror's client names the registry by `?ns=` (containerd), or by the first part of the repository (podman, CRI-O and
//! skopeo, whose mirrors are `HOST:PORT/registry`), or not at all: then the default one is meant. The first part counts as a
//! registry's name where Docker's reference grammar takes it for one: it has a dot or a colon, or is `localhost`.

use axum::extract::Query;
use http::{Uri, Version};

use crate::error::Refusal;
use crate::path::Target;

/// What every path of the registry API begins with.
const API: &str = "/v2/";

/// Where a request is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// To a registry that the client knows to be behind a mirror.
    Mirror(Meant),
    /// To the host that the client named, and would have asked itself.
    Proxy {
        /// `http` or `https`.
        scheme: &'static str,
        /// `host` or `host:port`.
        host: String,
        /// Path and query.
        rest: String,
    },
}

/// What a mirror's client means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meant {
    /// The registry, if the client says so.
    pub(crate) registry: Option<String>,
    /// Whether it says so beside the path.
    pub(crate) named: bool,
    /// The path at that registry.
    pub(crate) path: String,
    /// The query without `ns`.
    pub(crate) query: String,
}

// === impl Way ===

impl Way {
    /// The way of a request to this node's own port.
    pub(crate) fn of(uri: &Uri, version: Version) -> Result<Self, Refusal> {
        // HTTP/2 always says scheme and host; only in HTTP/1 does that speak to a proxy.
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.authority()) else {
            return Meant::of(uri).map(Self::Mirror);
        };
        if version > Version::HTTP_11 {
            return Meant::of(uri).map(Self::Mirror);
        }
        if scheme != "http" {
            return Err(Refusal::Registry(
                "a proxy is asked for https with CONNECT, and for http with the whole URL".to_owned(),
            ));
        }
        // Whoever writes a user there shall not read it in a log.
        let host = host.as_str().rsplit('@').next().unwrap_or_default().to_owned();
        Ok(Self::Proxy { scheme: "http", host, rest: rest_of(uri) })
    }

    /// The way of a request on a connection that the client believes to be to `host`.
    pub(crate) fn on_connection_to(host: &str, uri: &Uri) -> Self {
        Self::Proxy { scheme: "https", host: host.to_owned(), rest: rest_of(uri) }
    }
}

fn rest_of(uri: &Uri) -> String {
    uri.path_and_query().map_or_else(|| "/".to_owned(), |rest| rest.as_str().to_owned())
}

// === impl Meant ===

impl Meant {
    fn of(uri: &Uri) -> Result<Self, Refusal> {
        let (registry, query) = split_query(uri)?;
        let path = uri.path();
        if registry.is_none()
            && let Some((registry, path)) = split_path(path)
        {
            return Ok(Self { registry: Some(registry.to_owned()), named: false, path, query });
        }
        Ok(Self { named: registry.is_some(), registry, path: path.to_owned(), query })
    }
}

impl Meant {
    /// Whether something that changes a registry may be meant for another one than it seems: its path begins with what may
    /// be a registry's name, and upload sessions have paths that cannot be told from repositories.
    pub(crate) fn is_ambiguous(&self) -> bool {
        let first = self.path.strip_prefix(API).and_then(|rest| rest.split('/').next());
        self.registry.is_some() && !self.named || self.registry.is_none() && first.is_some_and(is_host)
    }
}

/// Whether a path with its query is one of the registry API.
pub(crate) fn is_api(rest: &str) -> bool {
    let path = rest.split('?').next().unwrap_or_default();
    path == "/v2" || path.starts_with(API)
}

/// Whether the first part of a repository is a registry's name.
fn is_host(part: &str) -> bool {
    (part.contains(['.', ':']) || part == "localhost") && !part.starts_with('.')
}

/// The registry that `?ns=` names, and the rest of the query as it was sent.
pub(crate) fn split_query(uri: &Uri) -> Result<(Option<String>, String), Refusal> {
    let unreadable = |_| Refusal::Registry("the query is not name=value pairs".to_owned());
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(unreadable)?;
    let mut named: Vec<String> =
        pairs.into_iter().filter(|(name, _)| name == "ns").map(|(_, value)| value).collect();
    named.dedup();
    if named.len() > 1 {
        return Err(Refusal::Registry("?ns= names more than one registry".to_owned()));
    }
    let is_ns = |pair: &&str| pair.split('=').next() == Some("ns");
    let rest: Vec<&str> = uri.query().unwrap_or_default().split('&').filter(|pair| !is_ns(pair)).collect();
    Ok((named.pop(), rest.join("&")))
}

/// The registry that a path begins with, and the path without it; only where something of a repository is left.
pub(crate) fn split_path(path: &str) -> Option<(&str, String)> {
    let (registry, rest) = path.strip_prefix(API)?.split_once('/')?;
    if !is_host(registry) {
        return None;
    }
    let path = format!("{API}{rest}");
    let of_repository = match path.parse::<Target>() {
        Ok(Target::Manifest { .. } | Target::Blob { .. }) => true,
        Ok(Target::Other { path }) => path.contains("/tags/list") || path.contains("/referrers/"),
        Ok(Target::Base) | Err(_) => false,
    };
    of_repository.then_some((registry, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(query: &str) -> Result<(Option<String>, String), Refusal> {
        split_query(&format!("/v2/?{query}").parse().unwrap())
    }

    fn way(uri: &str) -> Way {
        Way::of(&uri.parse().unwrap(), Version::HTTP_11).unwrap()
    }

    fn meant(registry: Option<&str>, named: bool, path: &str, query: &str) -> Way {
        let registry = registry.map(str::to_owned);
        Way::Mirror(Meant { registry, named, path: path.to_owned(), query: query.to_owned() })
    }

    #[test]
    fn ns_names_the_registry_and_is_not_passed_on() {
        let some = |name: &str, rest: &str| (Some(name.to_owned()), rest.to_owned());
        assert_eq!(split("ns=docker.io").unwrap(), some("docker.io", ""));
        assert_eq!(
            split("n=2&ns=127.0.0.1%3A5600&last=a%2Fb").unwrap(),
            some("127.0.0.1:5600", "n=2&last=a%2Fb")
        );
        assert_eq!(split("ns=a&ns=a").unwrap(), some("a", ""));
        assert_eq!(split("n=2").unwrap(), (None, "n=2".to_owned()));
        assert_eq!(split_query(&Uri::from_static("/v2/")).unwrap(), (None, String::new()));
        assert!(split("ns=a&ns=b").is_err());
    }

    #[test]
    fn a_host_before_the_repository_is_the_registry() {
        for host in ["quay.io", "127.0.0.1:5000", "localhost", "reg:5000"] {
            for rest in ["team/app/manifests/1", "app/manifests/latest", "a/tags/list?n=2"] {
                let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
                assert_eq!(
                    way(&format!("/v2/{host}/{rest}")),
                    meant(Some(host), false, &format!("/v2/{path}"), query)
                );
            }
        }
        for path in [
            "/v2/",
            "/v2/library/app/manifests/1",
            "/v2/my.app/manifests/1",
            "/v2/my.app/tags/list",
            "/v2/quay.io/",
        ] {
            assert_eq!(way(path), meant(None, false, path, ""), "{path}");
        }
        let both = "/v2/my.team/app/manifests/1";
        assert_eq!(
            way(&format!("{both}?ns=quay.io")),
            meant(Some("quay.io"), true, both, ""),
            "ns goes before"
        );
    }

    #[test]
    fn a_whole_url_speaks_to_a_proxy_in_http_1_only() {
        let proxy = |host: &str, rest: &str| Way::Proxy {
            scheme: "http",
            host: host.to_owned(),
            rest: rest.to_owned(),
        };
        assert_eq!(way("http://r.test:5000/v2/a/tags/list?n=1"), proxy("r.test:5000", "/v2/a/tags/list?n=1"));
        assert_eq!(way("http://u:p@r.test/x"), proxy("r.test", "/x"));
        assert!(Way::of(&"https://r.test/v2/".parse().unwrap(), Version::HTTP_11).is_err());
        let h2 = Way::of(&"http://127.0.0.1:7711/v2/?ns=a".parse().unwrap(), Version::HTTP_2).unwrap();
        assert_eq!(h2, meant(Some("a"), true, "/v2/", ""));
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "[a-z=&%0-9+.:]{0,40}") {
            let _ = split(&query);
        }

        #[test]
        fn no_path_panics_and_what_is_left_is_a_path(path in "/v2/[a-z.:%/]{0,30}(/manifests/x|/tags/list)?") {
            if let Some((registry, path)) = split_path(&path) {
                prop_assert!(!registry.contains('/') && path.starts_with("/v2/"));
                prop_assert!(path.parse::<Target>().is_ok());
            }
        }
    }
}
