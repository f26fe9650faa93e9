//! What the Kubernetes API is asked of a token, and what its answer means: `TokenReview` of `authentication.k8s.io/v1`.
//! Pure; [`super::kubernetes`] asks.
//!
//! # Invariants
//! - Only an answer that says yes, names our audience and an account of the list lets anybody in. An API that knows
//!   nothing of audiences names none, and so lets nobody in.

use serde::{Deserialize, Serialize};

use super::account::ServiceAccount;

const KIND: &str = "TokenReview";
const VERSION: &str = "authentication.k8s.io/v1";
/// What others wrote is cut off here in the log.
const LONGEST: usize = 300;

/// Who may join.
pub(super) struct Rule {
    pub(super) accounts: Vec<ServiceAccount>,
    pub(super) audience: String,
}

/// Why an answer lets nobody in; for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denial {
    /// It is no answer to this question.
    #[error("the Kubernetes API's answer is no {KIND} of {VERSION} with a status")]
    Unreadable,
    /// The API does not know the token: a forged, expired or deleted one, or one for others.
    #[error("the Kubernetes API does not accept the token for audience {audience:?}: {error:?}")]
    Unauthenticated { audience: String, error: String },
    /// The API accepts it, but not for us.
    #[error(
        "the Kubernetes token is for {got:?} and not for audience {audience:?}: set it in the pod's projected volume"
    )]
    Audience { audience: String, got: Vec<String> },
    /// Somebody else than a ServiceAccount.
    #[error("the Kubernetes token is of {0:?}, which is no ServiceAccount")]
    Person(String),
    /// A ServiceAccount that nobody named.
    #[error("the Kubernetes token is of ServiceAccount {0}: name it with --kubernetes-join if it may join")]
    Account(ServiceAccount),
}

/// The question. It carries a secret, so it is never shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    api_version: &'a str,
    kind: &'a str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    audiences: [&'a str; 1],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: String,
    kind: String,
    status: Status,
}

/// What is false or empty may be left out.
#[derive(Deserialize)]
struct Status {
    authenticated: Option<bool>,
    user: Option<User>,
    audiences: Option<Vec<String>>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct User {
    username: Option<String>,
}

// === impl Rule ===

impl Rule {
    /// What to ask of a token.
    pub(super) fn question(&self, token: &str) -> Vec<u8> {
        let spec = Spec { token, audiences: [&self.audience] };
        let question = Question { api_version: VERSION, kind: KIND, spec };
        serde_json::to_vec(&question).expect("invariant: strings make JSON")
    }

    /// Who may join by the answer about a token. The answer repeats the token, perhaps in its words, too, which are
    /// logged: so it is taken out first.
    pub(super) fn judge(&self, token: &str, answer: &[u8]) -> Result<ServiceAccount, Denial> {
        let answer =
            std::str::from_utf8(answer).map_err(|_| Denial::Unreadable)?.replace(token, "[redacted]");
        let answer: Answer = serde_json::from_str(&answer).map_err(|_| Denial::Unreadable)?;
        if answer.kind != KIND || answer.api_version != VERSION {
            return Err(Denial::Unreadable);
        }
        let Status { authenticated, user, audiences, error } = answer.status;
        let (error, got) = (error.unwrap_or_default(), audiences.unwrap_or_default());
        let audience = || self.audience.clone();
        if authenticated != Some(true) || !error.is_empty() {
            return Err(Denial::Unauthenticated { audience: audience(), error: cut(&error) });
        }
        if !got.contains(&self.audience) {
            let got = got.iter().take(4).map(|audience| cut(audience)).collect();
            return Err(Denial::Audience { audience: audience(), got });
        }
        let username = user.and_then(|user| user.username).unwrap_or_default();
        let account = ServiceAccount::of_username(&username).ok_or_else(|| Denial::Person(cut(&username)))?;
        if self.accounts.contains(&account) { Ok(account) } else { Err(Denial::Account(account)) }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const TOKEN: &str = "eyJ.eyJ.c2ln";
    const USERNAME: &str = "system:serviceaccount:longshore:peer";

    fn rule() -> Rule {
        let accounts = ["other/one", "longshore/peer"].map(|name| name.parse().unwrap()).to_vec();
        Rule { accounts, audience: "longshore".into() }
    }

    /// As a Kubernetes 1.34 API server answers.
    fn answer(status: &Value) -> Vec<u8> {
        json!({
            "kind": "TokenReview",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"creationTimestamp": null, "managedFields": [{"manager": "longshore", "operation": "Update"}]},
            "spec": {"token": TOKEN, "audiences": ["longshore"]},
            "status": status,
        })
        .to_string()
        .into_bytes()
    }

    fn accepted() -> Value {
        json!({
            "authenticated": true,
            "user": {
                "username": USERNAME,
                "uid": "5f0c4f0a-6d19-4b0c-8b0e-0f6d6f1f6f0f",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:longshore", "system:authenticated"],
                "extra": {
                    "authentication.kubernetes.io/credential-id": ["JTI=7ee52be0-9045-4653-aa5e-0da57b8dccdc"],
                    "authentication.kubernetes.io/node-name": ["node-7"],
                    "authentication.kubernetes.io/pod-name": ["longshore-peer-x7x2k"]
                }
            },
            "audiences": ["longshore"],
        })
    }

