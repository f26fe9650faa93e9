//! Which ServiceAccounts may join, whether there is a controller, and where the Kubernetes API is that both ask, as the user says
//! it. Made by the settings; checked here, so that a mistake ends the start.

use std::path::PathBuf;

use reqwest::Url;

use super::account::{AccountError, ServiceAccount};
use crate::controller::ControllerOptions;

/// What a token must be made for, unless another is named.
const AUDIENCE: &str = "longshore";
/// Where a pod finds what it needs to speak to the API.
const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What was typed.
#[derive(Clone, Debug, Default)]
pub struct KubernetesFlags {
    /// `--kubernetes-join`.
    pub join: Vec<String>,
    /// `--kubernetes-audience`.
    pub audience: Option<String>,
    /// `--kubernetes-api`.
    pub api: Option<String>,
    /// `--kubernetes-ca-file`.
    pub ca_file: Option<PathBuf>,
    /// `--kubernetes-token-file`.
    pub token_file: Option<PathBuf>,
    /// `--kubernetes-controller`.
    pub controller: bool,
    /// `--kubernetes-namespace`.
    pub namespace: Option<String>,
}

/// What is done with the Kubernetes API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubernetesPlan {
    /// Pods may join; none is nobody.
    pub join: Option<KubernetesOptions>,
    /// The custom resource `ImagePreheat` is worked on; none is not.
    pub controller: Option<ControllerOptions>,
}

/// Who may join with a token of which API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesOptions {
    /// Who may join.
    pub accounts: Vec<ServiceAccount>,
    /// What their tokens must be made for.
    pub audience: String,
    /// The API.
    pub api: Url,
    /// The CA of its certificate.
    pub ca_file: PathBuf,
    /// The supernode's own token.
    pub token_file: PathBuf,
}

/// Why the Kubernetes API cannot be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// Not a ServiceAccount's name.
    #[error("--kubernetes-join {0}")]
    Account(#[from] AccountError),
    /// A setting that means nothing by itself.
    #[error("{0} needs {1}")]
    Lonely(&'static str, &'static str),
    /// An audience that no token has.
    #[error("--kubernetes-audience is empty: give the audience of the pods' projected tokens")]
    Audience,
    /// Not in a pod.
    #[error("{0}: this is no pod (KUBERNETES_SERVICE_HOST is not set): give --kubernetes-api URL")]
    NoApi(&'static str),
    /// Nobody says where the Lease is to be.
    #[error(
        "--kubernetes-controller: {path} does not say this pod's namespace: give --kubernetes-namespace NAMESPACE, where its Lease is kept",
        path = path.display()
    )]
    NoNamespace {
        /// Where a pod finds it.
        path: PathBuf,
    },
    /// Not a namespace's name.
    #[error("--kubernetes-namespace {0:?} is no namespace's name")]
    Namespace(String),
    /// The build cannot do it.
    #[error("--kubernetes-controller needs a build with the feature `kubernetes`, and this one has it not")]
    NoController,
    /// Not a URL, or one over which everybody could read tokens. Not quoted: it may hold a password.
    #[error("--kubernetes-api is not https://HOST:PORT, without credentials, query or fragment")]
    Api,
    /// A file of the API's.
    #[error("cannot use {path}: {reason}; {flag} names another", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it; nothing of a token is in it.
        reason: String,
        /// The flag.
        flag: &'static str,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS to the Kubernetes API: {0}")]
    Tls(String),
}

// === impl KubernetesFlags ===

