//! Images at nodes before anybody wants them: `longshore preheat`, its jobs, and what becomes of them when things go
//! wrong; and the same by the interfaces of Harbor and of registries.

mod failures;
mod harbor;
mod jobs;
mod logins;
mod notifications;
mod runtime;
mod schedules;
mod storm;
mod tokens;

use serde_json::Value;

use crate::support::cluster::{Cluster, run};
use crate::support::eventually;

/// The registry's name in these tests.
const REGISTRY: &str = "quay.test";
const MIB: usize = 1 << 20;

/// `longshore preheat` or `preheats` at the cluster's supernode: its exit status and what it said.
async fn longshore(cluster: &Cluster, arguments: &[&str]) -> (Option<i32>, String) {
    let dir = cluster.supernode.data.display().to_string();
    run(cluster.root(), &[arguments, &["--data-dir", &dir]].concat()).await
}

/// Takes a job on; gives its number.
async fn begin(cluster: &Cluster, arguments: &[&str]) -> u64 {
    let (status, said) = longshore(cluster, &[&["preheat", "--json"], arguments].concat()).await;
    assert_eq!(status, Some(0), "{said}");
    let job: Value = serde_json::from_str(&said).unwrap();
    job["id"].as_u64().unwrap()
}

/// A job as it is now.
async fn job(cluster: &Cluster, id: u64) -> Value {
    let (status, said) = longshore(cluster, &["preheats", "show", &id.to_string(), "--json"]).await;
    assert_eq!(status, Some(0), "{said}");
    serde_json::from_str(&said).unwrap()
}

/// The job, once it is in this state.
async fn job_that_is(cluster: &Cluster, id: u64, state: &str) -> Value {
    eventually(&format!("job {id} being {state}"), async || {
        let job = job(cluster, id).await;
        let is = job["state"].as_str().unwrap().to_owned();
        assert!(is == state || !["succeeded", "failed", "cancelled"].contains(&is.as_str()), "{job:#}");
        (is == state).then_some(job)
    })
    .await
}
