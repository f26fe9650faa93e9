//! `longshore get`: sources into files. Through the local peer's socket if one runs; else, with `--supernode`, as a temporary
//! member of the swarm; else straight from the origin with ranges side by side.
//!
//! [`wanted`] says what comes from where and goes where ([`list`], [`names`] and [`query`] read what it is made of), [`tree`] finds
//! what is below a folder, [`ways`] bring it, [`image`] knows what an image is made of and [`bucket`] how an object is asked
//! for, [`output`] and [`part`] keep it, [`behind`] hurries the disk, [`report`] tells of it, and [`exit`] knows what the end is called.
//!
//! # Invariants
//! - A file appears under its name only when it is whole and, where a digest is given, right.
//! - What a failed fetch wrote is removed, but for a partial file that the next attempt goes on from.

mod behind;
mod bucket;
mod copy;
pub mod exit;
pub mod image;
mod list;
mod names;
mod output;
mod part;
mod report;
pub mod tree;
mod wanted;
mod ways;

use std::cell::Cell;
use std::collections::HashSet;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use futures_util::stream;
use peer::origin::OriginClient;

use self::bucket::Buckets;
use self::exit::Stop;
use self::image::Means;
use self::output::Finish;
use self::report::{Done, Report, Transfer, Voice};
use self::tree::{Finder, Pick};
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
    /// Asks registries for manifests, and servers for what is in a folder.
    client: OriginClient,
    buckets: Buckets,
    retries: u32,
    timeout: Duration,
    /// Sources that are fetched side by side.
    parallel: usize,
}

/// How the sources of a run ended.
#[derive(Default)]
struct Ends {
    failed: usize,
    first: Option<anyhow::Error>,
    done: HashSet<usize>,
}

/// Runs the command.
pub async fn run(flags: cli::Get) -> anyhow::Result<()> {
    let pick = Pick::of(&flags)?;
    let mut all = wanted::all(&flags)?;
    let asked = shutdown::asked();
    tokio::pin!(asked);
    let way = tokio::select! {
        way = way(&flags, &all) => way?,
        asked = &mut asked => return asked.and(Err(Stop::Interrupted.into())),
    };
    let mut run = Run::new(&flags, &all, way)?;
    let ended = async {
        if flags.recursive {
            all = tokio::select! {
                found = run.find(&all, &pick, flags.overwrite) => found?,
                asked = &mut asked => return asked.and(Err(Stop::Interrupted.into())),
            };
        }
        run.bring_all(&all, asked).await
    };
    let ended = ended.await;
    if let Some(way) = run.way.take() {
        way.close().await;
    }
    ended
}

