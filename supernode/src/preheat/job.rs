//! What a preheat job is: what is wanted of it ([`Spec`]), and what became of it ([`View`]). Names and meanings follow
//! OpenKruise's ImagePullJob where it has them, so that its users feel at home.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use common::task::Credentials;
use peer::image::reference::Reference;
use peer::origin::query::{Filter, Parted};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::choice::Choice;

/// Files of one job.
pub const MAX_FILES: usize = 1000;
/// The longest name of an image, or URL.
pub const MAX_NAME: usize = 8 * 1024;
/// Platforms of one job.
pub const MAX_PLATFORMS: usize = 32;
/// Parts of a job that are shown.
pub const MAX_PARTS: usize = 100;
/// The longest name of an owner.
const MAX_OWNER: usize = 256;
/// The longest time that may be asked for: a year.
const LONGEST: u64 = 366 * 24 * 3600;

/// A job's number. Small, for some interfaces want an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct JobId(pub u64);

/// Where it is to be brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Into the supernode's cache: the origin is asked no more, and nodes take it at line speed.
    Cache,
    /// Into the stores of nodes' peers: what a node pulls is there already.
    #[default]
    Peers,
    /// Into the nodes' container runtimes: unpacked, and ready to start.
    Runtime,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// An image, as `docker pull` takes it; or none, and `files`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// `OS/ARCHITECTURE[/VARIANT]`, or `all`; none is the platform of the supernode, or all of an image that is not for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// Files by URL, `http` or `https`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// Where to.
    #[serde(default)]
    pub to: Target,
    /// Which nodes; all that are connected when it starts, where nothing is said. Of no meaning for `cache`.
    #[serde(default)]
    pub nodes: Choice,
    /// Nodes at work at once.
    #[serde(default = "parallelism")]
    #[schema(minimum = 1)]
    pub parallelism: u32,
    /// How long one attempt of one node may take, from when no other job is in its way there.
    #[serde(default = "timeout_seconds")]
    #[schema(minimum = 1, maximum = 31_622_400)]
    pub timeout_seconds: u64,
    /// How often a node tries again after a failure.
    #[serde(default = "backoff_limit")]
    pub backoff_limit: u32,
    /// When it ends, done or not, counted from when it was first not paused; none is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31_622_400)]
    pub active_deadline_seconds: Option<u64>,
    /// How long it is shown after its end.
    #[serde(default = "ttl_seconds")]
    #[schema(maximum = 31_622_400)]
    pub ttl_seconds_after_finished: u64,
    /// Begin nothing until it is resumed.
    #[serde(default)]
    pub paused: bool,
    /// What it is done for, as whoever keeps it in step with something calls that, for example by a Kubernetes object's uid: the same
    /// wish of another owner is another job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// A file to bring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Where it is.
    pub url: String,
    /// What it must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Separates swarms of one URL.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
}

/// How a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is found out what the image is.
    Pending,
    /// Nodes are at work.
    Running,
    /// Somebody said so; what runs on a node ends.
    Paused,
    /// All nodes have it.
    Succeeded,
    /// At least one node has not got it, or it could not be begun.
    Failed,
    /// Somebody said so.
    Cancelled,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Its turn is to come, first or again.
    Waiting,
    /// It is at work.
    Active,
    /// It has all.
    Succeeded,
    /// It tried as often as it may, or trying again would not help.
    Failed,
}

/// A node's part of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Its id; the supernode's own for `cache`.
    pub node: String,
    /// Its host label, if it has one.
    pub name: String,
    /// How it is.
    pub state: NodeState,
    /// Attempts so far.
    pub attempts: u32,
    /// Bytes that are there.
    pub bytes: u64,
    /// How many of the job's parts are there, as far as it is known; a container runtime's parts are at its peer first.
    #[serde(default)]
    pub parts_done: u32,
    /// The parts that it is fetching; at most sixteen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub under_way: Vec<PartProgress>,
    /// What went wrong the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A part of a job: a manifest, a config, a layer, or a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = PreheatPart)]
