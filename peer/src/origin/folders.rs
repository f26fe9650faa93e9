//! Files of folders that nodes share (a network file system, mounted everywhere), asked for as `file:///PATH`. They are answered as an
//! HTTP server answers for its files, so that whatever is done with an origin is done with them.
//!
//! # Invariants
//! - Only what lies in a folder that the settings name is opened; no link and no `..` leads out of it.
//! - Only regular files that everybody may read: who asks is a member or a client, and no user of this machine.
//! - No redirect leads here ([`super::client`] asks here for what a caller named, never for what an answer named).

use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use common::piece::ByteRange;
use futures_util::stream;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use reqwest::{Body, ResponseBuilderExt as _, Url};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::guard::Refusal;
use super::{Cause, OriginError, label};

/// How URLs of files begin.
pub(super) const SCHEME: &str = "file";
/// Readable by others.
const BY_ALL: u32 = 0o004;
/// Read at once: large enough that system calls and changes of threads do not count.
const CHUNK: u64 = 512 * 1024;

/// The folders whose files may be asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Folders(Vec<PathBuf>);

/// What there is of a file.
struct Found {
    file: File,
    length: u64,
    modified: SystemTime,
    headers: HeaderMap,
}

/// Why there is nothing.
struct Missing(StatusCode, String);

// === impl Folders ===

impl Folders {
    /// # Errors
    /// When one is no absolute path: which folder is meant must not depend on where a daemon was started.
    pub(super) fn new(folders: &[PathBuf]) -> Result<Self, OriginError> {
        match folders.iter().find(|folder| !folder.is_absolute()) {
            Some(folder) => Err(OriginError::Folder(folder.clone())),
            None => Ok(Self(folders.to_vec())),
        }
    }

    /// The folder that a URL's file is in, and its path there.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn place(&self, url: &Url) -> Result<(&Path, PathBuf), OriginError> {
        let refused = |why| OriginError::Forbidden { url: label(url), why };
        let path = url.to_file_path().map_err(|()| refused(Refusal::NoFile))?;
        let within = |folder: &'_ PathBuf| path.strip_prefix(folder).ok().map(Path::to_owned);
        let found = self.0.iter().find_map(|folder| Some((folder.as_path(), within(folder)?)));
        found.ok_or_else(|| refused(Refusal::Folder(path.display().to_string())))
    }

    /// What a server would answer.
    ///
    /// # Errors
    /// When the file is in no folder of the settings, or the disk does not give it.
    pub(super) async fn answer(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<reqwest::Response, OriginError> {
        let (folder, path) = self.place(url)?;
        let broken = |source: Cause| OriginError::Unreachable { origin: label(url), source };
        let folder = folder.to_owned();
        let opening = tokio::task::spawn_blocking(move || open(&folder, &path));
        let found = match opening.await.map_err(|error| broken(error.into()))? {
            Ok(found) => found,
            Err(error) => match missing(&error) {
                Some(missing) => return Ok(missing.answer(url)),
                None => return Err(broken(error.into())),
            },
        };
        match *method {
            Method::HEAD => Ok(respond(url, StatusCode::OK, (found.headers, found.length), Body::default())),
            Method::GET => Ok(found.content(url, headers)),
            _ => Ok(Missing(StatusCode::METHOD_NOT_ALLOWED, "files are only read".into()).answer(url)),
        }
    }
}

/// Opens a file beneath a folder. Blocks.
fn open(folder: &Path, path: &Path) -> std::io::Result<Found> {
    let at = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // NONBLOCK: to open a pipe would wait for its writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(rustix::fs::openat2(at, path, flags, Mode::empty(), beneath)?);
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.mode() & BY_ALL == 0 {
        return Err(ErrorKind::PermissionDenied.into());
    }
    let modified = metadata.modified()?;
    Ok(Found { file, length: metadata.len(), modified, headers: described(&metadata, modified) })
}

/// What says which revision a file is: alike on every node that has mounted it, so no inode.
fn described(metadata: &Metadata, modified: SystemTime) -> HeaderMap {
    let tag = format!("\"{:x}.{:x}-{:x}\"", metadata.mtime(), metadata.mtime_nsec(), metadata.len());
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, HeaderValue::from_str(&tag).expect("invariant: hex is header text"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let date = HeaderValue::from_str(&httpdate::fmt_http_date(modified));
    headers.insert(header::LAST_MODIFIED, date.expect("invariant: a date is header text"));
    headers
}

/// What a server would say to whoever asks for such a file; nothing where the disk is to blame.
fn missing(error: &std::io::Error) -> Option<Missing> {
    let (status, why) = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => (StatusCode::NOT_FOUND, "there is no such file"),
        ErrorKind::PermissionDenied => {
            (StatusCode::FORBIDDEN, "only regular files that everybody may read are given (chmod o+r)")
        }
        ErrorKind::CrossesDevices => {
            (StatusCode::FORBIDDEN, "it is a link that leads out of the shared folder")
        }
        _ => return None,
    };
    Some(Missing(status, why.to_owned()))
}

