//! Which origins may be asked. The supernode fetches what strangers name, so this is what keeps a pull from reading the
//! cloud's metadata service or a service that listens on loopback only. [`super::client`] asks here before every hop,
//! and connects only through [`super::address::GuardedResolver`].
//!
//! # Invariants
//! - Link-local, metadata, multicast and unspecified addresses are never connected to, whatever the settings say,
//!   whether they are written in the URL, hidden in an IPv6 form, reached by a redirect, or what a name resolves to.
//! - Loopback is connected to only for a `host[:port]` that the user named.
//! - What is checked is what is connected to: the resolver filters, so a name cannot change its mind in between.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use reqwest::Url;

use super::address::{Reach, reach};
use super::registry::{self, Registries};

/// What a registry's URLs start with.
const REGISTRY_PATH: &str = "/v2/";

/// Hosts in a setting: `host`, `host:port`, `*.domain` or `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// `*`: every host.
    Any,
    /// `*.domain`: every host below the domain, at any port.
    Below(String),
    /// `host` (at any port) or `host:port`.
    Host(String, Option<u16>),
}

/// A text that is no host pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a host pattern: expected HOST, HOST:PORT, *.DOMAIN or *")]
pub struct PatternError(String);

/// Why an origin must not be asked; the message names the setting that would allow it, where there is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not http or https.
    #[error("only http and https URLs are fetched, not {0:?}")]
    Scheme(String),
    /// A `file:` URL with a host, or without a path.
    #[error("it names no file of this machine: write file:///PATH")]
    NoFile,
    /// A file that nobody offers.
    #[error(
        "{0} is in no folder that nodes share: name one with --origin-folder, at the supernode and at the peers"
    )]
    Folder(String),
    /// `user:password@` in the URL.
    #[error("a URL must not hold a user or password: give credentials beside it")]
    UserInfo,
    /// An address that is never asked.
    #[error("{0} is a link-local, metadata, multicast or unspecified address: these are never asked")]
    Never(String),
    /// Loopback that the user did not name.
    #[error("{0} is on this machine's loopback: allow it with --origin-allow {0}")]
    Loopback(String),
    /// Not on the list.
    #[error("it is not among the allowed origins: allow it with --origin-allow {0}")]
    NotAllowed(String),
    /// A registry over plain HTTP.
    #[error("it is a registry asked in plain HTTP: allow it with --insecure-registry {0}")]
    PlainRegistry(String),
    /// From https to http.
    #[error("an https origin redirects there in plain HTTP: allow it with --insecure-registry {0}")]
    Downgrade(String),
}

/// Leave to ask one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// Whether the host may turn out to be on loopback.
    pub loopback: bool,
}

/// The origins that the settings allow.
#[derive(Debug, Clone)]
pub struct OriginPolicy {
    allow: Vec<Pattern>,
    named: Vec<Pattern>,
    plain: Vec<Pattern>,
}

/// A host as it is compared: lower case, without brackets and without the root's dot.
fn plain_host(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host.trim_end_matches('.').to_ascii_lowercase()
}

// === impl Pattern ===

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let refused = || PatternError(text.chars().take(100).collect());
        if text == "*" {
            return Ok(Self::Any);
        }
        let (below, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        // The URL parser knows what a host is; anything that it takes for more than host and port is no pattern. An IPv6
        // address may come without brackets.
        let bracketed = rest.parse::<Ipv6Addr>().map(|address| format!("[{address}]"));
        let rest = bracketed.as_deref().unwrap_or(rest);
        let url = Url::parse(&format!("longshore://{rest}")).map_err(|_| refused())?;
        let host = plain_host(url.host_str().unwrap_or_default());
        let whole = url.path().is_empty() && url.query().is_none() && url.fragment().is_none();
        let plain = whole && url.username().is_empty() && url.password().is_none();
        let port_given = url.port().is_some();
        if !plain
            || host.is_empty()
            || host.contains(['*', '%'])
            || (below && port_given)
            || rest.ends_with(':')
        {
            return Err(refused());
        }
        Ok(if below { Self::Below(host) } else { Self::Host(host, url.port()) })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(domain) => write!(f, "*.{domain}"),
            Self::Host(host, None) => f.write_str(host),
            Self::Host(host, Some(port)) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Host(host, Some(port)) => write!(f, "{host}:{port}"),
        }
    }
}

