//! Reading certificates: whose a peer's is, how long one lasts, whether a chain was given out by the CA that it
//! shows. The transport asks after each handshake; [`super::Identity`] asks before it takes a certificate.
//!
//! # Invariants
//! - A certificate names a node only if that name is the digest of the certificate's own public key, whatever
//!   its issuer wrote.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::time::ASN1Time;

use super::{IdentityError, SUPERNODE_NAME, server_name, tls};
use crate::digest::Digest;
use crate::node::{NodeId, Role};

/// Who is at the other end of a connection whose chain TLS has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The node.
    pub node: NodeId,
    /// What the CA lets it do.
    pub role: Role,
    /// Until when.
    pub not_after: SystemTime,
}

/// How long a node's own certificate lasts, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid until.
    pub not_after: SystemTime,
    /// SHA-256 of the CA's certificate: which cluster.
    pub ca_fingerprint: Digest,
}

/// Whose certificate a chain starts with. The chain's signatures are TLS's to verify; this reads names.
///
/// # Errors
/// When the chain is empty, malformed, or names a node that its public key is not.
pub fn read_peer_certificate(chain: &[CertificateDer<'_>]) -> Result<PeerCertificate, IdentityError> {
    let leaf = chain.first().ok_or_else(|| IdentityError::Certificate("the chain is empty".to_owned()))?;
    let leaf = parse(leaf)?;
    let node = NodeId::of_public_key(leaf.public_key().raw);
    let id = node.to_string();
    let mut common_names = leaf.subject().iter_common_name().map(|name| name.as_str().unwrap_or_default());
    if common_names.next() != Some(id.as_str()) || common_names.next().is_some() {
        return Err(IdentityError::Certificate("its name is not the digest of its key".to_owned()));
    }
    let names = dns_names(&leaf)?;
    if !names.contains(&server_name(node).as_str()) {
        return Err(IdentityError::Certificate(format!("it is not valid for {}", server_name(node))));
    }
    let role = if names.contains(&SUPERNODE_NAME) { Role::Supernode } else { Role::Peer };
    Ok(PeerCertificate { node, role, not_after: system_time(leaf.validity().not_after) })
}

/// Checks that `leaf` is `node`'s, signed by `ca`, at some time: an expired one passes.
pub(super) fn check_issued(
    node: NodeId,
    leaf: &CertificateDer<'static>,
    ca: &CertificateDer<'static>,
) -> Result<CertificateInfo, IdentityError> {
    if read_peer_certificate(std::slice::from_ref(leaf))?.node != node {
        return Err(IdentityError::Certificate("it was given out for another node's key".to_owned()));
    }
    let validity = parse(leaf)?.validity().clone();
    let info = CertificateInfo {
        not_before: system_time(validity.not_before),
        not_after: system_time(validity.not_after),
        ca_fingerprint: Digest::of(ca),
    };
    let name = ServerName::try_from(server_name(node)).expect("invariant: hex and letters make a DNS name");
    let then = info.not_before.duration_since(UNIX_EPOCH).unwrap_or_default();
    tls::server_verifier(std::slice::from_ref(ca))?
        .verify_server_cert(leaf, &[], &name, &[], UnixTime::since_unix_epoch(then))
        .map_err(|error| IdentityError::Certificate(error.to_string()))?;
    Ok(info)
}

/// On whose word a CA's certificate stands.
pub(super) enum AuthorityKind {
    /// Its own.
    Root,
    /// Another CA's.
    Bridge,
}

/// What kind of CA a certificate is of.
pub(super) fn authority_kind(ca: &CertificateDer<'_>) -> Result<AuthorityKind, IdentityError> {
    let parsed = parse(ca)?;
    if !parsed.is_ca() {
        return Err(IdentityError::Certificate("it is not a CA's".to_owned()));
    }
    let own = parsed.subject().as_raw() == parsed.issuer().as_raw();
    Ok(if own { AuthorityKind::Root } else { AuthorityKind::Bridge })
}

/// From when to when a certificate is good.
pub(super) fn validity(certificate: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), IdentityError> {
    let validity = parse(certificate)?.validity().clone();
    Ok((system_time(validity.not_before), system_time(validity.not_after)))
}

/// The DER of a certificate's public key (`SubjectPublicKeyInfo`).
pub(super) fn public_key<'a>(certificate: &'a CertificateDer<'_>) -> Result<&'a [u8], IdentityError> {
    Ok(parse(certificate)?.tbs_certificate.subject_pki.raw)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, IdentityError> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(IdentityError::Certificate("there are bytes behind it".to_owned())),
        Err(_) => Err(IdentityError::Certificate("it is not an X.509 certificate".to_owned())),
    }
}

fn dns_names<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, IdentityError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| IdentityError::Certificate("its alternative names are malformed".to_owned()))?;
    let names = names.iter().flat_map(|extension| &extension.value.general_names);
    Ok(names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
        .collect())
}

fn system_time(time: ASN1Time) -> SystemTime {
    // Nothing of ours was signed before 1970, and what else says so has ended long ago either way.
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}
