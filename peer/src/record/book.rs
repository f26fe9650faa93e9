//! The last pulls of a node, and which of them belong to one image. Pure, but for the lock; the engine keeps one, the proxy tells
//! which manifests it gave to whom, and the local API asks.
//!
//! # Invariants
//! - The room is bounded: [`MAX_RECORDS`] pulls that are over, and [`MAX_IMAGES`] images of [`MAX_PARTS`] parts.
//! - A pull that goes on is not forgotten.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use common::piece::Geometry;
use common::task::TaskId;

use super::explain::Summary;
use super::scribe::{Reading, Scribe};
use super::{By, Record};

/// Pulls that are over: some ten images.
pub const MAX_RECORDS: usize = 256;
/// Images, the latest.
const MAX_IMAGES: usize = 64;
/// Parts of one image: an image has at most 128 layers, and an index some dozen manifests.
const MAX_PARTS: usize = 256;
/// A client asks for one image several times on its way: by tag, by digest, for its platform.
const SAME_PULL: Duration = Duration::from_secs(10);
/// Hexadecimal digits that name a task; with fewer it is a slip of the finger.
const LEAST: usize = 8;

/// A manifest that was given to a client.
#[derive(Clone, Debug)]
pub struct Given {
    /// Of what, to whom, and when it was asked for. The name is the repository's.
    pub by: By,
    /// By which tag or digest.
    pub reference: String,
    /// The manifest.
    pub manifest: TaskId,
    /// What it names.
    pub parts: Vec<TaskId>,
}

/// An image that a client pulls, or pulled.
#[derive(Clone, Debug)]
pub struct Image {
    /// Of what, to whom, and when it was asked for.
    pub by: By,
    /// By which tag or digest.
    pub reference: String,
    /// Its manifests, and all that they name.
    pub parts: Vec<TaskId>,
    wall: SystemTime,
    last: Instant,
}

/// What somebody asks for an explanation of.
pub struct Found {
    /// Its name as it is shown.
    pub title: String,
    /// The pulls.
    pub records: Vec<Record>,
}

/// Why nothing was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// Nothing of that name was pulled.
    #[error("no pull of {0} is remembered here")]
    Unknown(String),
    /// More than one task begins so.
    #[error("several tasks begin with {0}: give more digits")]
    Ambiguous(String),
}

/// The pulls of a node.
#[derive(Default)]
pub struct Book(Mutex<Pages>);

#[derive(Default)]
struct Pages {
    /// Oldest first.
    records: VecDeque<Arc<Scribe>>,
    images: VecDeque<Image>,
}

// === impl Book ===

impl Book {
    /// A pull begins.
    pub fn add(&self, scribe: Arc<Scribe>) {
        self.lock().add(scribe);
    }

    /// A client begins to read what is here: part of a pull that goes on, or another one.
    pub fn read_stored(&self, task: TaskId, geometry: Geometry, by: &By) -> Reading {
        let mut pages = self.lock();
        let now = Instant::now();
        let same = |scribe: &&Arc<Scribe>| {
            scribe.read(|record| record.task() == task && record.is_stored_for(by, now))
        };
        let scribe = pages.records.iter().rev().find(same).cloned().unwrap_or_else(|| {
            let scribe = Arc::new(Scribe::stored(task, geometry));
            pages.add(scribe.clone());
            scribe
        });
        scribe.begin_reading(by)
    }

    /// A manifest was given to a client.
    pub fn gave(&self, given: Given) {
        self.lock().gave(given, Instant::now());
    }

    /// The latest pulls, the newest first.
    pub fn latest(&self, now: Instant) -> Vec<Summary> {
        let records: Vec<_> = self.lock().records.iter().rev().cloned().collect();
        records.iter().map(|scribe| scribe.read(|record| Summary::of(record, now))).collect()
    }

    /// The latest images, the newest first.
    pub fn images(&self) -> Vec<Image> {
        self.lock().images.iter().rev().cloned().collect()
    }

