//! What a job comes to: the manifests, configs and layers of an image, or files; and how they are opened at the origin.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::BytesMut;
use common::digest::Digest;
use common::piece::ByteRange;
use common::task::{Credentials, Source};
use common::wire::errand::Login;
use common::wire::swarm::Priority;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use peer::engine::{Engine, Request};
use peer::error::FetchError;
use peer::image::ImageError;
use peer::image::manifest::{ACCEPT, Descriptor, Manifest, Platform, choose};
use peer::image::reference::Reference;
use peer::image::registry::{Answered, Repository};
use peer::origin::{OriginClient, look};
use tokio::sync::Mutex;

use super::job::{Contents, File, MAX_PARTS, Part, Spec};

/// Manifests of one image, all platforms of it: a few dozen are known.
const MAX_MANIFESTS: usize = 200;
/// What registries take at most.
const MAX_MANIFEST: u64 = 4 * 1024 * 1024;
/// A media type has at most 255 characters (RFC 6838).
const MAX_MEDIA_TYPE: usize = 255;
/// Files that an origin is asked about at once.
const LOOKS: usize = 8;
/// Blobs of one job.
const MAX_TASKS: usize = 20_000;

/// What is to be fetched, and by what right.
#[derive(Clone)]
pub struct Load {
    /// Manifests first, then what they name; each once.
    pub sources: Arc<[Source]>,
    /// How long each is, in bytes; zero where an origin does not say it.
    pub lengths: Arc<[u64]>,
    /// The first of them, as they are shown.
    pub parts: Arc<[Part]>,
    /// What it comes to.
    pub contents: Contents,
    /// The image's full name, for a container runtime.
    pub image: Option<String>,
    /// The same by its digest: what the name means now.
    pub pinned: Option<String>,
    /// What the job was given: a container runtime gets its own tokens by it.
    pub own: Credentials,
    opener: Opener,
}

/// What opens a load at its origin: tokens run out, and may be had anew.
#[derive(Clone)]
enum Opener {
    Registry(Arc<Mutex<Repository>>),
    Credentials(Credentials),
}

/// Finds out what a job comes to.
///
/// # Errors
/// When the image is not there, or not for us, or for no such platform.
pub async fn find(spec: &Spec, credentials: Credentials, engine: &Engine) -> Result<Load, ImageError> {
    let Some(image) = &spec.image else {
        return Load::of_files(&spec.files, credentials, engine.origin()).await;
    };
    let reference = Reference::of_image(image).map_err(|_| ImageError::NoManifest)?;
    let own = credentials.clone();
    // What a runtime could not be asked for by this name was refused ([`Spec::check`]).
    let mut repository = Repository::of(engine.origin().clone(), &reference, credentials)?;
    let mut load = Gathered::default();
    let (digest, kind) = repository.look(&reference.wanted()).await?;
    let first = read(engine, &repository, digest, kind).await?;
    let mut images = Vec::new();
    match load.read(&repository, &first)? {
        Manifest::Image(_, blobs) => load.add(&repository, &blobs)?,
        Manifest::Index(manifests) => images = chosen(&manifests, &spec.platforms)?,
    }
    for image in images {
        let found = read(engine, &repository, image.digest()?, image.media_type.clone()).await?;
        match load.read(&repository, &found)? {
            Manifest::Image(_, blobs) => load.add(&repository, &blobs)?,
            Manifest::Index(_) => return Err(ImageError::Nested(image.digest)),
        }
    }
    let bytes = load.lengths.iter().fold(0, |sum: u64, length| sum.saturating_add(*length));
    let contents = Contents { tasks: load.sources.len() as u32, bytes };
    let opener = Opener::Registry(Arc::new(Mutex::new(repository)));
    let pinned = Reference { tag: None, digest: Some(digest), ..reference.clone() };
    Ok(Load {
        sources: load.sources.into(),
        lengths: load.lengths.into(),
        parts: load.parts.into(),
        contents,
        image: Some(reference.spelled()),
        pinned: Some(pinned.spelled()),
        own,
        opener,
    })
}

