//! Tests of [`super`]: what arrives, what it costs the origin, and what is made of each misbehaviour.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use common::task::OriginFailure;
use proptest::prelude::*;
use tokio::sync::mpsc;

use super::super::fake::{Fake, Reply, blob, client};
use super::*;

const MIB: usize = 1 << 20;

/// What a fetch brought.
struct Got {
    result: Result<(), OriginError>,
    meta: Option<(Geometry, Option<String>)>,
    pieces: BTreeMap<u32, Vec<u8>>,
}

fn wanted(origin: &Fake) -> Fetch {
    let source = Source { url: origin.url("/b?sig=secret"), digest: None, tag: String::new(), accept: None };
    Fetch { source, credentials: Credentials::none(), have: None, parallel: DEFAULT_PARALLEL, hashed: true }
}

async fn run_with(client: OriginClient, wanted: Fetch) -> Got {
    let (sender, mut events) = mpsc::channel(2);
    let fetching = tokio::spawn(fetch(client, wanted, sender));
    let (mut meta, mut pieces) = (None, BTreeMap::new());
    while let Some(event) = events.recv().await {
        match event {
            OriginEvent::Meta { geometry, content_type } => {
                assert!(meta.is_none() && pieces.is_empty(), "the length is told once, and first");
                meta = Some((geometry, content_type));
            }
            OriginEvent::Piece { index, chunks, digest } => {
                let bytes = chunks.concat();
                assert_eq!(digest, Some(Digest::of(&bytes)));
                assert!(pieces.insert(index.0, bytes).is_none(), "a piece came twice");
            }
        }
    }
    Got { result: fetching.await.unwrap(), meta, pieces }
}

async fn run(wanted: Fetch) -> Got {
    run_with(client(), wanted).await
}

impl Got {
    /// Everything arrived, but for what was had.
    fn assert_is(&self, blob: &Bytes, have: &[u32]) {
        self.result.as_ref().unwrap();
        let (geometry, _) = self.meta.as_ref().unwrap();
        assert_eq!(geometry.length(), blob.len() as u64);
        for index in 0..geometry.pieces() {
            let range = geometry.range(PieceIndex(index));
            let expected = &blob[range.start as usize..range.end as usize];
            let came = self.pieces.get(&index).map(Vec::as_slice);
            assert!(came == (!have.contains(&index)).then_some(expected), "piece {index}");
        }
    }
}

#[tokio::test]
async fn an_undisturbed_fetch_takes_each_byte_once() {
    for length in [1, 300_000, 4 * MIB, 4 * MIB + 1, 20 * MIB + 7, 40 * MIB] {
        let bytes = blob(length);
        let served = bytes.clone();
        let origin =
            Fake::start(move |asked| Reply::serve(&served, asked).header("Content-Type", "text/x")).await;
        let got = run(wanted(&origin)).await;
        got.assert_is(&bytes, &[]);
        assert_eq!(got.meta.as_ref().unwrap().1.as_deref(), Some("text/x"));
        assert_eq!(origin.sent(), length as u64);
        assert!(origin.connections() <= DEFAULT_PARALLEL as u64);
    }
}

#[tokio::test]
async fn several_ranges_are_read_side_by_side() {
    let bytes = blob(20 * MIB);
    let together = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let (served, waiting) = (bytes.clone(), together.clone());
    // The first answer stays open until three other ranges were asked for.
    let origin = Fake::start(move |asked| {
        waiting.add_permits(1);
        Reply::serve(&served, asked)
    })
    .await;
    let (sender, mut events) = mpsc::channel(1);
    let fetching = tokio::spawn(fetch(client(), wanted(&origin), sender));
    // Nobody reads yet: all four requests come although no segment can end.
    together.acquire_many(4).await.unwrap().forget();
    assert!(origin.asked().len() >= 4);
    while events.recv().await.is_some() {}
    fetching.await.unwrap().unwrap();
    assert_eq!(origin.sent(), bytes.len() as u64);
}

#[tokio::test]
async fn an_origin_without_ranges_is_read_in_one_stream() {
    let bytes = blob(9 * MIB);
    let served = bytes.clone();
    let origin = Fake::start(move |_| Reply::whole(&served)).await;
    run(wanted(&origin)).await.assert_is(&bytes, &[]);
    assert_eq!((origin.sent(), origin.asked().len()), (bytes.len() as u64, 1));
}

