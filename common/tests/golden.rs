//! The bytes of every message, as each release wrote them: `golden/v1.txt` is what protocol version 1 put on the wire,
//! and this build must write the same for the same messages, and read them. A file of an older version is never
//! changed; a new version adds a file of its own. `GOLDEN=write cargo test -p common --test golden` writes what is not
//! there yet, and only that.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends where it stands")]
#![allow(clippy::single_range_in_vec_init, reason = "a link's words are runs, and one may be enough")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use common::digest::Digest;
use common::identity::{Revocation, Seal};
use common::node::{Contact, Labels, NodeId, Role};
use common::piece::{Geometry, PieceIndex};
use common::task::{Credentials, OriginFailure, Source, TaskId};
use common::telemetry::trace::TraceContext;
use common::wire::errand::{Errand, Login, Report};
use common::wire::exchange::{Link, Opening, PieceReply, Refusal};
use common::wire::hello::Hello;
use common::wire::inquiry::{Answered, Inquired, Inquiry};
use common::wire::swarm::{Failure, Fault, Join, Priority, Testimony, ToPeer, ToSupernode};
use common::wire::{codec, enrol, hello};
use serde::Serialize;
use serde::de::DeserializeOwned;

const TASK: TaskId = TaskId([0xab; 32]);
const NODE: NodeId = NodeId([0x17; 16]);
const DIGEST: Digest = Digest([0xcd; 32]);

/// What was written, by name, and whether this build reads it as what it was.
#[derive(Default)]
struct Samples(BTreeMap<String, Sample>);

struct Sample {
    frame: Vec<u8>,
    /// What a frame says, as this build reads it.
    read: fn(&[u8]) -> String,
    message: String,
}

// === impl Samples ===

impl Samples {
    fn add<T: Serialize + DeserializeOwned + Debug>(&mut self, name: &str, message: T) {
        fn read<T: DeserializeOwned + Debug>(frame: &[u8]) -> String {
            let read: Option<T> = codec::decode(&mut BytesMut::from(frame)).unwrap();
            format!("{:?}", read.unwrap())
        }
        let frame = codec::encode(&message).unwrap();
        let sample = Sample { frame, read: read::<T>, message: format!("{message:?}") };
        let former = self.0.insert(name.to_owned(), sample);
        assert!(former.is_none(), "{name} twice");
    }

    /// Compares with what the version's file says.
    fn check(&self, version: u16) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}.txt"));
        if !path.exists() && std::env::var("GOLDEN").is_ok_and(|value| value == "write") {
            self.write(&path);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
        assert_eq!(lines.keys().copied().collect::<Vec<_>>(), self.0.keys().collect::<Vec<_>>());
        for (name, Sample { frame, read, message }) in &self.0 {
            assert_eq!(lines[name.as_str()], hex::encode(frame), "{name} is written in another way");
            assert_eq!(
                &read(&hex::decode(lines[name.as_str()]).unwrap()),
                message,
                "{name} is read as another"
            );
        }
    }

    fn write(&self, path: &PathBuf) {
        let line = |mut text: String, (name, sample): (&String, &Sample)| {
            writeln!(text, "{name} {}", hex::encode(&sample.frame)).unwrap();
            text
        };
        std::fs::write(path, self.0.iter().fold(String::new(), line)).unwrap();
    }
}

fn contact() -> Contact {
    Contact { id: NODE, address: ([10, 0, 0, 1], 7710).into() }
}

fn source() -> Source {
    Source {
        url: "https://registry.example/v2/a/blobs/x".into(),
        digest: Some(DIGEST),
        tag: "tag".into(),
        accept: Some("*/*".into()),
    }
}

fn join() -> Join {
    Join { source: source(), credentials: Credentials::authorization("Bearer x"), held: 300 }
}

fn said_hello(version: u16) -> Hello {
    Hello {
        version,
        min_version: 1,
        node: NODE,
        role: Role::Peer,
        features: 5,
        advertise: Some(([10, 0, 0, 2], 7710).into()),
        labels: Labels { zone: "z".into(), rack: "r".into(), host: "h".into() },
        slots: 8,
    }
}

