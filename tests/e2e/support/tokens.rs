//! A token server as Docker's token specification has it: who asks with a name and a password (or without) gets a
//! signed token with those of the wanted scopes that are theirs, and [`super::registry`] believes it.
//!
//! The registry checks a token by the certificate in its own header (`x5c`), which must be one of `rootcertbundle`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::registry::User;

/// What the registry calls itself to the token server.
pub(crate) const SERVICE: &str = "e2e-registry";
/// Who the tokens say they are of.
pub(crate) const ISSUER: &str = "e2e-tokens";
/// How long a token is good for; longer than any test.
const LIFE_SECONDS: u64 = 3600;

/// Who may pull from which repositories.
#[derive(Clone)]
pub(crate) struct Rule {
    /// Nobody's name is that of those who say none.
    pub(crate) user: Option<User>,
    /// The repositories' common beginning, such as `team-a/`.
    pub(crate) below: &'static str,
}

/// The server; it ends when it is dropped.
pub(crate) struct TokenServer {
    address: String,
    shared: Arc<Shared>,
    bundle: PathBuf,
    _home: TempDir,
    server: AbortOnDropHandle<()>,
}

struct Shared {
    rules: Vec<Rule>,
    key: EcdsaKeyPair,
    /// The certificate in base64, as a token's header carries it.
    certificate: String,
    /// Tokens issued, by user (`""`: nobody).
    issued: Mutex<BTreeMap<String, usize>>,
}

// === impl TokenServer ===

impl TokenServer {
    /// Starts one with these rules.
    pub(crate) async fn start(rules: &[Rule]) -> Self {
        let home = TempDir::new().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem();
        let bundle = home.path().join("tokens.pem");
        std::fs::write(&bundle, &certificate).unwrap();
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der(), &random)
            .unwrap();
        let certificate: String = certificate.lines().filter(|line| !line.starts_with('-')).collect();
        let shared = Arc::new(Shared { rules: rules.to_vec(), key, certificate, issued: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let app = Router::new().route("/token", routing::get(token)).with_state(shared.clone());
        let server =
            tokio::spawn(async move { axum::serve(listener, app).await.expect("tokens are served") });
        Self { address, shared, bundle, _home: home, server: AbortOnDropHandle::new(server) }
    }

    /// Where tokens are had.
    pub(crate) fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// The file with the certificate that the registry is to believe.
    pub(crate) fn bundle(&self) -> &Path {
        &self.bundle
    }

    /// A token that opens `repository` for pull and push, past all rules: for filling the registry.
    pub(crate) fn master(&self, repository: &str) -> String {
        let access = json!([{"type": "repository", "name": repository, "actions": ["pull", "push"]}]);
        self.shared.sign("the harness", &access)
    }

    /// The token that `user` gets for pulling `repository`, as a client asks for it; it may open nothing.
    pub(crate) async fn token(&self, user: Option<User>, repository: &str) -> String {
        let url = format!("{}?service={SERVICE}&scope=repository:{repository}:pull", self.realm());
        let mut request = super::client::http().get(url);
        if let Some(user) = user {
            request = request.basic_auth(user.name, Some(user.password));
        }
        let answer: Value = request.send().await.unwrap().error_for_status().unwrap().json().await.unwrap();
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// How many tokens were issued to `user`.
    pub(crate) fn issued(&self, user: Option<User>) -> usize {
        let name = user.map_or("", |user| user.name);
        self.shared.issued.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    /// Ends it, as an outage does.
    pub(crate) async fn end(&self) {
        self.server.abort();
        super::eventually("the token server's end", async || self.server.is_finished().then_some(())).await;
    }
}

async fn token(
    State(shared): State<Arc<Shared>>,
    Query(wanted): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let Some(user) = shared.who(&headers) else {
        let challenge = [(header::WWW_AUTHENTICATE, format!("Basic realm=\"{ISSUER}\""))];
        return (StatusCode::UNAUTHORIZED, challenge, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#)
            .into_response();
    };
    let scopes = wanted.iter().filter(|(name, _)| name == "scope").flat_map(|(_, scopes)| scopes.split(' '));
    let access: Vec<Value> = scopes.filter_map(|scope| shared.granted(user, scope)).collect();
    let name = user.map_or("", |user| user.name);
    *shared.issued.lock().unwrap().entry(name.to_owned()).or_default() += 1;
    let token = shared.sign(name, &json!(access));
    Json(json!({"token": token, "access_token": token, "expires_in": LIFE_SECONDS})).into_response()
}

// === impl Shared ===

impl Shared {
    /// Who asks: `Some(None)` is nobody in particular, `None` somebody with a wrong name or password.
    fn who(&self, headers: &HeaderMap) -> Option<Option<User>> {
        let Some(said) = headers.get(header::AUTHORIZATION) else { return Some(None) };
        let users = self.rules.iter().filter_map(|rule| rule.user);
        let said_by =
            |user: &User| said.as_bytes() == format!("Basic {}", STANDARD.encode(user.pair())).as_bytes();
        users.into_iter().find(said_by).map(Some)
    }

    /// What `user` gets of the scope `repository:NAME:ACTIONS`.
    fn granted(&self, user: Option<User>, scope: &str) -> Option<Value> {
        let (name, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
        let mine = |rule: &&Rule| rule.user.is_none() || rule.user.map(|u| u.name) == user.map(|u| u.name);
        let allowed = self.rules.iter().filter(mine).any(|rule| name.starts_with(rule.below));
        let pull = actions.split(',').any(|action| action == "pull");
        (allowed && pull).then(|| json!({"type": "repository", "name": name, "actions": ["pull"]}))
    }

    fn sign(&self, subject: &str, access: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [self.certificate]});
        let claims = json!({
            "iss": ISSUER, "sub": subject, "aud": SERVICE, "exp": now + LIFE_SECONDS, "nbf": now - 60, "iat": now,
            "jti": format!("{:016x}", rand::random::<u64>()), "access": access,
        });
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}
