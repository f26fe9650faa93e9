//! Who may use the supernode's API. Everything under `/api` changes something or tells what a cluster pulls, so on a port
//! that other machines reach it asks for a bearer token (RFC 6750); on loopback it asks that the request did not come
//! out of a web page of somebody else. Health and metrics name no image and stay open. What [`crate::drivers`] answer is for
//! programs on other machines, which cannot all send a bearer token: from them the same token is taken as a password, or in
//! a header of its own, and without a token they are let in by the socket alone. Asked by [`super::router`].
//!
//! # Invariants
//! - A browser that carries no token of ours by itself, and a page that may not send its own `Authorization` elsewhere, can
//!   forge nothing: there are no cookies.
//! - The token is compared by digest, so that the time taken tells nothing of it, and is never logged.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use common::digest::Digest;
use common::identity::{self, IdentityError};

/// Its file in the data folder, unless another is named.
pub const API_TOKEN: &str = "api-token";
/// Where a program shows it that sends headers of its own choice.
const TOKEN_HEADER: &str = "x-longshore-token";
/// Shorter ones can be guessed.
const LEAST: usize = 16;
/// Somebody who guesses must not make us read a file for every guess.
const REREAD: Duration = Duration::from_secs(1);

/// Who is let in.
pub enum Door {
    /// Whoever reaches it: a socket whose file mode says who may.
    Open,
    /// Whoever is on this machine, but no web page of somebody else; to look, and change nothing.
    Machine,
    /// Whoever has the token.
    Token(Token),
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A person, by whatever program.
    Client,
    /// A program that [`crate::drivers`] speak with: Harbor, a registry.
    Sender,
}

/// The token, as its file says it. The file may be replaced at any time.
pub struct Token {
    path: PathBuf,
    known: Mutex<(Digest, Instant)>,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// A page of another site makes the browser ask.
    CrossSite,
    /// It calls us by a name that is not ours: a page whose name was made to mean this machine.
    StrangeName,
    /// No token, or another one.
    Token,
    /// It would change something.
    ReadOnly,
    /// A program asks where there is no token.
    Sender,
}

// === impl Token ===

impl Token {
    /// The token in `path`; makes one there if `may_make` and there is none.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds no token.
    pub fn open(path: PathBuf, may_make: bool) -> Result<Self, IdentityError> {
        if may_make && !path.exists() {
            let secret: [u8; 32] = rand::random();
            identity::write_secret(&path, format!("{}\n", Digest(secret).hex()).as_bytes())?;
        }
        let known = Mutex::new((read(&path)?, Instant::now()));
        Ok(Self { path, known })
    }

    /// Whether this is the token now.
    fn is(&self, shown: &str, now: Instant) -> bool {
        let shown = Digest::of(shown.as_bytes());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != shown && now.saturating_duration_since(known.1) >= REREAD {
            // Another may have been put there since; a file that went bad leaves the old one good.
            known.1 = now;
            match read(&self.path) {
                Ok(token) => known.0 = token,
                Err(error) => tracing::warn!("the API's token stays what it was: {error}"),
            }
        }
        known.0 == shown
    }
}

/// The digest of the token in a file.
fn read(path: &Path) -> Result<Digest, IdentityError> {
    let damaged = || IdentityError::Damaged {
        path: path.to_owned(),
        what: "API token of at least 16 characters",
        way_out: "write one into it, or remove it and restart the supernode to get a new one",
    };
    let bytes = identity::read_secret(path)?.ok_or_else(damaged)?;
    let token = std::str::from_utf8(&bytes).map_err(|_| damaged())?.trim();
    if token.len() < LEAST { Err(damaged()) } else { Ok(Digest::of(token.as_bytes())) }
}

// === impl Door ===

impl Door {
    /// Lets a request in or answers in its place.
    pub(super) async fn pass(&self, asker: Asker, request: Request, next: Next) -> Response {
        let authority = request.uri().authority().map(|authority| authority.as_str());
        let judged = self.judge(asker, authority, request.headers(), Instant::now());
        let mut answer = match judged.and_then(|()| self.allows(asker, request.method())) {
            Err(refusal) => refusal.into_response(),
            Ok(()) => next.run(request).await,
        };
        let headers = answer.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }

    /// What changes something asks for the token, or for the socket: on a machine with many users its port is everybody's.
    fn allows(&self, asker: Asker, method: &Method) -> Result<(), Refusal> {
        match self {
            // They see names of images, too.
            Self::Machine if asker == Asker::Sender => Err(Refusal::Sender),
            Self::Machine if !method.is_safe() => Err(Refusal::ReadOnly),
            Self::Machine | Self::Open | Self::Token(_) => Ok(()),
        }
    }