/// A manifest through the engine, like anything of the job: so the origin gives it once, and the cache has it.
async fn read(
    engine: &Engine,
    repository: &Repository,
    digest: Digest,
    content_type: String,
) -> Result<Answered, ImageError> {
    let credentials = repository.credentials().clone();
    let source = manifest(repository, digest);
    let request = Request { source, credentials, priority: Priority::Preheat, trace: None };
    let handle = engine.open(request).await?;
    if handle.length() > MAX_MANIFEST {
        return Err(ImageError::NoManifest);
    }
    let mut bytes = BytesMut::new();
    let mut parts = std::pin::pin!(handle.read(ByteRange::new(0, handle.length())));
    while let Some(part) = parts.next().await {
        bytes.extend_from_slice(&part?);
    }
    Ok(Answered { bytes: bytes.freeze(), digest, content_type })
}

fn manifest(repository: &Repository, digest: Digest) -> Source {
    let mut source = Source::of_digest(repository.manifest_url(digest), digest);
    source.accept = Some(ACCEPT.to_owned());
    source
}

/// The manifests of an index that are wanted: those of the platforms, or all. Where nothing is said it is this machine's; an image
/// that is for others alone is not meant for this machine, and all of it is wanted.
fn chosen(manifests: &[Descriptor], platforms: &[String]) -> Result<Vec<Descriptor>, ImageError> {
    let all = || manifests.iter().take(MAX_MANIFESTS).cloned().collect();
    if platforms.iter().any(|platform| platform == "all") {
        return Ok(all());
    }
    if platforms.is_empty() {
        return Ok(match choose(manifests, &Platform::default()) {
            Ok(own) => vec![own.clone()],
            Err(_) => all(),
        });
    }
    let wanted = platforms.iter().filter_map(|platform| platform.parse::<Platform>().ok());
    wanted.map(|platform| choose(manifests, &platform).cloned()).collect()
}

/// What was found so far.
#[derive(Default)]
struct Gathered {
    sources: Vec<Source>,
    lengths: Vec<u64>,
    parts: Vec<Part>,
    seen: BTreeSet<String>,
}

// === impl Gathered ===

impl Gathered {
    /// Takes a manifest in, and reads it.
    fn read(&mut self, repository: &Repository, found: &Answered) -> Result<Manifest, ImageError> {
        let digest = found.digest;
        if self.seen.insert(digest.to_string()) {
            self.sources.push(manifest(repository, digest));
            self.lengths.push(found.bytes.len() as u64);
            self.show(digest, &found.content_type, found.bytes.len() as u64);
        }
        Manifest::read(&found.bytes, &found.content_type)
    }

    fn show(&mut self, digest: Digest, media_type: &str, size: u64) {
        if self.parts.len() < MAX_PARTS {
            let media_type = media_type.chars().take(MAX_MEDIA_TYPE).collect();
            self.parts.push(Part { digest: Some(digest.to_string()), media_type, size: Some(size) });
        }
    }

    fn add(&mut self, repository: &Repository, blobs: &[Descriptor]) -> Result<(), ImageError> {
        for blob in blobs {
            let digest = blob.digest()?;
            if self.sources.len() < MAX_TASKS && self.seen.insert(blob.digest.clone()) {
                self.sources.push(Source::of_digest(repository.blob(digest), digest));
                self.lengths.push(blob.size);
                self.show(digest, &blob.media_type, blob.size);
            }
        }
        Ok(())
    }
}

// === impl Load ===

impl Load {
    /// What a job for files comes to: the revisions that the origin has now, as whoever fetches the URLs will be told.
    async fn of_files(
        files: &[File],
        credentials: Credentials,
        client: &OriginClient,
    ) -> Result<Self, ImageError> {
        let source = |file: &File| Source {
            url: file.url.clone(),
            digest: file.digest.as_ref().and_then(|digest| digest.parse().ok()),
            tag: file.tag.clone(),
            accept: None,
        };
        let looks = stream::iter(files.iter().map(source)).map(|source| look(client, source, &credentials));
        let looks: Vec<_> = looks.buffered(LOOKS).try_collect().await.map_err(FetchError::from)?;
        let found = looks.into_iter().map(|look| (look.source, look.length)).collect();
        Ok(Self::of_sources(found, credentials))
    }

