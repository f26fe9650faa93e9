//! `longshore doctor` on a set-up that works, and on ones that do not.

use serde_json::Value;
use tempfile::TempDir;

use crate::support::cluster::{Node, run};
use crate::support::faulty::Origin;

/// What the command found: its exit code, and level and text of each check.
async fn doctor(home: &TempDir, arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, said) = run(home.path(), &[&["doctor", "--json"], arguments].concat()).await;
    let json = said.lines().find(|line| line.starts_with('{')).expect("a line of JSON");
    (code, serde_json::from_str(json).unwrap())
}

/// The findings of one check.
fn of<'a>(report: &'a Value, check: &str) -> Vec<&'a Value> {
    let findings = report["findings"].as_array().unwrap().iter();
    let found: Vec<&Value> = findings.filter(|finding| finding["check"] == check).collect();
    assert!(!found.is_empty(), "{check} was not looked at: {report}");
    found
}

fn are_all(report: &Value, check: &str, level: &str) {
    for finding in of(report, check) {
        assert_eq!(finding["level"], level, "{finding}");
        assert_eq!(finding["mend"].is_null(), level == "ok", "{finding}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_a_running_node_in_order_and_a_stopped_one_not_running() {
    let home = TempDir::new().unwrap();
    let doors =
        ["--quic-listen", "--http-listen", "--peer-quic-listen", "--peer-http-listen", "--proxy-listen"];
    let registry = Origin::start().await;
    let mut arguments: Vec<String> = ["up", "--default-registry", "quay.test"].map(Into::into).into();
    arguments.extend(["--registry".to_owned(), format!("quay.test={}", registry.url())]);
    arguments.extend(doors.iter().flat_map(|door| [(*door).to_owned(), "127.0.0.1:0".to_owned()]));
    let mut up = Node::spawn("up", arguments, home.path(), None);
    up.ready().await;
    let data = up.data.display().to_string();
    let (code, report) = doctor(&home, &["--data-dir", &data]).await;
    assert_eq!((code, &report["ok"]), (Some(0), &Value::Bool(true)), "{report}");
    for check in [
        "settings",
        "data directory",
        "supernode",
        "peer",
        "proxy",
        "clock",
        "certificate",
        "way to the supernode",
    ] {
        are_all(&report, check, "ok");
    }
    let (code, people) = run(home.path(), &["doctor", "--data-dir", &data]).await;
    assert_eq!(code, Some(0));
    assert!(people.lines().any(|line| line.starts_with("ok    proxy: ")), "{people}");

    // Nobody says goodbye: the addresses stay, and nobody is there.
    up.process().kill().await;
    let (code, report) = doctor(&home, &["--data-dir", &data]).await;
    assert_eq!((code, &report["ok"]), (Some(1), &Value::Bool(false)), "{report}");
    for check in ["supernode", "peer", "proxy", "way to the supernode"] {
        are_all(&report, check, "fail");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_names_what_is_broken_and_makes_nothing() {
    let home = TempDir::new().unwrap();
    let taken = home.path().join("taken");
    std::fs::write(&taken, "").unwrap();
    let config = home.path().join("longshore.toml");
    std::fs::write(&config, "[peer]\nproxy-lisen = \"127.0.0.1:0\"\n").unwrap();
    let (taken, config) = (taken.display().to_string(), config.display().to_string());
    let (code, report) = doctor(&home, &["--data-dir", &taken, "--config", &config]).await;
    assert_eq!(code, Some(1), "{report}");
    are_all(&report, "data directory", "fail");
    are_all(&report, "settings", "fail");
    assert!(of(&report, "settings")[0]["what"].as_str().unwrap().contains("proxy-listen"), "{report}");

    let new = home.path().join("new");
    let (code, report) =
        doctor(&home, &["--data-dir", &new.display().to_string(), "--supernode", "nowhere.invalid:7700"])
            .await;
    assert_eq!(code, Some(1), "{report}");
    are_all(&report, "data directory", "warn");
    are_all(&report, "daemon", "warn");
    are_all(&report, "way to the supernode", "fail");
    assert!(!new.exists(), "a doctor only looks");
}