pub struct Part {
    /// What it must be; none for a file of which that was not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// As the manifest has it; empty for a file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Bytes, where they are known before it is fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// How far a node is with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = PreheatPartProgress)]
pub struct PartProgress {
    /// Its place among the job's parts, from 0.
    pub part: u32,
    /// Bytes that are there.
    pub bytes: u64,
}

/// A job, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct View {
    /// Its number.
    pub id: JobId,
    /// What is wanted.
    pub spec: Spec,
    /// How it is.
    pub state: State,
    /// Why it failed, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// When something changed last.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: OffsetDateTime,
    /// When it ended.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<OffsetDateTime>,
    /// What it comes to on one node: number of blobs, manifests and files, and bytes; unknown at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
    /// The first hundred of its parts; only where one job is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// Nodes that are to have it.
    pub desired: u32,
    /// Nodes at work.
    pub active: u32,
    /// Nodes that have it.
    pub succeeded: u32,
    /// Nodes that failed.
    pub failed: u32,
    /// Which those are, by name or id; at most a hundred.
    pub failed_nodes: Vec<String>,
    /// Each node's part; only where one job is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeView>,
}

/// What a job comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Contents {
    /// Blobs, manifests and files.
    pub tasks: u32,
    /// Bytes, as far as they are known before they are fetched.
    pub bytes: u64,
}

/// Why a job is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It makes no sense.
    #[error("{0}")]
    Nonsense(String),
    /// There is no such job.
    #[error("there is no preheat job {0}: `longshore preheats` lists those that there are")]
    Unknown(JobId),
    /// What it is cannot be found out.
    #[error("{0}")]
    Origin(String),
    /// Too much is going on.
    #[error("there are {0} unfinished preheat jobs already: wait for some to end, or cancel some")]
    Crowded(usize),
    /// It cannot be written down.
    #[error("the job cannot be kept: {0}")]
    Broken(String),
}

fn parallelism() -> u32 {
    16
}

fn timeout_seconds() -> u64 {
    600
}

fn backoff_limit() -> u32 {
    3
}

fn ttl_seconds() -> u64 {
    24 * 3600
}

// === impl JobId ===

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

// === impl State ===

impl State {
    /// Whether nothing more comes of it.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

// === impl Spec ===

impl Spec {
    /// A job for one image, with what is usual.
    pub fn image(image: impl Into<String>, to: Target) -> Self {
        Self {
            image: Some(image.into()),
            platforms: Vec::new(),
            files: Vec::new(),
            to,
            nodes: Choice::default(),
            parallelism: parallelism(),
            timeout_seconds: timeout_seconds(),
            backoff_limit: backoff_limit(),
            active_deadline_seconds: None,
            ttl_seconds_after_finished: ttl_seconds(),
            paused: false,
            owner: None,
        }
    }

    /// The same with the first of its files and of its nodes' names: a list of jobs is no list of all nodes.
    pub(super) fn short(&self, most: usize) -> Self {
        let Choice { names, zones, racks, count, percent } = &self.nodes;
        let first = |words: &[String]| words.iter().take(most).cloned().collect();
        let nodes = Choice {
            names: first(names),
            zones: first(zones),
            racks: first(racks),
            count: *count,
            percent: *percent,
        };
        Self {
            image: self.image.clone(),
            platforms: self.platforms.clone(),
            files: self.files.iter().take(most).cloned().collect(),
            nodes,
            owner: self.owner.clone(),
            ..*self
        }
    }

