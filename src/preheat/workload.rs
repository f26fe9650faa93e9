//! `preheat --for`: the nodes that run a Kubernetes workload's pods.

/// Their names, as their peers are called too.
#[cfg(feature = "kubernetes")]
#[expect(clippy::print_stderr, reason = "what the flag came to")]
pub(super) async fn nodes(workload: &str, namespace: Option<&str>) -> anyhow::Result<Vec<String>> {
    let workload: supernode::controller::workload::Workload = workload.parse().map_err(crate::usage)?;
    let found = workload.footprint(namespace).await?;
    eprintln!("{workload} in {}: {} pods on {} nodes", found.namespace, found.pods, found.nodes.len());
    Ok(found.nodes)
}

/// Not in this build.
#[cfg(not(feature = "kubernetes"))]
#[expect(clippy::unused_async, reason = "as the other one")]
pub(super) async fn nodes(_: &str, _: Option<&str>) -> anyhow::Result<Vec<String>> {
    anyhow::bail!(
        "--for needs a build with the feature `kubernetes`, and this one has it not: name the nodes with --nodes"
    )
}