#[tokio::test]
async fn pieces_that_are_had_are_not_fetched() {
    let bytes = blob(3 * MIB);
    let geometry = Geometry::of(bytes.len() as u64).unwrap();
    let held = [0, 1, 5, 11];
    let mut set = PieceSet::new(geometry.pieces());
    held.iter().for_each(|index| assert!(set.insert(PieceIndex(*index))));
    for ranges in [true, false] {
        let served = bytes.clone();
        let origin = Fake::start(
            move |asked| if ranges { Reply::serve(&served, asked) } else { Reply::whole(&served) },
        )
        .await;
        let had = Fetch { have: Some((geometry, set.clone())), ..wanted(&origin) };
        run(had).await.assert_is(&bytes, &held);
        assert!(!ranges || origin.sent() == (bytes.len() - held.len() * 256 * 1024) as u64);
        let all = Fetch { have: Some((geometry, PieceSet::full(geometry.pieces()))), ..wanted(&origin) };
        let before = origin.asked().len();
        assert!(run(all).await.meta.is_some());
        assert_eq!(origin.asked().len(), before, "nothing is missing, so nothing is asked");
    }
}

#[tokio::test]
async fn empty_content_is_an_empty_task() {
    let empty = Bytes::new();
    let plain = Fake::start(move |asked| Reply::serve(&empty, asked)).await;
    let honest = Fake::start(|_| Reply::new(416).header("Content-Range", "bytes */0")).await;
    // As docker-registry 2.8: the whole blob's length, then no body.
    let lying = Fake::start(|asked| match asked.range() {
        Some(_) => Reply::new(416).length(Some(77)).cut(0),
        None => Reply::new(200),
    })
    .await;
    for origin in [plain, honest, lying] {
        let got = run(wanted(&origin)).await;
        got.assert_is(&Bytes::new(), &[]);
        assert!(got.pieces.is_empty());
    }
}

#[tokio::test]
async fn an_origin_that_dislikes_the_first_range_is_asked_without() {
    let bytes = blob(MIB);
    let served = bytes.clone();
    let origin = Fake::start(move |asked| match asked.range() {
        Some((_, end)) if end > served.len() => Reply::new(416),
        _ => Reply::whole(&served),
    })
    .await;
    run(wanted(&origin)).await.assert_is(&bytes, &[]);
    assert_eq!(origin.sent(), bytes.len() as u64);
}

#[tokio::test]
async fn a_cut_answer_is_resumed_at_the_exact_byte() {
    let bytes = blob(2 * MIB);
    let served = bytes.clone();
    let origin = Fake::start(move |asked| {
        let reply = Reply::serve(&served, asked).header("ETag", "\"one\"");
        if asked.number == 0 { reply.cut(300_001) } else { reply }
    })
    .await;
    run(wanted(&origin)).await.assert_is(&bytes, &[]);
    assert_eq!(origin.sent(), bytes.len() as u64);
    let resumed = &origin.asked()[1];
    assert_eq!(resumed.range().unwrap().0, 300_001);
    assert_eq!(resumed.header("if-range"), Some("\"one\""));
}

#[tokio::test]
async fn a_silent_origin_is_a_cut() {
    let bytes = blob(MIB);
    let served = bytes.clone();
    let origin = Fake::start(move |asked| {
        let reply = Reply::serve(&served, asked);
        if asked.number == 0 { reply.silent(70_000) } else { reply }
    })
    .await;
    let client = client().with_idle_timeout(Duration::from_millis(300));
    run_with(client, wanted(&origin)).await.assert_is(&bytes, &[]);
    assert_eq!(origin.sent(), bytes.len() as u64);
}

#[tokio::test]
async fn fewer_bytes_than_asked_are_taken_and_the_rest_asked_again() {
    let bytes = blob(5 * MIB);
    let served = bytes.clone();
    let origin = Fake::start(move |asked| {
        let (start, end) = asked.range().unwrap();
        let end = end.min(start + 900_000).min(served.len());
        let range = format!("bytes {start}-{}/{}", end - 1, served.len());
        Reply::new(206).header("Content-Range", &range).body(served.slice(start..end))
    })
    .await;
    run(wanted(&origin)).await.assert_is(&bytes, &[]);
    assert_eq!(origin.sent(), bytes.len() as u64);
}

/// Fetches from an origin that answers the first request well and the others as `later` says.
async fn fails_later(later: impl Fn(Reply) -> Reply + Send + Sync + 'static, digest: bool) -> Got {
    let bytes = blob(12 * MIB);
    let whole = Digest::of(&bytes);
    let origin = Fake::start(move |asked| {
        let reply = Reply::serve(&bytes, asked);
        if asked.number == 0 { reply.header("ETag", "\"one\"") } else { later(reply) }
    })
    .await;
    let mut wanted = wanted(&origin);
    wanted.source.digest = digest.then_some(whole);
    run(wanted).await
}

