//! Join tokens as the proof that a node may join: the cluster's book says which are good.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use common::identity::{Authority, TokenBook, TokenRefusal};
use common::wire::enrol::{KUBERNETES, Request};
use futures_util::future::{BoxFuture, FutureExt as _};

use super::{Desks, Guest, Refusal, Verifier};

/// The tokens of a cluster.
pub struct JoinTokens {
    book: Arc<TokenBook>,
    authority: Arc<Authority>,
    desks: Desks,
}

// === impl JoinTokens ===

impl JoinTokens {
    /// The tokens of the book, for the cluster of this CA.
    pub fn new(book: Arc<TokenBook>, authority: Arc<Authority>, desks: Desks) -> Self {
        Self { book, authority, desks }
    }

    async fn redeem(&self, request: &Request, now: SystemTime) -> Result<Guest, Refusal> {
        let (book, authority) = (self.book.clone(), self.authority.clone());
        let (id, secret) = (request.token_id.clone(), request.secret.clone());
        let guest = Guest(format!("join token {id}"));
        let redeem = move || book.redeem_or_plain((&id, &secret), |ca| authority.is_ours(ca), now);
        self.desks.work(redeem).await?.map_err(|refusal| match refusal {
            TokenRefusal::Unavailable(error) => {
                tracing::error!("join tokens cannot be checked: {error}");
                Refusal::Later("join tokens cannot be checked: the supernode's log says why".to_owned())
            }
            refusal => Refusal::no(refusal.to_string()),
        })?;
        Ok(guest)
    }
}

impl Verifier for JoinTokens {
    fn takes(&self, request: &Request) -> bool {
        request.token_id != KUBERNETES
    }

    fn check<'a>(
        &'a self,
        request: &'a Request,
        _: IpAddr,
        now: SystemTime,
    ) -> BoxFuture<'a, Result<Guest, Refusal>> {
        self.redeem(request, now).boxed()
    }
}
