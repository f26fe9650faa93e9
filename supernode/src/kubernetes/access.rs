//! The way to the Kubernetes API: where it is, by which CA it is known, and by which token this supernode. The two files are the
//! kubelet's, which replaces them at any time.

use std::path::PathBuf;

use reqwest::Url;

/// Where the Kubernetes API is, and who asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The API.
    pub api: Url,
    /// The CA of its certificate.
    pub ca_file: PathBuf,
    /// The supernode's own token.
    pub token_file: PathBuf,
}

#[cfg(feature = "kubernetes")]
pub use client::AccessError;

#[cfg(feature = "kubernetes")]
mod client {
    use std::io::Read as _;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use kube::{Client, Config};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::Access;

    /// Somebody who is there picks up in this.
    const CONNECT: Duration = Duration::from_secs(3);
    /// Far above a CA bundle.
    const LONGEST_FILE: u64 = 1024 * 1024;

    /// Why there is no way to the API.
    #[derive(Debug, thiserror::Error)]
    pub enum AccessError {
        /// The API's CA.
        #[error("cannot use {path}: {reason}; --kubernetes-ca-file names another", path = path.display())]
        Ca {
            /// Which.
            path: PathBuf,
            /// What is wrong with it.
            reason: String,
        },
        /// The supernode's own token.
        #[error("cannot use {path}: {reason}; --kubernetes-token-file names another", path = path.display())]
        Token {
            /// Which.
            path: PathBuf,
            /// What is wrong with it; nothing of the token.
            reason: String,
        },
        /// Anything else.
        #[error("cannot speak to the Kubernetes API: {0}")]
        Api(String),
    }

    // === impl Access ===

    impl Access {
        /// Whether what is needed to ask is there. Blocking.
        pub(crate) fn check(&self) -> Result<(), AccessError> {
            certificates(&self.ca_file)?;
            let path = &self.token_file;
            let unreadable =
                |error: std::io::Error| AccessError::Token { path: path.clone(), reason: error.to_string() };
            std::fs::File::open(path).map(drop).map_err(unreadable)
        }

        /// A client by the CA as it is now. It reads the token anew as that changes; whoever cannot reach the API for long makes
        /// another client, for the CA may have changed, too.
        pub(crate) async fn client(&self) -> Result<Client, AccessError> {
            let failed = |error: &dyn std::fmt::Display| AccessError::Api(error.to_string());
            let path = self.ca_file.clone();
            let read = tokio::task::spawn_blocking(move || certificates(&path)).await;
            let mut config = Config::new(self.api.as_str().parse().map_err(|error| failed(&error))?);
            config.root_cert = Some(read.map_err(|error| failed(&error))??);
            config.auth_info.token_file = Some(self.token_file.to_string_lossy().into_owned());
            config.connect_timeout = Some(CONNECT);
            Client::try_from(config).map_err(|error| failed(&error))
        }
    }

    fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, AccessError> {
        let broken = |reason: String| AccessError::Ca { path: path.to_owned(), reason };
        let mut text = Vec::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(LONGEST_FILE).read_to_end(&mut text));
        read.map_err(|error| broken(error.to_string()))?;
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let all = all.map_err(|error| broken(format!("it is no PEM: {error}")))?;
        if all.is_empty() {
            return Err(broken("no certificate is in it".to_owned()));
        }
        Ok(all.into_iter().map(|certificate| certificate.to_vec()).collect())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_ca_that_is_none_is_named_before_anything_is_asked() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ca.crt");
            let words = || certificates(&path).unwrap_err().to_string();
            assert!(words().contains("--kubernetes-ca-file"), "{}", words());
            std::fs::write(&path, "nothing").unwrap();
            assert!(words().contains("no certificate is in it"), "{}", words());
            std::fs::write(&path, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
            assert!(words().contains("it is no PEM"), "{}", words());
        }
    }
}
