//! What is handed on to an origin as it came, for a client that would have gone there itself: a push, a token's request, the
//! bytes of a tunnel. The guard holds for it as for everything else; nothing is retried and no redirect is followed, for
//! that is the client's to do. Used by the proxy.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{TryStream, TryStreamExt as _};
use http::{HeaderMap, Method};
use reqwest::{Body, Url};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::activity::Activity;
use super::address::{Reach, reach};
use super::client::{NOT_PASSED, OriginClient};
use super::{Answer, Cause, OriginError, label, parse_url, place};

/// A host that is there takes a connection within a second or two.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A registry answers a large upload only when it has stored it: so long after the last byte of the body moved.
const UPLOAD_SILENCE: Duration = Duration::from_secs(10 * 60);

impl OriginClient {
    /// Hands a request on with a body that is read as the origin takes it. Headers of the connection are left behind.
    ///
    /// # Errors
    /// When the guard forbids the host, or there is no answer.
    pub async fn pass<S>(
        &self,
        method: Method,
        url: &str,
        headers: &HeaderMap,
        body: Option<S>,
    ) -> Result<Answer, OriginError>
    where
        S: TryStream + Send + 'static,
        S::Error: Into<Cause>,
        Bytes: From<S::Ok>,
    {
        let url = parse_url(url)?;
        let client = self.client_for(&url)?;
        let patience = if body.is_some() { UPLOAD_SILENCE } else { self.idle() };
        let activity = Activity::default();
        let mut request = reqwest::Request::new(method, url.clone());
        *request.headers_mut() = headers.clone();
        for name in NOT_PASSED.iter().filter(|name| *name != http::header::CONTENT_LENGTH) {
            request.headers_mut().remove(name);
        }
        request.headers_mut().extend(self.via().map(|via| (http::header::VIA, via.clone())));
        let moving = activity.clone();
        *request.body_mut() = body.map(|body| Body::wrap_stream(body.inspect_ok(move |_| moving.note())));
        let unreachable = |source: Cause| OriginError::Unreachable {
            origin: format!("{}://{}", url.scheme(), place(&url)),
            source,
        };
        tokio::select! {
            answer = client.execute(request) => match answer {
                Ok(response) => Ok(Answer::new(response, self.idle())),
                Err(error) => Err(self.refused_or(error, &url, unreachable)),
            },
            () = activity.silence(patience) => Err(unreachable("nothing moved for too long".into())),
        }
    }

    /// A connection to `host:port`, whatever will be spoken on it.
    ///
    /// # Errors
    /// When the guard forbids the host or all its addresses, or none of them answers.
    pub async fn connect(&self, authority: &str) -> Result<TcpStream, OriginError> {
        let url = parse_url(&format!("https://{authority}/"))?;
        let may_be_near = self.permit(&url)?.loopback;
        let unreachable = |source: Cause| OriginError::Unreachable { origin: place(&url), source };
        let found = timeout(CONNECT_TIMEOUT, tokio::net::lookup_host(place(&url))).await;
        let found = found.map_err(|elapsed| unreachable(elapsed.into()))?;
        let all: Vec<SocketAddr> = found.map_err(|error| unreachable(error.into()))?.collect();
        let open = |address: &&SocketAddr| match reach(address.ip()) {
            Reach::Open => true,
            Reach::Loopback => may_be_near,
            Reach::Never => false,
        };
        let mut last: Cause = "it has no address".into();
        let mut refused = !all.is_empty();
        for address in all.iter().filter(open) {
            refused = false;
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error.into(),
                Err(elapsed) => last = elapsed.into(),
            }
        }
        if refused {
            return Err(self.near_or_never(&url, &all));
        }
        Err(unreachable(last))
    }

    /// Why none of a host's addresses may be asked.
    fn near_or_never(&self, url: &Url, all: &[SocketAddr]) -> OriginError {
        let near = all.iter().all(|address| reach(address.ip()) == Reach::Loopback);
        let why = match near {
            true => super::Refusal::Loopback(place(url)),
            false => super::Refusal::Never(format!("what {} resolves to", place(url))),
        };
        OriginError::Forbidden { url: label(url), why }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::io::AsyncReadExt as _;

    use super::super::fake::{Fake, Reply, client};
    use super::*;

    type NoBody = stream::Empty<Result<Bytes, std::io::Error>>;

    #[tokio::test]
    async fn what_is_passed_comes_back_as_the_origin_answers() {
        let origin = Fake::start(|asked| {
            let redirect = Reply::new(307).header("Location", "/elsewhere");
            if asked.path == "/x" {
                redirect
            } else {
                Reply::new(503).header("Retry-After", "1").body("later")
            }
        })
        .await;
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Basic YQ==".parse().unwrap());
        headers.insert("connection", "close".parse().unwrap());
        let client = client();
        let passed = client.pass(Method::DELETE, &origin.url("/x"), &headers, None::<NoBody>).await.unwrap();
        assert_eq!(
            (passed.status.as_u16(), &passed.headers["location"]),
            (307, &"/elsewhere".parse().unwrap())
        );
        let passed = client.pass(Method::GET, &origin.url("/y"), &headers, None::<NoBody>).await.unwrap();
        assert_eq!(passed.status.as_u16(), 503);
        let asked = origin.asked();
        assert_eq!(asked.len(), 2, "neither followed nor retried");
        assert_eq!(
            (asked[0].header("authorization"), asked[0].header("connection")),
            (Some("Basic YQ=="), None)
        );
    }

    #[tokio::test]
    async fn tunnels_are_guarded_like_everything_else() {
        let origin = Fake::start(|_| Reply::new(200)).await;
        let mut stream = client().connect(&origin.address.to_string()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'H');
        for never in ["169.254.169.254:80", "[fe80::1]:443", "0.0.0.0:80", "u@127.0.0.1:1", "x"] {
            assert!(client().connect(never).await.is_err(), "{never}");
        }
        let strict = super::super::fake::client_with(Default::default());
        for near in [origin.address.to_string(), format!("localhost:{}", origin.address.port())] {
            assert!(matches!(strict.connect(&near).await, Err(OriginError::Forbidden { .. })), "{near}");
        }
    }
}
