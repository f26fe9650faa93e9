//! Where the pods of a workload run, for `longshore preheat --for`: asked with the rights of whoever types it, by a kubeconfig file or
//! from within a pod.

use std::str::FromStr;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, ApiResource, NotUsed, Object};
use kube::{Client, Config};
use serde::Deserialize;

use super::places;

/// A workload, as kubectl writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    kind: Kind,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
}

/// What all of them say of their pods.
#[derive(Clone, Debug, Deserialize)]
struct Selecting {
    selector: LabelSelector,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Its namespace.
    pub namespace: String,
    /// Its pods that have a node.
    pub pods: usize,
    /// These nodes.
    pub nodes: Vec<String>,
}

/// Why it is not known where a workload is.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// It is none.
    #[error("{0:?} is no workload: expected deployment/NAME, statefulset/NAME or daemonset/NAME")]
    Name(String),
    /// There is no cluster.
    #[error(
        "no cluster is known here: run it in a pod (kubectl exec), or where KUBECONFIG or ~/.kube/config names one ({0})"
    )]
    Cluster(String),
    /// The cluster has no such thing.
    #[error("there is no {kind} {name:?} in the namespace {namespace:?}: name another with --namespace")]
    Unknown {
        /// What it would be.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Where.
        namespace: String,
    },
    /// It runs nowhere.
    #[error(
        "no pod of {0} is on a node: without --for the image goes to all nodes, or to those that --nodes names"
    )]
    Nowhere(String),
    /// The API says no.
    #[error("{0}")]
    Api(String),
}

// === impl Workload ===

impl FromStr for Workload {
    type Err = WorkloadError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || WorkloadError::Name(text.chars().take(100).collect());
        let (kind, name) = text.split_once('/').ok_or_else(refused)?;
        let kind = match kind.to_ascii_lowercase().split('.').next().unwrap_or_default() {
            "deployment" | "deployments" | "deploy" => Kind::Deployment,
            "statefulset" | "statefulsets" | "sts" => Kind::StatefulSet,
            "daemonset" | "daemonsets" | "ds" => Kind::DaemonSet,
            _ => return Err(refused()),
        };
        // It becomes a part of a URL's path.
        let sound =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        if name.is_empty() || name.len() > 253 || !name.bytes().all(sound) || name.starts_with('.') {
            return Err(refused());
        }
        Ok(Self { kind, name: name.to_owned() })
    }
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind.word(), self.name)
    }
}

impl Workload {
    /// Asks the cluster that is known here where its pods are. No namespace is that of the present context.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or it runs nowhere.
    pub async fn footprint(&self, namespace: Option<&str>) -> Result<Footprint, WorkloadError> {
        let cluster = |error: &dyn std::fmt::Display| WorkloadError::Cluster(error.to_string());
        let config = Config::infer().await.map_err(|error| cluster(&error))?;
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let client = Client::try_from(config).map_err(|error| cluster(&error))?;
        let selector = self.selector(&client, &namespace).await?;
        let selector = places::selector_of(selector).map_err(WorkloadError::Api)?;
        let placed = places::of_pods(&client, &namespace, &selector).await.map_err(WorkloadError::Api)?;
        if placed.nodes.is_empty() {
            return Err(WorkloadError::Nowhere(self.to_string()));
        }
        Ok(Footprint { namespace, pods: placed.pods, nodes: placed.nodes.into_iter().collect() })
    }

    async fn selector(&self, client: &Client, namespace: &str) -> Result<LabelSelector, WorkloadError> {
        let api: Api<Object<Selecting, NotUsed>> =
            Api::namespaced_with(client.clone(), namespace, &self.kind.resource());
        let found = places::asked(&self.to_string(), api.get_opt(&self.name)).await;
        let found = found.map_err(WorkloadError::Api)?.ok_or_else(|| WorkloadError::Unknown {
            kind: self.kind.word(),
            name: self.name.clone(),
            namespace: namespace.to_owned(),
        })?;
        Ok(found.spec.selector)
    }
}

// === impl Kind ===

impl Kind {
    fn resource(self) -> ApiResource {
        match self {
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
            Self::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_are_written_as_kubectl_has_them() {
        for (text, shown) in [
            ("deployment/web", "deployment/web"),
            ("deploy/web", "deployment/web"),
            ("Deployment.apps/web.v1", "deployment/web.v1"),
            ("sts/db", "statefulset/db"),
            ("ds/agent", "daemonset/agent"),
        ] {
            assert_eq!(text.parse::<Workload>().unwrap().to_string(), shown);
        }
        for text in ["web", "deployment/", "job/x", "deployment/../x", "deployment/a?b", "deployment/A", ""] {
            assert!(text.parse::<Workload>().unwrap_err().to_string().contains("deployment/NAME"), "{text}");
        }
    }
}
