//! The custom resource: what is wanted ([`ImagePreheatSpec`]), and what became of it ([`ImagePreheatStatus`]). Names and meanings are
//! those of OpenKruise's ImagePullJob where it has them. The manifest that the chart installs is made of these types.
//!
//! # Invariants
//! - What the schema lets in can be read, and more: fields may be missing in what an older release has written.
//! - Nothing here is a secret: pull secrets are named.

#![expect(unreachable_pub, reason = "the derive has a copy of the type within a function")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An image to bring to nodes ahead of need.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "longshore.dev",
    version = "v1alpha1",
    kind = "ImagePreheat",
    plural = "imagepreheats",
    shortname = "ipre",
    namespaced,
    status = "ImagePreheatStatus",
    derive = "PartialEq",
    doc = "Brings an image to the supernode's cache, to nodes' peers or into nodes' runtimes before it is wanted.",
    printcolumn = r#"{"name":"Image","type":"string","jsonPath":".spec.image"}"#,
    printcolumn = r#"{"name":"To","type":"string","jsonPath":".spec.to"}"#,
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Desired","type":"integer","jsonPath":".status.desired"}"#,
    printcolumn = r#"{"name":"Succeeded","type":"integer","jsonPath":".status.succeeded"}"#,
    printcolumn = r#"{"name":"Failed","type":"integer","jsonPath":".status.failed"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name":"Active","type":"integer","jsonPath":".status.active","priority":1}"#,
    printcolumn = r#"{"name":"Job","type":"integer","jsonPath":".status.job","priority":1}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message","priority":1}"#
)]
#[x_kube(
    validation = Rule::new("!has(self.count) || !has(self.percent)").message("count and percent: leave one out"),
    validation = Rule::new("!has(self.selector) || !has(self.podSelector)").message("selector and podSelector: leave one out"),
    validation = Rule::new(
        "self.to != 'cache' || !(has(self.selector) || has(self.podSelector) || has(self.zones) || has(self.count) || has(self.percent))"
    ).message("to: cache is the supernode's own cache, which has no nodes to choose")
)]
#[serde(rename_all = "camelCase")]
pub struct ImagePreheatSpec {
    /// An image, as `docker pull` takes it.
    #[schemars(length(min = 1, max = 1024))]
    pub image: String,
    /// `OS/ARCHITECTURE[/VARIANT]`, or `all`; none is the platform of the supernode.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64)))]
    pub platforms: Vec<String>,
    /// Where to: the supernode's cache, the stores of nodes' peers, or nodes' container runtimes, unpacked.
    #[serde(default)]
    pub to: Where,
    /// Which nodes, by themselves. Nothing said of nodes is all that are connected when it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<NodeSelector>,
    /// Which nodes, by what runs there: pods of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<PodSelector>,
    /// Only nodes of these zones, as their peers know them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub zones: Vec<String>,
    /// Only so many of those, spread over the zones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub count: Option<i32>,
    /// Only so many of a hundred of those, at least one, spread over the zones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<i32>,
    /// Nodes at work at once.
    #[serde(default = "parallelism")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub parallelism: i32,
    /// How a node tries.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// When it ends, and what becomes of the resource then.
    #[serde(default)]
    pub completion_policy: CompletionPolicy,
    /// Secrets of this namespace with logins for the registry (kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg); the first
    /// that has one for the image's registry is taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)))]
    pub pull_secrets: Vec<String>,
    /// Nobody works on it while this is so.
    #[serde(default)]
    pub paused: bool,
}

/// Where to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Where {
    /// The supernode's cache.
    Cache,
    /// The stores of nodes' peers.
    #[default]
    Peers,
    /// Nodes' container runtimes.
    Runtime,
}

/// Nodes by themselves: those to which all applies that is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// By name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000), inner(length(min = 1, max = 253)))]
    pub names: Vec<String>,
    /// By the labels of their Node objects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub match_labels: BTreeMap<String, String>,
}

/// Pods of the resource's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSelector {
    /// By their labels.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 64))]
    pub match_labels: BTreeMap<String, String>,
}

/// How a node tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PullPolicy {
    /// How long one attempt of one node may take.
    #[serde(default = "timeout_seconds")]
    #[schemars(range(min = 1, max = 31_622_400))]
    pub timeout_seconds: i64,
    /// How often a node tries again after a failure.
    #[serde(default = "backoff_limit")]
    #[schemars(range(min = 0, max = 1000))]
    pub backoff_limit: i32,
}

/// When it ends, and what becomes of the resource then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompletionPolicy {
    /// `Always`: it ends when no node has anything to do any more.
    #[serde(default, rename = "type")]
    pub kind: CompletionType,
    /// When it ends, done or not, counted from its start; none is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_622_400))]
    pub active_deadline_seconds: Option<i64>,
    /// How long after its end the resource is removed; none is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_622_400))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// OpenKruise has `Never`, too, which Longshore has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum CompletionType {
    /// It ends.
    #[default]
    Always,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ImagePreheatStatus {
    /// The generation of the resource that this is about.
    pub observed_generation: i64,
    /// What tells a change that wants another job from one that does not.
    pub wish: String,
    /// The supernode that does it, by its node id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub supernode: String,
    /// The number of the job there; `longshore preheats show` tells more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<i64>,
    /// How it is.
    pub state: Phase,
    /// Nodes that are to have it.
    pub desired: i64,
    /// Nodes at work.
    pub active: i64,
    /// Nodes that have it.
    pub succeeded: i64,
    /// Nodes that failed.
    pub failed: i64,
    /// Which those are; at most a hundred.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed_nodes: Vec<String>,
    /// Why they did; at most twenty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// What there is to say, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub start_time: Option<String>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub completion_time: Option<String>,
    /// `Complete` or `Failed` once it is over, as a Kubernetes Job has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Phase {
    /// It is not begun, or it is found out what the image is.
    #[default]
    Pending,
    /// Nodes are at work.
    Running,
    /// The resource says so.
    Paused,
    /// All nodes have it.
    Succeeded,
    /// At least one node has not got it, or it could not be begun.
    Failed,
}

/// A node without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// Its name, or its id where it has none.
    pub node: String,
    /// What went wrong the last time.
    pub reason: String,
}

/// How it ended. The fields are those of Kubernetes's own conditions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Complete` or `Failed`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`.
    pub status: String,
    /// Since when.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// Why, in a word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// Of which generation of the resource.
    pub observed_generation: i64,
}

fn parallelism() -> i32 {
    16
}

fn timeout_seconds() -> i64 {
    600
}

fn backoff_limit() -> i32 {
    3
}

// === impl PullPolicy ===

impl Default for PullPolicy {
    fn default() -> Self {
        Self { timeout_seconds: timeout_seconds(), backoff_limit: backoff_limit() }
    }
}

// === impl Phase ===

impl Phase {
    /// Whether nothing more comes of it.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

// === impl ImagePreheat ===

impl ImagePreheat {
    /// What tells it from another one of its name.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
