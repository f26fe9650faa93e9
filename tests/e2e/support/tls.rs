//! A certificate authority of a test's own, and what it signs: a registry's certificate, a token server's key.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

/// A CA with its certificate in a file.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    /// The CA's certificate as PEM.
    pub(crate) pem: String,
    home: TempDir,
}

/// A certificate and its key, as files.
pub(crate) struct Leaf {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

// === impl Ca ===

impl Ca {
    /// A CA that nobody trusts yet.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "CA of an end-to-end test");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let home = TempDir::new().unwrap();
        std::fs::write(home.path().join("ca.pem"), &pem).unwrap();
        Self { issuer: Issuer::new(params, key), pem, home }
    }

    /// The file with its certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.home.path().join("ca.pem")
    }

    /// Signs a certificate for these names and addresses, and puts it and its key into `folder`.
    pub(crate) fn sign(&self, names: &[&str], folder: &Path) -> Leaf {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "an end-to-end test");
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let leaf = Leaf { certificate: folder.join("leaf.pem"), key: folder.join("leaf.key") };
        std::fs::write(&leaf.certificate, certificate.pem()).unwrap();
        std::fs::write(&leaf.key, key.serialize_pem()).unwrap();
        leaf
    }
}
