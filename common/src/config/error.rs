//! What can be wrong with a configuration, in one line each.

use std::io;
use std::path::{Path, PathBuf};

/// Names are quoted no longer than this: they come from files that may be anything.
const LONGEST_NAME: usize = 64;

/// Why a configuration cannot be used. Every message is one line, names the thing and says the way out.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", shown_path(.path))]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{place}: {message}")]
    Syntax {
        /// File and line.
        place: String,
        /// What the parser says.
        message: String,
    },
    /// A key before any `[section]` line.
    #[error("key `{key}` stands outside any section ({place}): put it under a [section] line")]
    Outside {
        /// The key.
        key: String,
        /// File and line.
        place: String,
    },
    /// No such section.
    #[error("unknown section [{section}] ({place}): {hint}")]
    UnknownSection {
        /// The section.
        section: String,
        /// Where it was found.
        place: String,
        /// The way out.
        hint: String,
    },
    /// No such key in this section.
    #[error("unknown key `{key}` in [{section}] ({place}): {hint}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Its section.
        section: String,
        /// Where it was found.
        place: String,
        /// The way out.
        hint: String,
    },
    /// A variable that looks like ours and sets nothing.
    #[error("unknown environment variable {name}: {hint}")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// The way out.
        hint: String,
    },
    /// The value has another type, or is not written as this type is.
    #[error("{setting} must be {expected}, for example `{example}`")]
    Type {
        /// Key, section and place.
        setting: String,
        /// What it has to be.
        expected: &'static str,
        /// A line that would do.
        example: String,
    },
    /// The value has the right type, and its reader refuses it.
    #[error("{setting}: {reason}, for example `{example}`")]
    Value {
        /// Key, section and place.
        setting: String,
        /// What the reader says.
        reason: String,
        /// A line that would do.
        example: String,
    },
    /// The section as a whole is refused: a setting that must be there is missing.
    #[error("section [{section}]: {reason}")]
    Section {
        /// The section.
        section: String,
        /// What its reader says.
        reason: String,
    },
    /// The data directory's place is taken by something else.
    #[error("the data directory {} is not a directory: move it away or choose another with --data-dir", shown_path(.0))]
    NotADirectory(PathBuf),
    /// The data directory's parent is missing: a typing mistake, or a disk that is not mounted.
    #[error(
        "the data directory {} cannot be made, since its parent is missing or no directory: create the parent or choose another \
         place with --data-dir",
        shown_path(.0)
    )]
    ParentMissing(PathBuf),
    /// The data directory can be neither made nor written.
    #[error("the data directory {} cannot be {deed}: give it to this user or choose another with --data-dir", shown_path(.path))]
    DataDir {
        /// Which directory.
        path: PathBuf,
        /// What was tried.
        deed: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// A name as it may stand in a message: short, and on one line.
pub(super) fn shown(text: &str) -> String {
    let mut name = escaped(&text.chars().take(LONGEST_NAME).collect::<String>());
    if text.chars().nth(LONGEST_NAME).is_some() {
        name.push('…');
    }
    name
}

/// Somebody else's message on one line.
pub(super) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text of any length on one line.
pub(super) fn escaped(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).collect()
}

fn shown_path(path: &Path) -> String {
    escaped(&path.display().to_string())
}
