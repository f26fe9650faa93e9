//! Which ServiceAccounts may join and where the Kubernetes API is, as the user says it. Made by the settings; checked here,
//! so that a mistake ends the start.

use std::path::PathBuf;

use reqwest::Url;

use super::account::{AccountError, ServiceAccount};

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
    #[error("{0} needs --kubernetes-join NAMESPACE/SERVICEACCOUNT, which says who may join")]
    Lonely(&'static str),
    /// An audience that no token has.
    #[error("--kubernetes-audience is empty: give the audience of the pods' projected tokens")]
    Audience,
    /// Not in a pod.
    #[error(
        "--kubernetes-join: this is no pod (KUBERNETES_SERVICE_HOST is not set): give --kubernetes-api URL"
    )]
    NoApi,
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
    /// The options; `None` where nobody may join so. `environment` says what the kubelet told the pod.
    ///
    /// # Errors
    /// When a setting is not what it should be.
    pub fn options(
        self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<KubernetesOptions>, KubernetesError> {
        if self.join.is_empty() {
            return match self.lonely() {
                Some(flag) => Err(KubernetesError::Lonely(flag)),
                None => Ok(None),
            };
        }
        let accounts = self.join.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
        let api = match self.api {
            Some(api) => api,
            None => in_pod(environment).ok_or(KubernetesError::NoApi)?,
        };
        let audience = self.audience.unwrap_or_else(|| AUDIENCE.to_owned());
        if audience.trim().is_empty() {
            return Err(KubernetesError::Audience);
        }
        let file =
            |given: Option<PathBuf>, name: &str| given.unwrap_or_else(|| PathBuf::from(FOLDER).join(name));
        Ok(Some(KubernetesOptions {
            accounts,
            audience,
            api: address(&api).ok_or(KubernetesError::Api)?,
            ca_file: file(self.ca_file, "ca.crt"),
            token_file: file(self.token_file, "token"),
        }))
    }

    fn lonely(&self) -> Option<&'static str> {
        let given = [
            ("--kubernetes-audience", self.audience.is_some()),
            ("--kubernetes-api", self.api.is_some()),
            ("--kubernetes-ca-file", self.ca_file.is_some()),
            ("--kubernetes-token-file", self.token_file.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
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
        let options = flags().options(pod("10.96.0.1")).unwrap().unwrap();
        assert_eq!(options.api.as_str(), "https://10.96.0.1:6443/");
        assert_eq!(options.audience, "longshore");
        assert_eq!(options.token_file, PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount/token"));
        assert_eq!(options.ca_file, PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"));
        let options = flags().options(pod("fd00::1")).unwrap().unwrap();
        assert_eq!(options.api.as_str(), "https://[fd00::1]:6443/");
        assert_eq!(KubernetesFlags::default().options(pod("10.96.0.1")).unwrap(), None);
    }

    #[test]
    fn a_mistake_is_named() {
        let words = |flags: KubernetesFlags| flags.options(|_| None).unwrap_err().to_string();
        assert!(words(flags()).contains("--kubernetes-api"));
        let api = |api: &str| KubernetesFlags { api: Some(api.into()), ..flags() };
        for bad in
            ["http://10.0.0.1", "10.0.0.1:6443", "https://u:secret@h", "https://h/?q", "https://h/#f", ""]
        {
            let words = words(api(bad));
            assert!(words.contains("--kubernetes-api is not") && !words.contains("secret"), "{words}");
        }
        assert!(api("https://api.example:6443/k8s/clusters/c-1").options(|_| None).is_ok());
        let join = vec!["peer".to_owned()];
        assert!(words(KubernetesFlags { join, ..flags() }).contains("--kubernetes-join \"peer\" is not"));
        let lonely = KubernetesFlags { audience: Some("x".into()), ..KubernetesFlags::default() };
        assert!(words(lonely).starts_with("--kubernetes-audience needs --kubernetes-join"));
        let blank = KubernetesFlags { audience: Some(" ".into()), ..api("https://h") };
        assert!(words(blank).contains("--kubernetes-audience is empty"));
    }
}