    /// How long one attempt may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// Whether it makes sense.
    ///
    /// # Errors
    /// With what does not, and what would.
    pub fn check(&self) -> Result<(), Refused> {
        let refuse = |why: String| Err(Refused::Nonsense(why));
        let short = |text: &str| text.chars().take(100).collect::<String>();
        match (&self.image, self.files.is_empty()) {
            (None, true) => return refuse("nothing is named: give an image, or files".into()),
            (Some(_), false) => return refuse("a job is for an image or for files: make two".into()),
            (Some(image), true) if image.len() > MAX_NAME => {
                return refuse(format!("the image's name is longer than {MAX_NAME} bytes"));
            }
            (Some(image), true) => {
                let read =
                    Reference::of_image(image).map_err(|error| Refused::Nonsense(error.to_string()))?;
                if self.to == Target::Runtime && Reference::of_image(&read.to_string()).as_ref() != Ok(&read)
                {
                    return refuse(format!(
                        "a container runtime would take {read} for an image of Docker Hub, for {:?} has neither a dot nor a \
                         port: name the registry with one of them, or use peers or cache",
                        read.registry
                    ));
                }
            }
            (None, false) => self.check_files()?,
        }
        if self.to == Target::Runtime && self.image.is_none() {
            return refuse("a container runtime pulls images, not files: use peers or cache".into());
        }
        if self.platforms.len() > MAX_PLATFORMS {
            return refuse(format!("more than {MAX_PLATFORMS} platforms are named"));
        }
        for platform in self.platforms.iter().filter(|platform| *platform != "all") {
            let read = platform.parse::<peer::image::manifest::Platform>();
            read.map_err(|why| Refused::Nonsense(format!("{:?} is no platform: {why}", short(platform))))?;
        }
        for (name, value) in [
            ("timeout_seconds", Some(self.timeout_seconds)),
            ("active_deadline_seconds", self.active_deadline_seconds),
        ] {
            if value.is_some_and(|value| value == 0 || value > LONGEST) {
                return refuse(format!("{name} must be from 1 to {LONGEST}"));
            }
        }
        if self.ttl_seconds_after_finished > LONGEST {
            return refuse(format!("ttl_seconds_after_finished must be at most {LONGEST}"));
        }
        if self.owner.as_ref().is_some_and(|owner| owner.is_empty() || owner.len() > MAX_OWNER) {
            return refuse(format!("owner must have from 1 to {MAX_OWNER} bytes"));
        }
        if self.parallelism == 0 {
            return refuse("parallelism must be at least 1; `paused` holds a job back".into());
        }
        self.nodes.check().map_err(Refused::Nonsense)
    }

    fn check_files(&self) -> Result<(), Refused> {
        let refuse = |why: String| Err(Refused::Nonsense(why));
        if self.files.len() > MAX_FILES {
            return refuse(format!("more than {MAX_FILES} files are named: make several jobs"));
        }
        for File { url, digest, .. } in &self.files {
            let shown = || common::telemetry::redact(&url.chars().take(200).collect::<String>());
            if url.len() > MAX_NAME || !(url.starts_with("http://") || url.starts_with("https://")) {
                return refuse(format!("{:?} is no http or https URL", shown()));
            }
            if digest.as_ref().is_some_and(|text| text.parse::<common::digest::Digest>().is_err()) {
                return refuse(format!("the digest of {:?} is not sha256:<64 hex characters>", shown()));
            }
        }
        Ok(())
    }

    /// Takes what opens files out of their URLs, for a job is written down and shown: the signature of a signed URL becomes a
    /// credential. Said of a spec that makes sense.
    ///
    /// # Errors
    /// When a login is in a URL, or several files have keys of their own: a job has one.
    pub fn take_keys(&mut self, credentials: &mut Credentials) -> Result<(), Refused> {
        let refuse = |why: String| Err(Refused::Nonsense(why));
        let filter = Filter::default();
        let alone = self.files.len() == 1;
        for file in &mut self.files {
            let shown = common::telemetry::redact(&file.url.chars().take(200).collect::<String>());
            let Ok(mut url) = file.url.parse::<Url>() else {
                return refuse(format!("{shown:?} is no http or https URL"));
            };
            if !url.username().is_empty() || url.password().is_some() {
                return refuse(format!(
                    "there is a login in {shown:?}: send it as Authorization (--header) instead"
                ));
            }
            let Parted { name, key } = filter.part(url.query().unwrap_or_default());
            if key.is_empty() {
                continue;
            }
            if !alone {
                return refuse(format!(
                    "{shown:?} is signed, and its key is not for the other files: make a job of it alone"
                ));
            }
            url.set_query((!name.is_empty()).then_some(name.as_str()));
            file.url = url.into();
            credentials.add_query(key);
        }
        Ok(())
    }
}

// === impl View ===

impl View {
    /// The same without what images and files are called: reasons name them, too.
    pub fn unnamed(mut self) -> Self {
        (self.spec.image, self.spec.files, self.message) = (None, Vec::new(), None);
        self.nodes.iter_mut().for_each(|node| node.reason = None);
        self
    }

    /// Whether it failed for the sake of its credentials alone, which a restart of the supernode has lost: with them it would go on.
    pub fn lost_credentials(&self) -> bool {
        self.state == State::Failed && self.message.as_deref() == Some(super::ledger::FORGOTTEN)
    }