fn origin_failure() -> OriginFailure {
    OriginFailure {
        status: 404,
        headers: vec![("www-authenticate".into(), "Bearer realm=\"x\"".into())],
        body: b"{}".to_vec(),
    }
}

#[test]
fn version_1_is_spoken_as_it_was() {
    let geometry = Geometry::of(3_000_000_000).unwrap();
    let mut samples = Samples::default();
    samples.add("hello", said_hello(1));
    samples.add("hello.supernode", Hello { role: Role::Supernode, advertise: None, ..said_hello(1) });
    samples.add("hello.welcome", hello::Reply::Welcome(said_hello(1)));
    samples.add("hello.refused", hello::Reply::Refused("no".into()));
    let request = enrol::Request { token_id: "abc".into(), secret: "def".into(), csr: vec![1, 2, 3] };
    samples.add("enrol.request", request);
    samples.add("enrol.issued", enrol::Reply::Issued(vec![vec![1], vec![2, 3]]));
    samples.add("enrol.refused", enrol::Reply::Refused("no".into()));
    samples.add("opening.link", Opening::Link { task: TASK, geometry });
    samples.add("opening.piece", Opening::Piece { task: TASK, index: PieceIndex(70_000) });
    samples.add("opening.session", Opening::Session);
    let inquiry = Inquiry {
        url: "https://registry.example/v2/a/manifests/1".into(),
        accept: None,
        credentials: Credentials::none(),
        words: true,
    };
    samples.add("opening.inquiry", Opening::Inquiry(inquiry));
    samples.add("link.accepted", Link::Accepted);
    samples.add("link.refused", Link::Refused(Refusal::OtherGeometry));
    samples.add("link.have", Link::Have(vec![0..1, 5..300]));
    samples.add("link.hold", Link::Hold(vec![7..8]));
    samples.add("piece.data", PieceReply::Data { length: 262_144 });
    let refusals = [Refusal::UnknownTask, Refusal::UnknownPiece, Refusal::Busy, Refusal::OtherGeometry];
    for refusal in refusals {
        samples.add(&format!("piece.refused.{refusal:?}"), PieceReply::Refused(refusal));
    }
    let answered = Answered { status: 200, headers: vec![("etag".into(), "x".into())], body: Vec::new() };
    samples.add("inquired.answered", Inquired::Answered(answered));
    samples.add("inquired.unable", Inquired::Unable(Failure::Unavailable("no".into())));
    samples.add("up.join", ToSupernode::Join(join()));
    samples.add("up.progress", ToSupernode::Progress(vec![(TASK, 7)]));
    samples.add("up.holdings", ToSupernode::Holdings(vec![(TASK, geometry)]));
    samples.add("up.leave", ToSupernode::Leave(TASK));
    for fault in [Fault::WrongBytes, Fault::FalseClaim, Fault::Silent] {
        samples.add(&format!("up.blame.{fault:?}"), ToSupernode::Blame { task: TASK, node: NODE, fault });
    }
    samples.add("up.more-parents", ToSupernode::MoreParents(TASK));
    samples.add("up.renew", ToSupernode::Renew(vec![1, 2]));
    let inline = Some(vec![9; 3]);
    samples.add("down.joined", ToPeer::Joined { task: TASK, geometry, inline });
    let digests = vec![DIGEST];
    samples.add("down.digests", ToPeer::Digests { task: TASK, first: PieceIndex(2), digests });
    samples.add("down.parents", ToPeer::Parents { task: TASK, add: vec![contact()], remove: vec![NODE] });
    samples.add("down.proven", ToPeer::Proven(TASK));
    samples.add("down.poisoned", ToPeer::Poisoned(TASK));
    let failures = [
        ("origin", Failure::Origin(origin_failure())),
        ("refused", Failure::Refused("no".into())),
        ("unavailable", Failure::Unavailable("no".into())),
    ];
    for (name, failure) in failures {
        samples.add(&format!("down.failed.{name}"), ToPeer::Failed { task: TASK, failure });
    }
    samples.add("down.renewed", ToPeer::Renewed(vec![vec![1], vec![2]]));
    samples.add("down.renewal-refused", ToPeer::RenewalRefused("no".into()));
    samples.check(1);
}

