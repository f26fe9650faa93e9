//! An AWS-style credentials file: `[default]` (or the profile in `AWS_PROFILE`), `aws_access_key_id`,
//! `aws_secret_access_key`, and `aws_session_token` where they are temporary. Read again now and then, so that whoever
//! renews them need not restart the supernode. Used by `open`.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _};
use object_store::aws::AwsCredential;
use object_store::client::CredentialProvider;

use crate::vault::CacheError;

/// How old what was read may be.
const FRESH: Duration = Duration::from_secs(30);
/// Far above any credentials file.
const LONGEST: u64 = 64 * 1024;

/// The credentials in a file, as it is now.
pub(super) struct File {
    path: PathBuf,
    read: Mutex<(Arc<AwsCredential>, Instant)>,
}

// === impl File ===

impl File {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// When it cannot be read, others than its owner may read it, or no credentials are in it.
    pub(super) fn open(path: &Path) -> Result<Self, CacheError> {
        let read = Mutex::new((Arc::new(load(path)?), Instant::now()));
        Ok(Self { path: path.to_owned(), read })
    }

    fn current(&self) -> Arc<AwsCredential> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.1.elapsed() >= FRESH {
            match load(&self.path) {
                Ok(credential) => read.0 = Arc::new(credential),
                // It may be just being written: the old ones may still do.
                Err(error) => tracing::warn!("{error}"),
            }
            read.1 = Instant::now();
        }
        read.0.clone()
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "File({})", self.path.display())
    }
}

impl CredentialProvider for File {
    type Credential = AwsCredential;

    // What the trait's `async fn` stands for.
    fn get_credential<'s, 'f>(&'s self) -> BoxFuture<'f, object_store::Result<Arc<AwsCredential>>>
    where
        's: 'f,
        Self: 'f,
    {
        async { Ok(self.current()) }.boxed()
    }
}

fn load(path: &Path) -> Result<AwsCredential, CacheError> {
    let refused = |why: String| CacheError::Credentials { path: path.to_owned(), why };
    let file = std::fs::File::open(path).map_err(|error| refused(error.to_string()))?;
    let mode = file.metadata().map_err(|error| refused(error.to_string()))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(refused(format!(
            "others than its owner may use it (mode {mode:o}): set its mode to 600"
        )));
    }
    let mut text = String::new();
    let read = file.take(LONGEST).read_to_string(&mut text);
    read.map_err(|error| refused(error.to_string()))?;
    let profile = std::env::var("AWS_PROFILE").ok().filter(|profile| !profile.is_empty());
    let profile = profile.as_deref().unwrap_or("default");
    parse(&text, profile).ok_or_else(|| {
        refused(format!("its section [{profile}] has no aws_access_key_id and aws_secret_access_key"))
    })
}

fn parse(text: &str, profile: &str) -> Option<AwsCredential> {
    let (mut here, mut key_id, mut secret_key, mut token) = (false, None, None, None);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            here = name.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| here) {
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match name.trim() {
                "aws_access_key_id" => key_id = value,
                "aws_secret_access_key" => secret_key = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(AwsCredential { key_id: key_id?, secret_key: secret_key?, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\n[other]\naws_access_key_id = other\naws_secret_access_key = x\n\n[default]\n\
                        region = eu\naws_access_key_id = id\naws_secret_access_key = hunter2=+/\n";

    #[test]
    fn a_profile_is_read_and_half_a_one_is_none() {
        let read = parse(TEXT, "default").unwrap();
        assert_eq!((read.key_id.as_str(), read.secret_key.as_str(), read.token), ("id", "hunter2=+/", None));
        assert_eq!(parse(TEXT, "other").unwrap().key_id, "other");
        assert!(parse(TEXT, "none").is_none());
        assert!(parse("[default]\naws_access_key_id = id\naws_secret_access_key =\n", "default").is_none());
        let with_token = format!("{TEXT}aws_session_token = t\n");
        assert_eq!(parse(&with_token, "default").unwrap().token.as_deref(), Some("t"));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), TEXT).unwrap();
        let set =
            |mode| std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o640);
        let error = File::open(file.path()).unwrap_err().to_string();
        assert!(error.contains("640") && error.contains("600") && !error.contains("hunter2"), "{error}");
        set(0o600);
        let opened = File::open(file.path()).unwrap();
        assert!(!format!("{opened:?}").contains("hunter2"));
        assert_eq!(opened.current().key_id, "id");
    }
}