    /// Whether who comes in may read what images are called: what a machine pulls is not for all its users.
    pub(super) fn shows_names(&self) -> bool {
        !matches!(self, Self::Machine)
    }

    fn judge(
        &self,
        asker: Asker,
        authority: Option<&str>,
        headers: &HeaderMap,
        now: Instant,
    ) -> Result<(), Refusal> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = authority.or(text(header::HOST));
        // What a browser says of itself (Fetch Metadata, and RFC 6454): nobody else sends these.
        let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
        if !matches!(site, None | Some("same-origin" | "none")) {
            return Err(Refusal::CrossSite);
        }
        let same = |origin: &str| origin.split_once("://").is_some_and(|(_, from)| Some(from) == host);
        if headers.contains_key(header::ORIGIN) && !text(header::ORIGIN).is_some_and(same) {
            return Err(Refusal::CrossSite);
        }
        match self {
            Self::Open => Ok(()),
            Self::Machine if host.is_none_or(is_machine) => Ok(()),
            Self::Machine => Err(Refusal::StrangeName),
            Self::Token(token) => match shown(asker, headers).iter().any(|shown| token.is(shown, now)) {
                true => Ok(()),
                false => Err(Refusal::Token),
            },
        }
    }
}

/// What a request shows for a token. A password is taken from programs only: browsers keep those, and send them unasked.
fn shown(asker: Asker, headers: &HeaderMap) -> Vec<String> {
    let text = |value: Option<&HeaderValue>| value.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let authorization = text(headers.get(header::AUTHORIZATION)).unwrap_or_default();
    let (scheme, value) = authorization.split_once(' ').unwrap_or_default();
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    let bearer = is("bearer").then(|| value.trim().to_owned());
    if asker == Asker::Client {
        return bearer.into_iter().collect();
    }
    let password = is("basic").then(|| password(value.trim())).flatten();
    bearer.into_iter().chain(password).chain(text(headers.get(TOKEN_HEADER))).collect()
}