impl KubernetesFlags {
    /// The plan. `environment` says what the kubelet told the pod.
    ///
    /// # Errors
    /// When a setting is not what it should be.
    pub fn plan(
        self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<KubernetesPlan, KubernetesError> {
        self.company()?;
        let first = match (self.join.is_empty(), self.controller) {
            (true, false) => return Ok(KubernetesPlan::default()),
            (true, true) => "--kubernetes-controller",
            (false, _) => "--kubernetes-join",
        };
        let accounts: Vec<ServiceAccount> =
            self.join.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
        let api = match self.api {
            Some(api) => api,
            None => in_pod(environment).ok_or(KubernetesError::NoApi(first))?,
        };
        let audience = self.audience.unwrap_or_else(|| AUDIENCE.to_owned());
        if audience.trim().is_empty() {
            return Err(KubernetesError::Audience);
        }
        let file =
            |given: Option<PathBuf>, name: &str| given.unwrap_or_else(|| PathBuf::from(FOLDER).join(name));
        let api = address(&api).ok_or(KubernetesError::Api)?;
        let (ca_file, token_file) = (file(self.ca_file, "ca.crt"), file(self.token_file, "token"));
        let controller = if self.controller {
            let namespace = namespace(self.namespace)?;
            let (api, ca_file, token_file) = (api.clone(), ca_file.clone(), token_file.clone());
            Some(ControllerOptions { api, ca_file, token_file, namespace })
        } else {
            None
        };
        let join = KubernetesOptions { accounts, audience, api, ca_file, token_file };
        Ok(KubernetesPlan { join: Some(join).filter(|join| !join.accounts.is_empty()), controller })
    }

    /// Whether no setting stands without the one that gives it a meaning.
    fn company(&self) -> Result<(), KubernetesError> {
        const JOIN: &str = "--kubernetes-join NAMESPACE/SERVICEACCOUNT, which says who may join";
        const CONTROLLER: &str = "--kubernetes-controller, whose Lease is kept there";
        const EITHER: &str =
            "--kubernetes-join NAMESPACE/SERVICEACCOUNT, which says who may join, or --kubernetes-controller";
        let (join, controller) = (!self.join.is_empty(), self.controller);
        let either = join || controller;
        let given = [
            ("--kubernetes-audience", self.audience.is_some() && !join, JOIN),
            ("--kubernetes-namespace", self.namespace.is_some() && !controller, CONTROLLER),
            ("--kubernetes-api", self.api.is_some() && !either, EITHER),
            ("--kubernetes-ca-file", self.ca_file.is_some() && !either, EITHER),
            ("--kubernetes-token-file", self.token_file.is_some() && !either, EITHER),
        ];
        let lonely = given.into_iter().find(|(_, lonely, _)| *lonely);
        lonely.map_or(Ok(()), |(flag, _, needs)| Err(KubernetesError::Lonely(flag, needs)))
    }
}

/// Where the Lease is kept.
fn namespace(given: Option<String>) -> Result<String, KubernetesError> {
    if !cfg!(feature = "kubernetes") {
        return Err(KubernetesError::NoController);
    }
    let path = PathBuf::from(FOLDER).join("namespace");
    let read = || std::fs::read_to_string(&path).ok().map(|text| text.trim().to_owned());
    let namespace = given.or_else(read).ok_or(KubernetesError::NoNamespace { path: path.clone() })?;
    // It becomes a part of a URL's path.
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match (1..=63).contains(&namespace.len()) && namespace.bytes().all(sound) {
        true => Ok(namespace),
        false => Err(KubernetesError::Namespace(namespace.chars().take(100).collect())),
    }
}

/// Where the kubelet says that the API is.
fn in_pod(environment: impl Fn(&str) -> Option<String>) -> Option<String> {
    let host = environment("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty())?;
    let port = environment("KUBERNETES_SERVICE_PORT").filter(|port| !port.is_empty());
    let port = port.unwrap_or_else(|| "443".to_owned());
    Some(if host.contains(':') {
        format!("https://[{host}]:{port}")
    } else {
        format!("https://{host}:{port}")
    })
}

fn address(text: &str) -> Option<Url> {
    let url: Url = text.parse().ok()?;
    let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    (url.scheme() == "https" && url.has_host() && bare && url.fragment().is_none()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> KubernetesFlags {
        KubernetesFlags { join: vec!["longshore/peer".into()], ..KubernetesFlags::default() }
    }

    fn pod(host: &'static str) -> impl Fn(&str) -> Option<String> {
        move |name| match name {
            "KUBERNETES_SERVICE_HOST" => Some(host.to_owned()),
            "KUBERNETES_SERVICE_PORT" => Some("6443".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn in_a_pod_who_may_join_is_all_that_has_to_be_said() {
        let options = flags().plan(pod("10.96.0.1")).unwrap().join.unwrap();
        assert_eq!(options.api.as_str(), "https://10.96.0.1:6443/");
        assert_eq!(options.audience, "longshore");
        assert_eq!(options.token_file, PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount/token"));
        assert_eq!(options.ca_file, PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"));
        let options = flags().plan(pod("fd00::1")).unwrap().join.unwrap();
        assert_eq!(options.api.as_str(), "https://[fd00::1]:6443/");
        assert_eq!(KubernetesFlags::default().plan(pod("10.96.0.1")).unwrap(), KubernetesPlan::default());
    }

    #[test]
    fn a_mistake_is_named() {
        let words = |flags: KubernetesFlags| flags.plan(|_| None).unwrap_err().to_string();
        assert!(words(flags()).contains("--kubernetes-api"));
        let api = |api: &str| KubernetesFlags { api: Some(api.into()), ..flags() };
        for bad in
            ["http://10.0.0.1", "10.0.0.1:6443", "https://u:secret@h", "https://h/?q", "https://h/#f", ""]
        {
            let words = words(api(bad));
            assert!(words.contains("--kubernetes-api is not") && !words.contains("secret"), "{words}");
        }
        assert!(api("https://api.example:6443/k8s/clusters/c-1").plan(|_| None).is_ok());
        let join = vec!["peer".to_owned()];
        assert!(words(KubernetesFlags { join, ..flags() }).contains("--kubernetes-join \"peer\" is not"));
        let lonely = KubernetesFlags { audience: Some("x".into()), ..KubernetesFlags::default() };
        assert!(words(lonely).starts_with("--kubernetes-audience needs --kubernetes-join"));
        let blank = KubernetesFlags { audience: Some(" ".into()), ..api("https://h") };
        assert!(words(blank).contains("--kubernetes-audience is empty"));
    }

    #[test]
    #[cfg(feature = "kubernetes")]
    fn a_controller_needs_no_pod_that_joins() {
        let flags = |namespace: &str| KubernetesFlags {
            controller: true,
            namespace: Some(namespace.into()),
            api: Some("https://10.0.0.1:6443".into()),
            ..KubernetesFlags::default()
        };
        let plan = flags("longshore").plan(|_| None).unwrap();
        assert_eq!((plan.join, plan.controller.unwrap().namespace.as_str()), (None, "longshore"));
        let both = KubernetesFlags { join: vec!["longshore/peer".into()], ..flags("longshore") };
        let both = both.plan(|_| None).unwrap();
        assert!(both.join.is_some() && both.controller.is_some());
        for bad in ["", "a/b", "A", &"a".repeat(64)] {
            assert!(
                flags(bad).plan(|_| None).unwrap_err().to_string().contains("is no namespace's name"),
                "{bad}"
            );
        }
        let words = |flags: KubernetesFlags| flags.plan(|_| None).unwrap_err().to_string();
        let nowhere = KubernetesFlags { namespace: None, ..flags("x") };
        assert!(words(nowhere).contains("--kubernetes-namespace NAMESPACE"));
        let lonely = KubernetesFlags { namespace: Some("x".into()), ..KubernetesFlags::default() };
        assert!(words(lonely).contains("needs --kubernetes-controller"));
        let no_api = KubernetesFlags { api: None, ..flags("x") };
        assert!(words(no_api).starts_with("--kubernetes-controller: this is no pod"));
    }

    #[test]
    #[cfg(not(feature = "kubernetes"))]
    fn a_build_without_a_controller_says_so() {
        let flags = KubernetesFlags {
            controller: true,
            api: Some("https://10.0.0.1:6443".into()),
            ..KubernetesFlags::default()
        };
        assert!(flags.plan(|_| None).unwrap_err().to_string().contains("the feature `kubernetes`"));
    }
}
