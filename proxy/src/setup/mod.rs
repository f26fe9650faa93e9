//! Pointing a machine's container runtime at the proxy, and back. `longshore setup` calls [`plan`], [`carry_out`] and
//! [`undo`]; `longshore doctor` calls [`inspect`].
//!
//! A runtime's file reads the tree and makes a [`Plan`]: whole new contents of files, and what to tell the user. The
//! formats themselves ([`containerd`]'s two, docker's JSON, the registries of podman and CRI-O) are functions from text
//! to text. Nothing is written before the plan stands and the journal has the originals.
//!
//! # Invariants
//! - Setting up twice changes nothing the second time.
//! - Setting up and undoing leaves every file below the root as it was, to the byte.

mod containerd;
mod containers;
mod diff;
mod docker;
mod journal;
mod names;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

pub use names::{NameError, Proxy, Registry};
pub use tree::{Spot, Tree};

use journal::Journal;
use tree::Text;

pub(crate) use {containerd::config::Config, containerd::hosts, containers::registries, docker::daemon_json};

/// A container runtime that can be pointed at the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// containerd, with its CRI plugin.
    Containerd,
    /// Docker's daemon.
    Docker,
    /// Podman, and with it buildah and skopeo.
    Podman,
    /// CRI-O.
    Crio,
}

/// What is to be set up.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Where the proxy listens.
    pub proxy: Proxy,
    /// The registries that are to be pulled through it.
    pub registries: Vec<Registry>,
    /// Turn containerd's old mirror tables into host files.
    pub replace_mirrors: bool,
}

/// What will be changed, and what is to be said about it.
#[derive(Debug, Default)]
pub struct Plan {
    edits: Vec<Edit>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// One file's new content.
#[derive(Debug)]
struct Edit {
    spot: Spot,
    before: Option<Text>,
    after: Text,
}

/// A file that is changed, or would be.
#[derive(Debug)]
pub struct Change {
    /// The file, on this machine.
    pub path: PathBuf,
    /// Its unified diff.
    pub diff: String,
}

/// What is between a runtime and the proxy.
#[derive(Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The runtime does not work so, or not at all through the proxy; else it works in part.
    pub fatal: bool,
    /// How it is.
    pub what: String,
    /// What to do about it.
    pub mend: String,
}

/// How a runtime is set up.
#[derive(Debug, Default)]
pub struct Look {
    /// What is wrong.
    pub flaws: Vec<Flaw>,
    /// Addresses of this machine that its settings name as mirrors: somebody should listen there.
    pub mirrors: Vec<String>,
    /// The registries whose pulls go to the proxy.
    pub registries: Vec<String>,
    /// The runtime pulls nothing by itself.
    pub idle: bool,
}

/// Why a runtime is not set up, or not undone.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The file system says no.
    #[error("{} {what}{}", path.display(), if source.kind() == io::ErrorKind::PermissionDenied { " (run as root)" } else { "" })]
    Io {
        /// What was asked of it.
        what: &'static str,
        /// Of which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is such that changing it could break something.
    #[error("{}: {why}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why, and the way out.
        why: String,
    },
    /// Undoing would throw somebody's changes away.
    #[error(
        "{} changed after setup: undo would lose that; take the changes out, or restore what was there before setup with --force",
        shown(paths)
    )]
    Changed {
        /// The files.
        paths: Vec<PathBuf>,
    },
    /// A file changed between looking and writing.
    #[error("{} changed just now: run the command again", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// It was set up with another proxy.
    #[error("it is set up with the proxy {was}: run --undo first, then set it up with {wanted}")]
    OtherProxy {
        /// That other one.
        was: String,
        /// The one that was named now.
        wanted: String,
    },
    /// Docker knows a mirror for Docker Hub only.
    #[error(
        "docker takes a mirror for docker.io only, not for {names}: leave that out; for other registries make the peer docker's HTTPS proxy (--intercept, see docs/proxy.md)"
    )]
    HubOnly {
        /// The others.
        names: String,
    },
}

// === impl Runtime ===

impl Runtime {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Containerd, Self::Docker, Self::Podman, Self::Crio];

    /// Its name, as it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Crio => "crio",
        }
    }

    /// The name of its journal. Podman and CRI-O read the same files: what is set up for one is for both.
    fn journal(self) -> &'static str {
        match self {
            Self::Podman | Self::Crio => "containers",
            _ => self.name(),
        }
    }

    /// What makes it see changes, where it does not by itself.
    pub fn reload(self, changes: &[Change]) -> Option<&'static str> {
        match self {
            _ if changes.is_empty() => None,
            Self::Containerd => {
                // It reads hosts files at each pull.
                let settings = changes.iter().any(|change| !change.path.ends_with("hosts.toml"));
                settings.then_some(containerd::RESTART)
            }
            Self::Docker => Some(docker::RELOAD),
            Self::Podman => None,
            Self::Crio => Some(containers::RELOAD),
        }
    }

    /// Whether it is on the machine whose tree this is.
    pub fn is_here(self, tree: &Tree) -> bool {
        let (program, settings) = match self {
            Self::Containerd => ("containerd", "/etc/containerd"),
            Self::Docker => ("dockerd", "/etc/docker"),
            Self::Podman => ("podman", "/etc/containers"),
            Self::Crio => ("crio", "/etc/crio"),
        };
        let homes = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/bin", "/sbin"];
        tree.has(settings) || homes.iter().any(|home| tree.has(format!("{home}/{program}")))
    }
}

