//! The supernode's own logins at registries (`--registry-logins FILE`): what opens an image for jobs, schedules and pushes that
//! bring no credentials. Read anew each time, so that a changed file is the present one.
//!
//! # Invariants
//! - A login goes to its registry, and with the job to the nodes that work on it; it is no permission for anybody's pull.
//! - What somebody brings comes before what the file says.

use std::path::PathBuf;
use std::sync::Arc;

use common::task::Credentials;
use peer::image::logins::{self, MAX_FILE};
use peer::origin::registry::canonical;

/// The file, if there is one. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Logins(Option<Arc<PathBuf>>);

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the registry logins in {path} cannot be used: {why}")]
pub struct LoginsError {
    path: PathBuf,
    why: String,
}

// === impl Logins ===

impl Logins {
    /// The logins of a file.
    ///
    /// # Errors
    /// When it cannot be read now, or is of another kind.
    pub fn open(path: PathBuf) -> Result<Self, LoginsError> {
        match read(&path) {
            Ok(logins) => {
                if open_to_all(&path) {
                    tracing::warn!(file = %path.display(), "everybody on this machine may read the registry logins: chmod o-r it");
                }
                tracing::info!(file = %path.display(), registries = logins.count(), "registry logins are there");
                Ok(Self(Some(Arc::new(path))))
            }
            Err(why) => Err(LoginsError { path, why }),
        }
    }

    /// These credentials, or where there are none those of the file for this registry.
    pub async fn unless(&self, own: Credentials, registry: &str) -> Credentials {
        let Some(path) = self.0.clone().filter(|_| own.is_empty()) else { return own };
        let registry = canonical(registry);
        let found = tokio::task::spawn_blocking(move || {
            let logins = read(&path);
            logins
                .map_err(
                    |why| tracing::warn!(file = %path.display(), "the registry logins cannot be used: {why}"),
                )
                .ok()?
                .of(&registry)
        });
        found.await.ok().flatten().unwrap_or_default()
    }
}

fn open_to_all(path: &std::path::Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// Reads the file. Blocks.
fn read(path: &std::path::Path) -> Result<logins::Logins, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_FILE {
        return Err(format!("it is longer than {MAX_FILE} bytes"));
    }
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    logins::Logins::read(&text).ok_or_else(|| {
        "it is not as `docker login` writes it: expected {\"auths\":{\"REGISTRY\":{\"auth\":\"…\"}}}".into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_changed_file_is_read_anew_and_what_is_brought_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        assert!(Logins::open(path.clone()).unwrap_err().to_string().contains("config.json"));
        std::fs::write(&path, "hello").unwrap();
        assert!(Logins::open(path.clone()).unwrap_err().to_string().contains("docker login"));
        let login = |word: &str| {
            format!(r#"{{"auths":{{"quay.io":{{"auth":"{word}"}},"docker.io":{{"auth":"Yzpk"}}}}}}"#)
        };
        std::fs::write(&path, login("YTpi")).unwrap();
        let logins = Logins::open(path.clone()).unwrap();
        let basic = |word: &str| Credentials::authorization(format!("Basic {word}"));
        assert_eq!(logins.unless(Credentials::none(), "Quay.io").await, basic("YTpi"));
        assert_eq!(logins.unless(Credentials::none(), "index.docker.io").await, basic("Yzpk"));
        assert_eq!(logins.unless(Credentials::none(), "ghcr.io").await, Credentials::none());
        assert_eq!(logins.unless(basic("x"), "quay.io").await, basic("x"));
        std::fs::write(&path, login("ZTpm")).unwrap();
        assert_eq!(logins.unless(Credentials::none(), "quay.io").await, basic("ZTpm"));
        // Half a file, or none: as if it said nothing.
        for broken in ["{", ""] {
            std::fs::write(&path, broken).unwrap();
            assert_eq!(logins.unless(Credentials::none(), "quay.io").await, Credentials::none());
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(logins.unless(Credentials::none(), "quay.io").await, Credentials::none());
        assert_eq!(Logins::default().unless(Credentials::none(), "quay.io").await, Credentials::none());
    }
}
