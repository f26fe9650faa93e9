//! The layers of settings, laid over each other and read out section by section.
//!
//! # Invariants
//! - A flag beats the environment, which beats the file, in whatever order they are laid.
//! - Nothing is read out of a section before all that was laid has been found in the [`Schema`].

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess};
use toml::Value;
use toml::de::{DeTable, DeValue, Error, ValueDeserializer};

use super::error::{ConfigError, escaped, one_line, shown};
use super::schema::{Key, Schema};

const PREFIX: &str = "LONGSHORE_";

/// Layers of settings: empty, or a file's text; then the environment; then flags.
#[derive(Clone, Default)]
pub struct Settings {
    sections: BTreeMap<String, Section>,
}

#[derive(Clone)]
struct Section {
    place: Place,
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone)]
struct Entry {
    value: Value,
    place: Place,
}

/// Where a setting was found. The order is that of precedence.
#[derive(Clone, Debug)]
enum Place {
    File(Arc<str>, usize),
    Environment(String),
    Flag(String),
}

// === impl Settings ===

impl Settings {
    /// No settings: every default holds.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The settings of a TOML file.
    ///
    /// # Errors
    /// When it cannot be read or is not TOML.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::from_str(&text, &path.display().to_string())
    }

    /// The settings of a TOML text; `origin` names it in errors.
    ///
    /// # Errors
    /// When it is not TOML, or has keys outside sections.
    pub fn from_str(text: &str, origin: &str) -> Result<Self, ConfigError> {
        let origin: Arc<str> = escaped(origin).into();
        let place = |offset: usize| Place::File(Arc::clone(&origin), line_of(text, offset));
        let syntax = |error: Error| ConfigError::Syntax {
            place: place(error.span().map_or(0, |span| span.start)).to_string(),
            message: one_line(error.message()),
        };

        let mut settings = Self::empty();
        for (section, content) in DeTable::parse(text).map_err(syntax)?.into_inner() {
            let section_place = place(section.span().start);
            let DeValue::Table(keys) = content.into_inner() else {
                let key = shown(section.get_ref());
                return Err(ConfigError::Outside { key, place: section_place.to_string() });
            };
            let section = section.into_inner().into_owned();
            settings.enter(&section, &section_place);
            for (key, value) in keys {
                let key_place = place(key.span().start);
                let value = Value::deserialize(ValueDeserializer::from(value)).map_err(syntax)?;
                settings.lay(&section, key.get_ref(), value, key_place);
            }
        }
        Ok(settings)
    }

    /// Lays environment variables over the file. Names that do not start with `LONGSHORE_`, exempt ones, and those
    /// that Kubernetes sets for services by itself are passed over; an empty value counts as not set.
    ///
    /// # Errors
    /// When a name is unknown or a value cannot be read.
    pub fn overlay_env(
        &mut self,
        vars: impl Iterator<Item = (String, String)>,
        schema: &Schema,
    ) -> Result<(), ConfigError> {
        let known = schema.variables();
        for (name, text) in vars.filter(|(name, _)| name.starts_with(PREFIX)) {
            let Some(&(section, key)) = known.get(&name) else {
                if schema.is_exempt(&name) || is_service_link(&name, &text) {
                    continue;
                }
                return Err(ConfigError::UnknownVariable {
                    hint: schema.hint_for_variable(&name),
                    name: shown(&name),
                });
            };
            if text.is_empty() {
                continue;
            }
            let place = Place::Environment(name);
            let value = key.kind.read(&text).ok_or_else(|| wrong_type(section, key, &place))?;
            self.lay(section, key.name, value, place);
        }
        Ok(())
    }

    /// Lays a flag over all else.
    pub fn set(&mut self, section: &str, key: &str, value: Value) {
        self.lay(section, key, value, Place::Flag(format!("--{key}")));
    }

    /// Checks all that was laid against the schema.
    ///
    /// # Errors
    /// When a section or key is unknown, naming the nearest, or a value has the wrong type.
    pub fn check(&self, schema: &Schema) -> Result<(), ConfigError> {
        for (name, section) in &self.sections {
            if !schema.has_section(name) {
                return Err(ConfigError::UnknownSection {
                    section: shown(name),
                    place: section.place.to_string(),
                    hint: schema.hint_for_section(name),
                });
            }
            for (key, entry) in &section.entries {
                let Some(key) = schema.key(name, key) else {
                    return Err(ConfigError::UnknownKey {
                        key: shown(key),
                        section: shown(name),
                        place: entry.place.to_string(),
                        hint: schema.hint_for_key(name, key),
                    });
                };
                key.kind.accept(&entry.value).ok_or_else(|| wrong_type(name, key, &entry.place))?;
            }
        }
        Ok(())
    }

    /// Reads one section out, after checking all of them. `T` takes kebab-case keys, has a default for each key
    /// that may be missing (`#[serde(default, rename_all = "kebab-case")]`), and leaves keys aside that another part of the
    /// program reads.
    ///
    /// # Errors
    /// Those of [`Settings::check`], and when `T` refuses a value or misses one.
    pub fn section<T: DeserializeOwned>(&self, name: &str, schema: &Schema) -> Result<T, ConfigError> {
        self.check(schema)?;
        let empty = BTreeMap::new();
        let entries = self.sections.get(name).map_or(&empty, |section| &section.entries);
        let mut reader = Reader { schema, section: name, entries: entries.iter(), current: None };
        T::deserialize(MapAccessDeserializer::new(&mut reader)).map_err(|error| {
            let reason = one_line(error.message());
            match reader.current {
                Some((key, entry)) => ConfigError::Value {
                    setting: setting(name, key, &entry.place),
                    reason,
                    example: entry.place.example(key),
                },
                None => ConfigError::Section { section: shown(name), reason },
            }
        })
    }

    fn enter(&mut self, section: &str, place: &Place) -> &mut Section {
        let new = || Section { place: place.clone(), entries: BTreeMap::new() };
        self.sections.entry(section.to_owned()).or_insert_with(new)
    }

    fn lay(&mut self, section: &str, key: &str, value: Value, place: Place) {
        let entries = &mut self.enter(section, &place).entries;
        if entries.get(key).is_none_or(|under| under.place.rank() <= place.rank()) {
            entries.insert(key.to_owned(), Entry { value, place });
        }
    }
}