    fn with(key: &str, value: Value) -> Vec<u8> {
        let mut status = accepted();
        status[key] = value;
        answer(&status)
    }

    #[test]
    fn the_question_is_what_the_api_reads() {
        let question: Value = serde_json::from_slice(&rule().question(TOKEN)).unwrap();
        assert_eq!(
            question,
            json!({
                "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
                "spec": {"token": TOKEN, "audiences": ["longshore"]},
            })
        );
    }

    #[test]
    fn only_a_named_account_with_our_audience_is_let_in() {
        let rule = rule();
        let denied = |answer: &[u8]| rule.judge(TOKEN, answer).unwrap_err();
        assert_eq!(rule.judge(TOKEN, &answer(&accepted())).unwrap().to_string(), "longshore/peer");
        assert_eq!(
            denied(&with("audiences", json!(["https://kubernetes.default.svc"]))),
            Denial::Audience {
                audience: "longshore".into(),
                got: vec!["https://kubernetes.default.svc".into()]
            }
        );
        // An API that does not know of audiences.
        assert!(
            matches!(denied(&with("audiences", Value::Null)), Denial::Audience { got, .. } if got.is_empty())
        );
        let another = with("user", json!({"username": "system:serviceaccount:default:peer"}));
        assert_eq!(denied(&another), Denial::Account("default/peer".parse().unwrap()));
        let person = with("user", json!({"username": "longshore/peer"}));
        assert_eq!(denied(&person), Denial::Person("longshore/peer".into()));
        assert_eq!(denied(&with("user", json!({}))), Denial::Person(String::new()));
        // What it says of a token whose time is over, and of one for others.
        let expired = "[invalid bearer token, service account token has expired]";
        let status = json!({"user": {}, "error": expired});
        let unauthenticated = Denial::Unauthenticated { audience: "longshore".into(), error: expired.into() };
        assert_eq!(denied(&answer(&status)), unauthenticated);
        assert_eq!(denied(&with("error", json!(expired))), unauthenticated, "an error is no yes");
        assert!(matches!(denied(&with("authenticated", json!(false))), Denial::Unauthenticated { .. }));
        assert!(matches!(denied(&answer(&json!({}))), Denial::Unauthenticated { .. }));
    }

    #[test]
    fn what_is_no_review_is_no_answer() {
        let denied = |answer: &[u8]| rule().judge(TOKEN, answer).unwrap_err();
        let review = String::from_utf8(answer(&accepted())).unwrap();
        for text in [
            "",
            "{}",
            "null",
            "<html>",
            &review[..review.len() - 1],
            &review.replace("TokenReview", "SubjectAccessReview"),
            &review.replace("k8s.io/v1\"", "k8s.io/v1beta1\""),
            &review.replace("\"status\"", "\"spec2\""),
            &review.replace("true", "\"true\""),
            &review.replace("[\"longshore\"]", "\"longshore\""),
        ] {
            assert_eq!(denied(text.as_bytes()), Denial::Unreadable, "{text}");
        }
    }

    #[test]
    fn an_answer_that_repeats_the_token_is_not_logged_with_it() {
        let words = json!(format!("cannot parse {TOKEN}"));
        let text = rule().judge(TOKEN, &with("error", words)).unwrap_err().to_string();
        assert!(!text.contains(TOKEN) && text.contains("cannot parse [redacted]"), "{text}");
    }

    #[test]
    fn what_others_wrote_cannot_forge_lines_of_the_log() {
        let hostile = format!("x\n2026 INFO enrolled{}", "y".repeat(10_000));
        for denial in [
            rule().judge(TOKEN, &with("error", json!(hostile))).unwrap_err(),
            rule().judge(TOKEN, &with("audiences", json!([hostile]))).unwrap_err(),
            rule().judge(TOKEN, &with("user", json!({"username": hostile}))).unwrap_err(),
        ] {
            let text = denial.to_string();
            assert!(!text.contains('\n') && text.len() < 800, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_let_nobody_in(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(rule().judge(TOKEN, &bytes).is_err());
        }

        #[test]
        fn whoever_is_let_in_has_everything_that_it_takes(
            authenticated in prop::option::weighted(0.9, any::<bool>()),
            username in prop::option::weighted(0.9, prop_oneof![
                Just(USERNAME.to_owned()), "system:serviceaccount:[a-z]{1,3}:[a-z]{1,4}", ".{0,20}",
            ]),
            audiences in prop::option::weighted(0.9, prop::collection::vec("longshore|longshore2|api|", 0..3)),
            error in prop::option::weighted(0.3, "x?"),
        ) {
            let status = json!({
                "authenticated": authenticated, "user": {"username": username}, "audiences": audiences, "error": error,
            });
            let right = authenticated == Some(true)
                && username.as_deref() == Some(USERNAME)
                && audiences.is_some_and(|audiences| audiences.iter().any(|audience| audience == "longshore"))
                && error.is_none_or(|error| error.is_empty());
            prop_assert_eq!(rule().judge(TOKEN, &answer(&status)).is_ok(), right);
        }
    }
}
