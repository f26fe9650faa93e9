//! Kubernetes ServiceAccount tokens as the proof that a node may join: the Kubernetes API says whose a token is
//! ([`super::review`]), the operator which accounts may join. Given to the office by [`crate::daemon`].
//!
//! # Invariants
//! - A stranger hears that it is not let in, and not why: the log says it.
//! - An API that is away, too busy or not to be understood is no refusal: the stranger comes again.
//! - Strangers make no more than a few requests at once and some a second, and take no place from those with join tokens.

use std::error::Error;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use common::digest::Digest;
use common::transport;
use common::wire::enrol::{self, Request};
use common::wire::swarm::Priority;
use futures_util::future::{BoxFuture, FutureExt as _};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Client, Response, StatusCode, Url};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::review::{Denial, Rule};
use super::{Desks, Guest, Refusal, Verifier};
use crate::admission::{Admission, Capacity};
use crate::kubernetes::{Access, JoinOptions, KubernetesError};
use peer::paces::Paces;

/// Below the API's own address.
const PATH: [&str; 4] = ["apis", "authentication.k8s.io", "v1", "tokenreviews"];
/// Requests at once: one takes some milliseconds.
const AT_ONCE: usize = 8;
/// Requests a second in the long run; a node group that starts is a burst of four times as many.
const A_SECOND: u32 = 50;
/// Of these, what strangers from one address (IPv6: one network) are sure of: a node has one peer.
const SHARE_AT_ONCE: u32 = 16;
const SHARE_A_SECOND: u32 = 2;
/// A stranger waits ten seconds for its answer: so long for a place, and so long for the API.
const PLACE: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(5);
/// Somebody who is there picks up in this.
const CONNECT: Duration = Duration::from_secs(2);
/// An answer repeats the token and says some lines of its user.
const LONGEST_ANSWER: usize = 128 * 1024;
/// Far above a CA bundle and a token.
const LONGEST_FILE: u64 = 256 * 1024;

/// What a stranger hears, whatever was wrong.
const NO: &str = "the Kubernetes token does not let this pod join; the supernode's log says why";
/// What it hears when nobody can tell.
const LATER: &str = "the Kubernetes API cannot be asked about the token: the supernode's log says why";
const BUSY: &str = "too many pods ask to join at once";

/// The Kubernetes API, and who may join.
pub struct Kubernetes {
    rule: Rule,
    api: Arc<Api>,
    desks: Desks,
    places: Semaphore,
    room: Mutex<Admission>,
    shares: Mutex<Paces<IpAddr>>,
    /// What was logged last of the API.
    trouble: Mutex<String>,
}

/// The API as its files describe it, which the kubelet replaces at any time.
struct Api {
    url: Url,
    ca_file: PathBuf,
    token_file: PathBuf,
    /// Made for the CA certificates with this digest.
    client: Mutex<Option<(Digest, Client)>>,
}

// === impl Kubernetes ===

impl Kubernetes {
    /// Asks nobody yet; what it needs to ask is read. Blocking.
    ///
    /// # Errors
    /// When the CA or the supernode's own token cannot be read.
    pub fn open(options: JoinOptions, desks: Desks) -> Result<Self, KubernetesError> {
        let JoinOptions { accounts, audience, access: Access { mut api, ca_file, token_file } } = options;
        api.path_segments_mut().map_err(|()| KubernetesError::Api)?.pop_if_empty().extend(PATH);
        let api = Api { url: api, ca_file, token_file, client: Mutex::default() };
        api.ready()?;
        Ok(Self {
            rule: Rule { accounts, audience },
            api: Arc::new(api),
            desks,
            places: Semaphore::new(AT_ONCE),
            room: Mutex::new(Admission::of_all(&Capacity { sessions: 0, joins: A_SECOND }, Instant::now())),
            shares: Mutex::new(Paces::new(SHARE_AT_ONCE, SHARE_A_SECOND)),
            trouble: Mutex::default(),
        })
    }

    async fn let_in(&self, token: &str, from: IpAddr) -> Result<Guest, Refusal> {
        let no = |why: String| Refusal::No { words: NO.to_owned(), why };
        if !enrol::is_account_token(token) {
            return Err(no("what was shown is no Kubernetes token".to_owned()));
        }
        let answer = self.review(token, from).await?;
        let judged = self.rule.judge(token, &answer);
        if let Err(unreadable @ Denial::Unreadable) = &judged {
            return Err(self.puzzled(&unreadable.to_string()));
        }
        let said = std::mem::take(&mut *self.trouble.lock().unwrap_or_else(PoisonError::into_inner));
        if !said.is_empty() {
            tracing::info!("the Kubernetes API answers again");
        }
        let account = judged.map_err(|denial| no(denial.to_string()))?;
        Ok(Guest(format!("ServiceAccount {account}")))
    }

