//! What a member, and a stranger, can do to a supernode and to a peer. Each attack says what came of it, and fails where it
//! was not stopped.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::digest::Digest;
use common::identity::{self, Identity, JoinToken, Seal};
use common::node::Labels;
use common::piece::{Geometry, MAX_TASK_LENGTH, PieceIndex};
use common::task::{Credentials, Source, TaskId};
use common::transport;
use common::wire::codec::{self, FrameReader};
use common::wire::enrol;
use common::wire::exchange::{Link, Opening, PieceReply, Refusal};
use common::wire::hello::{self, Hello};
use common::wire::inquiry::{Inquired, Inquiry};
use common::wire::swarm::{Failure, Fault, Join, MAX_DIGESTS, MAX_ENTRIES, Testimony, ToSupernode};
use quinn::{Connection, SendStream};
use tokio::task::JoinSet;

use super::villain::{Target, Told, bare, bare_at, dial, greet, say, write};
use super::{Field, LOOK};
use crate::support::{LIMIT, eventually};

/// Tasks that a supernode believes of one peer that it holds.
const MAX_HELD: u64 = 16_384;
/// More than a supernode has places for strangers.
const CROWD: usize = 1_100;
/// How soon somebody without a place tries again: all of them together are to leave this machine some time for others.
const PRESS: Duration = Duration::from_secs(1);
/// A task of 2^60 bytes, as the wire would write its length.
const ABSURD: u64 = 1 << 60;

fn task(number: usize) -> TaskId {
    TaskId::of_digest(Digest::of(&number.to_le_bytes()))
}

fn join(url: String, number: usize) -> ToSupernode {
    let source = Source::of_digest(url, Digest::of(&number.to_le_bytes()));
    ToSupernode::Join(Join { source, credentials: Credentials::none(), held: 0 })
}

fn geometry() -> Geometry {
    Geometry::of(100 << 20).unwrap()
}

/// Ten thousand joins of blobs at an origin that never answers, half of them with hundreds of headers; then some with words of half a mebibyte.
pub(super) async fn joins(field: Arc<Field>) -> String {
    let villain = field.villain().await;
    let (_connection, mut send, mut told) = villain.session(&field.supernode).await;
    for number in 0..10_000 {
        let mut message = join(format!("http://{}/{number}", field.hung), number);
        if let ToSupernode::Join(join) = &mut message
            && number % 2 == 0
        {
            // Few letters, and much to keep.
            (0..400).for_each(|header| join.credentials.add(&format!("x{header}"), ""));
        }
        assert!(say(&mut send, &message).await);
    }
    for number in 10_000..10_100 {
        let url = format!("http://{}/{}", field.hung, "x".repeat(500 * 1024));
        assert!(say(&mut send, &join(url, number)).await);
    }
    let refused = |told: &Told| told.get("refused").copied().unwrap_or_default();
    // Its goodbye would cut off what it was not told yet.
    told.until(|told| refused(told) >= 100).await;
    let _ = send.finish();
    let told = told.end().await;
    assert_eq!(refused(&told), 100, "words without end: {told:?}");
    // Whether it is told to wait or that these are too many depends on how fast it is.
    let turned_away = ["busy", "failed"].into_iter().filter_map(|kind| told.get(kind)).sum::<usize>();
    assert!(turned_away > 8_000, "{told:?}");
    format!("10100 joins: {told:?}")
}

/// Streams that begin and do not go on, by the thousand, to both.
pub(super) async fn abandoned(field: Arc<Field>) -> String {
    let villain = field.villain().await;
    for target in [&field.supernode, &field.peer] {
        let connection = villain.meet(target).await;
        for number in 0..5_000_usize {
            let (mut send, mut receive) = connection.open_bi().await.unwrap();
            write(&mut send, &[9, 0, 0][..number % 4]).await;
            if number % 2 == 0 {
                let _ = send.reset(7_u32.into());
            }
            let _ = receive.stop(7_u32.into());
        }
    }
    "10000 streams".to_owned()
}

