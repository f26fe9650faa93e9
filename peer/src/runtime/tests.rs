//! A runtime that answers by the book, and others that do not. The real one is in `tests/e2e/runtime_pull.rs`.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use prost::Message as _;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::talk::{AskPull, AskStatus, AuthConfig, Image, ImageSpec, Pulled, Status};
use super::*;

const IMAGE: &str = "registry.test/team/app:1";
const A_WHILE: Duration = Duration::from_secs(3600);

/// A socket in a folder of its own, and who listens there.
struct Stand {
    home: TempDir,
    serving: Option<JoinHandle<()>>,
}

/// What a stand-in answers: the parts of its body, and its last headers.
#[derive(Clone, Default)]
struct Answer {
    parts: Vec<Bytes>,
    trailers: &'static [(&'static str, &'static str)],
}

// === impl Stand ===

impl Stand {
    fn empty() -> Self {
        Self { home: tempfile::tempdir().unwrap(), serving: None }
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("cri.sock")
    }

    fn runtime(&self) -> Runtime {
        Runtime::new(self.socket())
    }

    /// A server that has each connection served by `serve`.
    fn listening<F>(serve: impl Fn(UnixStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut stand = Self::empty();
        let listener = UnixListener::bind(stand.socket()).unwrap();
        stand.serving = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream).await;
            }
        }));
        stand
    }

    /// A gRPC server whose answers are what `answer` makes of a method and its message.
    fn answering(answer: impl Fn(&str, Bytes) -> Answer + Clone + Send + Sync + 'static) -> Self {
        Self::listening(move |stream| {
            let answer = answer.clone();
            async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    let answer = answer.clone();
                    tokio::spawn(async move { reply(request, respond, answer).await });
                }
            }
        })
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

async fn reply(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    answer: impl Fn(&str, Bytes) -> Answer,
) {
    let headers = request.headers();
    assert_eq!(
        (&headers["content-type"], &headers["te"]),
        (&"application/grpc".parse().unwrap(), &"trailers".parse().unwrap())
    );
    let method = request.uri().path().to_owned();
    let mut body = request.into_body();
    let mut message = BytesMut::new();
    while let Some(Ok(part)) = body.data().await {
        message.extend_from_slice(&part);
    }
    let Answer { parts, trailers } = answer(&method, message.freeze().slice(5..));
    let mut last = HeaderMap::new();
    for (name, value) in trailers {
        last.insert(*name, value.parse().unwrap());
    }
    let mut head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    if parts.is_empty() {
        head.headers_mut().extend(last);
        respond.send_response(head, true).unwrap();
        return;
    }
    let mut body = respond.send_response(head, false).unwrap();
    for part in parts {
        body.send_data(part, false).unwrap();
    }
    body.send_trailers(last).unwrap();
}

/// A good answer.
fn good(message: &impl prost::Message) -> Answer {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut frame).unwrap();
    Answer { parts: vec![frame.freeze()], trailers: &[("grpc-status", "0")] }
}

fn bad(trailers: &'static [(&'static str, &'static str)]) -> Answer {
    Answer { parts: Vec::new(), trailers }
}

fn there() -> Answer {
    good(&Status { image: Some(Image { id: "sha256:1".into(), size: 7 }) })
}

async fn has_of(answer: Answer) -> Result<Option<Ready>, RuntimeError> {
    Stand::answering(move |_, _| answer.clone()).runtime().has(IMAGE).await
}