    /// What the API says of a token, when it is this stranger's turn.
    async fn review(&self, token: &str, from: IpAddr) -> Result<Vec<u8>, Refusal> {
        let busy = || Refusal::Later(BUSY.to_owned());
        self.room(from, Instant::now()).map_err(|_| busy())?;
        let _place = timeout(PLACE, self.places.acquire()).await.map_err(|_| busy())?.map_err(|_| busy())?;
        let api = self.api.clone();
        let ready = self.desks.work(move || api.ready()).await?;
        let (client, own) = ready.map_err(|error| self.puzzled(&error.to_string()))?;
        let question = self.rule.question(token);
        self.api.ask(&client, own, question).await.map_err(|why| self.puzzled(&why))
    }

    /// Room for one more request. Who asks for more than a network's share takes what the others leave.
    fn room(&self, from: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let priority = match shares.ask(transport::source(from), 1, now) {
            Ok(()) => Priority::Pull,
            Err(_) => Priority::Preheat,
        };
        self.room.lock().unwrap_or_else(PoisonError::into_inner).take(priority, now)
    }

    /// Nobody can tell who the stranger is. The same reason again and again is one line in the log.
    fn puzzled(&self, why: &str) -> Refusal {
        let mut said = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != why {
            tracing::error!("pods that ask to join must wait: {why}");
            why.clone_into(&mut said);
        }
        Refusal::Later(LATER.to_owned())
    }
}

impl Verifier for Kubernetes {
    fn takes(&self, request: &Request) -> bool {
        request.token_id == enrol::KUBERNETES
    }

    fn check<'a>(
        &'a self,
        request: &'a Request,
        from: IpAddr,
        _: SystemTime,
    ) -> BoxFuture<'a, Result<Guest, Refusal>> {
        self.let_in(&request.secret, from).boxed()
    }
}

// === impl Api ===

impl Api {
    /// A client for the CA as it is now, and what the supernode shows: both are read, for they change. Blocking.
    fn ready(&self) -> Result<(Client, HeaderValue), KubernetesError> {
        let token = read(&self.token_file, "--kubernetes-token-file")?;
        let unusable = || broken(&self.token_file, "no token is in it", "--kubernetes-token-file");
        let token = std::str::from_utf8(&token).map_err(|_| unusable())?.trim();
        let mut own = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| unusable())?;
        own.set_sensitive(true);
        if token.is_empty() {
            return Err(unusable());
        }
        let pem = read(&self.ca_file, "--kubernetes-ca-file")?;
        let digest = Digest::of(&pem);
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = client.as_ref().filter(|(made_for, _)| *made_for == digest) {
            return Ok((client.clone(), own));
        }
        let made = self.client(&pem)?;
        *client = Some((digest, made.clone()));
        Ok((made, own))
    }

    fn client(&self, pem: &[u8]) -> Result<Client, KubernetesError> {
        let certificates = Certificate::from_pem_bundle(pem).unwrap_or_default();
        if certificates.is_empty() {
            return Err(broken(&self.ca_file, "no certificate is in it", "--kubernetes-ca-file"));
        }
        let client = Client::builder()
            .user_agent(concat!("longshore/", env!("CARGO_PKG_VERSION")))
            .tls_certs_only(certificates)
            // A token goes to the API itself, or nowhere.
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // The stranger comes again.
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(AT_ONCE)
            .connect_timeout(CONNECT)
            .timeout(ANSWER);
        client.build().map_err(|error| KubernetesError::Tls(causes(&error)))
    }

    /// The API's answer, or why there is none.
    async fn ask(&self, client: &Client, own: HeaderValue, question: Vec<u8>) -> Result<Vec<u8>, String> {
        let failed = |error: reqwest::Error| {
            format!(
                "the Kubernetes API at {} does not answer: {}",
                self.place(),
                causes(&error.without_url())
            )
        };
        let request = client.post(self.url.clone()).header(AUTHORIZATION, own);
        let request = request.header(CONTENT_TYPE, "application/json").body(question);
        let response = request.send().await.map_err(failed)?;
        match response.status() {
            StatusCode::OK | StatusCode::CREATED => {}
            StatusCode::UNAUTHORIZED => {
                let file = self.token_file.display();
                return Err(format!("the Kubernetes API does not accept this supernode's own token, {file}"));
            }
            StatusCode::FORBIDDEN => {
                let mend = "bind its ServiceAccount to the ClusterRole system:auth-delegator";
                return Err(format!("the Kubernetes API does not let this supernode review tokens: {mend}"));
            }
            status => return Err(format!("the Kubernetes API at {} answers {status}", self.place())),
        }
        let too_long = || format!("the Kubernetes API at {} answers with too much", self.place());
        body(response).await.map_err(failed)?.ok_or_else(too_long)
    }

    fn place(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// A body that is not longer than it should be.
async fn body(mut response: Response) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

fn read(path: &Path, flag: &'static str) -> Result<Vec<u8>, KubernetesError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path);
    let done = opened.and_then(|file| file.take(LONGEST_FILE).read_to_end(&mut bytes));
    done.map_err(|error| broken(path, error, flag))?;
    Ok(bytes)
}

fn broken(path: &Path, reason: impl ToString, flag: &'static str) -> KubernetesError {
    KubernetesError::File { path: path.to_owned(), reason: reason.to_string(), flag }
}

/// An error and what is behind it, on one line.
fn causes(error: &(dyn Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