    /// The latest pull of what is named: a task, by its id or as much of it as no other has, or an image as it was typed.
    ///
    /// # Errors
    /// When nothing of that name is remembered, or several tasks are.
    pub fn find(&self, name: &str) -> Result<Found, FindError> {
        self.lock().find(name.trim())
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        // A panic in between would leave a list that is still the best there is.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Pages ===

impl Pages {
    fn add(&mut self, scribe: Arc<Scribe>) {
        let over = |scribe: &Arc<Scribe>| scribe.read(|record| record.closed.is_some());
        if self.records.len() >= MAX_RECORDS
            && let Some(oldest) = self.records.iter().position(over)
        {
            self.records.remove(oldest);
        }
        self.records.push_back(scribe);
    }

    fn gave(&mut self, given: Given, now: Instant) {
        let Given { by, reference, manifest, parts } = given;
        let same = |image: &Image| {
            let related = image.reference == reference || image.parts.contains(&manifest);
            let client = image.by.name == by.name && image.by.client == by.client;
            client && related && image.last + SAME_PULL > by.asked
        };
        let at = self.images.iter().rposition(same).unwrap_or_else(|| {
            if self.images.len() >= MAX_IMAGES {
                self.images.pop_front();
            }
            let wall = SystemTime::now().checked_sub(now.saturating_duration_since(by.asked));
            let wall = wall.unwrap_or(SystemTime::UNIX_EPOCH);
            self.images.push_back(Image { by, reference, parts: Vec::new(), wall, last: now });
            self.images.len() - 1
        });
        let image = &mut self.images[at];
        image.last = now;
        for part in std::iter::once(manifest).chain(parts) {
            if image.parts.len() < MAX_PARTS && !image.parts.contains(&part) {
                image.parts.push(part);
            }
        }
    }

    fn find(&self, name: &str) -> Result<Found, FindError> {
        if let Some(image) = self.images.iter().rev().find(|image| image.is_called(name)) {
            let mut records: Vec<Record> = Vec::new();
            for scribe in self.records.iter().rev() {
                let record = scribe.read(Clone::clone);
                // What came before the image was asked for belongs to another pull.
                let belongs =
                    image.parts.contains(&record.task) && record.until(record.last) >= image.by.asked;
                if belongs && records.iter().all(|other| other.task != record.task) {
                    records.push(record);
                }
            }
            if !records.is_empty() {
                records.push(image.beginning());
                records.reverse();
                return Ok(Found { title: image.title(), records });
            }
        }
        let digits = name.strip_prefix("sha256:").unwrap_or(name).to_ascii_lowercase();
        if digits.len() < LEAST || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(FindError::Unknown(shown(name)));
        }
        let of = |scribe: &Arc<Scribe>| scribe.read(|record| record.task.hex().starts_with(&digits));
        let found: Vec<Record> = self
            .records
            .iter()
            .rev()
            .filter(|scribe| of(scribe))
            .map(|scribe| scribe.read(Clone::clone))
            .collect();
        let first = found.first().ok_or_else(|| FindError::Unknown(shown(name)))?;
        if found.iter().any(|record| record.task != first.task) {
            return Err(FindError::Ambiguous(shown(&digits)));
        }
        let title = first.by.as_ref().map_or_else(String::new, |by| format!("{} ", by.name));
        Ok(Found { title: format!("{title}{}", first.task), records: vec![first.clone()] })
    }
}

// === impl Image ===

impl Image {
    /// `registry/repository:tag`, or with `@` and a digest.
    pub fn title(&self) -> String {
        let between = if self.reference.contains(':') { '@' } else { ':' };
        format!("{}{between}{}", self.by.name, self.reference)
    }

    /// The client's first question, which asked for no content yet.
    fn beginning(&self) -> Record {
        let task = self.parts.first().copied().unwrap_or(TaskId([0; 32]));
        Record::question(task, self.by.clone(), self.wall)
    }

    /// Whether somebody means this image: by its full name, or as runtimes let people shorten it.
    fn is_called(&self, typed: &str) -> bool {
        let typed =
            ["docker://", "oci://"].iter().find_map(|scheme| typed.strip_prefix(scheme)).unwrap_or(typed);
        let (name, digest) =
            typed.split_once('@').map_or((typed, None), |(name, digest)| (name, Some(digest)));
        let (name, tag) = match name.rsplit_once(':') {
            // A port has a path behind it.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let named = digest.map_or(self.reference == tag.unwrap_or("latest"), |digest| {
            self.reference == digest
                || self
                    .parts
                    .iter()
                    .any(|part| digest.strip_prefix("sha256:").is_some_and(|hex| part.hex() == hex))
        });
        let own = &*self.by.name;
        let short = own.strip_prefix("docker.io/").unwrap_or(own);
        let called = [own, short, short.strip_prefix("library/").unwrap_or(short)].contains(&name)
            // A mirror is spoken to without the registry's name.
            || own.split_once('/').is_some_and(|(_, repository)| repository == name);
        called && named
    }
}

