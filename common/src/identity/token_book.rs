//! The supernode's book of join tokens, `tokens.json`. The running supernode redeems from it while
//! `longshore token` makes and revokes in it: the file is the truth, read at every call, and changed under a
//! lock between processes. Calls are short but touch the disk: keep them off the async threads.
//!
//! # Invariants
//! - Only digests of secrets are kept; who reads the book cannot join.
//! - What is wrong with a token is told only to who has its secret.
//!
//! # Crash safety
//! A use is counted on disk before the token opens anything.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{IdentityError, JoinToken, files};
use crate::digest::Digest;

/// How long an expired token stays listed, for who wonders why it no longer works.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The supernode's join tokens.
#[derive(Clone, Debug)]
pub struct TokenBook {
    path: PathBuf,
    lock: PathBuf,
}

/// What a new token allows.
#[derive(Clone, Debug, Default)]
pub struct TokenOptions {
    /// What it is for, in the user's words.
    pub note: String,
    /// How long it opens; without end when `None`.
    pub expires_in: Option<Duration>,
    /// How many nodes may join with it; any number when `None`.
    pub uses: Option<u32>,
}

/// A token as the book knows it: without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its name.
    pub id: String,
    /// What it is for.
    pub note: String,
    /// When it was made.
    pub created: SystemTime,
    /// When it ends, if ever.
    pub expires: Option<SystemTime>,
    /// How many nodes may join with it; any number when `None`.
    pub uses: Option<u32>,
    /// How many did. Counted only where `uses` sets a limit: a thousand nodes that join at once with an unlimited
    /// token must not wait for a thousand synced writes.
    pub used: u32,
    /// Whether it was taken back.
    pub revoked: bool,
}

/// What a token is worth at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// It opens.
    Valid,
    /// It was taken back.
    Revoked,
    /// Its time is over.
    Expired,
    /// As many have joined as it allows.
    UsedUp,
}

/// Why a token does not open, in words for who brought it.
#[derive(Debug, thiserror::Error)]
pub enum TokenRefusal {
    /// No such id, or another secret: the two are not told apart.
    #[error("the join token is not known here: ask for a new one of this cluster")]
    Unknown,
    /// It was taken back.
    #[error("the join token was revoked: ask for a new one")]
    Revoked,
    /// Its time is over.
    #[error("the join token has expired: ask for a new one")]
    Expired,
    /// As many have joined as it allows.
    #[error("the join token is used up: ask for a new one")]
    UsedUp,
    /// The book could not be read or written; the reason is for the supernode's log, not for strangers.
    #[error("the supernode cannot read its join tokens: see its log")]
    Unavailable(#[source] IdentityError),
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    tokens: Vec<Record>,
}

/// Times are seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Record {
    id: String,
    secret_sha256: String,
    #[serde(default)]
    note: String,
    created: u64,
    expires: Option<u64>,
    uses: Option<u32>,
    #[serde(default)]
    used: u32,
    #[serde(default)]
    revoked: bool,
}

// === impl TokenBook ===

impl TokenBook {
    /// Opens the book in `dir`; it is empty until a token is made.
    ///
    /// # Errors
    /// When the folder cannot be made, or there is a book that cannot be read.
    pub fn open(dir: &Path) -> Result<Self, IdentityError> {
        files::make_folder(dir)?;
        let book = Self { path: dir.join("tokens.json"), lock: dir.join("tokens.lock") };
        book.read()?;
        Ok(book)
    }

    /// Makes a token for the cluster of this CA. Its secret is in what is returned and nowhere else.
    ///
    /// # Errors
    /// When the book cannot be read or written.
    pub fn create(
        &self,
        ca: Digest,
        options: TokenOptions,
        now: SystemTime,
    ) -> Result<JoinToken, IdentityError> {
        let _lock = files::lock(&self.lock)?;
        let mut page = self.read()?;
        let long_ago = seconds(now).saturating_sub(REMEMBERED.as_secs());
        page.tokens.retain(|record| record.expires.is_none_or(|expires| expires > long_ago));
        let token = loop {
            let token = JoinToken::random(ca);
            if page.tokens.iter().all(|record| record.id != token.id()) {
                break token;
            }
        };
        page.tokens.push(Record {
            id: token.id().to_owned(),
            secret_sha256: Digest::of(token.secret().as_bytes()).hex(),
            note: options.note,
            created: seconds(now),
            expires: options.expires_in.map(|life| seconds(now).saturating_add(life.as_secs())),
            uses: options.uses,
            used: 0,
            revoked: false,
        });
        self.write(&page)?;
        Ok(token)
    }

