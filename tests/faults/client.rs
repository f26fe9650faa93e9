//! A container runtime's side of a pull, stubborn as containerd and the kubelet together: what was cut short is taken up
//! where it stopped, what was refused is asked again. Every byte is compared with the right one as it comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use reqwest::{Client, StatusCode, header};
use tokio::time;

use crate::content::{Blob, Image, MANIFEST, TAG};
use crate::net::Host;

const PROXY: &str = "http://127.0.0.1:7711";
/// Blobs at a time: what containerd and Docker do unless told otherwise.
const AT_ONCE: usize = 3;
/// Between a failure and the next try.
const PAUSE: Duration = Duration::from_millis(300);

/// What a client wants.
#[derive(Clone)]
pub(crate) struct Pull {
    pub(crate) image: Arc<Image>,
    /// `IP:PORT` of the registry that is meant.
    pub(crate) registry: String,
    /// How long it may take.
    pub(crate) limit: Duration,
    /// Right bytes that it has so far.
    pub(crate) got: Arc<AtomicU64>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Right,
    /// Not done when its time was over; the last that it heard.
    Late(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Pulled {
    pub(crate) node: String,
    pub(crate) end: End,
    pub(crate) took: Duration,
    /// Answers that were refusals, or were cut short.
    pub(crate) retries: u64,
    /// Answers that were cut short after wrong bytes: the runtime is not deceived, but has them in vain.
    pub(crate) spoilt: u64,
    /// Answers that looked whole and had wrong bytes: the one thing that must never be. Runtimes find out and begin anew.
    pub(crate) wrong: u64,
    /// The last refusal or cut.
    pub(crate) heard: String,
}

/// What one pull has met so far.
#[derive(Default)]
struct Troubles {
    retries: AtomicU64,
    spoilt: AtomicU64,
    wrong: AtomicU64,
    heard: std::sync::Mutex<String>,
}

/// One answer.
enum Answer {
    Whole,
    /// Bytes that can be gone on from.
    Cut(usize, String),
    /// Cut after wrong bytes: begun anew.
    Spoilt(String),
    /// Whole, but wrong: begun anew.
    Wrong(String),
}

// === impl Pull ===

impl Pull {
    pub(crate) fn new(image: &Arc<Image>, registry: &str, limit: Duration) -> Self {
        Self { image: image.clone(), registry: registry.to_owned(), limit, got: Arc::default() }
    }

    /// Pulls everything on `host`.
    pub(crate) async fn on(self, host: Host) -> Pulled {
        let (node, begun) = (host.name.clone(), Instant::now());
        let run = async move || {
            let client = Client::builder().no_proxy().tls_certs_only([]).build()?;
            let troubles = Troubles::default();
            let end = match time::timeout(self.limit, self.run(&client, &troubles)).await {
                Ok(end) => end,
                Err(_) => End::Late(troubles.heard()),
            };
            Ok((end, troubles))
        };
        let ended = host.inside(run).await;
        let (end, troubles) = ended.unwrap_or_else(|error| {
            (End::Late(format!("the client itself: {error:#}")), Troubles::default())
        });
        Pulled {
            node,
            end,
            took: begun.elapsed(),
            retries: troubles.retries.load(Ordering::Relaxed),
            spoilt: troubles.spoilt.load(Ordering::Relaxed),
            wrong: troubles.wrong.load(Ordering::Relaxed),
            heard: troubles.heard(),
        }
    }

    async fn run(&self, client: &Client, troubles: &Troubles) -> End {
        let manifest = self.get(client, format!("manifests/{TAG}"), &self.image.manifest, troubles).await;
        if manifest != End::Right {
            return manifest;
        }
        let blobs = stream::iter(&self.image.blobs)
            .map(|blob| self.get(client, format!("blobs/{}", blob.digest), blob, troubles));
        let ends: Vec<End> = blobs.buffer_unordered(AT_ONCE).collect().await;
        ends.into_iter().find(|end| *end != End::Right).unwrap_or(End::Right)
    }

    /// Gets one part, however often it takes.
    async fn get(&self, client: &Client, part: String, blob: &Blob, troubles: &Troubles) -> End {
        let url = format!("{PROXY}/v2/{}/{part}?ns={}", self.image.repository, self.registry);
        let mut at = 0;
        loop {
            let said = match self.ask(client, &url, blob, at).await {
                Answer::Whole => return End::Right,
                Answer::Spoilt(said) => {
                    troubles.spoilt.fetch_add(1, Ordering::Relaxed);
                    self.got.fetch_sub(at as u64, Ordering::Relaxed);
                    at = 0;
                    said
                }
                Answer::Wrong(said) => {
                    troubles.wrong.fetch_add(1, Ordering::Relaxed);
                    self.got.fetch_sub(at as u64, Ordering::Relaxed);
                    at = 0;
                    said
                }
                Answer::Cut(reached, said) => {
                    at = reached;
                    said
                }
            };
            troubles.retries.fetch_add(1, Ordering::Relaxed);
            troubles.hears(format!("{part}: {said}"));
            time::sleep(PAUSE).await;
        }
    }

    /// Asks for the bytes from `at` on.
    async fn ask(&self, client: &Client, url: &str, blob: &Blob, at: usize) -> Answer {
        let mut request = client.get(url).header(header::ACCEPT, MANIFEST);
        if at > 0 {
            request = request.header(header::RANGE, format!("bytes={at}-"));
        }
        let mut answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Answer::Cut(at, format!("{error:?}")),
        };
        let mut here = match answer.status() {
            StatusCode::PARTIAL_CONTENT => at,
            StatusCode::OK => 0,
            status => {
                return Answer::Cut(at, format!("{status} {}", answer.text().await.unwrap_or_default()));
            }
        };
        let (begun, mut wrong) = (here, None);
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) => {
                    if wrong.is_none() && blob.bytes.get(here..here + chunk.len()) != Some(&chunk[..]) {
                        wrong = Some(format!("wrong bytes from {here} to {}", here + chunk.len()));
                    }
                    here += chunk.len();
                    self.got.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                }
                Ok(None) if wrong.is_none() && here == blob.bytes.len() => return Answer::Whole,
                Ok(None) => {
                    self.got.fetch_sub((here - begun) as u64, Ordering::Relaxed);
                    let wrong = wrong.unwrap_or_else(|| format!("an end at {here} of {}", blob.bytes.len()));
                    return Answer::Wrong(wrong);
                }
                Err(error) => {
                    let said = format!("cut at {here}: {error:?}");
                    let Some(wrong) = wrong else { return Answer::Cut(here, said) };
                    self.got.fetch_sub((here - begun) as u64, Ordering::Relaxed);
                    return Answer::Spoilt(format!("{wrong}, {said}"));
                }
            }
        }
    }
}

// === impl Troubles ===

impl Troubles {
    fn hears(&self, said: String) {
        *self.heard.lock().expect("invariant: nobody panics with it") = said;
    }

    fn heard(&self) -> String {
        self.heard.lock().expect("invariant: nobody panics with it").clone()
    }
}