#[test]
fn version_2_adds_its_own() {
    let geometry = Geometry::of(3_000_000_000).unwrap();
    let mut samples = Samples::default();
    samples.add("hello", said_hello(2));
    for priority in [Priority::Preheat, Priority::Pull] {
        let name = format!("up.join-as.{priority:?}");
        samples.add(&name, ToSupernode::JoinAs { join: join(), priority });
    }
    let seal = Seal([0xef; 32]);
    let testimony =
        Testimony { task: TASK, geometry, first: PieceIndex(4), digests: vec![DIGEST, DIGEST], seal };
    samples.add("up.testimony", ToSupernode::Testimony(testimony));
    let revocation = Revocation { node: NODE, until: 1_800_000_000, seal };
    samples.add("up.revoked", ToSupernode::Revoked(vec![revocation]));
    for fault in [Fault::FalseSet, Fault::Slow] {
        samples.add(&format!("up.blame.{fault:?}"), ToSupernode::Blame { task: TASK, node: NODE, fault });
    }
    samples.add("down.sealed", ToPeer::Sealed { task: TASK, first: PieceIndex(4), count: 2, seal });
    samples.add("down.revoked", ToPeer::Revoked(vec![revocation]));
    samples.add("down.authorities", ToPeer::Authorities(vec![vec![1], vec![2]]));
    let failure = Failure::Busy { retry_after_millis: 1500 };
    samples.add("down.failed.busy", ToPeer::Failed { task: TASK, failure: failure.clone() });
    samples.add("inquired.busy", Inquired::Unable(failure));
    samples.check(2);
}

#[test]
fn version_3_adds_where_a_traced_pull_goes() {
    let geometry = Geometry::of(3_000_000_000).unwrap();
    let trace = TraceContext::read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
    let mut samples = Samples::default();
    samples.add("hello", said_hello(3));
    let priority = Priority::Preheat;
    samples.add("up.join-traced", ToSupernode::JoinTraced { join: join(), priority, trace });
    samples.add("opening.link-traced", Opening::LinkTraced { task: TASK, geometry, trace });
    let inquiry = Inquiry {
        url: "https://registry.example/v2/a/manifests/1".into(),
        accept: Some("*/*".into()),
        credentials: Credentials::none(),
        words: false,
    };
    samples.add("opening.inquiry-traced", Opening::InquiryTraced(inquiry, trace));
    samples.check(3);
    let context = codec::encode(&trace).unwrap().len() - codec::encode(&()).unwrap().len();
    assert_eq!(context, 25, "a context is no longer than the standard's own binary form");
}

#[test]
fn version_4_adds_errands() {
    let mut samples = Samples::default();
    samples.add("hello", said_hello(4));
    samples.add("opening.errand", Opening::Errand);
    let credentials = Credentials::authorization("Bearer x");
    samples.add("errand.fetch", Errand::Fetch { sources: vec![source(), source()], credentials });
    let password = Login::Password { user: "u".into(), password: "p".into() };
    for (name, login) in
        [("anybody", None), ("password", Some(password)), ("token", Some(Login::Token("t".into())))]
    {
        let image = "registry.example/a:1".to_owned();
        let errand = Errand::Pull { image, login, timeout_millis: 600_000 };
        assert!(!format!("{errand:?}").contains("password:"), "{errand:?}");
        samples.add(&format!("errand.pull.{name}"), errand);
    }
    let progress =
        Report::Progress { held: 5, total: 3_000_000_000, done: 2, under_way: vec![(2, 5), (255, 0)] };
    samples.add("report.progress", progress);
    samples.add("report.done", Report::Done { held: 3_000_000_000 });
    samples.add("report.failed", Report::Failed { why: "no".into(), passing: true });
    samples.check(4);
}
