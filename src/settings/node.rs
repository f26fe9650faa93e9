//! The settings that a supernode and a peer have alike, and what they make of a node: its folder, its origins, how much it
//! keeps, and how much may pass.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use common::config::{Percent, Rate, Share, Span};
use peer::limit::Rates;
use peer::origin::{OriginClient, OriginOptions};
use peer::store::Limits;
use serde::Deserialize;

use super::Defaults;
use crate::traces;

/// Where the kubelet keeps its state, whoever runs it.
const KUBELET: &str = "/var/lib/kubelet";

/// Those keys, as they were set.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct NodeSection {
    pub(super) data_dir: Option<PathBuf>,
    origin_allow: Vec<String>,
    origin_folder: Vec<PathBuf>,
    pub(super) registry: BTreeMap<String, String>,
    insecure_registry: Vec<String>,
    ca_file: Vec<PathBuf>,
    registry_ca: BTreeMap<String, PathBuf>,
    quota: Option<Share>,
    high_watermark: Option<Percent>,
    low_watermark: Option<Percent>,
    keep_free: Option<Share>,
    ttl: Option<Span>,
    otlp_endpoint: Option<String>,
    otlp_sample: Option<Percent>,
    upload_limit: Option<Rate>,
    download_limit: Option<Rate>,
    origin_limit: Option<Rate>,
    task_upload_limit: Option<Rate>,
    task_download_limit: Option<Rate>,
    task_origin_limit: Option<Rate>,
    max_uploads: Option<NonZeroU32>,
}

/// What every node has of them.
pub(super) struct Basics {
    pub(super) data_dir: PathBuf,
    pub(super) origin: OriginOptions,
    pub(super) limits: Limits,
    pub(super) rates: Rates,
}

// === impl NodeSection ===

impl NodeSection {
    /// Where traces go.
    pub(super) fn traces(self) -> traces::Wish {
        traces::Wish { endpoint: self.otlp_endpoint, sample: self.otlp_sample }
    }

    /// Finds out what is wrong with them before anything is opened; then makes the folder.
    pub(super) fn basics(self, defaults: Defaults) -> anyhow::Result<Basics> {
        let (limits, rates) = (self.limits().map_err(crate::usage)?, self.rates());
        let mut allow = self.origin_allow;
        if allow.is_empty() {
            allow = defaults.origin_allow.iter().map(|&pattern| pattern.to_owned()).collect();
        }
        let origin = OriginOptions {
            allow,
            registries: self.registry,
            insecure_registries: self.insecure_registry,
            folders: self.origin_folder,
            extra_ca: self.ca_file,
            registry_ca: self.registry_ca,
        };
        OriginClient::new(origin.clone()).map_err(crate::usage)?;
        Ok(Basics { data_dir: super::prepared(self.data_dir)?, origin, limits, rates })
    }

    /// How much may pass.
    fn rates(&self) -> Rates {
        let rate = |rate: Option<Rate>| rate.and_then(Rate::bytes_per_second).map(u64::from);
        Rates {
            upload: rate(self.upload_limit),
            download: rate(self.download_limit),
            origin: rate(self.origin_limit),
            task_upload: rate(self.task_upload_limit),
            task_download: rate(self.task_download_limit),
            task_origin: rate(self.task_origin_limit),
            uploads: self.max_uploads.map(|most| u64::from(most.get())),
        }
    }

    /// How much is kept.
    fn limits(&self) -> anyhow::Result<Limits> {
        let high = self.high_watermark.unwrap_or(Limits::NONE.high);
        let limits = Limits {
            quota: self.quota,
            high,
            // Who sets the high one alone need not think of the other.
            low: self.low_watermark.unwrap_or(Limits::NONE.low.min(high)),
            keep_free: self.keep_free.unwrap_or_else(keep_free_here),
            ttl: self.ttl.map(|ttl| ttl.0),
        };
        anyhow::ensure!(
            limits.low <= limits.high,
            "--low-watermark {} is above --high-watermark {}: evicting ends at the low one",
            limits.low,
            limits.high
        );
        Ok(limits)
    }
}

/// What the disk has to have free where nobody said. The kubelet drives pods away at 15 % of the images' disk; other
/// machines only need room to go on.
fn keep_free_here() -> Share {
    let node = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || Path::new(KUBELET).exists();
    Share::Percent(Percent::new(if node { 15 } else { 5 }))
}
