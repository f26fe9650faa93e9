//! How strangers become members: a join token is checked and a certificate issued. Everything that comes here is
//! from outside the cluster, so little of it is done at once.

use std::sync::Arc;
use std::time::SystemTime;

use common::identity::{Authority, IdentityError, Issued, Roll, TokenBook, TokenRefusal};
use common::node::Role;
use common::telemetry::{Enrolment, Metrics};
use common::transport::Enrolling;
use common::wire::enrol::{Reply, Request};
use tokio::sync::Semaphore;

/// Enrolments at once; the others wait, and give up by their own time limit.
const AT_ONCE: usize = 16;

/// The office.
#[derive(Clone)]
pub struct Office {
    authority: Arc<Authority>,
    tokens: Arc<TokenBook>,
    roll: Roll,
    metrics: Metrics,
    desks: Arc<Semaphore>,
}

// === impl Office ===

impl Office {
    /// An office that issues under `authority` for the tokens of the book, but to nobody who is turned out.
    pub fn new(authority: Arc<Authority>, tokens: Arc<TokenBook>, roll: Roll, metrics: Metrics) -> Self {
        Self { authority, tokens, roll, metrics, desks: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Answers one request.
    pub async fn answer(self, enrolling: Enrolling) {
        let remote = enrolling.remote();
        let Ok(desk) = self.desks.clone().acquire_owned().await else { return };
        let (office, request) = (self.clone(), enrolling.request().clone());
        let decided = tokio::task::spawn_blocking(move || office.decide(&request, SystemTime::now())).await;
        // A stranger who is slow to hear the answer holds up nobody else.
        drop(desk);
        let reply = match decided {
            Ok(Ok(issued)) => {
                self.metrics.enrolments.of(Enrolment::Issued).inc();
                tracing::info!(%remote, node = %issued.node, token = %enrolling.request().token_id, "enrolled");
                Reply::Issued(issued.chain)
            }
            Ok(Err(reason)) => {
                self.metrics.enrolments.of(Enrolment::Refused).inc();
                tracing::warn!(%remote, "enrolment refused: {reason}");
                Reply::Refused(reason)
            }
            Err(_) => Reply::Refused("the supernode failed".into()),
        };
        if let Err(error) = enrolling.answer(&reply).await {
            tracing::debug!(%remote, "the answer was not heard: {error}");
        }
    }

    /// The certificate, or why there is none.
    fn decide(&self, request: &Request, now: SystemTime) -> Result<Issued, String> {
        let words = |error: IdentityError| error.to_string();
        // Who is turned out does not use up a token.
        self.roll.admits(Authority::node_of(&request.csr).map_err(words)?, now)?;
        let shown = (request.token_id.as_str(), request.secret.as_str());
        let opened = self.tokens.redeem_or_plain(shown, |ca| self.authority.is_ours(ca), now);
        opened.map_err(|refusal| {
            if let TokenRefusal::Unavailable(error) = &refusal {
                tracing::error!("join tokens cannot be checked: {error}");
            }
            refusal.to_string()
        })?;
        self.authority.issue(&request.csr, Role::Peer, now).map_err(words)
    }
}