// === impl Plan ===

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// What would be changed.
    pub fn changes(&self, tree: &Tree) -> Vec<Change> {
        let change = |edit: &Edit| {
            let before = edit.before.as_ref().map(|file| file.text.as_str());
            Change::new(tree.shown(&edit.spot), before, Some(&edit.after.text))
        };
        self.edits.iter().map(change).collect()
    }

    /// Wishes for a file's content; the last wish holds.
    fn set(&mut self, tree: &Tree, path: &str, text: String) -> Result<(), SetupError> {
        let spot = tree.resolve(path)?;
        let before = tree.read_at(&spot)?;
        self.edits.retain(|edit| edit.spot != spot);
        if before.as_ref().is_none_or(|before| before.text != text) {
            let after =
                before.as_ref().map_or_else(|| Text::made(text.clone()), |before| before.with(text.clone()));
            self.edits.push(Edit { spot, before, after });
        }
        Ok(())
    }

    fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }
}

/// Finds out what is to be changed, and changes nothing.
///
/// # Errors
/// When the settings that are there cannot be read, or cannot be changed without breaking something.
pub fn plan(tree: &Tree, runtime: Runtime, wish: &Wish) -> Result<Plan, SetupError> {
    if let Some(journal) = Journal::load(tree, runtime.journal())?
        && !wish.proxy.is(&journal.proxy)
    {
        return Err(SetupError::OtherProxy { was: journal.proxy, wanted: wish.proxy.url().into() });
    }
    let mut plan = Plan::default();
    match runtime {
        Runtime::Containerd => containerd::plan(tree, wish, &mut plan)?,
        Runtime::Docker => docker::plan(tree, wish, &mut plan)?,
        Runtime::Podman | Runtime::Crio => containers::plan(tree, wish, &mut plan)?,
    }
    Ok(plan)
}

/// Does what was planned: first the journal, then the files.
///
/// # Errors
/// When a file cannot be written, or is not as it was when the plan was made. What was done until then stays, and an
/// undo takes it back.
pub fn carry_out(tree: &Tree, runtime: Runtime, wish: &Wish, plan: &Plan) -> Result<(), SetupError> {
    if plan.is_empty() {
        return Ok(());
    }
    let name = runtime.journal();
    let mut journal = Journal::load(tree, name)?.unwrap_or_else(|| Journal::new(&wish.proxy));
    journal.record(tree, name, &plan.edits, &wish.registries)?;
    for edit in &plan.edits {
        if tree.read_at(&edit.spot)? != edit.before {
            return Err(SetupError::Busy { path: tree.shown(&edit.spot) });
        }
        journal::make_dirs(tree, &edit.spot)?;
        tree.write(&edit.spot, &edit.after)?;
    }
    Ok(())
}

/// Restores what was there before setup; `None` where nothing was set up.
///
/// # Errors
/// When somebody changed a file since, unless `force` says that this may be lost; when a file cannot be written.
pub fn undo(tree: &Tree, runtime: Runtime, force: bool) -> Result<Option<Vec<PathBuf>>, SetupError> {
    let name = runtime.journal();
    match Journal::load(tree, name)? {
        Some(journal) => journal.undo(tree, name, force).map(Some),
        None => journal::clear(tree, name).map(|()| None),
    }
}

/// What [`undo`] would change; `None` where nothing was set up.
///
/// # Errors
/// Where an undo would fail for what somebody changed; when a file cannot be read.
pub fn undo_changes(tree: &Tree, runtime: Runtime, force: bool) -> Result<Option<Vec<Change>>, SetupError> {
    Journal::load(tree, runtime.journal())?.map(|journal| journal.preview(tree, force)).transpose()
}

/// Looks at how a runtime is set up, with the eyes of somebody who wants its pulls to go through the proxy.
///
/// # Errors
/// When its settings cannot be read.
pub fn inspect(tree: &Tree, runtime: Runtime, proxy: &Proxy) -> Result<Look, SetupError> {
    match runtime {
        Runtime::Containerd => containerd::inspect(tree, proxy),
        Runtime::Docker => docker::inspect(tree, proxy),
        Runtime::Podman | Runtime::Crio => containers::inspect(tree, runtime, proxy),
    }
}

// === impl Change ===

impl Change {
    fn new(path: PathBuf, before: Option<&str>, after: Option<&str>) -> Self {
        Self { diff: diff::unified(&path, before, after), path }
    }
}

// === impl Look ===

impl Look {
    fn fatal(&mut self, what: impl Into<String>, mend: impl Into<String>) {
        self.flaws.push(Flaw { fatal: true, what: what.into(), mend: mend.into() });
    }

    fn flaw(&mut self, what: impl Into<String>, mend: impl Into<String>) {
        self.flaws.push(Flaw { fatal: false, what: what.into(), mend: mend.into() });
    }

    /// Takes note of a mirror if it is on this machine: others are none of the proxy's business.
    fn mirror(&mut self, url: &str) {
        let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = authority.split('/').next().unwrap_or(authority);
        let here = ["127.", "localhost:", "[::1]:"].iter().any(|start| authority.starts_with(start));
        if here && authority.contains(':') && !self.mirrors.iter().any(|known| known == authority) {
            self.mirrors.push(authority.into());
        }
    }
}

// === impl SetupError ===

impl SetupError {
    fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { what, path: path.into(), source }
    }

    fn refused(path: impl AsRef<Path>, why: impl Into<String>) -> Self {
        // A parser's message may have several lines; an error has one.
        let why = why.into().split_whitespace().collect::<Vec<_>>().join(" ");
        Self::Refused { path: path.as_ref().into(), why }
    }

    /// Whether what was asked for makes no sense, rather than that it failed.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::HubOnly { .. })
    }
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