/// The way for all sources. Files of this machine alone can do without.
async fn way(flags: &cli::Get, all: &[Wanted]) -> anyhow::Result<Option<Way>> {
    let here = |wanted: &Wanted| match &wanted.what {
        What::File(path, _) => Some(path.parent().map(Into::into).unwrap_or_default()),
        _ => None,
    };
    let folders: Vec<PathBuf> = all.iter().filter_map(here).collect();
    let needed = folders.len() < all.len() || !flags.supernode.is_empty();
    match ways::open(flags, folder_of(all), folders).await {
        Err(error) if !needed => {
            tracing::debug!("no local peer is asked for files: {error:#}");
            Ok(None)
        }
        way => way.map(Some),
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
        let (buckets, parallel) = (Buckets::of(flags)?, usize::from(flags.parallel));
        Ok(Self { report, settings, way, client, buckets, retries: flags.retry, timeout, parallel })
    }

    /// What is below the folders that were named.
    async fn find(&self, roots: &[Wanted], pick: &Pick, overwrite: bool) -> anyhow::Result<Vec<Wanted>> {
        let finder = Finder { client: &self.client, buckets: &self.buckets, pick };
        let mut all = Vec::new();
        for root in roots {
            let shown = root.what.shown();
            let found = finder.find(root, overwrite).await;
            let found = found.with_context(|| format!("cannot fetch what is below {shown}"))?;
            self.report.remark(&format!("{} files to fetch below {shown}", found.files.len()));
            if found.here > 0 {
                let here = found.here;
                self.report
                    .remark(&format!("{here} are here already and stay as they are, but for --overwrite"));
            }
            if found.deeper > 0 {
                let (deeper, depth) = (found.deeper, pick.depth);
                self.report.remark(&format!(
                    "{deeper} folders are deeper than {depth} and were not entered: --depth {} enters more",
                    depth.next()
                ));
            }
            all.extend(found.files);
        }
        wanted::distinct(&all)?;
        Ok(all)
    }

    /// Brings all of it, some at a time, until the user has had enough.
    async fn bring_all(
        &self,
        all: &[Wanted],
        mut asked: Pin<&mut impl Future<Output = anyhow::Result<()>>>,
    ) -> anyhow::Result<()> {
        let (begun, mut ends) = (Cell::new(0), Ends::default());
        let bring = async |(at, wanted): (usize, &Wanted)| {
            begun.set(at + 1);
            (at, self.bring(wanted).await)
        };
        let mut running =
            pin!(stream::iter(all.iter().enumerate()).map(bring).buffer_unordered(self.parallel));
        let interrupted = loop {
            tokio::select! {
                ended = running.next() => match ended {
                    None => break None,
                    Some((at, ended)) => self.ended(at, ended, all, &mut ends),
                },
                asked = &mut asked => break Some(asked),
            }
        };
        if let Some(asked) = interrupted {
            for at in (0..begun.get()).filter(|at| !ends.done.contains(at)).collect::<Vec<_>>() {
                self.ended(at, Err(Stop::Interrupted.into()), all, &mut ends);
            }
            asked?;
            return Err(Stop::Interrupted.into());
        }
        match ends.first {
            None => Ok(()),
            Some(error) if all.len() == 1 => Err(error),
            Some(error) => {
                Err(Stop::Several { failed: ends.failed, of: all.len(), code: exit::code(&error) }.into())
            }
        }
    }

    /// One of them came to an end.
    fn ended(&self, at: usize, ended: anyhow::Result<()>, all: &[Wanted], ends: &mut Ends) {
        ends.done.insert(at);
        if let Err(error) = ended {
            self.failed(&all[at], &error, all.len() == 1);
            ends.failed += 1;
            ends.first.get_or_insert(error);
        }
    }

    /// Brings one thing, in time.
    async fn bring(&self, wanted: &Wanted) -> anyhow::Result<()> {
        if let Target::File(path) = &wanted.target
            && let Some(folder) = path.parent().filter(|folder| !folder.is_dir())
        {
            // Of a folder, with all that is in it.
            let made = tokio::fs::create_dir_all(folder).await;
            made.with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
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
            (What::Object(object), Some(way)) => {
                let remote = &self.buckets.sign(object).await?;
                way.bring(&Job { remote, target: &wanted.target, settings: &self.settings }, transfer).await
            }
            (What::Image(image), Some(way)) => {
                let Target::File(folder) = &wanted.target else { bail!("an image needs a folder") };
                let means = Means { client: self.client.clone(), way, settings: &self.settings };
                image::bring(image, folder, &means, transfer).await
            }
            (What::Url(_) | What::Object(_) | What::Image(_), None) => {
                unreachable!("invariant: there is a way to what is not here")
            }
            (What::File(path, remote), way) => {
                let settings = &self.settings.like(path);
                let job = Job { remote, target: &wanted.target, settings };
                match way {
                    Some(way) if way.is_of_a_swarm() => match way.bring(&job, transfer).await {
                        Err(error) if exit::is_refused(&error) => {
                            tracing::debug!("not a file that nodes share: {error:#}");
                            copy::bring(path, &job, transfer).await
                        }
                        done => done,
                    },
                    _ => copy::bring(path, &job, transfer).await,
                }
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