/// Names and places only: values may hold secrets.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.sections.iter().flat_map(|(section, content)| {
            content.entries.iter().map(move |(key, entry)| (format!("{section}.{key}"), &entry.place))
        });
        f.debug_map().entries(keys).finish()
    }
}

// === impl Place ===

impl Place {
    fn rank(&self) -> u8 {
        match self {
            Self::File(..) => 0,
            Self::Environment(_) => 1,
            Self::Flag(_) => 2,
        }
    }

    /// How the key would rightly be written here.
    fn example(&self, key: &Key) -> String {
        match self {
            Self::File(..) => key.line(),
            Self::Environment(name) => format!("{name}={}", key.example),
            Self::Flag(flag) => format!("{flag} {}", key.example),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(origin, line) => write!(f, "file {origin} line {line}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// Hands a section's entries to serde and remembers the one it is at, so that an error can name it.
struct Reader<'a> {
    schema: &'a Schema,
    section: &'a str,
    entries: btree_map::Iter<'a, String, Entry>,
    current: Option<(&'static Key, &'a Entry)>,
}

// === impl Reader ===

impl<'de> MapAccess<'de> for &mut Reader<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.current = None;
        let Some((name, entry)) = self.entries.next() else { return Ok(None) };
        self.current = self.schema.key(self.section, name).map(|key| (key, entry));
        seed.deserialize(name.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let value = self.current.and_then(|(key, entry)| key.kind.accept(&entry.value));
        let value = value.ok_or_else(|| de::Error::custom("the setting is not in the schema"))?;
        seed.deserialize(value)
    }
}

/// The process's environment, for [`Settings::overlay_env`]; bytes that are not UTF-8 are replaced, where
/// [`std::env::vars`] would panic.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

fn setting(section: &str, key: &Key, place: &Place) -> String {
    format!("`{}` in [{}] ({place})", key.name, shown(section))
}

fn wrong_type(section: &str, key: &Key, place: &Place) -> ConfigError {
    ConfigError::Type {
        setting: setting(section, key, place),
        expected: key.kind.expected(),
        example: place.example(key),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

/// Whether Kubernetes set the variable. For a service called `longshore-supernode` it gives every pod of the
/// namespace `LONGSHORE_SUPERNODE_SERVICE_HOST`, `LONGSHORE_SUPERNODE_PORT_7701_TCP_ADDR` and their like, which
/// look like settings and are none.
fn is_service_link(name: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    let words: Vec<&str> = name.split('_').collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let has_scheme = PROTOCOLS
        .iter()
        .any(|scheme| value.split_once("://").is_some_and(|(found, _)| found.eq_ignore_ascii_case(scheme)));
    let port_link = words
        .windows(3)
        .any(|window| window[0] == "PORT" && is_number(window[1]) && PROTOCOLS.contains(&window[2]));
    let service = words.windows(2).any(|pair| pair == ["SERVICE", "HOST"] || pair == ["SERVICE", "PORT"]);
    port_link || service || (name.ends_with("_PORT") && has_scheme)
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