impl Pattern {
    /// Whether a host and port are meant. All names of Docker Hub are one.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Below(domain) => host
                .strip_suffix(domain.as_str())
                .is_some_and(|front| front.len() > 1 && front.ends_with('.')),
            Self::Host(name, at) => {
                registry::canonical(name) == registry::canonical(host) && at.is_none_or(|at| at == port)
            }
        }
    }

    /// Whether the user wrote this very host, or all hosts: only that opens loopback.
    fn names(&self, host: &str, port: u16) -> bool {
        !matches!(self, Self::Below(_)) && self.matches(host, port)
    }

    fn of_url(url: &Url) -> Self {
        Self::Host(plain_host(url.host_str().unwrap_or_default()), url.port_or_known_default())
    }
}

// === impl OriginPolicy ===

impl OriginPolicy {
    /// The policy of `--origin-allow` (none: every host that is not on loopback) and of the registries' settings, whose
    /// hosts are always allowed.
    ///
    /// # Errors
    /// When an entry is no host pattern.
    pub fn new(allow: &[String], registries: &Registries) -> Result<Self, PatternError> {
        let allow = allow.iter().map(|text| text.parse()).collect::<Result<Vec<Pattern>, _>>()?;
        let mut plain = registries.insecure().map(str::parse).collect::<Result<Vec<Pattern>, _>>()?;
        plain.extend(registries.urls().filter(|url| url.scheme() == "http").map(Pattern::of_url));
        let mut named = plain.clone();
        named.extend(registries.urls().map(Pattern::of_url));
        named.extend(allow.iter().cloned());
        Ok(Self { allow, named, plain })
    }

