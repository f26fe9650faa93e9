//! What is said to a runtime: two of CRI's questions about images, as `runtime.v1` has them in `api.proto`, with the fields that
//! matter here, and what becomes of trouble. [`super::Runtime`] calls it.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use common::config::ByteSize;

use super::grpc::{self, Trouble};
use super::said::{DEADLINE_EXCEEDED, UNIMPLEMENTED, fit, refusal};
use super::{LONGEST_NAME, Login, Ready, RuntimeError};

/// How long a runtime has for a question that it answers from memory. It may be busy: the kubelet waits two minutes.
const STATUS_TIME: Duration = Duration::from_secs(30);

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ImageSpec {
    #[prost(string, tag = "1")]
    pub(super) image: String,
}

/// `ImageStatusRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AskStatus {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<ImageSpec>,
}

/// `ImageStatusResponse`: without an image where there is none.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Status {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<Image>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Image {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(uint64, tag = "4")]
    pub(super) size: u64,
}

/// `PullImageRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AskPull {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<ImageSpec>,
    #[prost(message, optional, tag = "2")]
    pub(super) auth: Option<AuthConfig>,
}

/// Without `server_address`: containerd would show the login to that host alone, and not to a mirror.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct AuthConfig {
    #[prost(string, tag = "1")]
    pub(super) username: String,
    #[prost(string, tag = "2")]
    pub(super) password: String,
    #[prost(string, tag = "5")]
    pub(super) identity_token: String,
    #[prost(string, tag = "6")]
    pub(super) registry_token: String,
}

/// `PullImageResponse`. Runtimes differ in what they call the image here, so its status is asked for.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Pulled {}

/// One talk about one image.
struct Talk<'a> {
    socket: &'a Path,
    image: &'a str,
    login: Option<&'a Login>,
    time: Duration,
}

/// Whether the image is there.
pub(super) async fn has(socket: &Path, image: &str) -> Result<Option<Ready>, RuntimeError> {
    let talk = Talk { socket, image, login: None, time: STATUS_TIME };
    talk.in_time(talk.status()).await
}

/// Pulls the image, and says what it became.
pub(super) async fn pull(
    socket: &Path,
    image: &str,
    login: Option<&Login>,
    time: Duration,
) -> Result<Ready, RuntimeError> {
    let talk = Talk { socket, image, login, time };
    talk.in_time(talk.pulled()).await
}

// === impl Talk ===

impl Talk<'_> {
    async fn in_time<T>(
        &self,
        talking: impl Future<Output = Result<T, RuntimeError>>,
    ) -> Result<T, RuntimeError> {
        tokio::time::timeout(self.time, talking).await.unwrap_or_else(|_| Err(self.timed_out()))
    }

    async fn status(&self) -> Result<Option<Ready>, RuntimeError> {
        let question = AskStatus { image: self.spec() };
        let Status { image } = self.ask("/runtime.v1.ImageService/ImageStatus", &question).await?;
        match image {
            Some(Image { id, .. }) if id.is_empty() || id.len() > LONGEST_NAME => {
                Err(self.broken("an image without a name that can be used"))
            }
            image => Ok(image.map(|Image { id, size }| Ready { id, size: ByteSize(size) })),
        }
    }

    async fn pulled(&self) -> Result<Ready, RuntimeError> {
        let question = AskPull { image: self.spec(), auth: self.login.map(AuthConfig::from) };
        let Pulled {} = self.ask("/runtime.v1.ImageService/PullImage", &question).await?;
        let gone = || RuntimeError::Gone { socket: self.socket.to_owned(), image: self.image.to_owned() };
        self.status().await?.ok_or_else(gone)
    }

    async fn ask<A: prost::Message + Default>(
        &self,
        method: &str,
        question: &impl prost::Message,
    ) -> Result<A, RuntimeError> {
        match grpc::unary(self.socket, method, question, self.time).await {
            Ok(answer) => Ok(answer),
            Err(trouble) => Err(self.explained(trouble).await),
        }
    }

    fn spec(&self) -> Option<ImageSpec> {
        Some(ImageSpec { image: self.image.to_owned() })
    }

    async fn explained(&self, trouble: Trouble) -> RuntimeError {
        let socket = self.socket.to_owned();
        match trouble {
            Trouble::Connect(source) => match source.kind() {
                ErrorKind::NotFound => RuntimeError::NoSocket { socket },
                ErrorKind::PermissionDenied => RuntimeError::NoPermission { socket },
                // So the system answers for files of other kinds, too.
                ErrorKind::ConnectionRefused if is_socket(&socket).await => {
                    RuntimeError::NobodyListens { socket }
                }
                ErrorKind::ConnectionRefused => RuntimeError::NotASocket { socket },
                _ => RuntimeError::Connect { socket, source },
            },
            Trouble::Broke(what) => self.broken(&fit(&what, self.login)),
            Trouble::Status { code: DEADLINE_EXCEEDED, .. } => self.timed_out(),
            Trouble::Status { code: UNIMPLEMENTED, said } => {
                RuntimeError::NoCri { socket, said: fit(&said, self.login) }
            }
            Trouble::Status { code, said } => RuntimeError::Refused {
                socket,
                image: self.image.to_owned(),
                refusal: refusal(code, &said),
                said: fit(&said, self.login),
            },
        }
    }

    fn broken(&self, what: &str) -> RuntimeError {
        let (socket, image) = (self.socket.to_owned(), self.image.to_owned());
        RuntimeError::Broken { socket, image, what: what.to_owned() }
    }

    fn timed_out(&self) -> RuntimeError {
        let (socket, image) = (self.socket.to_owned(), self.image.to_owned());
        RuntimeError::TimedOut { socket, image, after: self.time }
    }
}

async fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    tokio::fs::metadata(path).await.is_ok_and(|metadata| metadata.file_type().is_socket())
}

// === impl AuthConfig ===

impl From<&Login> for AuthConfig {
    fn from(login: &Login) -> Self {
        match login.clone() {
            Login::Password { user, password } => Self { username: user, password, ..Self::default() },
            Login::IdentityToken(identity_token) => Self { identity_token, ..Self::default() },
            Login::RegistryToken(registry_token) => Self { registry_token, ..Self::default() },
        }
    }
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthConfig([redacted])")
    }
}
