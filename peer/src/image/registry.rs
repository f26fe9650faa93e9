//! The questions that a registry is asked on the way to an image: for its manifests, and for a token where it wants one.
//!
//! Source: Distribution's token specification ("Docker Registry v2 authentication via central service").

use std::collections::HashMap;

use bytes::Bytes;
use common::digest::Digest;
use common::task::Credentials;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use reqwest::Url;
use serde::Deserialize;

use super::reference::Reference;
use super::{ImageError, manifest};
use crate::error::FetchError;
use crate::origin::{Answer, OriginClient};

/// What registries take at most.
const MAX_MANIFEST: usize = 4 * 1024 * 1024;
/// A token is a few kilobytes.
const MAX_TOKEN: usize = 64 * 1024;

/// A repository, and what opens it.
pub struct Repository {
    client: OriginClient,
    root: String,
    name: String,
    /// Of the user.
    own: Credentials,
    /// What a token is asked for by, and the token: tokens live for minutes, and layers may take longer.
    token: Option<(HashMap<String, String>, Credentials)>,
}

/// A manifest as it came.
pub struct Answered {
    /// Its text.
    pub bytes: Bytes,
    /// What that comes to.
    pub digest: Digest,
    /// What the registry calls it, without parameters.
    pub content_type: String,
}

/// The specification has both names, and services that give both.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

// === impl Repository ===

impl Repository {
    /// An image's repository, for who has these credentials.
    ///
    /// # Errors
    /// When the registry's name cannot be meant.
    pub fn of(client: OriginClient, reference: &Reference, own: Credentials) -> Result<Self, ImageError> {
        let base = client.registries().base_url(&reference.registry)?;
        let name = reference.repository.clone();
        Ok(Self { client, root: format!("{base}/v2/{name}"), name, own, token: None })
    }

    /// Where a manifest is.
    pub fn manifest_url(&self, digest: Digest) -> String {
        format!("{}/manifests/{digest}", self.root)
    }

    /// Where a blob is.
    pub fn blob(&self, digest: Digest) -> String {
        format!("{}/blobs/{digest}", self.root)
    }

    /// What opens it, once a manifest has been asked for.
    pub fn credentials(&self) -> &Credentials {
        self.token.as_ref().map_or(&self.own, |(_, token)| token)
    }

    /// Gets another token where the one that there was is not taken any more; whether there are tokens here.
    ///
    /// # Errors
    /// When there is none for us any more.
    pub async fn renew(&mut self) -> Result<bool, ImageError> {
        let Some((challenge, _)) = self.token.take() else { return Ok(false) };
        let token = self.token(&challenge).await?;
        self.token = Some((challenge, token));
        Ok(true)
    }

    /// A manifest, which is what its digest says where it is asked by that.
    ///
    /// # Errors
    /// With the registry's answer, when it has none, or not for us.
    pub async fn manifest(&mut self, wanted: &str) -> Result<Answered, ImageError> {
        let answer = self.ask(Method::GET, wanted).await?;
        let content_type = content_type(&answer.headers);
        let bytes = answer.bytes(MAX_MANIFEST).await.map_err(FetchError::from)?;
        let digest = Digest::of(&bytes);
        match wanted.parse::<Digest>() {
            Ok(asked) if asked != digest => Err(ImageError::OtherContent(asked)),
            _ => Ok(Answered { bytes, digest, content_type }),
        }
    }

    /// What a manifest is, without its text: its digest, and what the registry calls it. A registry that does not say the
    /// digest is asked for the text.
    ///
    /// # Errors
    /// As [`Repository::manifest`].
    pub async fn look(&mut self, wanted: &str) -> Result<(Digest, String), ImageError> {
        let answer = self.ask(Method::HEAD, wanted).await?;
        let said =
            answer.headers.get("docker-content-digest").and_then(|value| value.to_str().ok()?.parse().ok());
        match wanted.parse().ok().or(said) {
            Some(digest) => Ok((digest, content_type(&answer.headers))),
            None => self.manifest(wanted).await.map(|found| (found.digest, found.content_type)),
        }
    }

