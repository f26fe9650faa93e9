//! How strangers become members: what they show is checked by a [`Verifier`] of its kind, and a certificate issued.
//! Everything that comes here is from outside the cluster, so little of it is done at once. Started by [`crate::daemon`].
//!
//! # Invariants
//! - A certificate is issued only after one verifier has said yes, and never to a node that is turned out.
//! - What strangers showed is not logged; who they proved to be is.

pub mod account;
mod join_tokens;
pub mod kubernetes;
mod review;
mod verifier;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::identity::{Authority, IdentityError, Issued, Roll};
use common::node::Role;
use common::telemetry::{Enrolment, Metrics};
use common::transport::Enrolling;
use common::wire::enrol::{KUBERNETES, Reply, Request};

pub use join_tokens::JoinTokens;
pub use kubernetes::Kubernetes;
pub use verifier::{Desks, Guest, Refusal, Verifier};

use tokio::time::timeout;

/// A little less than the stranger waits, so that it hears why; a disk or a lock that hangs must not keep its place.
const DECISION: Duration = Duration::from_secs(9);
const SLOW: &str = "the supernode takes too long over it: come again";

/// The office.
#[derive(Clone)]
pub struct Office {
    authority: Arc<Authority>,
    verifiers: Arc<[Box<dyn Verifier>]>,
    roll: Roll,
    metrics: Metrics,
    desks: Desks,
}

// === impl Office ===

impl Office {
    /// An office that issues under `authority` to whom a verifier lets in, but to nobody who is turned out. The verifiers
    /// share its desks.
    pub fn new(
        authority: Arc<Authority>,
        verifiers: Vec<Box<dyn Verifier>>,
        desks: Desks,
        roll: Roll,
        metrics: Metrics,
    ) -> Self {
        Self { authority, verifiers: verifiers.into(), roll, metrics, desks }
    }

    /// Answers one request.
    pub async fn answer(self, enrolling: Enrolling) {
        let remote = enrolling.remote();
        let count = |how| self.metrics.enrolments.of(how).inc();
        let deciding = timeout(DECISION, self.decide(&enrolling, SystemTime::now()));
        let decided = tokio::select! {
            decided = deciding => decided.unwrap_or_else(|_| Err(Refusal::Later(SLOW.to_owned()))),
            () = enrolling.gone() => return,
        };
        let reply = match decided {
            Ok((issued, guest)) => {
                count(Enrolment::Issued);
                tracing::info!(%remote, node = %issued.node, by = %guest, "enrolled");
                Reply::Issued(issued.chain)
            }
            Err(Refusal::No { words, why }) => {
                count(Enrolment::Refused);
                tracing::warn!(%remote, "enrolment refused: {why}");
                Reply::Refused(words)
            }
            Err(Refusal::Later(words)) => {
                count(Enrolment::Failed);
                tracing::debug!(%remote, "enrolment put off: {words}");
                return enrolling.put_off(&words);
            }
        };
        // A stranger who is slow to hear the answer holds up nobody else: no desk is taken.
        if let Err(error) = enrolling.answer(&reply).await {
            tracing::debug!(%remote, "the answer was not heard: {error}");
        }
    }

    /// The certificate and for whom, or why there is none.
    async fn decide(&self, enrolling: &Enrolling, now: SystemTime) -> Result<(Issued, Guest), Refusal> {
        let (request, from) = (enrolling.request(), enrolling.remote().ip());
        let words = |error: IdentityError| Refusal::no(error.to_string());
        let (roll, csr) = (self.roll.clone(), request.csr.clone());
        // Who is turned out does not use up a token.
        let welcome = move || roll.admits(Authority::node_of(&csr).map_err(words)?, now).map_err(Refusal::no);
        self.desks.work(welcome).await??;
        let verifier = self.verifiers.iter().find(|verifier| verifier.takes(request));
        let guest = verifier.ok_or_else(|| unknown(request))?.check(request, from, now).await?;
        let (authority, csr) = (self.authority.clone(), request.csr.clone());
        let issued = self.desks.work(move || authority.issue(&csr, Role::Peer, now)).await?.map_err(words)?;
        Ok((issued, guest))
    }
}

/// Nobody here knows what was shown.
fn unknown(request: &Request) -> Refusal {
    Refusal::no(match request.token_id.as_str() {
        KUBERNETES => "this supernode takes no Kubernetes tokens: start it with --kubernetes-join".to_owned(),
        _ => "this supernode does not know what was shown: see that both are of one release".to_owned(),
    })
}
