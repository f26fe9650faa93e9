//! The first join token, and the watch over the cluster's folder while the supernode runs: what [`Membership`] finds new
//! there, another first token after a rotation of the CA, and the count of the tokens' uses. Started by
//! [`crate::daemon`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use common::identity::{self, Authority, IdentityError, JoinToken, TokenBook, TokenOptions};
use peer::daemon::DaemonError;

use crate::membership::{self, Membership};

/// How many looks at the cluster's folder lie between two counts of tokens' uses.
const LOOKS: usize = 5;

/// The first start makes a token that does not end, so that a peer needs a file and an address and nothing else; after
/// a rotation of the CA another takes its place. Where the cluster's folder cannot be written, who made it made tokens.
///
/// # Errors
/// When the book or the file cannot be read or written.
pub fn first(path: &Path, tokens: &TokenBook, authority: &Authority) -> Result<(), DaemonError> {
    let ours = |token: &JoinToken| token.ca() == authority.fingerprint();
    let usable = path.exists() && JoinToken::read(path).is_ok_and(|token| ours(&token));
    // Somebody who took the file away after all had joined does not want another.
    let taken_away = !path.exists() && !tokens.list()?.is_empty();
    let brought = tokens.plain(|ca| authority.is_ours(ca))?.is_some();
    if usable || taken_away || brought {
        return Ok(());
    }
    let note = if path.exists() { "made when the CA changed" } else { "made at the first start" };
    let options = TokenOptions { note: note.into(), ..TokenOptions::default() };
    match tokens.create(authority.fingerprint(), options, SystemTime::now()) {
        Ok(token) => identity::write_secret(path, format!("{token}\n").as_bytes())?,
        Err(error @ IdentityError::File { .. }) => tracing::info!("no join token is made here: {error}"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// The join tokens, and the file with the first one.
pub struct Tokens {
    /// All of them.
    pub book: Arc<TokenBook>,
    /// The first one.
    pub file: PathBuf,
    /// Whose fingerprint they carry.
    pub authority: Arc<Authority>,
}

/// Looks at the cluster's folder, and writes down how often tokens were used.
pub async fn watch(membership: Arc<Membership>, tokens: Tokens) {
    let tokens = Arc::new(tokens);
    let mut looks = tokio::time::interval(membership::LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0_usize.. {
        looks.tick().await;
        let (membership, tokens) = (membership.clone(), tokens.clone());
        let looked = tokio::task::spawn_blocking(move || {
            if membership.look(SystemTime::now()) {
                tracing::info!("the cluster's CA has changed");
                if let Err(error) = first(&tokens.file, &tokens.book, &tokens.authority) {
                    tracing::error!("no join token for the cluster's present CA: {error}");
                }
            }
            if number % LOOKS == 0
                && let Err(error) = tokens.book.flush()
            {
                tracing::debug!("uses of join tokens are not written down: {error}");
            }
        });
        if let Err(error) = looked.await {
            tracing::error!("the look at the cluster's folder failed: {error}");
        }
    }
}
