//! Metrics, rules and dashboards, as Prometheus's own tool sees them.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::client;
use crate::support::cluster::{Cluster, Node, World};
use crate::support::faulty::Origin;
use crate::support::image::Image;
use crate::support::need;

const MIB: usize = 1 << 20;

fn deployed(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

/// Runs promtool on `input`; what it complains of.
fn promtool(arguments: &[&str], input: &str) -> Result<(), String> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
}

/// The names of Longshore's metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !word(c)).filter(|word| word.starts_with("longshore_")).collect()
}

/// What a daemon shows once it has done something.
async fn shown(node: &Node) -> String {
    let metrics = node.metrics().await;
    promtool(&["check", "metrics"], &metrics).unwrap_or_else(|complaints| panic!("{complaints}\n{metrics}"));
    metrics
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_as_prometheus_wants_them_and_rules_and_dashboards_name_no_others() {
    need!("promtool");
    let origin = Origin::start().await;
    let cluster = Cluster::start(1, World::registry("quay.test", &origin.url())).await;
    let image = Image::single("team/app", MIB, 400);
    origin.add(&image);
    client::pull(cluster.peers[0].at.proxy.clone(), "quay.test".to_owned(), image).await;
    let metrics = shown(&cluster.supernode).await + &shown(&cluster.peers[0]).await;
    let known = names(&metrics);
    for file in ["prometheus/longshore.rules.yml", "prometheus/longshore.test.yml", "grafana/longshore.json"]
    {
        let text = std::fs::read_to_string(deployed(file)).unwrap();
        let unknown: Vec<_> = names(&text).difference(&known).copied().collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, which nobody shows");
    }
    let dashboard = std::fs::read(deployed("grafana/longshore.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_slice(&dashboard).unwrap();
    assert!(
        dashboard["panels"].as_array().unwrap().iter().all(|panel| panel["targets"][0]["expr"].is_string())
    );
}

#[test]
fn each_alert_rings_when_it_should_and_else_is_silent() {
    need!("promtool");
    let path = |file| deployed(file).display().to_string();
    promtool(&["check", "rules", &path("prometheus/longshore.rules.yml")], "").unwrap();
    promtool(&["test", "rules", &path("prometheus/longshore.test.yml")], "").unwrap();
    let rules = std::fs::read_to_string(deployed("prometheus/longshore.rules.yml")).unwrap();
    let tests = std::fs::read_to_string(deployed("prometheus/longshore.test.yml")).unwrap();
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    for alert in alerts {
        // Once where it rings, and once where it does not.
        let named = tests.matches(&format!("alertname: {alert}\n")).count()
            + tests.matches(&format!("alertname: {alert} }}")).count();
        assert_eq!(named, 2, "{alert} is not tested both ways");
    }
}
