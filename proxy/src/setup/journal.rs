//! What setup changed, so that an undo restores it to the byte: one JSON file for each runtime, below
//! `/var/lib/longshore/setup` in the tree, for its owner alone (settings may hold passwords).
//!
//! # Invariants
//! - A file's first original is never overwritten by a later run.
//! - What somebody else wrote into a file after setup is never thrown away, unless the user forces it.
//!
//! # Crash safety
//! The journal is on the disk before the first change. Whatever a kill leaves behind, each file has its original content
//! or one that the journal knows to be setup's own, and the next run or an undo goes on from there.

use std::path::PathBuf;

use common::digest::Digest;
use serde::{Deserialize, Serialize};

use super::names::{Proxy, Registry};
use super::tree::{Spot, Text, Tree};
use super::{Change, Edit, SetupError};

/// Where journals are kept.
const HOME: &str = "/var/lib/longshore/setup";
/// The form of the file.
const VERSION: u32 = 1;
/// Directories of settings are for everybody to read.
const PUBLIC: u32 = 0o755;

/// All that setup changed for one runtime.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    version: u32,
    /// The proxy that was set up, and for which registries.
    pub(super) proxy: String,
    pub(super) registries: Vec<String>,
    /// Directories that were made, each after the one it is in.
    dirs: Vec<Spot>,
    files: Vec<Entry>,
}

/// One file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    spot: Spot,
    /// How it was; `None` where there was none.
    original: Option<Text>,
    /// Digests of all that setup ever wrote there.
    ours: Vec<String>,
    /// Somebody else changed it between two runs, and setup built on that.
    mixed: bool,
}

/// How a file is, compared with what the journal knows.
enum State {
    Original,
    Ours,
    Foreign,
}

// === impl Journal ===

impl Journal {
    pub(super) fn new(proxy: &Proxy) -> Self {
        Self { version: VERSION, proxy: proxy.url().into(), registries: vec![], dirs: vec![], files: vec![] }
    }

    /// The journal of a runtime, if there is one.
    pub(super) fn load(tree: &Tree, runtime: &str) -> Result<Option<Self>, SetupError> {
        let spot = spot(tree, runtime)?;
        let Some(file) = tree.read_at(&spot)? else { return Ok(None) };
        let damaged = |why: String| {
            SetupError::refused(
                tree.shown(&spot),
                format!("{why}; restore your settings by hand, then remove it"),
            )
        };
        let journal: Self = serde_json::from_str(&file.text).map_err(|error| damaged(error.to_string()))?;
        let spots = journal.files.iter().map(|entry| &entry.spot).chain(&journal.dirs);
        if journal.version != VERSION || !spots.into_iter().all(Spot::is_sound) {
            return Err(damaged("it is no journal that this release understands".into()));
        }
        Ok(Some(journal))
    }

    /// Takes up what is about to be changed, and puts itself on the disk.
    pub(super) fn record(
        &mut self,
        tree: &Tree,
        runtime: &str,
        edits: &[Edit],
        registries: &[Registry],
    ) -> Result<(), SetupError> {
        for edit in edits {
            let written = digest(&edit.after.text);
            match self.files.iter_mut().find(|entry| entry.spot == edit.spot) {
                Some(entry) => {
                    entry.mixed |= matches!(entry.state(edit.before.as_ref()), State::Foreign);
                    if !entry.ours.contains(&written) {
                        entry.ours.push(written);
                    }
                }
                None => self.files.push(Entry {
                    spot: edit.spot.clone(),
                    original: edit.before.clone(),
                    ours: vec![written],
                    mixed: false,
                }),
            }
            self.dirs_for(tree, &edit.spot);
        }
        let new = registries.iter().map(Registry::to_string).filter(|name| !self.registries.contains(name));
        let new: Vec<String> = new.collect();
        self.registries.extend(new);
        self.save(tree, runtime)
    }

    fn save(&mut self, tree: &Tree, runtime: &str) -> Result<(), SetupError> {
        let spot = spot(tree, runtime)?;
        self.dirs_for(tree, &spot);
        let text = serde_json::to_string_pretty(self).expect("invariant: a journal is JSON");
        tree.write_in_new_dirs(&spot, &Text::secret(text))
    }

