//! What the command line asks for: sources and where each goes. No I/O but looking at what is there already.
//!
//! # Invariants
//! - No secret stays in a source's URL: a user's name and password become a header, a signature becomes part of the
//!   credentials.
//! - No two sources go to one file.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::digest::Digest;
use common::task::{Credentials, Source};
use reqwest::Url;

use super::bucket::{Object, Place};
use super::image::Image;
use super::list::{self, Entry};
use super::{names, output};
use crate::{cli, usage};
use peer::image::manifest::Platform;
use peer::image::reference::{ReferenceError, is_image};
use peer::origin::query::{Filter, Parted};

/// Standard output, as a file's name.
const STDOUT: &str = "-";

/// One thing to fetch.
#[derive(Debug)]
pub struct Wanted {
    pub what: What,
    pub target: Target,
}

/// Where it comes from.
#[derive(Debug)]
pub enum What {
    /// An origin.
    Url(Remote),
    /// A bucket.
    Object(Object),
    /// A registry.
    Image(Image),
    /// A file of this machine, or of a folder that nodes share.
    File(PathBuf, Remote),
}

/// Content at an origin.
#[derive(Debug, Clone)]
pub struct Remote {
    pub source: Source,
    pub credentials: Credentials,
}

/// Where it goes: for an image, the file is a folder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    File(PathBuf),
    Stdout,
}

/// What holds for all sources.
struct Rules {
    credentials: Credentials,
    tag: String,
    filter: Filter,
    platform: Platform,
}

/// All that is wanted, in the order in which it was said.
pub fn all(flags: &cli::Get) -> anyhow::Result<Vec<Wanted>> {
    let entries = entries(flags)?;
    let rules = Rules::of(flags)?;
    let mut wanted = Vec::new();
    for entry in entries {
        let what = rules.understand(&entry)?;
        let target = if flags.recursive { folder(flags)? } else { place(flags, &what)? };
        wanted.push(Wanted { what, target });
    }
    if !flags.recursive {
        distinct(&wanted)?;
    }
    Ok(wanted)
}

/// Makes sure that no two go to one file.
///
/// # Errors
/// When two do.
pub fn distinct(all: &[Wanted]) -> anyhow::Result<()> {
    let mut taken = HashSet::new();
    match all.iter().find(|wanted| !taken.insert(&wanted.target)) {
        None => Ok(()),
        Some(twice) => Err(usage(anyhow!(
            "two sources would be written to {}: fetch one of them with -o",
            twice.target.shown()
        ))),
    }
}

/// Where a whole folder goes.
fn folder(flags: &cli::Get) -> anyhow::Result<Target> {
    let path = std::path::absolute(flags.output_dir.as_deref().unwrap_or(Path::new(".")))?;
    if !path.is_dir() {
        bail!("the folder {} is not there: make it first", path.display());
    }
    Ok(Target::File(path))
}

fn entries(flags: &cli::Get) -> anyhow::Result<Vec<Entry>> {
    let typed = |source: &String| Entry { source: source.clone(), digest: flags.digest.clone() };
    let mut entries: Vec<_> = flags.sources.iter().map(typed).collect();
    if let Some(path) = &flags.input_file {
        entries.extend(list::read(path)?);
    }
    if flags.digest.is_some() && (flags.sources.len(), entries.len()) != (1, 1) {
        return Err(usage(anyhow!("--digest is for one source: a list has digests behind its sources")));
    }
    if flags.output.is_some() && entries.len() > 1 {
        return Err(usage(anyhow!(
            "-o is for one source, and there are {}: give --output-dir",
            entries.len()
        )));
    }
    if entries.is_empty() {
        return Err(usage(anyhow!("the list names no source")));
    }
    Ok(entries)
}

