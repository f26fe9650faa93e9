//! All files below a folder (`--recursive`): of a server that shows its folders as pages of links ([`index`]), or of a bucket. What
//! is there is found first, and then fetched like sources that were named one by one.
//!
//! # Invariants
//! - Nothing outside the folder is asked for, on that server or another.
//! - Nothing that a server says makes a path that leads out of the folder which is written to.

mod index;
mod pick;

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use common::task::Source;
use futures_util::TryStreamExt as _;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, StatusCode};
use peer::error::FetchError;
use peer::origin::OriginClient;
use reqwest::Url;

pub use self::pick::{Depth, Pick};
use super::bucket::{Buckets, Object, Place};
use super::names;
use super::wanted::{Remote, Target, Wanted, What};
use crate::usage;

/// Files of one folder and all below it: more than this is asked for by mistake, or an endless tree that a server makes up.
const MOST_FILES: usize = 100_000;
/// Folders, for the same reasons.
const MOST_FOLDERS: usize = 20_000;
/// A page of a hundred thousand links.
const MAX_PAGE: usize = 16 * 1024 * 1024;

/// What finding takes.
pub struct Finder<'a> {
    pub client: &'a OriginClient,
    pub buckets: &'a Buckets,
    pub pick: &'a Pick,
}

/// What is below a folder.
#[derive(Default)]
pub struct Found {
    pub files: Vec<Wanted>,
    /// Folders that are deeper than was asked for.
    pub deeper: usize,
    /// Files that were there already.
    pub here: usize,
}

/// A file below the root: its parts, as they are on the disk.
type Parts = Vec<std::ffi::OsString>;

// === impl Finder ===

impl Finder<'_> {
    /// What is to be fetched of a folder. What lies below the target already is left out, unless it may be replaced.
    ///
    /// # Errors
    /// When it cannot be asked for, or nothing is there.
    pub async fn find(&self, root: &Wanted, overwrite: bool) -> anyhow::Result<Found> {
        let Target::File(folder) = &root.target else { bail!("a folder does not fit down a pipe") };
        let mut found = Found::default();
        let leaves = match &root.what {
            What::Url(remote) => self.of_server(remote, &mut found).await?,
            What::Object(object) => self.of_bucket(object, &mut found).await?,
            What::Image(_) | What::File(..) => {
                return Err(usage(anyhow!(
                    "{} is no folder of a server or a bucket: leave --recursive out",
                    root.what.shown()
                )));
            }
        };
        if leaves.is_empty() {
            bail!("there is nothing to fetch below {}", root.what.shown());
        }
        for (what, parts) in leaves {
            let path = parts.iter().fold(folder.clone(), |path, part| path.join(part));
            if !overwrite && super::output::is_there(&path) {
                found.here += 1;
            } else {
                found.files.push(Wanted { what, target: Target::File(path) });
            }
        }
        Ok(found)
    }

    async fn of_server(&self, root: &Remote, found: &mut Found) -> anyhow::Result<Vec<(What, Parts)>> {
        let mut base = Url::parse(&root.source.url)?;
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let (mut seen, mut leaves) = (HashSet::from([base.clone()]), Vec::new());
        let mut folders = VecDeque::from([(base.clone(), 0)]);
        while let Some((folder, depth)) = folders.pop_front() {
            for link in index::links(&self.page(&folder, root).await?, &folder) {
                if !seen.insert(link.clone()) {
                    continue;
                }
                let Some(parts) = below(&base, &link) else { continue };
                let is_folder = link.path().ends_with('/');
                if is_folder && !self.pick.depth.allows(depth + 1) {
                    found.deeper += 1;
                } else if is_folder {
                    folders.push_back((link, depth + 1));
                } else if self.pick.takes(&parts.iter().collect::<PathBuf>()) {
                    let source = Source { url: link.into(), ..root.source.clone() };
                    leaves.push((What::Url(Remote { source, credentials: root.credentials.clone() }), parts));
                }
                if leaves.len() > MOST_FILES
                    || seen.len() > MOST_FILES + MOST_FOLDERS
                    || folders.len() > MOST_FOLDERS
                {
                    bail!(
                        "there are more than {MOST_FILES} files or {MOST_FOLDERS} folders below {}: fetch it in parts",
                        root.source.url
                    );
                }
            }
        }
        Ok(leaves)
    }

    /// The page that shows a folder.
    async fn page(&self, folder: &Url, root: &Remote) -> anyhow::Result<bytes::Bytes> {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("text/html"))]);
        let answer = self.client.ask(Method::GET, folder.as_str(), &headers, &root.credentials).await;
        let answer = answer.map_err(FetchError::from)?;
        if answer.status != StatusCode::OK {
            return Err(FetchError::Origin(answer.into_failure().await).into());
        }
        let kind = answer.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.trim_start().to_ascii_lowercase().starts_with("text/html") {
            bail!(
                "{} is not shown as a page of links (its type is {kind:?}): name its files, or a list of them with -i",
                common::telemetry::redact(folder.as_str())
            );
        }
        Ok(answer.bytes(MAX_PAGE).await.map_err(FetchError::from)?)
    }

    async fn of_bucket(&self, root: &Object, found: &mut Found) -> anyhow::Result<Vec<(What, Parts)>> {
        let key = root.place.key.trim_end_matches('/');
        let prefix = if key.is_empty() { String::new() } else { format!("{key}/") };
        let place = Place { bucket: root.place.bucket.clone(), key: prefix.clone() };
        let (mut leaves, mut deeper) = (Vec::new(), HashSet::new());
        let mut keys = self.buckets.below(&place)?;
        while let Some(key) = keys.try_next().await? {
            let Some(rest) = key.strip_prefix(&prefix) else { continue };
            let Some(parts) = rest.split('/').map(names::of_key).collect::<Option<Parts>>() else { continue };
            if let Some(too_deep) = self.pick.depth.beyond(&parts) {
                deeper.insert(too_deep.to_vec());
            } else if self.pick.takes(Path::new(rest)) {
                let place = Place { bucket: place.bucket.clone(), key: key.clone() };
                leaves.push((What::Object(Object { place, ..root.clone() }), parts));
            }
            if leaves.len() > MOST_FILES || deeper.len() > MOST_FOLDERS {
                bail!("there are more than {MOST_FILES} files below {place}: fetch it in parts");
            }
        }
        found.deeper = deeper.len();
        Ok(without_folders(leaves))
    }
}

