//! A whole image into an OCI layout (`oci://`, `docker://`). Manifests are asked of the registry by this process, for what a tag
//! means is the registry's to say now; config and layers come by the way of all content, each checked by its digest.

mod layout;
pub mod logins;

use std::path::Path;

use anyhow::{Context as _, bail};
use common::digest::Digest;
use common::task::{Credentials, Source};
use peer::image::ImageError;
use peer::image::manifest::{Descriptor, Manifest, Platform, choose};
use peer::image::reference::Reference;
use peer::image::registry::{Answered, Repository};
use peer::origin::OriginClient;

use self::layout::Layout;
use super::exit::{self, Stop};
use super::output::Finish;
use super::report::{Done, Transfer};
use super::wanted::{Remote, Target};
use super::ways::{Job, Settings, Way};

/// An image, and what opens it.
#[derive(Debug, Clone)]
pub struct Image {
    pub reference: Reference,
    pub credentials: Credentials,
    pub platform: Platform,
}

/// What fetching takes.
pub struct Means<'a> {
    pub client: OriginClient,
    pub way: &'a Way,
    pub settings: &'a Settings,
}

/// Brings it into a folder.
pub async fn bring(
    image: &Image,
    folder: &Path,
    means: &Means<'_>,
    transfer: &mut Transfer<'_>,
) -> anyhow::Result<Done> {
    let reference = &image.reference;
    let credentials = who(image).await?;
    let mut repository = Repository::of(means.client.clone(), reference, credentials).map_err(told)?;
    let (found, kind, blobs) = resolve(&mut repository, image).await.map_err(told)?;
    let path = folder.to_owned();
    let layout = tokio::task::spawn_blocking(move || Layout::open(&path)).await??;
    let layout = std::sync::Arc::new(layout);
    let total: u64 = blobs.iter().map(|blob| blob.size).fold(found.bytes.len() as u64, u64::saturating_add);
    transfer.knows_of_many(total);
    let mut through = "the registry";
    for blob in &blobs {
        let (digest, size, here) = (blob.digest().map_err(told)?, blob.size, layout.clone());
        if tokio::task::spawn_blocking(move || here.has(digest, size)).await? {
            transfer.add(size);
            continue;
        }
        transfer.next_file();
        let done = fetch(&mut repository, digest, (means, &layout), transfer).await;
        let done = done.with_context(|| format!("cannot fetch the blob {digest} of the image"))?;
        if done.length != size {
            bail!(
                "the blob {digest} has {} bytes, and the manifest says {size}: the image is damaged",
                done.length
            );
        }
        through = done.through;
    }
    transfer.add(found.bytes.len() as u64);
    let named = reference.clone();
    let digest = found.digest;
    let write = move || {
        layout.write(&layout.blob(digest), &found.bytes)?;
        layout.name(&named, &kind, (digest, found.bytes.len() as u64))
    };
    tokio::task::spawn_blocking(write).await??;
    Ok(Done { length: total, through, digest: Some(digest) })
}

/// What the user says with `-H`, or said at a login.
async fn who(image: &Image) -> anyhow::Result<Credentials> {
    if !image.credentials.is_empty() {
        return Ok(image.credentials.clone());
    }
    let registry = image.reference.registry.clone();
    Ok(tokio::task::spawn_blocking(move || logins::credentials(&registry)).await?)
}

/// What went wrong, as the exit code is told of it.
fn told(error: ImageError) -> anyhow::Error {
    match error {
        ImageError::Fetch(error) => error.into(),
        ImageError::OtherContent(digest) => Stop::OtherContent(digest).into(),
        ImageError::Registry(error) => crate::usage(error),
        other => other.into(),
    }
}

/// The image's manifest, for the platform where there is a choice: its kind, and what it names.
async fn resolve(
    repository: &mut Repository,
    image: &Image,
) -> Result<(Answered, String, Vec<Descriptor>), ImageError> {
    let mut found = repository.manifest(&image.reference.wanted()).await?;
    let mut read = Manifest::read(&found.bytes, &found.content_type)?;
    if let Manifest::Index(manifests) = &read {
        let chosen = choose(manifests, &image.platform)?.digest()?;
        found = repository.manifest(&chosen.to_string()).await?;
        read = Manifest::read(&found.bytes, &found.content_type)?;
    }
    match read {
        Manifest::Image(kind, blobs) => Ok((found, kind, distinct(blobs))),
        Manifest::Index(_) => Err(ImageError::Nested(image.platform.to_string())),
    }
}

/// Each blob once: an image may well have one layer twice.
fn distinct(blobs: Vec<Descriptor>) -> Vec<Descriptor> {
    let mut seen = std::collections::HashSet::new();
    blobs.into_iter().filter(|blob| seen.insert(blob.digest.clone())).collect()
}

/// Brings a blob, with as many tokens as that takes; each must bring something.
async fn fetch(
    repository: &mut Repository,
    digest: Digest,
    (means, layout): (&Means<'_>, &Layout),
    transfer: &mut Transfer<'_>,
) -> anyhow::Result<Done> {
    let target = Target::File(layout.blob(digest));
    let settings = Settings {
        excerpt: None,
        finish: Finish { mode: None, overwrite: true },
        pace: means.settings.pace.clone(),
        paced: means.settings.paced,
        no_origin: means.settings.no_origin,
    };
    let source = Source::of_digest(repository.blob(digest), digest);
    let (mut first, mut before) = (true, transfer.at());
    loop {
        let remote = Remote { source: source.clone(), credentials: repository.credentials().clone() };
        let job = Job { remote: &remote, target: &target, settings: &settings };
        let error = match means.way.bring(&job, transfer).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let hope = first || transfer.at() > before;
        if !hope || !exit::is_unauthorized(&error) || !repository.renew().await.map_err(told)? {
            return Err(error);
        }
        (first, before) = (false, transfer.at());
    }
}