/// Where a source goes.
fn place(flags: &cli::Get, what: &What) -> anyhow::Result<Target> {
    let named = || {
        what.name().ok_or_else(|| usage(anyhow!("{} names no file: say with -o what to write", what.shown())))
    };
    let image = matches!(what, What::Image(_));
    let path = match (&flags.output, &flags.output_dir) {
        (Some(path), _) if path == Path::new(STDOUT) && image => {
            return Err(usage(anyhow!(
                "an image is a folder and does not fit down a pipe: name one with -o"
            )));
        }
        (Some(path), _) if path == Path::new(STDOUT) => return Ok(Target::Stdout),
        (Some(path), _) if path.is_dir() && !image => path.join(named()?),
        (Some(path), _) => path.clone(),
        (None, Some(folder)) => folder.join(named()?),
        (None, None) => named()?.into(),
    };
    let path = std::path::absolute(path)?;
    if (path.is_dir() && !image) || path.file_name().is_none() {
        return Err(usage(anyhow!("{} is a folder: name the file to write", path.display())));
    }
    if path.parent().is_none_or(|folder| !folder.is_dir()) {
        bail!("the folder of {} is not there: make it first", path.display());
    }
    if output::is_there(&path) && !flags.overwrite && !image {
        bail!("{} is there already: remove it, or give --overwrite", path.display());
    }
    Ok(Target::File(path))
}

// === impl Rules ===

impl Rules {
    fn of(flags: &cli::Get) -> anyhow::Result<Self> {
        let mut credentials = Credentials::none();
        for header in &flags.headers {
            let (name, value) =
                header.split_once(':').ok_or_else(|| usage(anyhow!("a header is given as 'Name: value'")))?;
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.trim().is_empty() || !name.trim().chars().all(token) {
                return Err(usage(anyhow!(
                    "a header is given as 'Name: value', and {:?} is no name",
                    name.trim()
                )));
            }
            credentials.add(name.trim(), value.trim());
        }
        Ok(Self {
            credentials,
            tag: flags.tag.clone(),
            filter: flags.filter_query.clone().unwrap_or_default(),
            platform: flags.platform.clone().unwrap_or_default(),
        })
    }

    fn understand(&self, entry: &Entry) -> anyhow::Result<What> {
        let shown = common::telemetry::redact(&entry.source);
        let ways = "give http://…, https://…, s3://…, oci://…, docker://… or file:///…";
        if is_image(&entry.source) {
            return self.image(entry).map(What::Image);
        }
        if Place::is(&entry.source) {
            return self.object(entry).map(What::Object);
        }
        let url = Url::parse(&entry.source)
            .map_err(|error| usage(anyhow!("{shown:?} is not a URL ({error}): {ways}")))?;
        let digest = entry.digest.as_deref().map(str::parse::<Digest>).transpose().map_err(usage)?;
        match url.scheme() {
            "http" | "https" => Ok(What::Url(self.remote(url, digest))),
            "file" => {
                let path = url.to_file_path().map_err(|()| {
                    usage(anyhow!("{shown:?} names no file of this machine: write file:///PATH"))
                })?;
                let source = Source { url: url.into(), digest, tag: self.tag.clone(), accept: None };
                Ok(What::File(path, Remote { source, credentials: Credentials::none() }))
            }
            other => Err(usage(anyhow!("{other}:// cannot be fetched: {ways}"))),
        }
    }

    fn object(&self, entry: &Entry) -> anyhow::Result<Object> {
        Ok(Object {
            place: Place::read(&entry.source)?,
            digest: entry.digest.as_deref().map(str::parse).transpose().map_err(usage)?,
            tag: self.tag.clone(),
            credentials: self.credentials.clone(),
        })
    }

    fn image(&self, entry: &Entry) -> anyhow::Result<Image> {
        if entry.digest.is_some() {
            return Err(usage(anyhow!(
                "the digest of an image is a part of its name: write oci://HOST/REPOSITORY@sha256:…"
            )));
        }
        let reference = entry.source.parse().map_err(|error: ReferenceError| usage(error))?;
        Ok(Image { reference, credentials: self.credentials.clone(), platform: self.platform.clone() })
    }

    fn remote(&self, mut url: Url, digest: Option<Digest>) -> Remote {
        let mut credentials = self.credentials.clone();
        let user = names::decoded(url.username());
        let password = url.password().map(names::decoded);
        if !user.is_empty() || password.is_some() {
            let pair = [user, password.unwrap_or_default()].join(&b':');
            if !credentials.expose().any(|(name, _)| name == "authorization") {
                credentials.add("authorization", format!("Basic {}", BASE64_STANDARD.encode(pair)));
            }
            // Both succeed on a URL that has a host, which a parsed http URL has.
            let _ = (url.set_username(""), url.set_password(None));
        }
        url.set_fragment(None);
        let Parted { name, key } = self.filter.part(url.query().unwrap_or_default());
        if !key.is_empty() {
            url.set_query((!name.is_empty()).then_some(name.as_str()));
            credentials.add_query(key);
        }
        let source = Source { url: url.into(), digest, tag: self.tag.clone(), accept: None };
        Remote { source, credentials }
    }
}