    /// Each node's attempts by what came of them, as a sentence for the job: the most frequent reason first.
    pub fn reasons(nodes: &[NodeView]) -> Option<String> {
        let mut counted = BTreeMap::<&str, usize>::new();
        for reason in nodes
            .iter()
            .filter(|node| node.state == NodeState::Failed)
            .filter_map(|node| node.reason.as_deref())
        {
            *counted.entry(reason).or_default() += 1;
        }
        let failed: usize = counted.values().sum();
        let (reason, most) = counted.into_iter().max_by_key(|(_, count)| *count)?;
        Some(match (failed, most) {
            (1, _) => reason.to_owned(),
            _ => format!("{failed} nodes failed, {most} of them: {reason}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Spec, String> {
        let spec: Spec = serde_json::from_str(text).map_err(|error| error.to_string())?;
        spec.check().map_err(|error| error.to_string()).map(|()| spec)
    }

    #[test]
    fn what_is_usual_need_not_be_said() {
        let spec = read(r#"{"image":"quay.io/team/app:1"}"#).unwrap();
        assert_eq!(spec, Spec::image("quay.io/team/app:1", Target::Peers));
        assert_eq!((spec.parallelism, spec.timeout_seconds, spec.backoff_limit), (16, 600, 3));
        for fine in [
            r#"{"files":[{"url":"https://h/a"}],"to":"cache"}"#,
            r#"{"image":"oci://registry/app:1"}"#,
            r#"{"image":"oci://registry:443/app:1","to":"runtime"}"#,
            r#"{"image":"team/app:1","to":"runtime"}"#,
        ] {
            read(fine).unwrap();
        }
    }

    #[test]
    fn nonsense_is_named() {
        for (text, word) in [
            ("{}", "nothing is named"),
            (r#"{"image":"a","files":[{"url":"https://h"}]}"#, "make two"),
            (r#"{"image":"A B"}"#, "names no image"),
            (r#"{"image":"oci://registry/app:1","to":"runtime"}"#, "for an image of Docker Hub"),
            (r#"{"image":"a","platforms":["linux"]}"#, "no platform"),
            (r#"{"image":"a","parallelism":0}"#, "parallelism"),
            (r#"{"image":"a","timeout_seconds":0}"#, "timeout_seconds"),
            (r#"{"image":"a","owner":""}"#, "owner"),
            (r#"{"image":"a","speed":1}"#, "speed"),
            (r#"{"files":[{"url":"file:///etc/passwd"}]}"#, "no http or https URL"),
            (r#"{"files":[{"url":"http://h/a","digest":"md5:1"}]}"#, "digest"),
            (r#"{"files":[{"url":"http://h/a"}],"to":"runtime"}"#, "not files"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        let secret = read(r#"{"files":[{"url":"ftp://u:secret@h/a"}]}"#).unwrap_err();
        assert!(!secret.contains("secret"), "{secret}");
    }

    #[test]
    fn what_opens_a_file_is_not_written_down() {
        let taken = |text: &str| {
            let (mut spec, mut credentials) = (read(text).unwrap(), Credentials::none());
            let taken = spec.take_keys(&mut credentials).map_err(|error| error.to_string());
            taken.map(|()| (spec.files, credentials))
        };
        let signed = r#"{"files":[{"url":"https://h/a?part=1&X-Amz-Signature=secret&X-Amz-Date=now"}]}"#;
        let (files, credentials) = taken(signed).unwrap();
        assert_eq!(files[0].url, "https://h/a?part=1");
        let key = ("?", "X-Amz-Signature=secret&X-Amz-Date=now");
        assert_eq!(credentials.expose().collect::<Vec<_>>(), [key]);
        let (files, credentials) =
            taken(r#"{"files":[{"url":"https://h/a?b=c"},{"url":"https://h/d"}]}"#).unwrap();
        assert_eq!((files[0].url.as_str(), credentials.is_empty()), ("https://h/a?b=c", true));
        for (text, word) in [
            (r#"{"files":[{"url":"https://u:secret@h/a"}]}"#, "--header"),
            (r#"{"files":[{"url":"https://h/a?sig=secret&sv=1"},{"url":"https://h/b"}]}"#, "alone"),
            (r#"{"files":[{"url":"https://h:x/secret"}]}"#, "no http or https URL"),
        ] {
            let error = taken(text).unwrap_err();
            assert!(
                error.contains(word) && !error.contains("secret@") && !error.contains("=secret"),
                "{error}"
            );
        }
    }
}