/// The error says `words`, names the socket, is one line, and is worth another try or not.
fn says(error: &RuntimeError, words: &[&str], again: bool) {
    let text = error.to_string();
    for word in words.iter().chain(&["cri.sock"]) {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
    assert!(!text.contains('\n') && text.len() < 1500, "{text:?}");
    assert_eq!(error.is_worth_another_try(), again, "{text}");
}

#[tokio::test]
async fn a_status_and_a_pull_are_asked_for_by_the_book() {
    let spec = Some(ImageSpec { image: IMAGE.into() });
    let login = Login::Password { user: "ann".into(), password: "s3cret".into() };
    let auth = AuthConfig { username: "ann".into(), password: "s3cret".into(), ..AuthConfig::default() };
    let (asked, wanted) = (AskStatus { image: spec.clone() }, AskPull { image: spec, auth: Some(auth) });
    let stand = Stand::answering(move |method, message| match method {
        "/runtime.v1.ImageService/ImageStatus" => {
            assert_eq!(AskStatus::decode(message).unwrap(), asked);
            there()
        }
        "/runtime.v1.ImageService/PullImage" => {
            assert_eq!(AskPull::decode(message).unwrap(), wanted);
            good(&Pulled {})
        }
        other => panic!("nobody should ask {other}"),
    });
    let ready = Ready { id: "sha256:1".into(), size: ByteSize(7) };
    let runtime = stand.runtime();
    assert_eq!(runtime.has(IMAGE).await.unwrap(), Some(ready.clone()));
    assert_eq!(runtime.pull(IMAGE, Some(&login), A_WHILE).await.unwrap(), ready);
    // one connection after another, on the same runtime
    assert_eq!(runtime.has(IMAGE).await.unwrap(), Some(ready));
}

#[tokio::test]
async fn an_image_that_is_not_there_is_none_and_after_a_pull_it_is_gone() {
    assert_eq!(has_of(good(&Status { image: None })).await.unwrap(), None);
    let stand = Stand::answering(|_, _| good(&Status { image: None }));
    let error = stand.runtime().pull(IMAGE, None, A_WHILE).await.unwrap_err();
    says(&error, &["has it no more", IMAGE], true);
}

#[tokio::test]
async fn a_refusal_is_told_in_the_runtimes_words_without_the_login() {
    let stand = Stand::answering(|_, _| {
        bad(&[
            ("grpc-status", "2"),
            ("grpc-message", "401 Unauthorized for s3cret at https://ann:s3cret@q/v2/?k=s3cret%0Aforged"),
        ])
    });
    let login = Login::IdentityToken("s3cret".into());
    let error = stand.runtime().pull(IMAGE, Some(&login), A_WHILE).await.unwrap_err();
    says(&error, &[IMAGE, "401 Unauthorized for [redacted] at https://", "give a login"], false);
    assert!(!error.to_string().contains("s3cret") && !format!("{error:?}{login:?}").contains("s3cret"));
}

#[tokio::test]
async fn each_code_has_its_own_way_out() {
    let error = |answer| async move { has_of(answer).await.unwrap_err() };
    let unknown = bad(&[("grpc-status", "12"), ("grpc-message", "unknown service runtime.v1.ImageService")]);
    says(
        &error(unknown).await,
        &["no CRI v1", "unknown service", "disabled_plugins", "--runtime-socket"],
        false,
    );
    says(&error(bad(&[("grpc-status", "5"), ("grpc-message", "x")])).await, &["its tag", IMAGE], false);
    says(&error(bad(&[("grpc-status", "14")])).await, &["no reason", "in a while"], true);
    says(&error(bad(&[("grpc-status", "4")])).await, &["not done", "30s"], true);
}

#[tokio::test]
async fn what_is_no_answer_is_no_answer() {
    const FINE: &[(&str, &str)] = &[("grpc-status", "0")];
    let of = |parts: Vec<Bytes>, trailers| Answer { parts, trailers };
    let large = vec![Bytes::from(vec![0; 64 << 10]); 20];
    let unnamed = good(&Status { image: Some(Image { id: String::new(), size: 7 }) });
    for (answer, word) in [
        (of(vec![], &[]), "without its status"),
        (of(vec![], FINE), "without a message"),
        (of(vec![Bytes::from_static(b"\0\0\0\0\x09short")], FINE), "another length"),
        (of(vec![Bytes::from_static(b"\x01\0\0\0\x01x")], FINE), "compressed"),
        (of(vec![Bytes::from_static(b"\0\0\0\0\x01\xff")], FINE), "cannot be read"),
        (of(there().parts, &[("grpc-status", "zero")]), "no number"),
        (of(there().parts, &[]), "without its status"),
        (of(large, FINE), "more than 1048576 bytes"),
        (unnamed, "without a name"),
    ] {
        says(&has_of(answer).await.unwrap_err(), &["broke off", word, IMAGE], true);
    }
}

#[tokio::test]
async fn who_hangs_up_or_speaks_something_else_has_broken_off() {
    let deaf = Stand::listening(|stream| async move { drop(stream) });
    says(&deaf.runtime().has(IMAGE).await.unwrap_err(), &["broke off", IMAGE], true);
    let other = Stand::listening(|stream| async move {
        let mut stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    says(&other.runtime().has(IMAGE).await.unwrap_err(), &["broke off", IMAGE], true);
}

#[tokio::test]
async fn a_socket_that_cannot_be_used_is_named_with_the_way_out() {
    let stand = Stand::empty();
    let flag = "--runtime-socket";
    says(&stand.runtime().has(IMAGE).await.unwrap_err(), &["there is no socket", flag], true);
    std::fs::write(stand.socket(), "").unwrap();
    says(&stand.runtime().has(IMAGE).await.unwrap_err(), &["is no socket", flag], false);
    std::fs::remove_file(stand.socket()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(stand.socket()).unwrap());
    says(&stand.runtime().has(IMAGE).await.unwrap_err(), &["nobody listens", flag], true);
    let deep = stand.home.path().join("x".repeat(200)).join("cri.sock");
    says(&Runtime::new(deep).has(IMAGE).await.unwrap_err(), &["cannot connect", flag], true);
    if !rustix::process::geteuid().is_root() {
        std::fs::set_permissions(stand.socket(), std::fs::Permissions::from_mode(0o0)).unwrap();
        says(&stand.runtime().has(IMAGE).await.unwrap_err(), &["may not use", flag], false);
    }
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_never_answers_runs_out_of_time() {
    let stand = Stand::empty();
    // Nobody accepts: the system does, and then nothing comes.
    let _listener = UnixListener::bind(stand.socket()).unwrap();
    says(&stand.runtime().has(IMAGE).await.unwrap_err(), &["not done", IMAGE, "30s"], true);
    let error = stand.runtime().pull(IMAGE, None, Duration::from_secs(90)).await.unwrap_err();
    says(&error, &["not done", IMAGE, "90s"], true);
}

#[tokio::test]
async fn dropping_a_pull_ends_its_connection() {
    let (ended, mut end) = tokio::sync::mpsc::channel(1);
    let (begun, mut begin) = tokio::sync::mpsc::channel(1);
    let stand = Stand::listening(move |stream| {
        let (begun, ended) = (begun.clone(), ended.clone());
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let request = connection.accept().await.unwrap().unwrap();
            begun.send(()).await.unwrap();
            // nothing more comes but the end
            assert!(!matches!(connection.accept().await, Some(Ok(_))));
            drop(request);
            ended.send(()).await.unwrap();
        }
    });
    let runtime = stand.runtime();
    tokio::select! {
        done = runtime.pull(IMAGE, None, A_WHILE) => panic!("nobody answers, and it is {done:?}"),
        _ = begin.recv() => {}
    }
    tokio::time::timeout(Duration::from_secs(60), end.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_name_that_can_be_none_is_asked_of_nobody() {
    let stand = Stand::empty();
    for name in ["", "a b", "a\nb", "ä", &"a".repeat(LONGEST_NAME + 1)] {
        let error = stand.runtime().has(name).await.unwrap_err();
        assert!(matches!(error, RuntimeError::Name) && !error.is_worth_another_try(), "{error}");
    }
}
