//! What a peer joins with: which of the files it was given, and what is in them. Used by the settings and the doctor.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use common::identity::{AccountToken, JoinProof, JoinToken};

/// The files: a join token, or a Kubernetes token and the CA that it may be shown to.
#[derive(Clone, Default)]
pub struct Joining {
    /// `--join-token-file`.
    pub join_token: Option<PathBuf>,
    /// `--kubernetes-token-file`.
    pub kubernetes_token: Option<PathBuf>,
    /// `--cluster-ca-file`.
    pub cluster_ca: Option<PathBuf>,
}

// === impl Joining ===

impl Joining {
    /// Reads the files; `None` where none is named.
    pub fn proof(&self) -> anyhow::Result<Option<Arc<dyn JoinProof>>> {
        Ok(match (&self.join_token, &self.kubernetes_token, &self.cluster_ca) {
            (None, None, None) => None,
            (Some(token), None, None) => Some(Arc::new(JoinToken::read(token)?)),
            (None, Some(token), Some(ca)) => Some(Arc::new(AccountToken::open(token, ca)?)),
            (Some(_), Some(_), _) => {
                bail!("give --join-token-file or --kubernetes-token-file: a node joins with one")
            }
            (_, Some(_), None) | (_, None, Some(_)) => bail!(
                "--kubernetes-token-file and --cluster-ca-file belong together: the token is shown to supernodes of that CA alone"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_it_and_twice_of_it_are_refused() {
        let some = || Some(PathBuf::from("/nowhere"));
        let words = |join_token, kubernetes_token, cluster_ca| {
            Joining { join_token, kubernetes_token, cluster_ca }.proof().unwrap_err().to_string()
        };
        for half in [words(None, some(), None), words(None, None, some()), words(some(), None, some())] {
            assert!(half.contains("belong together"), "{half}");
        }
        for both in [words(some(), some(), None), words(some(), some(), some())] {
            assert!(both.contains("give --join-token-file or"), "{both}");
        }
        assert!(Joining::default().proof().unwrap().is_none());
        assert!(words(None, some(), some()).contains("/nowhere"));
    }
}
