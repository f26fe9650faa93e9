//! The Unix sockets of a daemon. The one in its data folder is its user's alone and may everything. A peer may have a second one
//! elsewhere, for other users of the machine: through it content is fetched, with each client's own credentials, and nothing
//! else is seen or changed. Who may open that one its file mode and group say.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::daemon::DaemonError;

/// Where clients look for the second socket.
pub const FOR_CLIENTS: &str = "/run/longshore/get.sock";
/// Clients of the socket's group, unless other permissions are set.
pub const CLIENTS_MODE: u32 = 0o660;

/// The socket for other users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSocket {
    /// Where it is; its folder must be there.
    pub path: PathBuf,
    /// The group that it gets, by number; none: the daemon's.
    pub group: Option<u32>,
    /// Its permissions.
    pub mode: u32,
}

/// Makes a daemon's own socket, which is its user's alone.
///
/// # Errors
/// When it cannot be made.
pub fn bind(path: &Path) -> Result<UnixListener, DaemonError> {
    // The store's lock says that no other daemon lives here: a socket that is left over is nobody's.
    let _ = std::fs::remove_file(path);
    let failed = |source| DaemonError::Socket { path: path.to_owned(), source };
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

// === impl ClientSocket ===

impl ClientSocket {
    /// Makes it.
    ///
    /// # Errors
    /// When another daemon answers there, what is there is no socket, or it cannot be given the group.
    pub async fn bind(&self) -> Result<UnixListener, DaemonError> {
        let failed = |source| DaemonError::Socket { path: self.path.clone(), source };
        self.make_room().await.map_err(failed)?;
        let listener = UnixListener::bind(&self.path).map_err(failed)?;
        // The group before the permissions: nobody else's group is to have them meanwhile.
        if let Some(group) = self.group {
            chown(&self.path, None, Some(group)).map_err(failed)?;
        }
        std::fs::set_permissions(&self.path, PermissionsExt::from_mode(self.mode)).map_err(failed)?;
        Ok(listener)
    }

    /// Removes what a killed daemon left.
    async fn make_room(&self) -> io::Result<()> {
        match std::fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
            Ok(metadata) if !metadata.file_type().is_socket() => {
                let why = "there is something else of that name: choose another with --client-socket";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
            }
            Ok(_) => {}
        }
        if UnixStream::connect(&self.path).await.is_ok() {
            let why = "another peer answers there: give each its own --client-socket";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
        }
        std::fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[tokio::test]
    async fn the_socket_for_clients_has_its_permissions_and_takes_nobodys_place() {
        let home = tempfile::tempdir().unwrap();
        let group = std::fs::metadata(home.path()).unwrap().gid();
        let socket = ClientSocket { path: home.path().join("get.sock"), group: Some(group), mode: 0o660 };
        let first = socket.bind().await.unwrap();
        let metadata = std::fs::metadata(&socket.path).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.gid()), (0o660, group));
        let taken = socket.bind().await.unwrap_err().to_string();
        assert!(taken.contains("get.sock") && taken.contains("another peer"), "{taken}");
        drop(first);
        drop(socket.bind().await.unwrap());
        std::fs::remove_file(&socket.path).unwrap();
        std::fs::write(&socket.path, "mine").unwrap();
        let other = socket.bind().await.unwrap_err().to_string();
        assert!(other.contains("something else"), "{other}");
        assert_eq!(std::fs::read(&socket.path).unwrap(), b"mine");
    }
}