    /// What these sources come to, whose lengths may be known.
    pub(super) fn of_sources(found: Vec<(Source, Option<u64>)>, credentials: Credentials) -> Self {
        let shown = |(source, size): &(Source, Option<u64>)| Part {
            digest: source.digest.as_ref().map(ToString::to_string),
            media_type: String::new(),
            size: *size,
        };
        let lengths: Vec<u64> = found.iter().map(|(_, length)| length.unwrap_or_default()).collect();
        let bytes = lengths.iter().fold(0, |sum: u64, length| sum.saturating_add(*length));
        Self {
            parts: found.iter().take(MAX_PARTS).map(shown).collect(),
            contents: Contents { tasks: found.len() as u32, bytes },
            sources: found.into_iter().map(|(source, _)| source).collect(),
            lengths: lengths.into(),
            image: None,
            pinned: None,
            own: credentials.clone(),
            opener: Opener::Credentials(credentials),
        }
    }

    /// What it means, in short: a tag that has moved, or a file that was changed, is another load.
    pub(super) fn meaning(&self) -> String {
        let tasks: Vec<u8> = self.sources.iter().flat_map(|source| source.task().0).collect();
        Digest::of(&tasks).hex()
    }

    /// What opens the sources now; `again` for another try, which may need a new token.
    pub async fn credentials(&self, again: bool) -> Credentials {
        match &self.opener {
            Opener::Credentials(credentials) => credentials.clone(),
            Opener::Registry(repository) => {
                let mut repository = repository.lock().await;
                if again && let Err(error) = repository.renew().await {
                    tracing::info!("no new token for a preheat job: {error}");
                }
                repository.credentials().clone()
            }
        }
    }
}

/// Who a container runtime is to be at the registry, by the credentials that were given.
pub fn login(credentials: &Credentials) -> Option<Login> {
    let (_, value) = credentials.expose().find(|(name, _)| *name == "authorization")?;
    let (scheme, word) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Login::Token(word.trim().to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let (user, password) = basic(word.trim())?;
    Some(Login::Password { user, password })
}

/// `user:password`, as HTTP's basic authorization has it (RFC 7617).
fn basic(word: &str) -> Option<(String, String)> {
    use base64::Engine as _;
    let text = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(word).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_logs_in_as_whoever_was_named() {
        let password = Login::Password { user: "a".into(), password: "b:c".into() };
        for (value, expected) in [
            ("Basic YTpiOmM=", Some(password)),
            ("bearer x.y", Some(Login::Token("x.y".into()))),
            ("Basic !", None),
            ("Digest x", None),
            ("", None),
        ] {
            assert_eq!(login(&Credentials::authorization(value)), expected, "{value}");
        }
        assert_eq!(login(&Credentials::none()), None);
    }

    #[test]
    fn platforms_are_chosen_and_unknown_ones_named() {
        let index = br#"{"manifests":[
            {"digest":"sha256:1","size":1,"platform":{"os":"linux","architecture":"amd64"}},
            {"digest":"sha256:2","size":1,"platform":{"os":"linux","architecture":"arm64"}},
            {"digest":"sha256:3","size":1,"platform":{"os":"unknown","architecture":"unknown"}},
            {"digest":"sha256:4","size":1,"platform":{"os":"linux","architecture":"s390x"}},
            {"digest":"sha256:5","size":1,"platform":{"os":"windows","architecture":"amd64"}}]}"#;
        let Ok(Manifest::Index(manifests)) = Manifest::read(index, "") else { panic!("an index") };
        let names = |platforms: &[&str]| {
            let platforms: Vec<String> = platforms.iter().map(|&name| name.to_owned()).collect();
            chosen(&manifests, &platforms)
                .map(|all| all.into_iter().map(|one| one.digest).collect::<Vec<_>>())
        };
        assert_eq!(names(&["linux/arm64"]).unwrap(), ["sha256:2"]);
        assert_eq!(names(&["all"]).unwrap().len(), 5);
        assert_eq!(names(&[]).unwrap().len(), 1);
        let foreign = chosen(&manifests[3..], &[]).unwrap();
        assert_eq!(foreign.len(), 2, "an image that is for other machines is for those");
        assert!(names(&["linux/riscv64"]).unwrap_err().to_string().contains("linux/arm64"));
    }
}
