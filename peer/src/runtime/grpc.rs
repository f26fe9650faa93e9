//! One gRPC call over a Unix socket: a connection, a question, an answer. That much of gRPC is a page over HTTP/2; tonic brings
//! a server, balancers and buffers beside it, and the published bindings of CRI want a `protoc` at build time. `talk` calls it.
//!
//! # Invariants
//! - Nothing is spawned: whoever awaits the call drives its connection, and ends it by dropping it.
//! - No answer is kept beyond its largest size.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use prost::Message;
use tokio::net::UnixStream;

/// The largest answer. An image's status is its names: a few hundred bytes each.
const LARGEST: usize = 1 << 20;
/// The most that an answer's headers take. A refusal's text comes in one of them.
const HEADERS: u32 = 64 << 10;
/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// gRPC writes a time with at most eight digits.
const MOST_DIGITS: u128 = 99_999_999;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The socket cannot be connected to.
    Connect(io::Error),
    /// The connection broke, or what came is no gRPC.
    Broke(String),
    /// The answer is no.
    Status {
        /// gRPC's code for it.
        code: u32,
        /// In its words.
        said: String,
    },
}

/// Puts a question to `method` (`/SERVICE/METHOD`) of who listens at `socket`, and says that an answer is of use within `time`.
pub(super) async fn unary<Q, A>(
    socket: &Path,
    method: &str,
    question: &Q,
    time: Duration,
) -> Result<A, Trouble>
where
    Q: Message,
    A: Message + Default,
{
    let stream = UnixStream::connect(socket).await.map_err(Trouble::Connect)?;
    let mut http2 = h2::client::Builder::new();
    let (requests, connection) =
        http2.enable_push(false).max_header_list_size(HEADERS).handshake(stream).await?;
    let mut exchange = pin!(exchange(requests, request(method, time), framed(question)));
    let answer = tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // What had come before the connection ended is there to be read.
        _ = connection => exchange.await,
    }?;
    A::decode(answer).map_err(|error| Trouble::Broke(format!("an answer that cannot be read: {error}")))
}

async fn exchange(
    requests: SendRequest<Bytes>,
    request: Request<()>,
    question: Bytes,
) -> Result<Bytes, Trouble> {
    let (answer, mut sending) = requests.ready().await?.send_request(request, false)?;
    sending.send_data(question, true)?;
    let (head, mut body) = answer.await?.into_parts();
    if head.status != StatusCode::OK {
        return Err(Trouble::Broke(format!("it answered HTTP {}", head.status.as_u16())));
    }
    // Who has no body to send says it with the headers.
    let early = status(&head.headers);
    if let Some(Err(refusal)) = early {
        return Err(refusal);
    }
    let mut answer = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        if answer.len() + part.len() > PREFIX + LARGEST {
            return Err(Trouble::Broke(format!("an answer of more than {LARGEST} bytes")));
        }
        answer.extend_from_slice(&part);
        body.flow_control().release_capacity(part.len())?;
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    let ended = status(&trailers).or(early);
    ended.unwrap_or_else(|| Err(Trouble::Broke("an answer without its status".to_owned())))?;
    message(answer.freeze())
}

fn request(method: &str, time: Duration) -> Request<()> {
    Request::post(format!("http://localhost{method}"))
        .version(http::Version::HTTP_2)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, concat!("longshore/", env!("CARGO_PKG_VERSION")))
        .header("grpc-timeout", timeout(time))
        .body(())
        .expect("invariant: methods are written here, and a time is digits")
}

fn timeout(time: Duration) -> String {
    match time.as_millis() {
        milliseconds @ ..=MOST_DIGITS => format!("{milliseconds}m"),
        _ => format!("{}S", u128::from(time.as_secs()).min(MOST_DIGITS)),
    }
}

fn framed(question: &impl Message) -> Bytes {
    let length = question.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("invariant: a question is an image's name and a login"));
    question.encode(&mut frame).expect("invariant: a growing buffer has room");
    frame.freeze()
}

/// The one message of an answer.
fn message(mut frames: Bytes) -> Result<Bytes, Trouble> {
    let broke = |what: &str| Err(Trouble::Broke(what.to_owned()));
    if frames.len() < PREFIX {
        return broke("an answer without a message");
    }
    let prefix = frames.split_to(PREFIX);
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    match prefix[0] {
        0 if usize::try_from(length) == Ok(frames.len()) => Ok(frames),
        0 => broke("an answer of another length than it says"),
        _ => broke("a compressed answer, which nobody asked for"),
    }
}

/// How the call went, if these headers say it.
fn status(headers: &HeaderMap) -> Option<Result<(), Trouble>> {
    let code = headers.get("grpc-status")?;
    let said = headers.get("grpc-message").map_or_else(String::new, |said| unescaped(said.as_bytes()));
    Some(match code.to_str().ok().and_then(|code| code.parse().ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(Trouble::Status { code, said }),
        None => Err(Trouble::Broke("a status that is no number".to_owned())),
    })
}

/// gRPC writes `%XX` for what is no visible ASCII.
fn unescaped(text: &[u8]) -> String {
    let (mut plain, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((&byte, more)) = rest.split_first() {
        let digits = more.get(..2).filter(|_| byte == b'%');
        let escaped =
            digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        plain.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &more[2..] } else { more };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

// === impl Trouble ===

impl From<h2::Error> for Trouble {
    fn from(error: h2::Error) -> Self {
        Self::Broke(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_has_at_most_eight_digits() {
        for (time, written) in [
            (Duration::ZERO, "0m"),
            (Duration::from_millis(1500), "1500m"),
            (Duration::from_secs(99_999), "99999000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::MAX, "99999999S"),
        ] {
            assert_eq!(timeout(time), written);
        }
    }

    #[test]
    fn an_answer_is_one_whole_plain_message() {
        let read = |frames: &'static [u8]| message(Bytes::from_static(frames)).ok();
        assert_eq!(read(b"\0\0\0\0\x02ab").as_deref(), Some(&b"ab"[..]));
        assert_eq!(read(b"\0\0\0\0\0").as_deref(), Some(&b""[..]));
        for frames in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x02a", b"\0\0\0\0\x02abc", b"\x01\0\0\0\x02ab"] {
            assert_eq!(read(frames), None, "{frames:?}");
        }
    }

    #[test]
    fn escapes_are_read_and_what_is_none_stays() {
        for (text, plain) in
            [("a%20b%C3%A4", "a bä"), ("100%", "100%"), ("%4", "%4"), ("%zz%41", "%zzA"), ("", "")]
        {
            assert_eq!(unescaped(text.as_bytes()), plain);
        }
    }

    proptest! {
        #[test]
        fn what_was_escaped_is_read_again(text in "\\PC{0,40}") {
            let escaped: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(unescaped(escaped.as_bytes()), text);
        }

        #[test]
        fn any_frame_is_read_or_refused(frames in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(message) = message(Bytes::from(frames.clone())) {
                prop_assert_eq!(message.len() + PREFIX, frames.len());
            }
        }
    }
}
