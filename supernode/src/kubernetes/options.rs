//! Which ServiceAccounts may join, whether there is a controller, whether nodes are asked for their zones, and where the Kubernetes
//! API is, as the user says it. Made by the settings; checked here, so that a mistake ends the start.

use std::path::PathBuf;

use reqwest::Url;

use super::Access;
use crate::controller::ControllerOptions;
use crate::enrolment::account::{AccountError, ServiceAccount};

/// What a token must be made for, unless another is named.
const AUDIENCE: &str = "longshore";
const JOIN: &str = "--kubernetes-join";
const CONTROLLER: &str = "--kubernetes-controller";
const ZONES: &str = "--kubernetes-zones";
/// Where a pod finds what it needs to speak to the API.
const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What was typed.
#[derive(Clone, Debug, Default)]
pub struct Flags {
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
    /// `--kubernetes-zones`.
    pub zones: bool,
}

/// What is done with the Kubernetes API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Pods may join; none is nobody.
    pub join: Option<JoinOptions>,
    /// The custom resource `ImagePreheat` is worked on; none is not.
    pub controller: Option<ControllerOptions>,
    /// Nodes are looked at for the zones of peers that know none; none is not.
    pub zones: Option<Access>,
}

/// Who may join with a token of which API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinOptions {
    /// Who may join.
    pub accounts: Vec<ServiceAccount>,
    /// What their tokens must be made for.
    pub audience: String,
    /// The API.
    pub access: Access,
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
    #[error("{0} needs a build with the feature `kubernetes`, and this one has it not")]
    NotBuilt(&'static str),
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

// === impl Flags ===

impl Flags {
    /// The plan. `environment` says what the kubelet told the pod.
    ///
    /// # Errors
    /// When a setting is not what it should be.
    pub fn plan(self, environment: impl Fn(&str) -> Option<String>) -> Result<Plan, KubernetesError> {
        self.company()?;
        let wanted = [(!self.join.is_empty(), JOIN), (self.controller, CONTROLLER), (self.zones, ZONES)];
        let Some((_, first)) = wanted.into_iter().find(|(wanted, _)| *wanted) else {
            return Ok(Plan::default());
        };
        if !cfg!(feature = "kubernetes")
            && let Some((_, flag)) = wanted.into_iter().find(|(wanted, flag)| *wanted && *flag != JOIN)
        {
            return Err(KubernetesError::NotBuilt(flag));
        }
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
        let access = Access { api, ca_file, token_file };
        let namespace = self.controller.then(|| namespace(self.namespace)).transpose()?;
        let join = JoinOptions { accounts, audience, access: access.clone() };
        Ok(Plan {
            join: Some(join).filter(|join| !join.accounts.is_empty()),
            controller: namespace.map(|namespace| ControllerOptions { access: access.clone(), namespace }),
            zones: self.zones.then_some(access),
        })
    }

    /// Whether no setting stands without the one that gives it a meaning.
    fn company(&self) -> Result<(), KubernetesError> {
        const WHO: &str = "--kubernetes-join NAMESPACE/SERVICEACCOUNT, which says who may join";
        const LEASE: &str = "--kubernetes-controller, whose Lease is kept there";
        const ANY: &str = "--kubernetes-join NAMESPACE/SERVICEACCOUNT, which says who may join, --kubernetes-controller or \
             --kubernetes-zones";
        let (join, controller) = (!self.join.is_empty(), self.controller);
        let any = join || controller || self.zones;
        let given = [
            ("--kubernetes-audience", self.audience.is_some() && !join, WHO),
            ("--kubernetes-namespace", self.namespace.is_some() && !controller, LEASE),
            ("--kubernetes-api", self.api.is_some() && !any, ANY),
            ("--kubernetes-ca-file", self.ca_file.is_some() && !any, ANY),
            ("--kubernetes-token-file", self.token_file.is_some() && !any, ANY),
        ];
        let lonely = given.into_iter().find(|(_, lonely, _)| *lonely);
        lonely.map_or(Ok(()), |(flag, _, needs)| Err(KubernetesError::Lonely(flag, needs)))
    }
}

/// Where the Lease is kept.
fn namespace(given: Option<String>) -> Result<String, KubernetesError> {
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

    fn flags() -> Flags {
        Flags { join: vec!["longshore/peer".into()], ..Flags::default() }
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
        assert_eq!(options.access.api.as_str(), "https://10.96.0.1:6443/");
        assert_eq!(options.audience, "longshore");
        let folder = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount");
        assert_eq!(options.access.token_file, folder.join("token"));
        assert_eq!(options.access.ca_file, folder.join("ca.crt"));
        let options = flags().plan(pod("fd00::1")).unwrap().join.unwrap();
        assert_eq!(options.access.api.as_str(), "https://[fd00::1]:6443/");
        assert_eq!(Flags::default().plan(pod("10.96.0.1")).unwrap(), Plan::default());
    }

    #[test]
    fn a_mistake_is_named() {
        let words = |flags: Flags| flags.plan(|_| None).unwrap_err().to_string();
        assert!(words(flags()).contains("--kubernetes-api"));
        let api = |api: &str| Flags { api: Some(api.into()), ..flags() };
        for bad in
            ["http://10.0.0.1", "10.0.0.1:6443", "https://u:secret@h", "https://h/?q", "https://h/#f", ""]
        {
            let words = words(api(bad));
            assert!(words.contains("--kubernetes-api is not") && !words.contains("secret"), "{words}");
        }
        assert!(api("https://api.example:6443/k8s/clusters/c-1").plan(|_| None).is_ok());
        let join = vec!["peer".to_owned()];
        assert!(words(Flags { join, ..flags() }).contains("--kubernetes-join \"peer\" is not"));
        let lonely = Flags { audience: Some("x".into()), ..Flags::default() };
        assert!(words(lonely).starts_with("--kubernetes-audience needs --kubernetes-join"));
        let blank = Flags { audience: Some(" ".into()), ..api("https://h") };
        assert!(words(blank).contains("--kubernetes-audience is empty"));
    }

    #[test]
    #[cfg(feature = "kubernetes")]
    fn a_controller_needs_no_pod_that_joins() {
        let flags = |namespace: &str| Flags {
            controller: true,
            namespace: Some(namespace.into()),
            api: Some("https://10.0.0.1:6443".into()),
            ..Flags::default()
        };
        let plan = flags("longshore").plan(|_| None).unwrap();
        assert_eq!((plan.join, plan.controller.unwrap().namespace.as_str()), (None, "longshore"));
        let both = Flags { join: vec!["longshore/peer".into()], ..flags("longshore") };
        let both = both.plan(|_| None).unwrap();
        assert!(both.join.is_some() && both.controller.is_some());
        for bad in ["", "a/b", "A", &"a".repeat(64)] {
            assert!(
                flags(bad).plan(|_| None).unwrap_err().to_string().contains("is no namespace's name"),
                "{bad}"
            );
        }
        let words = |flags: Flags| flags.plan(|_| None).unwrap_err().to_string();
        let nowhere = Flags { namespace: None, ..flags("x") };
        assert!(words(nowhere).contains("--kubernetes-namespace NAMESPACE"));
        let lonely = Flags { namespace: Some("x".into()), ..Flags::default() };
        assert!(words(lonely).contains("needs --kubernetes-controller"));
        let no_api = Flags { api: None, ..flags("x") };
        assert!(words(no_api).starts_with("--kubernetes-controller: this is no pod"));
        let zones = Flags { zones: true, controller: false, namespace: None, ..flags("x") };
        let plan = zones.plan(|_| None).unwrap();
        assert_eq!((plan.join, plan.controller), (None, None));
        assert_eq!(plan.zones.unwrap().api.as_str(), "https://10.0.0.1:6443/");
    }

    #[test]
    #[cfg(not(feature = "kubernetes"))]
    fn a_build_without_a_controller_says_so() {
        let api = Some("https://10.0.0.1:6443".to_owned());
        let controller = Flags { controller: true, api: api.clone(), ..Flags::default() };
        let zones = Flags { zones: true, api, ..Flags::default() };
        for (flags, named) in
            [(controller, "--kubernetes-controller needs"), (zones, "--kubernetes-zones needs")]
        {
            let words = flags.plan(|_| None).unwrap_err().to_string();
            assert!(words.starts_with(named) && words.contains("the feature `kubernetes`"), "{words}");
        }
    }
}