/// What some tools write into a bucket to show an empty folder is no file where there is something in the folder.
fn without_folders(leaves: Vec<(What, Parts)>) -> Vec<(What, Parts)> {
    let folders: HashSet<Parts> =
        leaves.iter().flat_map(|(_, parts)| (1..parts.len()).map(|many| parts[..many].to_vec())).collect();
    leaves.into_iter().filter(|(_, parts)| !folders.contains(parts)).collect()
}

/// The parts of a URL's path below a folder's; none for what is elsewhere, or cannot be a path here.
fn below(base: &Url, link: &Url) -> Option<Parts> {
    if base.origin() != link.origin() || link.query() != base.query() {
        return None;
    }
    let rest = link.path().strip_prefix(base.path())?;
    rest.trim_end_matches('/').split('/').map(names::of_path).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(base: &str, link: &str) -> Option<String> {
        let parts = below(&Url::parse(base).unwrap(), &Url::parse(link).unwrap())?;
        Some(parts.iter().collect::<PathBuf>().display().to_string())
    }

    #[test]
    fn only_what_is_below_the_folder_is_fetched() {
        let base = "http://h/pub/";
        for (link, expected) in [
            ("http://h/pub/a", Some("a")),
            ("http://h/pub/b/", Some("b")),
            ("http://h/pub/b/c%20d", Some("b/c d")),
            ("http://h/", None),
            ("http://h/pub/", None),
            ("http://h/public", None),
            ("http://h/pub/?C=N;O=D", None),
            ("http://h/pub/a?x=1", None),
            ("http://i/pub/a", None),
            ("https://h/pub/a", None),
            ("http://h/pub/b//c", None),
            ("http://h/pub/%2e%2e%2fetc", None),
            ("http://h/pub/..%2fetc", None),
        ] {
            assert_eq!(parts(base, link).as_deref(), expected, "{link}");
        }
    }

    proptest! {
        #[test]
        fn no_link_leads_out_of_the_folder(rest in "([a-z./%]|%2[ef]|%5c|%00|\\PC){0,40}") {
            let base = Url::parse("http://h/pub/").unwrap();
            if let Some(parts) = base.join(&rest).ok().and_then(|link| below(&base, &link)) {
                let path: PathBuf = parts.iter().collect();
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }
    }
}
