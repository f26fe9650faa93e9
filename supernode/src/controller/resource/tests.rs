//! The kept definition of the resource is what the code makes, and refuses what makes no sense.

use std::fmt::Write as _;
use std::path::Path;

use kube::CustomResourceExt as _;
use serde_json::Value;

use super::*;

/// Set to write the file anew.
const RENEW: &str = "LONGSHORE_RENEW_CRD";
const KEPT: &str = "../deploy/helm/longshore/files/imagepreheats.yaml";

#[test]
fn the_kept_manifest_is_what_the_code_makes() {
    let crd = serde_json::to_value(ImagePreheat::crd()).unwrap();
    let mut made = format!(
        "# made of supernode/src/controller/resource.rs: {RENEW}=1 cargo test -p supernode --features kubernetes resource\n"
    );
    yaml(&crd, 0, &mut made);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join(KEPT);
    if std::env::var_os(RENEW).is_some() {
        std::fs::write(&kept, &made).unwrap();
    }
    let kept = std::fs::read_to_string(kept).unwrap_or_default();
    assert!(
        kept == made,
        "{KEPT} is not what the types say; renew it with: {RENEW}=1 cargo test -p supernode --features kubernetes resource"
    );
}

#[test]
fn what_is_usual_need_not_be_said() {
    let spec: ImagePreheatSpec = serde_json::from_value(serde_json::json!({ "image": "nginx:1" })).unwrap();
    assert_eq!((spec.to, spec.parallelism, spec.paused), (Where::Peers, 16, false));
    assert_eq!((spec.pull_policy.timeout_seconds, spec.pull_policy.backoff_limit), (600, 3));
    let schema = serde_json::to_value(ImagePreheat::crd()).unwrap();
    let spec = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    assert_eq!(spec["properties"]["parallelism"]["default"], 16);
    assert_eq!(spec["properties"]["pullPolicy"]["default"]["timeoutSeconds"], 600);
    assert_eq!(spec["x-kubernetes-validations"].as_array().unwrap().len(), 3);
    assert_eq!(spec["required"], serde_json::json!(["image"]));
}

#[test]
fn a_status_of_an_earlier_release_may_lack_fields() {
    let status: ImagePreheatStatus =
        serde_json::from_value(serde_json::json!({ "state": "Running" })).unwrap();
    assert_eq!((status.state, status.job), (Phase::Running, None));
}

/// Plain YAML; texts are quoted as JSON has them, which YAML reads alike.
fn yaml(value: &Value, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    let is_block = |value: &Value| match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let bare =
                    key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'$');
                let key = if bare { key.clone() } else { Value::from(key.as_str()).to_string() };
                if is_block(value) {
                    writeln!(out, "{indent}{key}:").unwrap();
                    yaml(value, depth + 1, out);
                } else {
                    writeln!(out, "{indent}{key}: {}", scalar(value)).unwrap();
                }
            }
        }
        Value::Array(list) => {
            for value in list {
                if is_block(value) {
                    let mut item = String::new();
                    yaml(value, depth + 1, &mut item);
                    writeln!(out, "{indent}- {}", item.trim()).unwrap();
                } else {
                    writeln!(out, "{indent}- {}", scalar(value)).unwrap();
                }
            }
        }
        _ => writeln!(out, "{indent}{}", scalar(value)).unwrap(),
    }
}

/// A bound is a whole number, though the schema has it as another.
fn scalar(value: &Value) -> String {
    match value.as_f64().filter(|number| value.is_f64() && number.fract() == 0.0) {
        Some(whole) => format!("{whole:.0}"),
        None => value.to_string(),
    }
}