    /// Whether `url` may be asked; `from` is the URL whose answer redirects there, if one does.
    ///
    /// # Errors
    /// With the rule that forbids it.
    pub fn check(&self, url: &Url, from: Option<&Url>) -> Result<Permit, Refusal> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refusal::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::UserInfo);
        }
        let host = plain_host(url.host_str().unwrap_or_default());
        let port = url.port_or_known_default().unwrap_or_default();
        let place = super::place(url);
        let reach = match host.parse::<IpAddr>() {
            Ok(address) => reach(address),
            Err(_) if host == "localhost" || host.ends_with(".localhost") => Reach::Loopback,
            Err(_) => Reach::Open,
        };
        let loopback = self.named.iter().any(|pattern| pattern.names(&host, port));
        match reach {
            Reach::Never => return Err(Refusal::Never(host)),
            Reach::Loopback if !loopback => return Err(Refusal::Loopback(place)),
            Reach::Loopback | Reach::Open => {}
        }
        let listed = loopback || self.allow.iter().any(|pattern| pattern.matches(&host, port));
        if !self.allow.is_empty() && !listed {
            return Err(Refusal::NotAllowed(place));
        }
        let plain_is_fine = url.scheme() == "https" || self.plain.iter().any(|p| p.matches(&host, port));
        match from {
            // A registry's URL comes from its settings; any other plain URL is fetched as the user typed it.
            None if !plain_is_fine && url.path().starts_with(REGISTRY_PATH) => {
                Err(Refusal::PlainRegistry(place))
            }
            Some(from) if !plain_is_fine && from.scheme() == "https" => Err(Refusal::Downgrade(place)),
            _ => Ok(Permit { loopback }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(allow: &[&str], registries: &[(&str, &str)], insecure: &[&str]) -> OriginPolicy {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let urls = registries.iter().map(|(name, url)| ((*name).to_owned(), (*url).to_owned())).collect();
        let registries = Registries::new(&urls, &owned(insecure)).unwrap();
        OriginPolicy::new(&owned(allow), &registries).unwrap()
    }

    fn check(policy: &OriginPolicy, url: &str) -> Result<Permit, Refusal> {
        policy.check(&Url::parse(url).unwrap(), None)
    }

    const NEVER: [&str; 16] = [
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "169.254.1.1",
        "0.0.0.0",
        "0",
        "224.0.0.1",
        "255.255.255.255",
        "100.100.100.200",
        "[::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::1]",
    ];

    #[test]
    fn link_local_and_metadata_are_refused_whatever_the_settings_say() {
        for host in NEVER {
            let open = policy(&["*", host], &[("x", &format!("http://{host}"))], &[]);
            for policy in [policy(&[], &[], &[]), open] {
                let refusal = check(&policy, &format!("http://{host}/latest")).unwrap_err();
                assert!(matches!(refusal, Refusal::Never(_)), "{host}: {refusal}");
            }
        }
    }

    #[test]
    fn loopback_must_be_named() {
        let closed = policy(&[], &[], &[]);
        for host in [
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "[::ffff:127.0.0.1]",
        ] {
            let url = format!("http://{host}:5600/x");
            assert!(matches!(check(&closed, &url), Err(Refusal::Loopback(_))), "{host}");
            assert!(check(&policy(&["*"], &[], &[]), &url).unwrap().loopback, "{host}");
        }
        let url = "http://127.0.0.1:5600/v2/x";
        for named in [
            policy(&["127.0.0.1"], &[("a", "http://127.0.0.1:5600")], &[]),
            policy(&[], &[("docker.io", "http://127.0.0.1:5600")], &[]),
            policy(&[], &[], &["127.0.0.1:5600"]),
        ] {
            assert!(check(&named, url).unwrap().loopback);
        }
        let other_port = policy(&["127.0.0.1:5601"], &[("a", "http://127.0.0.1:5602")], &["127.0.0.1:5603"]);
        let refusal = check(&other_port, url).unwrap_err().to_string();
        assert!(refusal.contains("--origin-allow 127.0.0.1:5600"), "{refusal}");
    }

    #[test]
    fn an_allow_list_closes_everything_else() {
        let policy = policy(&["docker.io", "*.corp.example", "h.example:8443"], &[("r", "https://reg")], &[]);
        for good in [
            "https://registry-1.docker.io/v2/",
            "https://a.corp.example/",
            "https://h.example:8443/",
            "https://reg/v2/",
        ] {
            assert!(check(&policy, good).is_ok(), "{good}");
        }
        for bad in
            ["https://corp.example/", "https://xcorp.example/", "https://h.example/", "https://evil.example/"]
        {
            let refusal = check(&policy, bad).unwrap_err();
            assert!(refusal.to_string().contains("--origin-allow"), "{refusal}");
        }
    }

    #[test]
    fn plain_http_is_for_named_registries_and_typed_urls() {
        let policy = policy(&[], &[("r", "http://reg.lan")], &["old.lan:5000"]);
        for good in ["http://reg.lan/v2/x", "http://old.lan:5000/v2/x", "http://files.lan/a.tar"] {
            assert!(check(&policy, good).is_ok(), "{good}");
        }
        let refusal = check(&policy, "http://new.lan:5000/v2/x").unwrap_err().to_string();
        assert!(refusal.contains("--insecure-registry new.lan:5000"), "{refusal}");
        let hop = |from, to| policy.check(&Url::parse(to).unwrap(), Some(&Url::parse(from).unwrap()));
        assert!(matches!(hop("https://a/", "http://b/"), Err(Refusal::Downgrade(_))));
        assert!(hop("https://a/", "http://reg.lan/x").is_ok());
        assert!(hop("http://a/", "http://b/v2/x").is_ok());
    }

    #[test]
    fn urls_with_users_and_other_schemes_are_refused() {
        let policy = policy(&["*"], &[], &[]);
        assert_eq!(check(&policy, "https://u:p@h/"), Err(Refusal::UserInfo));
        for bad in ["ftp://h/", "file:///etc/passwd", "data:text/plain,x"] {
            assert!(matches!(check(&policy, bad), Err(Refusal::Scheme(_))), "{bad}");
        }
    }

    #[test]
    fn patterns_are_hosts_and_nothing_else() {
        for good in ["h", "h:1", "*.d.e", "*", "[::1]", "[::1]:5", "::1", "10.0.0.1:80", "H.Example"] {
            assert!(good.parse::<Pattern>().is_ok(), "{good}");
        }
        for bad in ["", "*.", "a.*", "**", "h/x", "u@h", "h?x", "h:", "h:x", "*.d:80", "h:70000", "a b"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_pattern_or_refused_without_panic(text in ".{0,40}") {
            let _ = text.parse::<Pattern>();
        }
    }
}