    /// Notes the directories that a file needs and that are not there.
    fn dirs_for(&mut self, tree: &Tree, spot: &Spot) {
        let missing = tree.missing_dirs(spot);
        self.dirs.extend(missing.into_iter().filter(|dir| !self.dirs.contains(dir)).collect::<Vec<_>>());
    }

    /// Restores all originals and removes itself; gives the files that it changed.
    pub(super) fn undo(self, tree: &Tree, runtime: &str, force: bool) -> Result<Vec<PathBuf>, SetupError> {
        let states = self.states(tree, force)?;
        let mut restored = Vec::new();
        for (entry, state) in self.files.iter().zip(&states) {
            tree.sweep(&entry.spot);
            if matches!(state, State::Original) {
                continue;
            }
            match &entry.original {
                Some(original) => {
                    for dir in tree.missing_dirs(&entry.spot) {
                        tree.make_dir(&dir, PUBLIC)?;
                    }
                    tree.write(&entry.spot, original)?;
                }
                None => tree.remove_file(&entry.spot)?,
            }
            restored.push(tree.shown(&entry.spot));
        }
        // Before the journal goes, so that a kill leaves nothing that it would not know of; then those of the journal.
        self.dirs.iter().rev().for_each(|dir| tree.remove_dir(dir));
        clear(tree, runtime)?;
        self.dirs.iter().rev().for_each(|dir| tree.remove_dir(dir));
        Ok(restored)
    }

    /// What an undo would change.
    pub(super) fn preview(&self, tree: &Tree, force: bool) -> Result<Vec<Change>, SetupError> {
        let mut changes = Vec::new();
        for (entry, state) in self.files.iter().zip(self.states(tree, force)?) {
            if !matches!(state, State::Original) {
                let now = tree.read_at(&entry.spot)?.map(|file| file.text);
                let then = entry.original.as_ref().map(|file| file.text.as_str());
                changes.push(Change::new(tree.shown(&entry.spot), now.as_deref(), then));
            }
        }
        Ok(changes)
    }

    /// How the files are; an error where somebody else changed one, unless that may be lost.
    fn states(&self, tree: &Tree, force: bool) -> Result<Vec<State>, SetupError> {
        let state = |entry: &Entry| Ok(entry.state(tree.read_at(&entry.spot)?.as_ref()));
        let states: Vec<State> = self.files.iter().map(state).collect::<Result<_, SetupError>>()?;
        let changed = self.files.iter().zip(&states).filter(|(entry, state)| {
            matches!(state, State::Foreign) || entry.mixed && !matches!(state, State::Original)
        });
        let paths: Vec<PathBuf> = changed.map(|(entry, _)| tree.shown(&entry.spot)).collect();
        if paths.is_empty() || force { Ok(states) } else { Err(SetupError::Changed { paths }) }
    }
}

impl Entry {
    fn state(&self, now: Option<&Text>) -> State {
        if now == self.original.as_ref() {
            return State::Original;
        }
        match now {
            Some(file) if self.ours.contains(&digest(&file.text)) => State::Ours,
            // Its content alone counts: a mode that somebody changed is not setup's to restore.
            Some(file) if self.original.as_ref().is_some_and(|original| original.text == file.text) => {
                State::Original
            }
            _ => State::Foreign,
        }
    }
}

/// Makes the directories that a file needs.
pub(super) fn make_dirs(tree: &Tree, spot: &Spot) -> Result<(), SetupError> {
    tree.missing_dirs(spot).iter().try_for_each(|dir| tree.make_dir(dir, PUBLIC))
}

/// Takes a runtime's journal away, and the directories that only journals live in.
pub(super) fn clear(tree: &Tree, runtime: &str) -> Result<(), SetupError> {
    let spot = spot(tree, runtime)?;
    tree.sweep_above(&spot);
    tree.remove_file(&spot)?;
    for dir in [format!("{HOME}/{runtime}"), HOME.into()] {
        tree.remove_dir(&tree.resolve(dir)?);
    }
    Ok(())
}

fn spot(tree: &Tree, runtime: &str) -> Result<Spot, SetupError> {
    tree.resolve(format!("{HOME}/{runtime}/journal.json"))
}

fn digest(text: &str) -> String {
    Digest::of(text.as_bytes()).hex()
}