    /// Asks for a manifest, with a token where one is wanted.
    async fn ask(&mut self, method: Method, wanted: &str) -> Result<Answer, ImageError> {
        let url = format!("{}/manifests/{wanted}", self.root);
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(manifest::ACCEPT))]);
        let once = async |repository: &Self| {
            let asked = repository.client.ask(method.clone(), &url, &headers, repository.credentials()).await;
            asked.map_err(FetchError::from)
        };
        let mut answer = once(self).await?;
        if answer.status == StatusCode::UNAUTHORIZED
            && let Some(challenge) = challenge(&answer.headers)
        {
            let token = self.token(&challenge).await?;
            self.token = Some((challenge, token));
            answer = once(self).await?;
        }
        match answer.status {
            StatusCode::OK => Ok(answer),
            _ => Err(FetchError::Origin(answer.into_failure().await).into()),
        }
    }

    /// The token that a challenge asks for, by what the user gave, or as anybody. A password goes to the service that the
    /// registry names, as with every client, but not from an encrypted way to a plain one.
    async fn token(&self, challenge: &HashMap<String, String>) -> Result<Credentials, ImageError> {
        let realm = challenge.get("realm").ok_or(ImageError::Token("it does not say from where"))?;
        let mut url = Url::parse(realm).map_err(|_| ImageError::Token("from what is no URL"))?;
        if self.root.starts_with("https:") && url.scheme() != "https" && !self.own.is_empty() {
            return Err(ImageError::Token("from where a password could be read on the way"));
        }
        let scope =
            challenge.get("scope").cloned().unwrap_or_else(|| format!("repository:{}:pull", self.name));
        url.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = challenge.get("service") {
            url.query_pairs_mut().append_pair("service", service);
        }
        let answer = self.client.ask(Method::GET, url.as_str(), &HeaderMap::new(), &self.own).await;
        let answer = answer.map_err(FetchError::from)?;
        if answer.status != StatusCode::OK {
            return Err(FetchError::Origin(answer.into_failure().await).into());
        }
        let text = answer.bytes(MAX_TOKEN).await.map_err(FetchError::from)?;
        let token = serde_json::from_slice(&text)
            .ok()
            .and_then(|Token { token, access_token }| token.or(access_token));
        let token = token.ok_or(ImageError::Token("and its token service gives none"))?;
        Ok(Credentials::authorization(format!("Bearer {token}")))
    }
}

fn content_type(headers: &HeaderMap) -> String {
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    said.and_then(|text| text.split(';').next()).unwrap_or_default().trim().to_owned()
}

/// The parameters of a `Bearer` challenge.
fn challenge(headers: &HeaderMap) -> Option<HashMap<String, String>> {
    headers.get_all(WWW_AUTHENTICATE).iter().find_map(|value| parameters(value.to_str().ok()?))
}

fn parameters(text: &str) -> Option<HashMap<String, String>> {
    let (scheme, mut rest) = text.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut all = HashMap::new();
    while let Some((name, behind)) = rest.split_once('=') {
        let (value, next) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => behind.split_at(behind.find(',').unwrap_or(behind.len())),
        };
        all.insert(name.trim_matches([',', ' ']).to_ascii_lowercase(), value.to_owned());
        rest = next;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_read_with_commas_in_quotes() {
        let all = parameters(r#"Bearer realm="https://a/token",service=r, scope="repository:a:pull,push""#)
            .unwrap();
        assert_eq!((all["realm"].as_str(), all["service"].as_str()), ("https://a/token", "r"));
        assert_eq!(all["scope"], "repository:a:pull,push");
        assert_eq!(parameters("Basic realm=\"x\""), None);
    }

    proptest! {
        #[test]
        fn no_challenge_panics(text in "(Bearer )?[a-z=\", ]{0,40}|\\PC{0,30}") {
            let _ = parameters(&text);
        }
    }
}
