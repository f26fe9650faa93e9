//! `longshore get`: sources into files. Through the local peer's socket if one runs; else, with `--supernode`, as a temporary
//! member of the swarm; else straight from the origin with ranges side by side.
//!
//! [`wanted`] says what comes from where and goes where ([`list`], [`names`] and [`query`] read what it is made of), [`ways`]
//! bring it, [`image`] knows what an image is made of, [`output`] and [`part`] keep it, [`report`] tells of it, and [`exit`] knows what the end is called.
//!
//! # Invariants
//! - A file appears under its name only when it is whole and, where a digest is given, right.
//! - What a failed fetch wrote is removed, but for a partial file that the next attempt goes on from.

mod copy;
pub mod exit;
pub mod image;
mod list;
mod names;
mod output;
mod part;
pub mod query;
mod report;
mod wanted;
mod ways;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use peer::origin::OriginClient;

use self::exit::Stop;
use self::image::Means;
use self::output::Finish;
use self::report::{Done, Report, Transfer, Voice};
use self::wanted::{Target, Wanted, What};
use self::ways::{Job, Settings, Way};
use crate::{cli, shutdown};

/// The wait before the second attempt; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait: an origin that is restarted is back by then.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// One run of the command.
struct Run {
    report: Report,
    settings: Settings,
    way: Option<Way>,
    /// Asks registries for manifests.
    client: OriginClient,
    retries: u32,
    timeout: Duration,
}

/// Runs the command.
pub async fn run(flags: cli::Get) -> anyhow::Result<()> {
    let all = wanted::all(&flags)?;
    let asked = shutdown::asked();
    tokio::pin!(asked);
    let remote = all.iter().any(|wanted| !matches!(wanted.what, What::File(_)));
    let way = match remote {
        false => None,
        true => tokio::select! {
            way = ways::open(&flags, folder_of(&all)) => Some(way?),
            asked = &mut asked => return asked.and(Err(Stop::Interrupted.into())),
        },
    };
    let run = Run::new(&flags, &all, way)?;
    let (mut failed, mut first) = (0, None);
    for wanted in &all {
        let ended = tokio::select! {
            ended = run.bring(wanted) => ended,
            asked = &mut asked => asked.and(Err(Stop::Interrupted.into())),
        };
        let Err(error) = ended else { continue };
        run.failed(wanted, &error, all.len() == 1);
        failed += 1;
        let interrupted = matches!(error.root_cause().downcast_ref(), Some(Stop::Interrupted));
        first.get_or_insert(error);
        if interrupted {
            break;
        }
    }
    if let Some(way) = run.way {
        way.close().await;
    }
    match first {
        None => Ok(()),
        Some(error) if all.len() == 1 => Err(error),
        Some(error) => Err(Stop::Several { failed, of: all.len(), code: exit::code(&error) }.into()),
    }
}

/// Where a temporary member keeps its store: on the file system of the output.
fn folder_of(all: &[Wanted]) -> PathBuf {
    let folder = all.iter().find_map(|wanted| match &wanted.target {
        Target::File(path) => path.parent(),
        Target::Stdout => None,
    });
    folder.map_or_else(std::env::temp_dir, Into::into)
}

// === impl Run ===

impl Run {
    fn new(flags: &cli::Get, all: &[Wanted], way: Option<Way>) -> anyhow::Result<Self> {
        let voice = match (flags.json, flags.quiet) {
            (true, _) => Voice::Json,
            (false, true) => Voice::Quiet,
            (false, false) => Voice::People,
        };
        let settings = Settings {
            excerpt: flags.range,
            finish: Finish { mode: flags.mode, overwrite: flags.overwrite },
            pace: ways::pace(flags.limit_bytes()),
            paced: flags.limit_bytes().is_some(),
            no_origin: flags.no_origin,
        };
        let stdout_taken = all.iter().any(|wanted| wanted.target == Target::Stdout);
        let timeout = flags.timeout.map_or(Duration::MAX, |span| span.0);
        let (report, client) = (Report::new(voice, stdout_taken), ways::client(flags)?);
        Ok(Self { report, settings, way, client, retries: flags.retry, timeout })
    }

    /// Brings one thing, in time.
    async fn bring(&self, wanted: &Wanted) -> anyhow::Result<()> {
        let mut transfer = self.report.start(&wanted.what, &wanted.target);
        let bringing = Box::pin(self.attempts(wanted, &mut transfer));
        let ended = tokio::time::timeout(self.timeout, bringing).await;
        let done = ended.unwrap_or_else(|_| Err(Stop::TimeUp.into()));
        let done = done.with_context(|| format!("cannot fetch {}", wanted.what.shown()))?;
        transfer.done(&done);
        Ok(())
    }

    /// Tries, and tries again where that may help. What went down a pipe cannot be taken back.
    async fn attempts(&self, wanted: &Wanted, transfer: &mut Transfer<'_>) -> anyhow::Result<Done> {
        let (mut left, mut wait) = (self.retries, FIRST_WAIT);
        loop {
            let error = match self.attempt(wanted, transfer).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let repeatable = wanted.target != Target::Stdout || transfer.at() == 0;
            if left == 0 || !repeatable || !exit::may_pass(&error) {
                return Err(error);
            }
            self.report.remark(&format!("{error:#}; trying again in {} s", wait.as_secs()));
            tokio::time::sleep(wait).await;
            (left, wait) = (left - 1, (wait * 2).min(LONGEST_WAIT));
        }
    }

    async fn attempt(&self, wanted: &Wanted, transfer: &mut Transfer<'_>) -> anyhow::Result<Done> {
        match (&wanted.what, &self.way) {
            (What::Url(remote), Some(way)) => {
                way.bring(&Job { remote, target: &wanted.target, settings: &self.settings }, transfer).await
            }
            (What::Image(image), Some(way)) => {
                let Target::File(folder) = &wanted.target else { bail!("an image needs a folder") };
                let means = Means { client: self.client.clone(), way, settings: &self.settings };
                image::bring(image, folder, &means, transfer).await
            }
            (What::Url(_) | What::Image(_), None) => {
                unreachable!("invariant: there is a way to what is not here")
            }
            (What::File(path), _) => {
                let how = (self.settings.excerpt, self.settings.finish);
                copy::bring(path, &wanted.target, how, transfer).await
            }
        }
    }

    /// Says what failed, and what is left of it.
    fn failed(&self, wanted: &Wanted, error: &anyhow::Error, only: bool) {
        self.report.failed(&wanted.what, error, only);
        if let Target::File(path) = &wanted.target {
            let part = part::data_path(path);
            if part.exists() {
                self.report.remark(&format!("{} stays: the same command goes on from it", part.display()));
            }
        }
    }
}
