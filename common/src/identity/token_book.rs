//! The supernode's book of join tokens, `tokens.json`. The running supernode redeems from it while
//! `longshore token` makes and revokes in it: the file is the truth, read at every call, and changed under a
//! lock between processes. Calls are short but touch the disk: keep them off the async threads.
//!
//! The folder may be read-only, as a mounted Kubernetes Secret is: then tokens open, but none is made or counted, and a
//! file `join-token` in the folder is a token of its own, without an entry in the book.
//!
//! # Invariants
//! - Only digests of secrets are kept; who reads the book cannot join.
//! - What is wrong with a token is told only to who has its secret.
//!
//! # Crash safety
//! A use of a token with a limit is counted on disk before the token opens anything. Uses of others are counted in memory
//! and written now and then ([`TokenBook::flush`]), so what the book says of them is a lower bound.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{IdentityError, JoinToken, files};
use crate::digest::Digest;

/// How long an expired token stays listed, for who wonders why it no longer works.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A token in words, in the book's folder.
const PLAIN: &str = "join-token";

/// The supernode's join tokens.
#[derive(Clone, Debug)]
pub struct TokenBook {
    path: PathBuf,
    lock: PathBuf,
    /// A token in words, which a Secret brings.
    plain: PathBuf,
    /// Uses of tokens without a limit that are not written down yet.
    uncounted: Arc<Mutex<HashMap<String, u32>>>,
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
    /// How many did; where `uses` sets no limit, at least so many: a thousand nodes that join at once must not wait for a
    /// thousand synced writes.
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
    /// Its uses are to be counted, and the book cannot be written.
    #[error(
        "the supernode cannot count the uses of this join token, its folder is read-only: ask for one without a use count"
    )]
    Uncountable,
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
        let book = Self {
            path: dir.join("tokens.json"),
            lock: dir.join("tokens.lock"),
            plain: dir.join(PLAIN),
            uncounted: Arc::default(),
        };
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
            *self.uncounted().entry(id.to_owned()).or_default() += 1;
            return Ok(());
        }
        let _lock = files::lock(&self.lock).map_err(uncountable)?;
        // Others may have used it since.
        let mut page = self.read().map_err(TokenRefusal::Unavailable)?;
        page.open(id, secret, now)?.used += 1;
        self.write(&page).map_err(uncountable)
    }

    /// The token in words beside the book, if it is for a CA that `ours` knows.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn plain(&self, ours: impl Fn(Digest) -> bool) -> Result<Option<JoinToken>, IdentityError> {
        let token = if self.plain.exists() { Some(JoinToken::read(&self.plain)?) } else { None };
        Ok(token.filter(|token| ours(token.ca())))
    }

    /// [`TokenBook::redeem`], where the token in words opens, too; what the book knows of it goes before.
    ///
    /// # Errors
    /// As [`TokenBook::redeem`].
    pub fn redeem_or_plain(
        &self,
        (id, secret): (&str, &str),
        ours: impl Fn(Digest) -> bool,
        now: SystemTime,
    ) -> Result<(), TokenRefusal> {
        match self.redeem(id, secret, now) {
            Err(TokenRefusal::Unknown) => {
                let plain = self.plain(ours).map_err(TokenRefusal::Unavailable)?;
                let opens = plain.is_some_and(|plain| plain.id() == id && same(plain.secret(), secret));
                if opens { Ok(()) } else { Err(TokenRefusal::Unknown) }
            }
            answered => answered,
        }
    }

    /// Writes down how often tokens without a limit were used. Where the book cannot be written they stay in memory.
    ///
    /// # Errors
    /// When the book cannot be read or written.
    pub fn flush(&self) -> Result<(), IdentityError> {
        if self.uncounted().is_empty() {
            return Ok(());
        }
        let _lock = files::lock(&self.lock)?;
        let mut page = self.read()?;
        let counted = self.uncounted().clone();
        for (id, uses) in &counted {
            if let Some(record) = page.tokens.iter_mut().find(|record| record.id == *id) {
                record.used = record.used.saturating_add(*uses);
            }
        }
        self.write(&page)?;
        let mut left = self.uncounted();
        for (id, uses) in counted {
            if let Some(count) = left.get_mut(&id) {
                *count -= uses;
            }
        }
        left.retain(|_, uses| *uses > 0);
        Ok(())
    }

    fn uncounted(&self) -> std::sync::MutexGuard<'_, HashMap<String, u32>> {
        // Only numbers are in there.
        self.uncounted.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Why a use could not be written down, in words for who wanted to use it.
fn uncountable(error: IdentityError) -> TokenRefusal {
    match error {
        IdentityError::File { cause, .. }
            if matches!(cause.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) =>
        {
            TokenRefusal::Uncountable
        }
        error => TokenRefusal::Unavailable(error),
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