/// A byte now and then: on sessions, on links of a task that is there, on as many streams as are allowed.
pub(super) async fn drips(field: Arc<Field>) -> String {
    let villain = field.villain().await;
    let (session, mut send, told) = villain.session(&field.supernode).await;
    let holdings = ToSupernode::Holdings(vec![(task(0), geometry()); MAX_ENTRIES]);
    let half = codec::encode(&holdings).unwrap();
    write(&mut send, &half[..half.len() / 2]).await;
    let neighbour = villain.meet(&field.peer).await;
    let mut streams = Vec::new();
    for _ in 0..40 {
        let (mut send, receive) = neighbour.open_bi().await.unwrap();
        let opening = codec::encode(&Opening::Link { task: field.task, geometry: field.geometry }).unwrap();
        // Half of them say what they want and begin a word; the others do not get that far.
        let whole = if streams.len() % 2 == 0 { opening.len() } else { 5 };
        write(&mut send, &opening[..whole]).await;
        write(&mut send, &40_000_u32.to_le_bytes()).await;
        streams.push((send, receive));
    }
    let mut bytes = 0;
    while session.close_reason().is_none() {
        write(&mut send, &[0]).await;
        for (send, _) in &mut streams {
            let _ = send.write_all(&[0]).await;
        }
        bytes += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mut ended = 0;
    for (send, _) in streams {
        ended += usize::from(is_let_go(send).await);
    }
    told.end().await;
    assert_eq!(ended, 40);
    format!("a session and {ended} streams ended after {bytes} bytes")
}

/// Whether the other side lets go of a stream in the end: said to, and not heard.
async fn is_let_go(mut send: SendStream) -> bool {
    let saying = async {
        while send.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(LIMIT, saying).await.is_ok()
}

/// Lengths beyond what there can be, and beyond what there is.
pub(super) async fn giants(field: Arc<Field>) -> String {
    let villain = field.villain().await;
    let largest = Geometry::of(MAX_TASK_LENGTH).unwrap();
    let patched = |frame: Vec<u8>| {
        let (from, to) = (MAX_TASK_LENGTH.to_le_bytes(), ABSURD.to_le_bytes());
        let at = frame.windows(8).position(|window| window == from).expect("the length is in it");
        [&frame[..at], &to, &frame[at + 8..]].concat()
    };
    let (connection, mut send, told) = villain.session(&field.supernode).await;
    let holdings = ToSupernode::Holdings(vec![(task(1), largest)]);
    write(&mut send, &patched(codec::encode(&holdings).unwrap())).await;
    told.end().await;
    connection.closed().await;

    let (_connection, mut send, told) = villain.session(&field.supernode).await;
    for number in 20_000..20_050 {
        say(&mut send, &join(format!("http://{}/giant/{number}", field.hung), number)).await;
    }
    let known = [field.task, task(2)].map(|task| (task, largest));
    say(&mut send, &ToSupernode::Holdings(known.to_vec())).await;
    say(&mut send, &ToSupernode::Progress(known.map(|(task, _)| (task, u32::MAX)).to_vec())).await;

    let neighbour = villain.meet(&field.peer).await;
    for (task, geometry) in known {
        let (mut send, receive) = neighbour.open_bi().await.unwrap();
        say(&mut send, &Opening::Link { task, geometry }).await;
        let reply = FrameReader::new(receive).next::<Link>().await.unwrap();
        assert!(matches!(reply, Some(Link::Refused(_))), "{reply:?}");
    }
    let (mut nonsense, mut receive) = neighbour.open_bi().await.unwrap();
    write(
        &mut nonsense,
        &patched(codec::encode(&Opening::Link { task: field.task, geometry: largest }).unwrap()),
    )
    .await;
    assert!(receive.read_to_end(100).await.is_ok_and(|said| said.is_empty()), "no word on nonsense");
    let _ = send.finish();
    let told = told.end().await;
    format!("2^60 and 2^44 bytes refused; of 50 joins of 2^43 {told:?}")
}

/// Pieces that are not there, of tasks that are not there.
pub(super) async fn pieces(field: Arc<Field>) -> String {
    let villain = field.villain().await;
    let mut refused = 0;
    for target in [&field.supernode, &field.peer] {
        let connection = villain.meet(target).await;
        let mut asking = JoinSet::new();
        for number in 0..4_000 {
            let odd = number % 2 == 1;
            let index = PieceIndex(if odd { field.geometry.pieces() + number } else { number });
            let asked = if odd { field.task } else { task(number as usize) };
            asking.spawn(ask_piece(connection.clone(), asked, index));
            while asking.len() > 200 {
                refused += usize::from(asking.join_next().await.unwrap().unwrap());
            }
        }
        refused += asking.join_all().await.into_iter().filter(|refused| *refused).count();
    }
    assert_eq!(refused, 8_000);
    format!("{refused} pieces refused")
}

async fn ask_piece(connection: Connection, task: TaskId, index: PieceIndex) -> bool {
    let (mut send, receive) = connection.open_bi().await.unwrap();
    assert!(say(&mut send, &Opening::Piece { task, index }).await);
    let reply = FrameReader::new(receive).expect::<PieceReply>().await.unwrap();
    matches!(reply, PieceReply::Refused(Refusal::UnknownTask | Refusal::UnknownPiece | Refusal::Busy))
}

/// Tasks and progress of which there is nothing, 4096 at a time; and blames of everybody.
pub(super) async fn claims(field: Arc<Field>) -> String {
    let villain = field.villain().await;
    let (connection, mut send, _told) = villain.session(&field.supernode).await;
    let flood = async {
        for round in 0..100 {
            let tasks = (round * MAX_ENTRIES..).take(MAX_ENTRIES).map(task);
            let held: Vec<_> = tasks.map(|task| (task, geometry())).collect();
            // Of others than those that it holds: who falls back in thousands of tasks at once is told more than it can read.
            let progress =
                (usize::MAX / 2 + round..).take(MAX_ENTRIES).map(|number| (task(number), 7)).collect();
            say(&mut send, &ToSupernode::Holdings(held)).await;
            say(&mut send, &ToSupernode::Progress(progress)).await;
            for node in &field.nodes {
                let (node, fault) = (*node, Fault::WrongBytes);
                say(&mut send, &ToSupernode::Blame { task: field.task, node, fault }).await;
            }
            say(&mut send, &ToSupernode::MoreParents(field.task)).await;
            say(&mut send, &ToSupernode::Renew(vec![7; 2_000])).await;
        }
    };
    let through = tokio::time::timeout(Duration::from_secs(30), flood).await.is_ok();
    assert!(connection.close_reason().is_none(), "{:?}", connection.close_reason());
    assert!(!through, "it is heard no faster than a pace, and that would take two minutes");
    let held = field.tasks_of(villain.node()).await;
    assert!((1..=MAX_HELD).contains(&held), "{held} tasks");
    format!("{held} tasks believed")
}

/// Questions to an origin, each another.
pub(super) async fn inquiries(field: Arc<Field>) -> String {
    let villain = field.villain().await;
    let connection = villain.meet(&field.supernode).await;
    let (mut asking, mut busy) = (JoinSet::new(), 0);
    for number in 0..6_000 {
        let url = format!("{}/v2/x/manifests/{number}", field.origin.url());
        asking.spawn(inquire(connection.clone(), url));
        while asking.len() > 300 {
            busy += usize::from(asking.join_next().await.unwrap().unwrap());
        }
    }
    busy += asking.join_all().await.into_iter().filter(|busy| *busy).count();
    assert!(busy > 0, "nobody limits it");
    format!("{busy} of 6000 inquiries put off")
}

async fn inquire(connection: Connection, url: String) -> bool {
    let (mut send, receive) = connection.open_bi().await.unwrap();
    let inquiry = Inquiry { url, accept: None, credentials: Credentials::none(), words: false };
    assert!(say(&mut send, &Opening::Inquiry(inquiry)).await);
    let answer = FrameReader::new(receive).expect::<Inquired>().await.unwrap();
    matches!(answer, Inquired::Unable(Failure::Busy { .. }))
}

/// Digests that no supernode vouched for, of a task that it joined and of others.
pub(super) async fn testimonies(field: Arc<Field>) -> String {
    let villain = field.villain().await;
    let (_connection, mut send, told) = villain.session(&field.supernode).await;
    let joined = Digest::of(&77_777_usize.to_le_bytes());
    say(&mut send, &join(format!("http://{}/testimony", field.hung), 77_777)).await;
    for number in 0..200_u8 {
        let task = if number % 2 == 0 { TaskId::of_digest(joined) } else { field.task };
        let digests = vec![Digest::of(&[number]); 400.min(MAX_DIGESTS)];
        let (geometry, first, seal) = (geometry(), PieceIndex(0), Seal([number; 32]));
        say(&mut send, &ToSupernode::Testimony(Testimony { task, geometry, first, digests, seal })).await;
    }
    let _ = send.finish();
    told.end().await;
    "200 false seals".to_owned()
}

/// One key again and again, wrong tokens, and requests that are none.
pub(super) async fn enrolments(field: Arc<Field>) -> String {
    let identity = Identity::ephemeral().unwrap();
    for _ in 0..30 {
        transport::enrol(field.supernode.address, &field.token, &identity).await.unwrap();
    }
    let text = field.token.to_string().replace(field.token.secret(), &"0".repeat(field.token.secret().len()));
    let wrong: JoinToken = text.parse().unwrap();
    for _ in 0..30 {
        let refused = transport::enrol(field.supernode.address, &wrong, &identity).await.unwrap_err();
        assert!(refused.to_string().contains("token"), "{refused}");
    }
    let endpoint = bare();
    for length in [0, 7_000, 400_000] {
        let connection =
            dial(&endpoint, stranger(&field.token, enrol::ALPN), &field.supernode).await.unwrap();
        let (mut send, receive) = connection.open_bi().await.unwrap();
        let (token_id, secret) = (field.token.id().to_owned(), field.token.secret().to_owned());
        say(&mut send, &enrol::Request { token_id, secret, csr: vec![0x30; length] }).await;
        let reply = FrameReader::new(receive).next::<enrol::Reply>().await;
        assert!(!matches!(reply, Ok(Some(enrol::Reply::Issued(_)))));
    }
    "30 times the same key, 30 wrong tokens, 3 requests that are none".to_owned()
}

/// A hello that does not end.
pub(super) async fn hellos(field: Arc<Field>) -> String {
    let villain = field.villain().await;
    let word = "z".repeat(500 * 1024);
    for target in [&field.supernode, &field.peer] {
        let labels = Labels { zone: word.clone(), ..Labels::default() };
        let connection = villain.connect(target).await;
        let reply = greet(&connection, &Hello { labels, ..villain.hello() }).await;
        assert!(reply.is_none(), "{reply:?}");
        let connection = villain.connect(target).await;
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        write(&mut send, &(8_u32 << 20).to_le_bytes()).await;
        while write(&mut send, word.as_bytes()).await {}
        let silent = villain.connect(target).await;
        silent.closed().await;
    }
    "megabytes of labels, and silence".to_owned()
}

/// Hundreds of connections of one member.
pub(super) async fn connections(field: Arc<Field>) -> String {
    let villain = field.villain().await;
    let (mut open, mut ended) = (Vec::new(), 0);
    for target in [&field.supernode, &field.peer] {
        for _ in 0..150 {
            open.push(villain.meet(target).await);
        }
    }
    for connection in &open {
        ended += usize::from(connection.close_reason().is_some());
    }
    // The last ones may not have heard of it yet.
    assert!(ended > 250, "{ended} of {}", open.len());
    format!("{ended} of {} connections ended", open.len())
}

/// What somebody can do who has no certificate.
pub(super) async fn strangers(field: Arc<Field>) -> String {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for number in 0..5_000_usize {
        let garbage = vec![number as u8 | 0xc0; 20 + number % 1200];
        let target = if number % 2 == 0 { &field.supernode } else { &field.peer };
        let _ = socket.send_to(&garbage, target.address).await;
    }
    let endpoint = bare();
    let (mut silent, mut turned_away) = (Vec::new(), 0);
    for _ in 0..200 {
        silent.extend(dial(&endpoint, stranger(&field.token, enrol::ALPN), &field.supernode).await.ok());
        for target in [&field.supernode, &field.peer] {
            turned_away += usize::from(is_turned_away(&endpoint, target, &field.token).await);
        }
    }
    assert_eq!(turned_away, 400);
    for connection in &silent {
        connection.closed().await;
    }
    format!("{turned_away} connections turned away, {} silent ones ended", silent.len())
}

/// One host takes all the places for strangers that it gets, and takes them again as soon as they are taken from it. Members
/// come and are made on another host as ever.
pub(super) async fn crowd(field: Arc<Field>) -> String {
    let endpoint = bare_at(Ipv4Addr::new(127, 0, 0, 2));
    let (refused, mut crowding) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for _ in 0..CROWD {
        crowding.spawn(press(endpoint.clone(), field.clone(), refused.clone()));
    }
    let full = async |more: usize| {
        let seen = refused.load(Ordering::Relaxed);
        eventually("the places that one host gets are taken", async || {
            (refused.load(Ordering::Relaxed) >= seen + more).then_some(())
        })
        .await;
    };
    for _ in 0..10 {
        full(10).await;
        let villain = field.villain().await;
        villain.meet(&field.supernode).await;
    }
    full(10).await;
    crowding.shutdown().await;
    format!("10 members came from another host; {} times there was no place", refused.load(Ordering::Relaxed))
}

/// Says nothing for as long as it is let, again and again.
async fn press(endpoint: quinn::Endpoint, field: Arc<Field>, refused: Arc<AtomicUsize>) {
    loop {
        match dial(&endpoint, stranger(&field.token, enrol::ALPN), &field.supernode).await {
            Ok(connection) => drop(connection.closed().await),
            Err(quinn::ConnectionError::ConnectionClosed(close))
                if close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
            {
                refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PRESS).await;
            }
            Err(_) => tokio::time::sleep(PRESS).await,
        }
    }
}

async fn is_turned_away(endpoint: &quinn::Endpoint, target: &Target, token: &JoinToken) -> bool {
    match dial(endpoint, stranger(token, hello::ALPN), target).await {
        Ok(connection) => !matches!(connection.closed().await, quinn::ConnectionError::LocallyClosed),
        Err(_) => true,
    }
}

/// TLS without a certificate of one's own.
fn stranger(token: &JoinToken, alpn: &[u8]) -> rustls::ClientConfig {
    let mut tls = identity::enrolment_client_config(token.ca()).unwrap();
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls
}