/// The password of `Basic` credentials, whoever the user is.
fn password(encoded: &str) -> Option<String> {
    let pair = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// Whether a `Host` names this machine as only it can be named: by address, or as `localhost`.
fn is_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let forbidden = |why: &'static str| (StatusCode::FORBIDDEN, why).into_response();
        match self {
            Self::CrossSite => forbidden("asked by a page of another site\n"),
            Self::ReadOnly => {
                forbidden("read only without a token: ask the socket supernode.sock in the data directory\n")
            }
            Self::Sender => {
                forbidden("a token is needed, and there is none: start the supernode with --api-token-file\n")
            }
            Self::StrangeName => forbidden("ask for it by address or as localhost\n"),
            Self::Token => {
                let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"longshore\"")];
                let why = "a bearer token is needed: it is in the supernode's data directory, in api-token\n";
                (StatusCode::UNAUTHORIZED, challenge, why).into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn judge(door: &Door, pairs: &[(&'static str, &str)], now: Instant) -> Result<(), Refusal> {
        door.judge(Asker::Client, None, &headers(pairs), now)
    }

    #[test]
    fn programs_show_the_token_as_they_can() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(API_TOKEN);
        std::fs::write(&path, "a-token-of-the-operator\n").unwrap();
        let (door, now) = (Door::Token(Token::open(path, false).unwrap()), Instant::now());
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        let (right, wrong) = (basic("harbor:a-token-of-the-operator"), basic("a-token-of-the-operator:x"));
        let ask = |asker, name, value: &str| door.judge(asker, None, &headers(&[(name, value)]), now);
        for (name, value) in [
            ("authorization", "Bearer a-token-of-the-operator"),
            ("authorization", &right),
            ("x-longshore-token", "a-token-of-the-operator"),
        ] {
            assert_eq!(ask(Asker::Sender, name, value), Ok(()), "{name}");
        }
        for (name, value) in [
            ("authorization", wrong.as_str()),
            ("authorization", "Basic"),
            ("authorization", "Basic !"),
            ("authorization", "a-token-of-the-operator"),
            ("x-longshore-token", "another"),
            ("x-token", "a-token-of-the-operator"),
        ] {
            assert_eq!(ask(Asker::Sender, name, value), Err(Refusal::Token), "{name} {value}");
        }
        assert_eq!(ask(Asker::Client, "authorization", &right), Err(Refusal::Token), "a browser's password");
        assert_eq!(ask(Asker::Client, "x-longshore-token", "a-token-of-the-operator"), Err(Refusal::Token));
        let page = [("authorization", right.as_str()), ("origin", "http://evil.example")];
        assert_eq!(door.judge(Asker::Sender, None, &headers(&page), now), Err(Refusal::CrossSite));
    }

    #[test]
    fn the_token_opens_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(API_TOKEN);
        let door = Door::Token(Token::open(path.clone(), true).unwrap());
        let token = std::fs::read_to_string(&path).unwrap();
        let (token, now) = (token.trim(), Instant::now());
        assert_eq!(judge(&door, &[("authorization", &format!("Bearer {token}"))], now), Ok(()));
        assert_eq!(judge(&door, &[("authorization", &format!("bearer  {token} "))], now), Ok(()));
        for wrong in ["Bearer", "Bearer ", "Bearer x", "Basic abc", token, ""] {
            assert_eq!(judge(&door, &[("authorization", wrong)], now), Err(Refusal::Token), "{wrong}");
        }
        assert_eq!(judge(&door, &[], now), Err(Refusal::Token));
        std::fs::write(&path, "another-token-of-mine\n").unwrap();
        let another = [("authorization", "Bearer another-token-of-mine")];
        assert_eq!(judge(&door, &another, now + REREAD * 2), Ok(()), "it may be replaced");
        let old = format!("Bearer {token}");
        assert_eq!(judge(&door, &[("authorization", &old)], now + REREAD * 4), Err(Refusal::Token));
    }

    #[test]
    fn whoever_is_on_the_machine_may_look_and_change_nothing() {
        let changing = [Method::POST, Method::PUT, Method::DELETE];
        let allows = |door: Door, method: &Method| door.allows(Asker::Client, method);
        assert!([Method::GET, Method::HEAD].iter().all(|method| allows(Door::Machine, method).is_ok()));
        assert!(changing.iter().all(|method| allows(Door::Machine, method) == Err(Refusal::ReadOnly)));
        assert!(changing.iter().all(|method| allows(Door::Open, method).is_ok()), "the socket");
        for method in [Method::GET, Method::POST] {
            assert_eq!(Door::Machine.allows(Asker::Sender, &method), Err(Refusal::Sender));
            assert_eq!(Door::Open.allows(Asker::Sender, &method), Ok(()));
        }
    }

    #[test]
    fn a_file_without_a_token_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine");
        let missing = Token::open(path.clone(), false).err().unwrap().to_string();
        std::fs::write(&path, "short").unwrap();
        let short = Token::open(path.clone(), true).err().unwrap().to_string();
        for error in [missing, short] {
            assert!(error.contains("mine") && error.contains("16 characters"), "{error}");
        }
    }

    #[test]
    fn no_page_of_another_site_reaches_it() {
        let now = Instant::now();
        for door in [Door::Open, Door::Machine] {
            let ask = |pairs: &[(&'static str, &str)]| judge(&door, pairs, now);
            let host = ("host", "127.0.0.1:7701");
            assert_eq!(ask(&[host]), Ok(()));
            assert_eq!(ask(&[host, ("origin", "http://127.0.0.1:7701")]), Ok(()));
            assert_eq!(ask(&[host, ("sec-fetch-site", "same-origin")]), Ok(()));
            for origin in ["http://evil.example", "null", "", "http://127.0.0.1:8000"] {
                assert_eq!(ask(&[host, ("origin", origin)]), Err(Refusal::CrossSite), "{origin}");
            }
            for site in ["cross-site", "same-site", "what"] {
                assert_eq!(ask(&[host, ("sec-fetch-site", site)]), Err(Refusal::CrossSite), "{site}");
            }
        }
    }

    #[test]
    fn a_name_that_was_made_to_mean_this_machine_does_not_open_it() {
        for host in ["localhost", "LOCALHOST:7701", "127.0.0.1", "127.0.0.1:7701", "[::1]:7701", "[::1]"] {
            assert_eq!(judge(&Door::Machine, &[("host", host)], Instant::now()), Ok(()), "{host}");
        }
        for host in ["evil.example", "evil.example:7701", "localhost.evil.example", "::evil", "[::1"] {
            let judged = judge(&Door::Machine, &[("host", host)], Instant::now());
            assert_eq!(judged, Err(Refusal::StrangeName), "{host}");
        }
    }
}