#[tokio::test]
async fn changed_content_is_told() {
    let wrong =
        |range: &'static str| move |_: Reply| Reply::new(206).header("Content-Range", range).body("x");
    for got in [
        fails_later(|reply| reply.header("ETag", "\"two\""), false).await,
        fails_later(wrong("bytes 1-1/12582912"), false).await,
        fails_later(wrong("bytes 4194304-4194304/9"), false).await,
        fails_later(|_| Reply::new(206).body("x"), false).await,
        fails_later(|_| Reply::new(416), false).await,
    ] {
        let error = got.result.unwrap_err();
        assert!(matches!(error, OriginError::Changed { .. }), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    // Another ETag does not matter where the digest decides, and a weak one promises nothing.
    fails_later(|reply| reply.header("ETag", "\"two\""), true).await.result.unwrap();
    fails_later(|reply| reply.header("ETag", "W/\"two\""), false).await.result.unwrap();
}

#[tokio::test]
async fn another_length_than_the_known_one_is_a_change() {
    let bytes = blob(MIB);
    let origin = Fake::start(move |asked| Reply::serve(&bytes, asked)).await;
    let geometry = Geometry::of(2 * MIB as u64).unwrap();
    let have = Some((geometry, PieceSet::new(geometry.pieces())));
    let got = run(Fetch { have, ..wanted(&origin) }).await;
    assert!(matches!(got.result, Err(OriginError::Changed { .. })) && got.meta.is_none());
}

#[tokio::test]
async fn a_refusal_is_handed_on_as_it_came() {
    let refuse = || Reply::new(401).header("WWW-Authenticate", "Bearer realm=\"r\"").body("{\"errors\":[]}");
    let expected = OriginFailure {
        status: 401,
        headers: vec![("www-authenticate".into(), "Bearer realm=\"r\"".into())],
        body: b"{\"errors\":[]}".to_vec(),
    };
    let origin = Fake::start(move |_| refuse()).await;
    for got in [run(wanted(&origin)).await, fails_later(move |_| refuse(), false).await] {
        match got.result {
            Err(OriginError::Answer(failure)) => assert_eq!(failure, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn content_without_a_length_or_beyond_all_size_is_refused() {
    let endless = Fake::start(|_| Reply::new(200).body("x").length(None)).await;
    let error = run(wanted(&endless)).await.result.unwrap_err();
    assert!(matches!(error, OriginError::NoLength { .. }), "{error}");
    let unknown = Fake::start(|_| Reply::new(206).header("Content-Range", "bytes 0-0/*").body("x")).await;
    let error = run(wanted(&unknown)).await.result.unwrap_err();
    assert!(matches!(error, OriginError::NoLength { .. }), "{error}");
    let huge = format!("bytes 0-0/{}", MAX_TASK_LENGTH + 1);
    let huge = Fake::start(move |_| Reply::new(206).header("Content-Range", &huge).body("x")).await;
    let error = run(wanted(&huge)).await.result.unwrap_err();
    assert!(matches!(error, OriginError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn an_origin_that_never_delivers_is_given_up() {
    let bytes = blob(MIB);
    let origin = Fake::start(move |asked| Reply::serve(&bytes, asked).cut(0)).await;
    let got = run(wanted(&origin)).await;
    assert!(matches!(got.result, Err(OriginError::Truncated { .. })));
    assert!(got.meta.is_some() && got.pieces.is_empty());
    // It had begun to answer, so it is waited for longer than one that never did.
    assert_eq!(origin.asked().len(), 9);
}

#[tokio::test]
async fn dropping_the_receiver_ends_the_fetch() {
    let bytes = blob(MIB);
    let origin = Fake::start(move |asked| Reply::serve(&bytes, asked).silent(10)).await;
    let (sender, mut events) = mpsc::channel(1);
    let fetching = tokio::spawn(fetch(client(), wanted(&origin), sender));
    assert!(matches!(events.recv().await, Some(OriginEvent::Meta { .. })));
    drop(events);
    tokio::time::timeout(Duration::from_secs(20), fetching).await.unwrap().unwrap().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_the_cuts_the_pieces_are_right(
        length in 1usize..(6 * MIB), cuts in prop::collection::vec(1usize..(2 * MIB), 0..12), ranges: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let bytes = blob(length);
            let (served, cuts) = (bytes.clone(), Mutex::new(cuts));
            let origin = Fake::start(move |asked| {
                let reply = if ranges { Reply::serve(&served, asked) } else { Reply::whole(&served) };
                match cuts.lock().unwrap().pop() {
                    Some(cut) => reply.cut(cut),
                    None => reply,
                }
            })
            .await;
            // Without ranges a cut before the last one brings nothing new: patience for all of them.
            let patient = client().with_retry(crate::origin::RetryPolicy { attempts: 20, base: Duration::from_millis(1), ..crate::origin::RetryPolicy::default() });
            run_with(patient, wanted(&origin)).await.assert_is(&bytes, &[]);
            assert!(!ranges || origin.sent() == length as u64);
        });
    }
}
