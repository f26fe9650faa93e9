//! The judgements, without a machine.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::digest::Digest;
use common::identity::CertificateInfo;
use reqwest::StatusCode;

use super::{Finding, Level, cluster, daemons, disk, machine, network};
use crate::settings::Outlook;

const HOUR: Duration = Duration::from_secs(3600);

fn level(finding: &Finding) -> Level {
    assert_eq!(finding.level == Level::Ok, finding.mend.is_none(), "what is wrong can be mended: {finding}");
    assert!(!finding.to_string().contains('\n'), "a finding is a line: {finding}");
    finding.level
}

#[test]
fn a_finding_is_a_line_with_a_way_out() {
    assert_eq!(Finding::ok("clock", "fine").to_string(), "ok    clock: fine");
    assert_eq!(Finding::fail("disk", "full", "empty it").to_string(), "fail  disk: full  - empty it");
    let json = serde_json::to_value(Finding::warn("disk", "fullish", "look")).unwrap();
    assert_eq!(
        json,
        serde_json::json!({ "level": "warn", "check": "disk", "what": "fullish", "mend": "look" })
    );
}

#[test]
fn a_certificate_is_judged_by_what_is_left_of_it() {
    let now = SystemTime::UNIX_EPOCH + 1_000_000 * HOUR;
    let info = |from: SystemTime, until: SystemTime| CertificateInfo {
        not_before: from,
        not_after: until,
        ca_fingerprint: Digest::of(b"ca"),
    };
    let after = |age: u32| cluster::certificate(&info(now - age * HOUR, now - age * HOUR + 24 * HOUR), now);
    assert_eq!(level(&after(1)), Level::Ok);
    assert_eq!(level(&after(17)), Level::Ok, "it is being renewed just now");
    assert_eq!(level(&after(20)), Level::Warn);
    assert_eq!(level(&after(30)), Level::Warn);
    let tomorrow = cluster::certificate(&info(now + 2 * HOUR, now + 24 * HOUR), now);
    assert_eq!(level(&tomorrow), Level::Fail);
    assert!(tomorrow.what.contains("2 h 0 min behind"), "{tomorrow}");
}

#[test]
fn a_clock_at_the_beginning_of_time_is_wrong() {
    assert_eq!(level(&cluster::clock(SystemTime::UNIX_EPOCH + 10 * HOUR)), Level::Fail);
    assert_eq!(level(&cluster::clock(SystemTime::UNIX_EPOCH - HOUR)), Level::Fail);
    assert_eq!(level(&cluster::clock(SystemTime::now())), Level::Ok);
}

#[test]
fn limits_are_read_and_judged() {
    let limits = "Limit   Soft Limit  Hard Limit  Units\nMax open files            1024     524288   files\n";
    assert_eq!(machine::soft_limit(limits), Some(1024));
    assert_eq!(machine::soft_limit("Max open files unlimited unlimited files"), Some(u64::MAX));
    assert_eq!(machine::soft_limit("Max processes 3 4 processes"), None);
    assert_eq!(level(&machine::judge_open_files("it", 1024)), Level::Warn);
    assert_eq!(level(&machine::judge_open_files("it", u64::MAX)), Level::Ok);
    assert_eq!(level(&machine::judge_buffers(208 << 10, 4 << 20)), Level::Warn);
    assert_eq!(level(&machine::judge_buffers(4 << 20, 4 << 20)), Level::Ok);
    assert_eq!(level(&disk::judge_space(1 << 20)), Level::Fail);
    assert_eq!(level(&disk::judge_space(1 << 30)), Level::Warn);
    assert_eq!(level(&disk::judge_space(1 << 40)), Level::Ok);
}

#[test]
fn a_data_directory_may_be_new_but_not_lost_nor_open() {
    let dir = tempfile::tempdir().unwrap();
    let new = dir.path().join("new");
    assert_eq!(level(&disk::directory(&new)), Level::Warn);
    assert_eq!(level(&disk::directory(&new.join("lost"))), Level::Fail);
    std::fs::write(&new, "").unwrap();
    assert_eq!(level(&disk::directory(&new)), Level::Fail, "a file is no directory");
    let mode = |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o755);
    assert_eq!(level(&disk::directory(dir.path())), Level::Warn);
    mode(0o700);
    assert_eq!(level(&disk::directory(dir.path())), Level::Ok);
    assert!(disk::owner(dir.path()).is_none());
    assert!(!Path::new(&new.join("lost")).exists(), "nothing was made");
}

#[test]
fn what_a_daemon_answers_is_told_on_a_line() {
    let words = daemons::in_words(StatusCode::SERVICE_UNAVAILABLE, b"no session\nwith a supernode\n");
    assert_eq!(words, "no session with a supernode (503)");
    let registry = br#"{"errors":[{"code":"UNAVAILABLE","message":"out of reach"}]}"#;
    assert_eq!(daemons::in_words(StatusCode::BAD_GATEWAY, registry), "out of reach (502)");
    assert_eq!(daemons::in_words(StatusCode::NOT_FOUND, b" "), "answered 404 Not Found");
}

#[test]
fn packets_must_fit_and_should_be_large() {
    for (mtu, level) in [(65536, Level::Ok), (1500, Level::Ok), (1280, Level::Warn), (1000, Level::Fail)] {
        assert_eq!(network::judge_mtu("s:7700", mtu).level, level, "{mtu}");
    }
}

#[test]
fn a_registry_is_looked_for_where_the_settings_have_it() {
    let mut outlook = Outlook::default();
    outlook.registries.insert("quay.test".into(), "http://10.0.0.9:5000".into());
    let at = |name: &str| network::host(&outlook, name);
    assert_eq!(at("docker.io").as_deref(), Some("registry-1.docker.io:443"));
    assert_eq!(at("quay.test").as_deref(), Some("10.0.0.9:5000"));
    assert_eq!(at("host:5000").as_deref(), Some("host:5000"));
    assert_eq!(at("_default"), None);
}
