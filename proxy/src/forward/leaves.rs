//! The node's own CA for HTTPS connections that are opened, and the certificates that it signs: one a host, made when the host
//! is first asked for. Used by [`super::connect`].
//!
//! # Invariants
//! - The CA's key never leaves `<data-dir>/intercept/ca.key` (mode 0600).
//! - The CA may sign for the hosts on the intercept list only (RFC 5280, name constraints): who steals the key of a node
//!   cannot be any other host to that node's clients. A list that changes makes a new CA.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use peer::origin::guard::Pattern;
use peer::origin::registry::{DOCKER_HUB, canonical};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ServerConfig;
use time::OffsetDateTime;

const KEY: &str = "ca.key";
const CA: &str = "ca.pem";
/// The hosts that the two are for.
const HOSTS: &str = "hosts";
/// A node lives shorter than that.
const CA_DAYS: i64 = 3650;
/// Clients refuse leaves that last for years.
const LEAF_DAYS: i64 = 90;
/// A leaf is made anew long before it ends.
const RENEW: Duration = Duration::from_secs(30 * 24 * 3600);
/// Clocks differ.
const SKEW: time::Duration = time::Duration::hours(1);
/// Hosts with a leaf; more than an intercept list names, unless it names a whole domain.
const MAX_LEAVES: usize = 256;

/// Why connections cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum InterceptError {
    /// A file of the CA.
    #[error("{path}: {source}; it must be readable and writable by this user", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key or a certificate.
    #[error("the CA for opened connections cannot be used: {0}; remove its folder to make a new one")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library.
    #[error("the CA for opened connections cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// Signs and keeps the certificates.
pub(crate) struct Leaves {
    issuer: Issuer<'static, KeyPair>,
    ca: CertificateDer<'static>,
    made: Mutex<HashMap<String, (Arc<ServerConfig>, Instant)>>,
}

// === impl Leaves ===

impl Leaves {
    /// The CA in `dir`, made where there is none for these hosts.
    pub(crate) fn open(dir: &Path, hosts: &[Pattern]) -> Result<Self, InterceptError> {
        let params = ca_params(hosts);
        let list = hosts.iter().map(|host| format!("{host}\n")).collect::<String>();
        let (pair, ca) = match load(dir, &list)? {
            Some(kept) => kept,
            None => make_ca(dir, &list, &params)?,
        };
        Ok(Self { issuer: Issuer::new(params, pair), ca, made: Mutex::default() })
    }

    /// What is shown to a client that wants to speak to `host`.
    pub(crate) fn config_for(&self, host: &str) -> Result<Arc<ServerConfig>, InterceptError> {
        let now = Instant::now();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((config, at)) = made.get(host)
            && now.saturating_duration_since(*at) < RENEW
        {
            return Ok(config.clone());
        }
        if made.len() >= MAX_LEAVES {
            made.clear();
        }
        let config = Arc::new(self.make(host)?);
        made.insert(host.to_owned(), (config.clone(), now));
        Ok(config)
    }