// === impl What ===

impl What {
    /// As it may be shown.
    pub fn shown(&self) -> String {
        match self {
            Self::Url(remote) => common::telemetry::redact(&remote.source.url),
            Self::Object(object) => object.place.to_string(),
            Self::Image(image) => image.reference.to_string(),
            Self::File(path, _) => path.display().to_string(),
        }
    }

    /// What its file is called where nobody says.
    fn name(&self) -> Option<std::ffi::OsString> {
        match self {
            Self::Url(remote) => names::of_path(Url::parse(&remote.source.url).ok()?.path()),
            Self::Object(object) => names::of_key(object.place.key.rsplit('/').next()?),
            Self::Image(image) => Some(image.reference.folder().into()),
            Self::File(path, _) => path.file_name().map(Into::into),
        }
    }
}

// === impl Target ===

impl Target {
    /// As it is shown.
    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdout => "standard output".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use proptest::prelude::*;

    use super::*;

    fn flags(arguments: &[&str]) -> cli::Get {
        let all = ["longshore", "get"].iter().chain(arguments);
        match cli::Arguments::try_parse_from(all).unwrap().command {
            cli::Command::Get(flags) => flags,
            _ => unreachable!("the command is get"),
        }
    }

    fn remote(arguments: &[&str]) -> Remote {
        let flags = flags(arguments);
        match Rules::of(&flags).unwrap().understand(&entries(&flags).unwrap()[0]).unwrap() {
            What::Url(remote) => remote,
            other => panic!("{other:?} is no URL"),
        }
    }

    #[test]
    fn secrets_leave_the_url_and_open_it_all_the_same() {
        let remote = remote(&["https://me:p%40ss@h.example/x?versionId=3&X-Amz-Signature=s3cret#part"]);
        assert_eq!(remote.source.url, "https://h.example/x?versionId=3");
        let secrets: Vec<_> = remote.credentials.expose().collect();
        assert_eq!(secrets, [("?", "X-Amz-Signature=s3cret"), ("authorization", "Basic bWU6cEBzcw==")]);
    }

    #[test]
    fn signed_urls_of_one_object_are_one_task() {
        let one = remote(&["http://h/x?X-Amz-Date=1&X-Amz-Signature=a"]);
        let two = remote(&["http://h/x?X-Amz-Date=2&X-Amz-Signature=b"]);
        assert_eq!(one.source.task(), two.source.task());
        assert_ne!(one.source.task(), remote(&["http://h/x?v=1"]).source.task());
    }

    #[test]
    fn what_cannot_be_meant_is_nonsense() {
        for bad in [
            &["no url"] as &[&str],
            &["ftp://h/x"],
            &["oci://h"],
            &["oci://h/X"],
            &["oci://h/x", "-o", "-"],
            &["oci://h/x", "--digest", "sha256:00"],
            &["file://elsewhere/x"],
            &["http://h/x", "-H", "no colon"],
            &["http://h/x", "-H", "a b: c"],
            &["http://h/x", "-H", "?: c"],
            &["http://h/x", "--digest", "sha256:zz"],
            &["http://h/"],
            &["http://h/a", "http://i/a"],
            &["s3://B/x"],
            &["s3://data/dir/"],
            &["http://h/a", "http://h/b", "-o", "x"],
            &["http://h/a", "http://h/b", "--digest", "sha256:00"],
        ] {
            let error = all(&flags(bad)).expect_err("nonsense");
            assert!(error.is::<crate::Usage>(), "{bad:?}: {error}");
        }
    }

    proptest! {
        // A second question mark would make the signature somebody else's value.
        #[test]
        fn no_text_panics_and_no_password_shows(text in "[^?\\pC]{0,30}", secret in "[A-Z]{12}") {
            let flags = flags(&["http://h/x"]);
            let rules = Rules::of(&flags).unwrap();
            for source in [text.clone(), format!("http://u:{secret}@h/{text}?sig={secret}&sv=1")] {
                let shown = match rules.understand(&Entry { source, digest: None }) {
                    Ok(what) => format!("{} {what:?}", what.shown()),
                    Err(error) => error.to_string(),
                };
                prop_assert!(!shown.contains(&secret), "{shown}");
            }
        }
    }
}
