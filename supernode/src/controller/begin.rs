//! From a resource to its job: which nodes are meant, which login is for the registry, and whether the job is taken on.

use std::collections::BTreeSet;

use common::task::Credentials;
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::{Client, ResourceExt as _};
use peer::image::reference::Reference;

use super::places::{self, asked};
use super::pull_secret;
use super::resource::ImagePreheat;
use super::wish::{self, Owner};
use crate::preheat::{Preheats, Refused, View};

/// What a job is begun with.
pub(super) struct Beginner {
    pub(super) client: Client,
    pub(super) preheats: Preheats,
}

/// Why a job is not begun.
pub(super) enum Snag {
    /// Somebody has to mend something, or less has to go on.
    Later(String),
    /// Trying again would not help: the word for it, and why.
    Never(&'static str, String),
}

// === impl Beginner ===

impl Beginner {
    /// Begins the job of a resource; the one that is there already, if it is the same.
    pub(super) async fn begin(&self, resource: &ImagePreheat, owner: &Owner) -> Result<View, Snag> {
        let spec = &resource.spec;
        let image =
            Reference::of_image(&spec.image).map_err(|error| Snag::Never("Refused", error.to_string()))?;
        let namespace = resource.namespace().unwrap_or_default();
        let names = self.names(resource, &namespace).await?;
        let credentials = self.credentials(&spec.pull_secrets, &namespace, &image).await?;
        let job = wish::job(spec, names.into_iter().collect(), owner);
        match self.preheats.create(job, credentials).await {
            Ok((view, _)) => Ok(view),
            Err(Refused::Nonsense(why)) => Err(Snag::Never("Refused", why)),
            Err(other) => Err(Snag::Later(other.to_string())),
        }
    }

    /// The nodes that are chosen by name, label or pod; none where nothing is said of these.
    async fn names(&self, resource: &ImagePreheat, namespace: &str) -> Result<BTreeSet<String>, Snag> {
        let labels = |labels| places::selector(labels).map_err(|why| Snag::Never("Refused", why));
        let (names, whence) = if let Some(pods) = &resource.spec.pod_selector {
            let labels = labels(&pods.match_labels)?;
            let placed = places::of_pods(&self.client, namespace, &labels).await.map_err(Snag::Later)?;
            (placed.nodes, "no pod that podSelector means is on a node")
        } else if let Some(nodes) = &resource.spec.selector {
            let mut names: BTreeSet<String> = nodes.names.iter().cloned().collect();
            if !nodes.match_labels.is_empty() {
                let labels = labels(&nodes.match_labels)?;
                let mut found = places::of_nodes(&self.client, &labels).await.map_err(Snag::Later)?;
                found.retain(|name| names.is_empty() || names.contains(name));
                names = found;
            } else if names.is_empty() {
                return Ok(names);
            }
            (names, "no node is meant by selector")
        } else {
            return Ok(BTreeSet::new());
        };
        if names.is_empty() { Err(Snag::Never("NoNodes", whence.to_owned())) } else { Ok(names) }
    }

    /// The login for the image's registry, of the first Secret that has one.
    async fn credentials(
        &self,
        names: &[String],
        namespace: &str,
        image: &Reference,
    ) -> Result<Credentials, Snag> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        for name in names {
            let secret =
                asked(&format!("the Secret {name}"), api.get_opt(name)).await.map_err(Snag::Later)?;
            let missing = || Snag::Later(format!("there is no Secret {name} in the namespace {namespace}"));
            let login = pull_secret::login(&secret.ok_or_else(missing)?, image);
            let login = login.map_err(|error| Snag::Later(format!("the Secret {name} {error}")))?;
            if let Some(credentials) = login {
                return Ok(credentials);
            }
        }
        if names.is_empty() {
            return Ok(Credentials::none());
        }
        Err(Snag::Later(format!("no Secret of pullSecrets has a login for {}", image.registry)))
    }
}
