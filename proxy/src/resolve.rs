//! Which manifest a client means, and whether it may have it: from what the client is known to be allowed, else by asking the
//! origin, else, while that gives no answer, from what it said before. Called by [`crate::manifests`].

use std::time::Instant;

use common::digest::Digest;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use crate::error::{Refusal, Subject};
use crate::grants::{Grant, Known, Permission, Tag};
use crate::path::{Name, Reference, manifest_path};
use crate::permission::is_worth_a_get;
use crate::proof::ContentDigest;
use crate::upstream::{Ask, Said, Word, Words};

/// What the client may have.
pub(crate) enum Resolved {
    /// This manifest.
    Manifest {
        /// Its digest.
        digest: ContentDigest,
        /// By which it may be had.
        grant: Grant,
        /// What the origin said just now, if it was asked.
        said: Option<Said>,
    },
    /// The origin says no digest or speaks no HEAD: it is to be asked for the content itself.
    Straight(Option<Said>),
}

/// Finds out what `reference` means to the client.
pub(crate) async fn resolve(
    ask: &Ask,
    name: &Name,
    reference: &Reference,
    accept: &str,
) -> Result<Resolved, Refusal> {
    let permission = ask.grants.of(&ask.upstream, &name.path());
    let digest = match reference {
        Reference::Digest(digest) => digest.sha256(),
        Reference::Tag(_) => None,
    };
    if let Some(digest) = digest
        && let Some(grant) = permission.allows(digest)
        && serves(&grant.known, accept, ask.head)
    {
        return Ok(Resolved::Manifest { digest: ContentDigest::Sha256(digest), grant, said: None });
    }
    let path = manifest_path(name, reference);
    let no_answer = match ask.upstream.word(&path, Some(accept), Subject::Manifest).await? {
        Word::Yes(said, length) => return Ok(granted(&permission, reference, accept, said, length)),
        Word::No(said) => {
            permission.refused_reference(&said, reference);
            return refused(ask, &path, accept, said).await;
        }
        Word::None(refusal) => refusal,
    };
    match remembered(&permission, reference, accept) {
        Some((digest, grant)) => {
            let registry = ask.upstream.registry();
            tracing::debug!(registry, %digest, "no answer, but it was allowed: {no_answer}");
            Ok(Resolved::Manifest { digest, grant, said: None })
        }
        None => match ask.grants.words(&ask.upstream, &path) {
            Some(said) => Err(Refusal::Origin(said.into_failure(), Subject::Manifest)),
            None => Err(no_answer),
        },
    }
}

/// Whether what is known of a manifest is enough for the client's answer.
fn serves(known: &Known, accept: &str, head: bool) -> bool {
    let taken = |media_type: &str| {
        let ranges = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
        ranges.into_iter().any(|range| matches!(range, "*/*" | "application/*") || range == media_type)
    };
    known.media_type.as_deref().is_some_and(taken) && (known.length.is_some() || !head)
}

fn granted(
    permission: &Permission<'_>,
    reference: &Reference,
    accept: &str,
    said: Said,
    length: Option<u64>,
) -> Resolved {
    let media_type = said.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let known = Known { length, media_type: media_type.map(Into::into), claimed: false };
    let Some(digest) = said.digest_of(reference) else { return Resolved::Straight(Some(said)) };
    if let Some(sha256) = digest.sha256() {
        permission.grant(sha256, known.clone());
        if let Reference::Tag(tag) = reference {
            permission.resolve(&tag_of(tag, accept), sha256);
        }
    }
    let grant = Grant { known, since: Some(Instant::now()) };
    Resolved::Manifest { digest, grant, said: Some(said) }
}

/// A HEAD's refusal has no body, but the client is to have the registry's words; or even the content, where HEAD is not
/// spoken.
async fn refused(ask: &Ask, path: &str, accept: &str, said: Said) -> Result<Resolved, Refusal> {
    let mut said = said;
    if !ask.head && is_worth_a_get(said.status) {
        said = ask.upstream.inquire(path, Some(accept), Words::Wanted, Subject::Manifest).await?;
        if said.status.is_success() {
            return Ok(Resolved::Straight(None));
        }
    }
    if said.status == StatusCode::UNAUTHORIZED {
        ask.grants.heard(&ask.upstream, path, &said);
    }
    Err(Refusal::Origin(said.into_failure(), Subject::Manifest))
}

/// What the reference meant to the client, and what is known of that.
fn remembered(
    permission: &Permission<'_>,
    reference: &Reference,
    accept: &str,
) -> Option<(ContentDigest, Grant)> {
    let digest = match reference {
        Reference::Digest(digest) => digest.sha256()?,
        Reference::Tag(tag) => permission.meant(&tag_of(tag, accept))?,
    };
    let grant = permission.remembers(digest)?;
    grant.known.media_type.is_some().then_some((ContentDigest::Sha256(digest), grant))
}

fn tag_of(name: &str, accept: &str) -> Tag {
    Tag { name: name.to_owned(), accept: Digest::of(accept.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_serves_whom_it_suits() {
        let known = |length| Known { length, media_type: Some("application/a+json".into()), claimed: false };
        for (accept, suits) in [
            ("application/a+json", true),
            ("text/plain, application/a+json;q=0.5", true),
            ("application/*", true),
            ("x, */*", true),
            ("application/b+json", false),
            ("", false),
        ] {
            assert_eq!(serves(&known(Some(1)), accept, true), suits, "{accept}");
        }
        assert!(!serves(&known(None), "*/*", true) && serves(&known(None), "*/*", false));
        assert!(!serves(&Known::default(), "*/*", false));
    }
}
