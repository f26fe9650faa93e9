//! `longshore doctor`: what is wrong with the set-up of this machine, and how to mend it. Each check is a function that
//! gives a [`Finding`]; none of them makes or changes anything.

mod cluster;
mod daemons;
mod disk;
mod machine;
mod network;
mod runtimes;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use anyhow::bail;
use serde::Serialize;

use crate::addresses::Addresses;
use crate::cli::{self, Part};
use crate::settings::{self, Flags, Outlook};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could.
    Warn,
    /// It does not work.
    Fail,
}

/// What a check found.
#[derive(Debug, Serialize)]
pub struct Finding {
    level: Level,
    /// What was looked at.
    check: &'static str,
    /// How it is.
    what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

/// A daemon's data directory, and what it published there if it runs.
struct Home {
    dir: PathBuf,
    addresses: Option<Addresses>,
}

// === impl Finding ===

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { level: Level::Ok, check, what: what.into(), mend: None }
    }

    fn warn(check: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { level: Level::Warn, check, what: what.into(), mend: Some(mend.into()) }
    }

    fn fail(check: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { level: Level::Fail, ..Self::warn(check, what, mend) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        write!(f, "{level:<5} {}: {}", self.check, self.what)?;
        self.mend.iter().try_for_each(|mend| write!(f, "  - {mend}"))
    }
}

// === impl Home ===

impl Home {
    /// The daemons' homes in a data directory: itself, and the two below it that `longshore up` makes.
    fn all(dir: &std::path::Path) -> Vec<Self> {
        let below = ["supernode", "peer"].map(|name| dir.join(name)).into_iter().filter(|dir| dir.is_dir());
        let mut homes: Vec<Self> = below.map(Self::at).collect();
        // `up` publishes its peer once more in its own directory.
        if homes.is_empty() {
            homes.push(Self::at(dir.to_owned()));
        }
        homes
    }

    fn at(dir: PathBuf) -> Self {
        Self { addresses: Addresses::read(&dir), dir }
    }

    fn identity(&self) -> PathBuf {
        self.dir.join("identity")
    }
}

/// Runs the command.
#[expect(clippy::print_stdout, reason = "the command's answer")]
pub async fn run(flags: cli::Doctor) -> anyhow::Result<()> {
    let findings = examine(&flags).await;
    let failed = findings.iter().filter(|finding| finding.level == Level::Fail).count();
    if flags.json {
        println!("{}", serde_json::json!({ "ok": failed == 0, "findings": findings }));
    } else {
        findings.iter().for_each(|finding| println!("{finding}"));
    }
    if failed > 0 {
        bail!("{failed} of {} checks failed", findings.len());
    }
    Ok(())
}

async fn examine(flags: &cli::Doctor) -> Vec<Finding> {
    let wanted = |part| flags.only.is_empty() || flags.only.contains(&part);
    let mut findings = Vec::new();
    let (outlook, read) = settings_of(flags);
    let dir = outlook.data_dir.clone().unwrap_or_else(common::config::data_dir_default);
    let homes = Home::all(&dir);
    if wanted(Part::Machine) {
        findings.extend([machine::processor(), machine::udp_buffers(), machine::open_files(&homes)]);
    }
    if wanted(Part::Settings) {
        findings.push(read);
    }
    if wanted(Part::Disk) {
        findings.push(disk::directory(&dir));
        findings.extend(homes.iter().filter_map(|home| disk::owner(&home.dir)));
        findings.push(disk::space(&dir));
    }
    if wanted(Part::Daemons) && !flags.before_start {
        findings.extend(daemons::all(&dir, &homes).await);
    }
    if wanted(Part::Cluster) {
        findings.extend(cluster::all(&outlook, &homes).await);
    }
    if !wanted(Part::Runtimes) && !wanted(Part::Registries) {
        return findings;
    }
    let proxy = flags.proxy.clone().or_else(|| runtimes::proxy_here(&homes)).unwrap_or_default();
    let (judged, pulled) = runtimes::all(&flags.root, &proxy, flags.before_start).await;
    if wanted(Part::Runtimes) {
        findings.extend(judged);
    }
    if wanted(Part::Registries) {
        findings.push(network::registries(&outlook, pulled).await);
    }
    findings
}

/// The daemons' settings, and whether they can be read.
fn settings_of(flags: &cli::Doctor) -> (Outlook, Finding) {
    let told = Flags::default()
        .text("data-dir", flags.data_dir.as_ref().map(|dir| dir.display().to_string()))
        .list("supernode", flags.supernode.clone());
    match settings::outlook(flags.config.as_deref(), told) {
        Ok(outlook) => {
            let read = flags.config.as_ref().map(|path| path.display().to_string());
            let read = read.unwrap_or_else(|| "flags and environment".into());
            (outlook, Finding::ok("settings", format!("{read} can be read")))
        }
        Err(error) => {
            let finding = Finding::fail("settings", format!("{error:#}"), "correct it; no daemon starts so");
            (Outlook { data_dir: flags.data_dir.clone(), ..Outlook::default() }, finding)
        }
    }
}
