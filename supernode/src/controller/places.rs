//! Which nodes are meant by labels and by pods: the questions for that to the Kubernetes API, and how its refusals are said.
//!
//! # Invariants
//! - Of large objects only what is needed here is read: the whole of a pod, as a type, would be megabytes of program.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod as WholePod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Client;
use kube::api::{Api, ApiResource, ListParams, Object};
use kube::core::Selector;
use serde::Deserialize;
use tokio::time::timeout;

/// Objects of one answer.
const PAGE: u32 = 500;
/// Answers of one question: 100,000 pods.
const PAGES: usize = 200;
/// For one answer.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// Where pods are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Placed {
    /// Those that run, or are about to.
    pub(super) pods: usize,
    /// Their nodes.
    pub(super) nodes: BTreeSet<String>,
}

/// Of a pod: where it is, and whether it is still to be.
type Pod = Object<PodSpec, PodStatus>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    phase: String,
}

/// A question whose answer comes in parts.
struct Pages {
    params: ListParams,
    left: usize,
}

/// The nodes of the pods of a namespace that these labels have.
pub(super) async fn of_pods(client: &Client, namespace: &str, selector: &Selector) -> Result<Placed, String> {
    let api: Api<Pod> = Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<WholePod>(&()));
    let (mut placed, mut pages) = (Placed::default(), Pages::new(selector));
    loop {
        let page = asked("pods", api.list(&pages.params)).await?;
        for pod in page.items {
            let phase = pod.status.unwrap_or_default().phase;
            if !pod.spec.node_name.is_empty() && phase != "Succeeded" && phase != "Failed" {
                placed.pods += 1;
                placed.nodes.insert(pod.spec.node_name);
            }
        }
        if !pages.turn("pods", page.metadata.continue_)? {
            return Ok(placed);
        }
    }
}

/// The nodes that these labels have.
pub(super) async fn of_nodes(client: &Client, selector: &Selector) -> Result<BTreeSet<String>, String> {
    let api: Api<Node> = Api::all(client.clone());
    let (mut names, mut pages) = (BTreeSet::new(), Pages::new(selector));
    loop {
        let page = asked("nodes", api.list_metadata(&pages.params)).await?;
        names.extend(page.items.into_iter().filter_map(|node| node.metadata.name));
        if !pages.turn("nodes", page.metadata.continue_)? {
            return Ok(names);
        }
    }
}

/// Labels as a question.
pub(super) fn selector(match_labels: &BTreeMap<String, String>) -> Result<Selector, String> {
    let sound = |text: &String| {
        text.len() <= 317 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
    };
    match match_labels.iter().find(|(key, value)| key.is_empty() || !sound(key) || !sound(value)) {
        Some((key, value)) => Err(format!("{key:?}: {value:?} is no label")),
        None => Ok(match_labels.clone().into_iter().collect()),
    }
}

/// A workload's own selector.
pub(super) fn selector_of(selector: LabelSelector) -> Result<Selector, String> {
    Selector::try_from(selector).map_err(|error| error.to_string())
}

/// What the API answers, in time; what it refuses is said with the right that is missing.
pub(super) async fn asked<T>(
    what: &str,
    question: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, String> {
    match timeout(ANSWER, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            Err(format!("the Kubernetes API does not allow it: {}", status.message))
        }
        Ok(Err(kube::Error::Api(status))) => Err(format!("{what}: {}", status.message)),
        Ok(Err(error)) => Err(format!("the Kubernetes API cannot be asked for {what}: {error}")),
        Err(_) => Err(format!("the Kubernetes API does not answer about {what}")),
    }
}

// === impl Pages ===

impl Pages {
    fn new(selector: &Selector) -> Self {
        Self { params: ListParams::default().labels_from(selector).limit(PAGE), left: PAGES }
    }

    /// Whether there is another one, by what the last one said.
    fn turn(&mut self, what: &str, token: Option<String>) -> Result<bool, String> {
        let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(false) };
        self.left -= 1;
        if self.left == 0 {
            return Err(format!("there are too many {what} of these labels"));
        }
        self.params = std::mem::take(&mut self.params).continue_token(&token);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_no_query() {
        let labels = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
        assert_eq!(
            selector(&labels("app.example/name", "web-1")).unwrap().to_string(),
            "app.example/name=web-1"
        );
        for (key, value) in [("a", "b,c=d"), ("a", "b)"), ("", "b"), ("a b", "c"), ("a", "é")] {
            assert!(selector(&labels(key, value)).is_err(), "{key:?}: {value:?}");
        }
    }

    #[test]
    fn pages_end() {
        let mut pages = Pages::new(&Selector::default());
        assert_eq!(
            (pages.turn("pods", None), pages.turn("pods", Some(String::new()))),
            (Ok(false), Ok(false))
        );
        for _ in 1..PAGES {
            assert_eq!(pages.turn("pods", Some("more".into())), Ok(true));
        }
        assert!(pages.turn("pods", Some("more".into())).unwrap_err().contains("too many pods"));
    }
}