fn respond(
    url: &Url,
    status: StatusCode,
    (headers, length): (HeaderMap, u64),
    body: Body,
) -> reqwest::Response {
    let mut response = http::Response::builder().status(status).url(url.clone()).body(body);
    if let Ok(response) = &mut response {
        *response.headers_mut() = headers;
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    response.expect("invariant: a status and a URL make an answer").into()
}

// === impl Missing ===

impl Missing {
    fn answer(self, url: &Url) -> reqwest::Response {
        let Self(status, why) = self;
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
        respond(url, status, (headers, why.len() as u64), Body::from(why))
    }
}

// === impl Found ===

impl Found {
    /// The whole, or the range that is asked for, if it is still this file (`If-Range`).
    fn content(mut self, url: &Url, asked: &HeaderMap) -> reqwest::Response {
        let same = asked.get(header::IF_RANGE).is_none_or(|tag| Some(tag) == self.headers.get(header::ETAG));
        let range = asked.get(header::RANGE).filter(|_| same);
        let Some(range) = range.and_then(|range| range.to_str().ok()).and_then(wanted) else {
            return self.part(url, StatusCode::OK, None);
        };
        let (start, end) = (range.start, range.end.min(self.length));
        let said = match start < end {
            true => format!("bytes {start}-{}/{}", end - 1, self.length),
            false => format!("bytes */{}", self.length),
        };
        let said = HeaderValue::from_str(&said).expect("invariant: numbers are header text");
        self.headers.insert(header::CONTENT_RANGE, said);
        if start >= end {
            return respond(url, StatusCode::RANGE_NOT_SATISFIABLE, (self.headers, 0), Body::default());
        }
        self.part(url, StatusCode::PARTIAL_CONTENT, Some(ByteRange::new(start, end)))
    }

    fn part(self, url: &Url, status: StatusCode, range: Option<ByteRange>) -> reqwest::Response {
        let range = range.unwrap_or(ByteRange::new(0, self.length));
        let headers = (self.headers.clone(), range.len());
        let chunks = stream::try_unfold((Arc::new(self), range.start), move |(found, at)| async move {
            let next = (range.end - at).min(CHUNK);
            if next == 0 {
                return Ok(None);
            }
            let reading = tokio::task::spawn_blocking(move || {
                let chunk = found.chunk(ByteRange::new(at, at + next))?;
                Ok::<_, std::io::Error>(Some((chunk, (found, at + next))))
            });
            reading.await.map_err(std::io::Error::other)?
        });
        respond(url, status, headers, Body::wrap_stream(chunks))
    }

    /// Some of it, and behind that a look whether the file is still what it was: a mixture is no revision. Blocks.
    fn chunk(&self, range: ByteRange) -> std::io::Result<Bytes> {
        let mut chunk = vec![0; range.len() as usize];
        self.file.read_exact_at(&mut chunk, range.start)?;
        let now = self.file.metadata()?;
        if now.len() != self.length || now.modified()? != self.modified {
            return Err(std::io::Error::other("the file was written to meanwhile"));
        }
        Ok(chunk.into())
    }
}

/// `bytes=A-B` or `bytes=A-`, as [`super::segment`] and [`super::revision`] ask; others are answered with the whole.
fn wanted(range: &str) -> Option<ByteRange> {
    let (start, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let start = start.parse().ok()?;
    let end = if last.is_empty() { u64::MAX } else { last.parse::<u64>().ok()?.checked_add(1)? };
    (start < end).then(|| ByteRange::new(start, end))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use common::task::{Credentials, Source};
    use futures_util::StreamExt as _;

    use super::super::{OriginClient, OriginOptions, look};
    use super::*;

    /// A shared folder with a file in it, and a client that may ask for it.
    struct Share {
        folder: tempfile::TempDir,
        client: OriginClient,
    }

    impl Share {
        fn new() -> Self {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("shared")).unwrap();
            let folders = vec![folder.path().join("shared")];
            let client = OriginClient::new(OriginOptions { folders, ..OriginOptions::default() }).unwrap();
            Self {
                folder,
                client: client.with_retry(super::super::RetryPolicy { attempts: 1, ..Default::default() }),
            }
        }

        fn write(&self, name: &str, content: &[u8], mode: u32) -> PathBuf {
            let path = self.folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        async fn ask(
            &self,
            path: &Path,
            headers: &[(header::HeaderName, &str)],
        ) -> Result<(u16, HeaderMap, Bytes), OriginError> {
            let url = Url::from_file_path(path).unwrap();
            let headers =
                headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
            let asked =
                self.client.ask(Method::GET, url.as_str(), &headers.collect(), &Credentials::none()).await?;
            Ok((asked.status.as_u16(), asked.headers.clone(), asked.bytes(1 << 24).await?))
        }
    }

    #[tokio::test]
    async fn a_file_is_answered_as_a_server_answers() {
        let share = Share::new();
        let path = share.write("shared/a b", b"0123456789", 0o644);
        let (status, headers, body) = share.ask(&path, &[]).await.unwrap();
        assert_eq!((status, &body[..]), (200, &b"0123456789"[..]));
        let tag = headers[header::ETAG].to_str().unwrap();
        for (range, since, expected) in [
            ("bytes=0-3", None, (206, &b"0123"[..])),
            ("bytes=8-99", Some(tag), (206, &b"89"[..])),
            ("bytes=2-", None, (206, &b"23456789"[..])),
            ("bytes=10-", None, (416, &b""[..])),
            ("bytes=0-3", Some("\"other\""), (200, &b"0123456789"[..])),
            ("bytes=-3", None, (200, &b"0123456789"[..])),
        ] {
            let mut asked = vec![(header::RANGE, range)];
            asked.extend(since.map(|tag| (header::IF_RANGE, tag)));
            let (status, _, body) = share.ask(&path, &asked).await.unwrap();
            assert_eq!((status, &body[..]), expected, "{range} {since:?}");
        }
    }

    #[tokio::test]
    async fn a_change_is_another_task() {
        let share = Share::new();
        let path = share.write("shared/model", b"one", 0o644);
        let source = || Source {
            url: Url::from_file_path(&path).unwrap().into(),
            digest: None,
            tag: String::new(),
            accept: None,
        };
        let none = Credentials::none();
        let first = look(&share.client, source(), &none).await.unwrap();
        assert_eq!((first.length, first.lasting, first.modified.is_some()), (Some(3), true, true));
        assert_eq!(look(&share.client, source(), &none).await.unwrap().source.task(), first.source.task());
        std::fs::write(&path, b"other").unwrap();
        assert_ne!(look(&share.client, source(), &none).await.unwrap().source.task(), first.source.task());
    }

    #[tokio::test]
    async fn nothing_is_given_that_is_not_meant_for_all() {
        let share = Share::new();
        let secret = share.write("secret", b"secret", 0o644);
        let link = share.folder.path().join("shared/link");
        symlink(&secret, &link).unwrap();
        symlink("../secret", share.folder.path().join("shared/relative")).unwrap();
        std::fs::create_dir(share.folder.path().join("shared/folder")).unwrap();
        let pipe = share.folder.path().join("shared/pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        for (path, expected) in [
            (share.write("shared/private", b"x", 0o640), 403),
            (link, 403),
            (share.folder.path().join("shared/relative"), 403),
            (share.folder.path().join("shared/folder"), 403),
            (pipe, 403),
            (share.folder.path().join("shared/none"), 404),
        ] {
            let (status, _, body) = share.ask(&path, &[]).await.unwrap();
            assert_eq!(status, expected, "{}: {body:?}", path.display());
        }
        for url in [
            format!("file://{}", secret.display()),
            format!("file://{}/shared/../secret", share.folder.path().display()),
        ] {
            let asked = share.client.ask(Method::GET, &url, &HeaderMap::new(), &Credentials::none()).await;
            let error = asked.err().expect("it lies outside").to_string();
            assert!(error.contains("--origin-folder"), "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_written_to_meanwhile_is_no_revision() {
        let share = Share::new();
        let path = share.write("shared/large", &vec![1; 2 * CHUNK as usize], 0o644);
        let url = Url::from_file_path(&path).unwrap();
        let answer = share
            .client
            .ask(Method::GET, url.as_str(), &HeaderMap::new(), &Credentials::none())
            .await
            .unwrap();
        let mut chunks = answer.bytes_stream();
        assert!(chunks.next().await.unwrap().is_ok());
        std::fs::write(&path, vec![2; 2 * CHUNK as usize]).unwrap();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => assert!(chunk.iter().all(|byte| *byte == 1), "bytes of two revisions"),
                Err(_) => return,
            }
        }
        panic!("the whole came as if nothing had happened");
    }

    #[test]
    fn a_folder_is_an_absolute_path() {
        let error = Folders::new(&["models".into()]).unwrap_err();
        assert!(error.to_string().contains("absolute"), "{error}");
    }
}
