//! Which of containerd's files are read, in which order, and what they say together. Called by containerd's planner and
//! by the doctor.

use std::collections::{BTreeMap, VecDeque};

use super::super::{SetupError, Tree};
use super::config::{Config, OldMirror};
use super::refused;

/// containerd's settings.
pub(super) const MAIN: &str = "/etc/containerd/config.toml";
/// What newer releases read besides, where the settings say nothing else.
pub(super) const DROP_INS: &str = "/etc/containerd/conf.d/*.toml";
/// Files that may import each other.
const MAX_FILES: usize = 256;

/// containerd's settings: the main file, and all that it imports, as they are read.
pub(super) struct Settings {
    pub(super) files: Vec<(String, Config)>,
    /// There is no main file; the first of `files` is the one that would be made.
    pub(super) made: bool,
}

// === impl Settings ===

impl Settings {
    pub(super) fn load(tree: &Tree) -> Result<Self, SetupError> {
        let main = tree.read(MAIN)?;
        let made = main.is_none();
        let text = match main {
            Some(file) => file.text,
            None => Self::fresh(tree)?,
        };
        let mut files: Vec<(String, Config)> = Vec::new();
        let mut ahead = VecDeque::from([(MAIN.to_owned(), text)]);
        while let Some((path, text)) = ahead.pop_front() {
            let of_main = files.first().map(|(_, main)| main.version());
            let config = Config::parse(&text, of_main).map_err(|why| refused(tree, &path, why))?;
            for pattern in config.imports() {
                let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
                let pattern = if pattern.starts_with('/') { pattern } else { format!("{dir}/{pattern}") };
                for import in tree.glob(&pattern)? {
                    let known = files.iter().map(|(path, _)| path).chain(ahead.iter().map(|(path, _)| path));
                    if import == path || known.into_iter().any(|known| *known == import) {
                        continue;
                    }
                    let text = tree.read(&import)?.map(|file| file.text).unwrap_or_default();
                    ahead.push_back((import, text));
                }
            }
            files.push((path, config));
            if files.len() + ahead.len() > MAX_FILES {
                return Err(refused(tree, MAIN, "it imports too many files"));
            }
        }
        Ok(Self { files, made })
    }

    /// What a missing main file would say. It must not be older than what it imports, and every containerd since 1.3
    /// reads version 2.
    fn fresh(tree: &Tree) -> Result<String, SetupError> {
        let drop_ins = tree.glob(DROP_INS)?;
        let mut version = 2;
        for path in &drop_ins {
            let text = tree.read(path)?.map(|file| file.text).unwrap_or_default();
            let config = Config::parse(&text, Some(2)).map_err(|why| refused(tree, path, why))?;
            version = version.max(config.version());
        }
        let imports =
            if drop_ins.is_empty() { String::new() } else { format!("imports = [\"{DROP_INS}\"]\n") };
        Ok(format!("version = {version}\n{imports}"))
    }

    /// The file whose word on the plugin is the last.
    pub(super) fn in_force(&self) -> usize {
        self.files.iter().rposition(|(_, config)| config.has_plugin()).unwrap_or(0)
    }

    pub(super) fn is_off(&self) -> bool {
        self.files.iter().any(|(_, config)| config.is_off())
    }

    /// The directories in which hosts are looked up, as the file in force and those before it say.
    pub(super) fn config_path(&self) -> Vec<String> {
        let said = self.files[..=self.in_force()].iter().rev().filter_map(|(_, config)| config.config_path());
        let said = said.into_iter().find(|path| !path.is_empty()).unwrap_or_default();
        said.split(':').filter(|dir| !dir.is_empty()).map(str::to_owned).collect()
    }

    /// The first file with mirrors of the old kind.
    pub(super) fn with_mirrors(&self) -> Option<&str> {
        self.files.iter().find(|(_, config)| !config.mirrors().is_empty()).map(|(path, _)| path.as_str())
    }

    /// All mirrors of the old kind; what a later file says of a registry holds.
    pub(super) fn mirrors(&self) -> BTreeMap<String, OldMirror> {
        let all = self.files.iter().flat_map(|(_, config)| config.mirrors());
        all.map(|mirror| (mirror.registry.clone(), mirror)).collect()
    }

    /// The first host with TLS settings of the old kind, and the file that has them.
    pub(super) fn with_tls(&self) -> Option<(&str, String)> {
        self.files
            .iter()
            .find_map(|(path, config)| Some((path.as_str(), config.old_tls().into_iter().next()?)))
    }
}