    /// All tokens, oldest first.
    ///
    /// # Errors
    /// When the book cannot be read.
    pub fn list(&self) -> Result<Vec<TokenInfo>, IdentityError> {
        Ok(self.read()?.tokens.iter().map(Record::info).collect())
    }

    /// Takes a token back; who joined with it stays a member. Takes its id or the whole token.
    ///
    /// # Errors
    /// When there is no such token, or the book cannot be read or written.
    pub fn revoke(&self, token: &str) -> Result<(), IdentityError> {
        let id = token
            .parse::<JoinToken>()
            .map_or_else(|_| token.trim().to_owned(), |token| token.id().to_owned());
        let _lock = files::lock(&self.lock)?;
        let mut page = self.read()?;
        let record = page.tokens.iter_mut().find(|record| record.id == id);
        // No more than an id is quoted: the rest could be a secret.
        record.ok_or_else(|| IdentityError::NoSuchToken(id.chars().take(8).collect()))?.revoked = true;
        self.write(&page)
    }

    /// Lets one node in, and counts it where the token allows only so many.
    ///
    /// # Errors
    /// When the token is unknown, revoked, expired or used up.
    pub fn redeem(&self, id: &str, secret: &str, now: SystemTime) -> Result<(), TokenRefusal> {
        let mut page = self.read().map_err(TokenRefusal::Unavailable)?;
        let limited = page.open(id, secret, now)?.uses.is_some();
        if !limited {
            return Ok(());
        }
        let _lock = files::lock(&self.lock).map_err(TokenRefusal::Unavailable)?;
        // Others may have used it since.
        let mut page = self.read().map_err(TokenRefusal::Unavailable)?;
        page.open(id, secret, now)?.used += 1;
        self.write(&page).map_err(TokenRefusal::Unavailable)
    }

    fn read(&self) -> Result<Page, IdentityError> {
        let Some(bytes) = files::read_secret(&self.path)? else { return Ok(Page::default()) };
        serde_json::from_slice(&bytes).map_err(|_| IdentityError::Damaged {
            path: self.path.clone(),
            what: "join tokens of this release",
            way_out: "restore it from a backup or move it aside and make new tokens",
        })
    }

    fn write(&self, page: &Page) -> Result<(), IdentityError> {
        let text = serde_json::to_vec_pretty(page).expect("invariant: strings and numbers make JSON");
        files::write_secret(&self.path, &text)
    }
}

// === impl Page ===

impl Page {
    /// The record of a token that opens at `now`.
    fn open(&mut self, id: &str, secret: &str, now: SystemTime) -> Result<&mut Record, TokenRefusal> {
        let record = self.tokens.iter_mut().find(|record| record.id == id).ok_or(TokenRefusal::Unknown)?;
        if !same(&record.secret_sha256, &Digest::of(secret.as_bytes()).hex()) {
            return Err(TokenRefusal::Unknown);
        }
        match record.info().state(now) {
            TokenState::Valid => Ok(record),
            TokenState::Revoked => Err(TokenRefusal::Revoked),
            TokenState::Expired => Err(TokenRefusal::Expired),
            TokenState::UsedUp => Err(TokenRefusal::UsedUp),
        }
    }
}

// === impl Record ===

impl Record {
    fn info(&self) -> TokenInfo {
        TokenInfo {
            id: self.id.clone(),
            note: self.note.clone(),
            created: time(self.created).unwrap_or(UNIX_EPOCH),
            expires: self.expires.and_then(time),
            uses: self.uses,
            used: self.used,
            revoked: self.revoked,
        }
    }
}

// === impl TokenInfo ===

impl TokenInfo {
    /// What the token is worth at `now`.
    pub fn state(&self, now: SystemTime) -> TokenState {
        if self.revoked {
            TokenState::Revoked
        } else if self.expires.is_some_and(|expires| now >= expires) {
            TokenState::Expired
        } else if self.uses.is_some_and(|uses| self.used >= uses) {
            TokenState::UsedUp
        } else {
            TokenState::Valid
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `None` beyond the end of time: that never comes.
fn time(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Compares without stopping at the first difference, so that the time taken tells nothing.
fn same(left: &str, right: &str) -> bool {
    let differences =
        left.bytes().zip(right.bytes()).fold(0, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    left.len() == right.len() && differences == 0
}

#[cfg(test)]
mod tests;
