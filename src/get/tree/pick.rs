//! Which files of a folder are wanted (`--include`, `--exclude`, `--depth`). Pure.

use std::path::Path;
use std::str::FromStr;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::Parts;
use crate::{cli, usage};

/// What is taken of a folder.
#[derive(Debug)]
pub struct Pick {
    include: Option<GlobSet>,
    exclude: GlobSet,
    pub depth: Depth,
}

/// How many folders below the first one are entered, one in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth(u32);

// === impl Pick ===

impl Pick {
    /// As the flags have it.
    ///
    /// # Errors
    /// When a pattern is none.
    pub fn of(flags: &cli::Get) -> anyhow::Result<Self> {
        let include = Some(&flags.include).filter(|patterns| !patterns.is_empty());
        Ok(Self {
            include: include.map(|patterns| set(patterns)).transpose()?,
            exclude: set(&flags.exclude)?,
            depth: flags.depth,
        })
    }

    /// Whether the file at a path below the first folder is wanted.
    pub fn takes(&self, path: &Path) -> bool {
        self.include.as_ref().is_none_or(|patterns| patterns.is_match(path)) && !self.exclude.is_match(path)
    }
}

/// Patterns with a slash are of the path, others of the name alone.
fn set(patterns: &[String]) -> anyhow::Result<GlobSet> {
    let mut all = GlobSetBuilder::new();
    for pattern in patterns {
        let whole = match pattern.strip_prefix('/') {
            Some(path) => path.to_owned(),
            None if pattern.contains('/') => pattern.clone(),
            None => format!("**/{pattern}"),
        };
        all.add(GlobBuilder::new(&whole).literal_separator(true).build().map_err(usage)?);
    }
    all.build().map_err(usage)
}

// === impl Depth ===

impl Depth {
    /// Whether a folder so many below the first is entered.
    pub fn allows(self, depth: u32) -> bool {
        depth <= self.0
    }

    /// One more.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The folder above a file that is not entered, if there is one.
    pub fn beyond(self, parts: &Parts) -> Option<&[std::ffi::OsString]> {
        let folders = parts.len().saturating_sub(1);
        let entered = usize::try_from(self.0).unwrap_or(usize::MAX);
        (folders > entered).then(|| &parts[..=entered])
    }
}

impl Default for Depth {
    /// What wget and dfget take.
    fn default() -> Self {
        Self(5)
    }
}

impl FromStr for Depth {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl std::fmt::Display for Depth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pick(include: &[&str], exclude: &[&str]) -> Pick {
        let set = |patterns: &[&str]| {
            set(&patterns.iter().map(|&text| text.to_owned()).collect::<Vec<_>>()).unwrap()
        };
        let include = (!include.is_empty()).then(|| set(include));
        Pick { include, exclude: set(exclude), depth: Depth::default() }
    }

    #[test]
    fn names_and_paths_are_picked_by_patterns() {
        for (include, exclude, path, taken) in [
            (&[] as &[&str], &[] as &[&str], "a/b.iso", true),
            (&["*.iso"], &[], "a/b.iso", true),
            (&["*.iso"], &[], "a/b.img", false),
            (&["*.iso"], &["b*"], "a/b.iso", false),
            (&["a/*"], &[], "a/b.iso", true),
            (&["a/*"], &[], "a/c/b.iso", false),
            (&["a/**"], &[], "a/c/b.iso", true),
            (&["/*.iso"], &[], "b.iso", true),
            (&["/*.iso"], &[], "a/b.iso", false),
            (&[], &["debug/**"], "debug/x/y", false),
        ] {
            assert_eq!(
                pick(include, exclude).takes(Path::new(path)),
                taken,
                "{include:?} {exclude:?} {path}"
            );
        }
        assert!(set(&["[".to_owned()]).is_err_and(|error| error.is::<crate::Usage>()));
    }

    #[test]
    fn the_depth_is_counted_in_folders() {
        let parts = |path: &str| path.split('/').map(Into::into).collect::<Parts>();
        for (depth, path, beyond) in [
            (0, "a", None),
            (0, "a/b", Some(1)),
            (1, "a/b", None),
            (1, "a/b/c/d", Some(2)),
            (5, "a/b/c/d/e/f", None),
        ] {
            assert_eq!(Depth(depth).beyond(&parts(path)).map(<[_]>::len), beyond, "{depth} {path}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_is_read_or_refused(pattern in "[a-z*?{}\\[\\]\\\\/!,]{0,16}", path in "[a-z/]{0,12}") {
            if let Ok(set) = set(&[pattern]) {
                let _ = set.is_match(Path::new(&path));
            }
        }
    }
}