/// What somebody typed, as it may be said again.
fn shown(name: &str) -> String {
    common::telemetry::redact(&name.chars().take(200).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::digest::Digest;

    fn task(n: u8) -> TaskId {
        TaskId::of_digest(Digest::of(&[n]))
    }

    fn by(name: &str) -> By {
        let now = Instant::now();
        By { name: name.into(), client: "containerd".into(), asked: now, permitted: now }
    }

    fn given(name: &str, reference: &str, manifest: u8, parts: &[u8]) -> Given {
        let parts = parts.iter().map(|n| task(*n)).collect();
        Given { by: by(name), reference: reference.into(), manifest: task(manifest), parts }
    }

    fn pulled(book: &Book, n: u8) {
        let scribe = Arc::new(Scribe::new(task(n)));
        book.add(scribe.clone());
        scribe.end(super::super::End::Ok);
    }

    #[test]
    fn an_image_is_found_by_what_was_typed_with_all_that_its_manifests_name() {
        let book = Book::default();
        book.gave(given("docker.io/library/nginx", "1.29", 1, &[2, 3]));
        book.gave(given("docker.io/library/nginx", &format!("sha256:{}", task(2).hex()), 2, &[4, 5]));
        book.gave(given("quay.test:5000/team/app", "latest", 9, &[4]));
        (1..=7).for_each(|n| pulled(&book, n));
        for name in
            ["nginx:1.29", "library/nginx:1.29", "docker.io/library/nginx:1.29", "docker://nginx:1.29"]
        {
            let tasks: Vec<_> = book.find(name).unwrap().records.iter().map(Record::task).collect();
            assert_eq!(tasks[1..], [1, 2, 3, 4, 5].map(task), "{name}");
        }
        let by_digest = format!("docker.io/library/nginx@sha256:{}", task(2).hex());
        assert_eq!(book.find(&by_digest).unwrap().title, "docker.io/library/nginx:1.29");
        assert_eq!(book.find("quay.test:5000/team/app").unwrap().records.len(), 2);
        for unknown in ["nginx", "nginx:1.30", "app:1.29", "", "quay.test:5000/team/app:1"] {
            assert_eq!(book.find(unknown).err(), Some(FindError::Unknown(unknown.into())), "{unknown}");
        }
    }

    #[test]
    fn a_task_is_found_by_as_many_digits_as_no_other_begins_with() {
        let book = Book::default();
        (1..=3).for_each(|n| pulled(&book, n));
        let hex = task(2).hex();
        for name in [&hex[..8], &hex, &format!("sha256:{hex}"), &hex[..12].to_uppercase()] {
            assert_eq!(book.find(name).unwrap().records[0].task, task(2), "{name}");
        }
        assert!(book.find(&hex[..7]).is_err());
        assert!(
            matches!(book.find("https://ann:s3cret@x/y?sig=s3cret"), Err(FindError::Unknown(said)) if !said.contains("s3cret"))
        );
    }

    #[test]
    fn the_oldest_that_are_over_are_forgotten_and_none_that_goes_on() {
        let book = Book::default();
        let running = Arc::new(Scribe::new(task(0)));
        book.add(running.clone());
        for n in 0..MAX_RECORDS + 20 {
            let scribe = Arc::new(Scribe::new(TaskId::of_url(&n.to_string(), "")));
            book.add(scribe.clone());
            scribe.end(super::super::End::Failed { why: "gone".into(), trouble: false });
            book.gave(given(&n.to_string(), "x", 1, &[]));
        }
        assert_eq!((book.latest(Instant::now()).len(), book.images().len()), (MAX_RECORDS, MAX_IMAGES));
        assert!(book.find(&task(0).hex()).is_ok());
    }

    #[test]
    fn ranges_of_one_reader_are_one_pull() {
        let (book, geometry) = (Book::default(), Geometry::of(1 << 20).unwrap());
        drop(book.read_stored(task(1), geometry, &by("a")));
        drop(book.read_stored(task(1), geometry, &by("a")));
        drop(book.read_stored(task(1), geometry, &by("b")));
        assert_eq!(book.latest(Instant::now()).len(), 2);
    }
}
