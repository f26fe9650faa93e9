//! The ways in which content comes here: through the local peer if one runs; else, where a supernode is named, as a member of
//! its swarm for a moment; else straight from the origin. Chosen once for all sources of a command.

mod local;
mod member;
mod pipe;
mod stored;
mod straight;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use common::piece::ByteRange;
use peer::limit::{Allowance, Limits, Rates};
use peer::local_api::Excerpt;
use peer::origin::{OriginClient, OriginOptions};

use self::member::Member;
use super::output::Finish;
use super::report::{Done, Transfer};
use super::wanted::{Remote, Target};
use crate::local::Door;
use crate::{cli, usage};

/// The way that was chosen.
pub enum Way {
    Local(Door),
    Member(Box<Member>),
    Straight(OriginClient),
}

/// What holds for all sources.
#[derive(Clone)]
pub struct Settings {
    /// Only these bytes.
    pub excerpt: Option<Excerpt>,
    pub finish: Finish,
    /// What the content may take of the line.
    pub pace: Allowance,
    /// Whether that is limited.
    pub paced: bool,
    /// Nothing may come from the origin.
    pub no_origin: bool,
}

/// One thing to bring.
pub struct Job<'a> {
    pub remote: &'a Remote,
    pub target: &'a Target,
    pub settings: &'a Settings,
}

/// Opens the way for these flags. `beside` is where a temporary member may keep its store, `folders` are those whose files it
/// may be asked for.
///
/// # Errors
/// When the peer's socket is not open to this user, or the member cannot start.
pub async fn open(flags: &cli::Get, beside: PathBuf, folders: Vec<PathBuf>) -> anyhow::Result<Way> {
    let door = Door { data_dir: flags.data_dir.clone(), socket: flags.socket.clone() };
    if door.connect().await?.is_some() {
        return Ok(Way::Local(door));
    }
    if flags.no_origin {
        let why = "--no-origin takes what the local peer has, and no local peer runs: start one, or leave the flag out";
        return Err(usage(anyhow::anyhow!(why)));
    }
    if flags.supernode.is_empty() {
        return Ok(Way::Straight(client(flags)?));
    }
    Ok(Way::Member(Box::new(Member::join(flags, beside, folders).await?)))
}

/// The bytes that are wanted of content of a length.
fn part_of(excerpt: Excerpt, length: u64) -> anyhow::Result<ByteRange> {
    excerpt.within(length).with_context(|| format!("it has {length} bytes, and none in that range"))
}

/// What the limit of the command lets one source take.
pub fn pace(limit: Option<u64>) -> Allowance {
    Limits::new(&Rates { download: limit, ..Rates::default() }).download.allowance()
}

/// How this process asks origins.
///
/// # Errors
/// When an insecure registry's name is none.
pub fn client(flags: &cli::Get) -> anyhow::Result<OriginClient> {
    OriginClient::new(typed_by_the_user(flags)).map_err(usage)
}

/// The user named the origin: any but the addresses that are never asked.
fn typed_by_the_user(flags: &cli::Get) -> OriginOptions {
    let insecure_registries = flags.insecure_registry.clone();
    OriginOptions { allow: vec!["*".into()], insecure_registries, ..OriginOptions::default() }
}

// === impl Settings ===

impl Settings {
    /// The same; what comes has the permissions of a file, if nobody said which.
    pub fn like(&self, file: &Path) -> Self {
        let metadata = file.metadata().ok();
        let mode = self.finish.mode.or(metadata.map(|metadata| metadata.permissions().mode() & 0o777));
        Self { finish: Finish { mode, ..self.finish }, ..self.clone() }
    }
}

// === impl Way ===

impl Way {
    /// Whether others may have the content.
    pub fn is_of_a_swarm(&self) -> bool {
        !matches!(self, Self::Straight(_))
    }

    /// Brings one thing to where it goes.
    ///
    /// # Errors
    /// With what is in the way; what may be resumed is kept.
    pub async fn bring(&self, job: &Job<'_>, transfer: &mut Transfer<'_>) -> anyhow::Result<Done> {
        match self {
            Self::Local(door) => local::bring(door, job, transfer).await,
            Self::Member(member) => member.bring(job, transfer).await,
            Self::Straight(client) => straight::bring(client, job, transfer).await,
        }
    }

    /// Leaves the swarm, if it was joined.
    pub async fn close(self) {
        if let Self::Member(member) = self {
            member.leave().await;
        }
    }
}