    fn make(&self, host: &str) -> Result<ServerConfig, InterceptError> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let mut params = CertificateParams::new(vec![bare.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, "longshore");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        lasting(&mut params, LEAF_DAYS);
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone(), self.ca.clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Key and certificate for the hosts on `list`, if that is what `dir` holds.
fn load(dir: &Path, list: &str) -> Result<Option<(KeyPair, CertificateDer<'static>)>, InterceptError> {
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    match (read(HOSTS), read(KEY), read(CA).as_deref().and_then(pem_to_der)) {
        (Some(before), Some(key), Some(ca)) if before == list => Ok(Some((KeyPair::from_pem(&key)?, ca))),
        _ => Ok(None),
    }
}

/// A new CA, on the disk. The list goes first and comes last: it says that the two others belong together.
fn make_ca(
    dir: &Path,
    list: &str,
    params: &CertificateParams,
) -> Result<(KeyPair, CertificateDer<'static>), InterceptError> {
    if dir.join(HOSTS).exists() {
        let dir = dir.display();
        tracing::warn!(
            "the intercept list has changed, or a file is gone: clients must trust the new {dir}/ca.pem"
        );
    }
    let pair = KeyPair::generate()?;
    let made = params.self_signed(&pair)?;
    let file = |path: PathBuf| move |source| InterceptError::File { path, source };
    fs::create_dir_all(dir).map_err(file(dir.to_owned()))?;
    let _ = fs::remove_file(dir.join(HOSTS));
    for (name, text, mode) in
        [(KEY, pair.serialize_pem().as_str(), 0o600), (CA, &made.pem(), 0o644), (HOSTS, list, 0o644)]
    {
        let path = dir.join(name);
        write(&path, text, mode).map_err(file(path))?;
    }
    Ok((pair, made.der().clone()))
}

fn ca_params(hosts: &[Pattern]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Longshore, opened connections of this node");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.name_constraints = constraints(hosts);
    lasting(&mut params, CA_DAYS);
    params
}

/// What the CA may sign for; `None` when that is everything. A kind of name that is not constrained would be free, so one
/// that no host is of is excluded whole.
fn constraints(hosts: &[Pattern]) -> Option<NameConstraints> {
    if hosts.is_empty() || hosts.contains(&Pattern::Any) {
        return None;
    }
    let permitted_subtrees: Vec<GeneralSubtree> = hosts.iter().flat_map(subtrees).collect();
    let is_ip = |subtree: &GeneralSubtree| matches!(subtree, GeneralSubtree::IpAddress(_));
    let mut excluded_subtrees = Vec::new();
    if !permitted_subtrees.iter().any(is_ip) {
        let all = [CidrSubnet::V4([0; 4], [0; 4]), CidrSubnet::V6([0; 16], [0; 16])];
        excluded_subtrees.extend(all.map(GeneralSubtree::IpAddress));
    }
    if permitted_subtrees.iter().all(is_ip) {
        excluded_subtrees.push(GeneralSubtree::DnsName(String::new()));
    }
    Some(NameConstraints { permitted_subtrees, excluded_subtrees })
}

fn subtrees(host: &Pattern) -> Vec<GeneralSubtree> {
    match host {
        Pattern::Any => Vec::new(),
        Pattern::Below(domain) => vec![GeneralSubtree::DnsName(domain.clone())],
        // A pattern for one of Docker Hub's names is one for all of them.
        Pattern::Host(host, _) if canonical(host) == canonical(DOCKER_HUB[0]) => {
            DOCKER_HUB.map(|name| GeneralSubtree::DnsName(name.to_owned())).into()
        }
        Pattern::Host(host, _) => vec![match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(v4)) => GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix(v4.octets(), 32)),
            Ok(IpAddr::V6(v6)) => GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(v6.octets(), 128)),
            Err(_) => GeneralSubtree::DnsName(host.clone()),
        }],
    }
}

fn lasting(params: &mut CertificateParams, days: i64) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - SKEW;
    params.not_after = now + time::Duration::days(days);
}

fn pem_to_der(pem: &str) -> Option<CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn hosts(list: &[&str]) -> Vec<Pattern> {
        list.iter().map(|host| host.parse().unwrap()).collect()
    }

    fn trust(dir: &Path) -> String {
        fs::read_to_string(dir.join("ca.pem")).unwrap()
    }

    #[test]
    fn the_ca_stays_as_long_as_its_hosts_do() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let list = hosts(&["quay.test", "*.reg.test", "10.0.0.1:5000"]);
        let first = Leaves::open(dir.path(), &list).unwrap();
        let ca = trust(dir.path());
        let mode = fs::metadata(dir.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Leaves::open(dir.path(), &list).unwrap();
        assert_eq!((trust(dir.path()), &again.ca), (ca.clone(), &first.ca));
        Leaves::open(dir.path(), &hosts(&["quay.test"])).unwrap();
        assert_ne!(trust(dir.path()), ca);
        for lost in [KEY, CA, HOSTS] {
            let before = trust(dir.path());
            fs::remove_file(dir.path().join(lost)).unwrap();
            Leaves::open(dir.path(), &hosts(&["quay.test"])).unwrap();
            assert_ne!(trust(dir.path()), before, "key and certificate belong together: {lost}");
        }
    }

    #[test]
    fn a_host_has_one_leaf_at_a_time() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let leaves = Leaves::open(dir.path(), &hosts(&["*"])).unwrap();
        for host in ["quay.test", "127.0.0.1", "[::1]"] {
            assert!(Arc::ptr_eq(&leaves.config_for(host).unwrap(), &leaves.config_for(host).unwrap()));
        }
        assert!(leaves.config_for("h\u{e4}").is_err());
    }
}
