//! Which folder `token`, `node` and `ca` work on: the one with the cluster's CA, beside a supernode or shared by several.

use std::path::PathBuf;

use anyhow::bail;

use crate::cli::ClusterFolder;

/// Finds it, by its CA.
pub fn find(flags: &ClusterFolder) -> anyhow::Result<PathBuf> {
    if let Some(dir) = &flags.cluster_dir {
        if dir.join("ca.pem").exists() {
            return Ok(dir.clone());
        }
        bail!(
            "there is no ca.pem in {}: name the folder that the supernodes have as --cluster-dir",
            dir.display()
        );
    }
    let dir = flags.data_dir.clone().unwrap_or_else(common::config::data_dir_default);
    // `longshore up` keeps its supernode one folder below.
    let homes = [dir.join("identity"), dir.join("supernode").join("identity")];
    match homes.into_iter().find(|home| home.join("ca.pem").exists()) {
        Some(home) => Ok(home),
        None => bail!(
            "no supernode lives in {}: name its folder with --data-dir, or the cluster's with --cluster-dir",
            dir.display()
        ),
    }
}
