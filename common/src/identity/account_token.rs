//! A Kubernetes ServiceAccount token as the proof that a node may join: a pod shows the token that the kubelet put into a
//! projected volume, and the supernode has the Kubernetes API check it. The token says nothing of the cluster, so the CA is
//! given beside it, by file. Made by the peer's settings.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{IdentityError, JoinProof, certificate, files};
use crate::digest::Digest;
use crate::wire::enrol::{self, Request};

/// The files, and what is not read anew: whose cluster it is.
#[derive(Clone, Debug)]
pub struct AccountToken {
    file: PathBuf,
    ca: Digest,
}

// === impl AccountToken ===

impl AccountToken {
    /// The token in `file`, for the cluster whose CA certificate is in `ca_file`. Blocking.
    ///
    /// # Errors
    /// When a file cannot be read or holds something else.
    pub fn open(file: &Path, ca_file: &Path) -> Result<Self, IdentityError> {
        let token = Self { file: file.to_owned(), ca: authority(ca_file)? };
        token.read()?;
        Ok(token)
    }

    /// The token as it is now: the kubelet puts another into the file long before one ends. Whoever may read the file is
    /// the kubelet's to say, so its mode is not looked at.
    fn read(&self) -> Result<String, IdentityError> {
        let damaged = || IdentityError::Damaged {
            path: self.file.clone(),
            what: "Kubernetes ServiceAccount token",
            way_out: "mount a projected serviceAccountToken volume there, with the supernode's audience",
        };
        let bytes = present(&self.file, "read the Kubernetes token")?;
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?.trim();
        if enrol::is_account_token(text) { Ok(text.to_owned()) } else { Err(damaged()) }
    }
}

impl JoinProof for AccountToken {
    fn cluster(&self) -> Digest {
        self.ca
    }

    fn request(&self, csr: Vec<u8>) -> Result<Request, IdentityError> {
        Ok(Request { token_id: enrol::KUBERNETES.to_owned(), secret: self.read()?, csr })
    }

    fn name(&self) -> &'static str {
        "Kubernetes token"
    }

    fn way_out(&self) -> &'static str {
        "--cluster-ca-file must be the supernode's ca.pem, and its --kubernetes-join and --kubernetes-audience must name \
         this pod's ServiceAccount and its token's audience"
    }
}

/// The fingerprint of the CA in a file.
fn authority(path: &Path) -> Result<Digest, IdentityError> {
    let damaged = || IdentityError::Damaged {
        path: path.to_owned(),
        what: "certificate of one CA in PEM form",
        way_out: "copy ca.pem from the supernode's cluster folder, by default <data-dir>/identity",
    };
    let bytes = present(path, "read the cluster's CA certificate")?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates.map_err(|_| damaged())?.as_slice() {
        [ca] if certificate::authority_kind(ca).is_ok() => Ok(Digest::of(ca)),
        _ => Err(damaged()),
    }
}

/// What is in a file that must be there.
fn present(path: &Path, action: &'static str) -> Result<Vec<u8>, IdentityError> {
    let missing = || std::io::ErrorKind::NotFound.into();
    files::read(path)?.ok_or_else(|| IdentityError::File { action, path: path.to_owned(), cause: missing() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Authority, Identity};

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOlsibG9uZ3Nob3JlIl19.c2lnbmF0dXJl-_8";

    #[test]
    fn it_is_read_anew_for_each_request_and_pins_the_ca() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(&dir.path().join("cluster")).unwrap();
        let (file, ca) = (dir.path().join("token"), dir.path().join("cluster/ca.pem"));
        std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
        let token = AccountToken::open(&file, &ca).unwrap();
        assert_eq!(token.cluster(), authority.fingerprint());
        let request = token.request(vec![1]).unwrap();
        assert_eq!((request.token_id.as_str(), request.secret.as_str()), (enrol::KUBERNETES, TOKEN));
        assert!(!format!("{request:?} {token:?}").contains(TOKEN));
        let another = TOKEN.replace("c2ln", "YW5v");
        std::fs::write(&file, &another).unwrap();
        assert_eq!(token.request(Vec::new()).unwrap().secret, another);
    }

    #[test]
    fn a_file_that_holds_something_else_is_named_and_not_repeated() {
        let dir = tempfile::tempdir().unwrap();
        Authority::open(&dir.path().join("cluster")).unwrap();
        let (file, ca) = (dir.path().join("token"), dir.path().join("cluster/ca.pem"));
        let refused = |ca: &Path| {
            let words = AccountToken::open(&file, ca).unwrap_err().to_string();
            assert!(!words.contains('\n') && !words.contains("eyJ"), "{words}");
            words
        };
        assert!(refused(&ca).contains("cannot read the Kubernetes token"));
        let long = format!("eyJ.{}.c", "a".repeat(enrol::MAX_ACCOUNT_TOKEN));
        for bad in ["", "lsj1.0.0.0", "eyJ.eyJ", "eyJ..a", "eyJ.a b.c", "eyJ.a.c.d", &long] {
            std::fs::write(&file, bad).unwrap();
            assert!(refused(&ca).contains("token holds no Kubernetes ServiceAccount token"), "{bad}");
        }
        std::fs::write(&file, TOKEN).unwrap();
        let missing = dir.path().join("none");
        assert!(refused(&missing).contains("cluster's CA certificate"));
        assert!(
            refused(&dir.path().join("cluster/ca.key")).contains("ca.key holds no certificate of one CA")
        );
        // A node's certificate is no CA's.
        let authority = Authority::open(&dir.path().join("cluster")).unwrap();
        let csr = Identity::ephemeral().unwrap().csr().unwrap();
        let issued =
            authority.issue(&csr, crate::node::Role::Peer, std::time::SystemTime::now()).unwrap().chain;
        let leaf = dir.path().join("leaf.pem");
        std::fs::write(&leaf, pem::encode(&pem::Pem::new("CERTIFICATE", issued[0].clone()))).unwrap();
        assert!(refused(&leaf).contains("leaf.pem holds no certificate of one CA"));
    }
}
