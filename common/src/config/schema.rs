//! Which settings there are and how each is written. The binary holds one [`Schema`] for all its daemons, so that
//! one file may serve several of them; it is the one list that the file, the environment and the flags are checked
//! against.

use std::collections::BTreeMap;

use toml::Value;

use super::{ByteSize, ListenAddr, Percent, Rate, Share, Span};

/// Read by the logging, not a setting of any section.
const LOG_VARIABLE: &str = "LONGSHORE_LOG";

/// Longer names are cut before they are compared: the comparison costs the product of the lengths.
const LONGEST_COMPARED: usize = 64;

/// All sections and keys.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// Section names and their keys, in groups that sections may share.
    pub sections: &'static [(&'static str, &'static [&'static [Key]])],
    /// Environment variables that start with `LONGSHORE_` and set no key; one that ends in `_` stands for all that
    /// start so. `LONGSHORE_LOG` need not be named.
    pub exempt: &'static [&'static str],
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in the file and as a flag: `data-dir`.
    pub name: &'static str,
    /// How it is written.
    pub kind: Kind,
    /// A value that would do, as one would write it in the environment; shown in errors.
    pub example: &'static str,
}

/// How a setting is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// Several texts; one alone needs no brackets. `a,b` in the environment.
    List,
    /// Names and texts: a TOML table, or a list of `NAME=VALUE`. `a=b,c=d` in the environment.
    Table,
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// A [`ByteSize`].
    Size,
    /// A [`Share`].
    Share,
    /// A [`Percent`].
    Percent,
    /// A [`Rate`].
    Rate,
    /// A [`Span`].
    Span,
    /// A [`ListenAddr`].
    Address,
}

// === impl Schema ===

impl Schema {
    pub(super) fn has_section(&self, name: &str) -> bool {
        self.sections.iter().any(|(section, _)| *section == name)
    }

    /// The keys of a section; none where there is no such section.
    pub(super) fn keys(&self, name: &str) -> impl Iterator<Item = &'static Key> {
        let groups = self.sections.iter().find(|(section, _)| *section == name).map(|&(_, groups)| groups);
        groups.into_iter().flatten().copied().flatten()
    }

    /// A key of a section.
    pub(super) fn key(&self, section: &str, name: &str) -> Option<&'static Key> {
        self.keys(section).find(|key| key.name == name)
    }

    /// The environment variables that set something, with their section and key.
    pub(super) fn variables(&self) -> BTreeMap<String, (&'static str, &'static Key)> {
        let of_section = |&(section, _): &(&'static str, _)| {
            self.keys(section).map(move |key| (variable(section, key.name), (section, key)))
        };
        self.sections.iter().flat_map(of_section).collect()
    }

    pub(super) fn is_exempt(&self, variable: &str) -> bool {
        let matches = |name: &&str| variable == *name || (name.ends_with('_') && variable.starts_with(*name));
        variable == LOG_VARIABLE || self.exempt.iter().any(matches)
    }

    /// What to say of a section that is not there.
    pub(super) fn hint_for_section(&self, name: &str) -> String {
        did_you_mean(name, self.sections.iter().map(|(section, _)| format!("[{section}]")))
    }

    /// What to say of a key that this section has not: another section may have it.
    pub(super) fn hint_for_key(&self, section: &str, name: &str) -> String {
        let elsewhere = self.sections.iter().find(|(other, _)| self.key(other, name).is_some());
        if let Some((other, _)) = elsewhere {
            return format!("it belongs under [{other}]");
        }
        did_you_mean(name, self.keys(section).map(|key| format!("`{}`", key.name)))
    }

    /// What to say of a variable that sets nothing.
    pub(super) fn hint_for_variable(&self, name: &str) -> String {
        did_you_mean(name, self.variables().into_keys())
    }
}

// === impl Key ===

impl Key {
    /// A setting.
    pub const fn new(name: &'static str, kind: Kind, example: &'static str) -> Self {
        Self { name, kind, example }
    }

    /// The example as a line of the file.
    pub(super) fn line(&self) -> String {
        match self.kind.read(self.example) {
            Some(value) => format!("{} = {value}", self.name),
            None => format!("{} = {}", self.name, self.example),
        }
    }
}

// === impl Kind ===

impl Kind {
    /// For the middle of a sentence.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::List => "a list of texts",
            Self::Table => "a table of names and texts",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Size => "a size in bytes",
            Self::Share => "a size in bytes, or a percentage of the disk",
            Self::Percent => "a percentage",
            Self::Rate => "a rate in bytes or bits per second, or none",
            Self::Span => "a length of time",
            Self::Address => "an address to listen on",
        }
    }

    /// A value out of the environment.
    pub(super) fn read(self, text: &str) -> Option<Value> {
        let value = match self {
            Self::List | Self::Table => Value::Array(
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect(),
            ),
            Self::Bool => match text.trim() {
                "true" | "1" => Value::Boolean(true),
                "false" | "0" => Value::Boolean(false),
                _ => return None,
            },
            Self::Number => {
                let text = text.trim();
                let whole = text.parse().ok().map(Value::Integer);
                whole.or_else(|| {
                    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Float)
                })?
            }
            Self::Text
            | Self::Size
            | Self::Share
            | Self::Percent
            | Self::Rate
            | Self::Span
            | Self::Address => Value::from(text),
        };
        self.accept(&value)
    }

    /// The value in the one form that sections are read from, if it is of this kind.
    pub(super) fn accept(self, value: &Value) -> Option<Value> {
        match (self, value) {
            (Self::Text, Value::String(_))
            | (Self::Bool, Value::Boolean(_))
            | (Self::Number, Value::Integer(_) | Value::Float(_)) => Some(value.clone()),
            (Self::List, Value::String(_)) => Some(Value::Array(vec![value.clone()])),
            (Self::List, Value::Array(items)) => items.iter().all(Value::is_str).then(|| value.clone()),
            (Self::Table, Value::Table(table)) => table.values().all(Value::is_str).then(|| value.clone()),
            (Self::Table, Value::Array(items)) => table_of(items),
            (Self::Size, _) => parses::<ByteSize>(value),
            (Self::Share, _) => parses::<Share>(value),
            (Self::Percent, _) => parses::<Percent>(value),
            (Self::Rate, _) => parses::<Rate>(value),
            (Self::Span, _) => parses::<Span>(value),
            (Self::Address, _) => parses::<ListenAddr>(value),
            _ => None,
        }
    }
}

/// `["a=b", "c=d"]` as a table; each name once.
fn table_of(items: &[Value]) -> Option<Value> {
    let mut table = toml::Table::new();
    for item in items {
        let (name, value) = item.as_str()?.split_once('=')?;
        let name = name.trim();
        if name.is_empty() || table.insert(name.to_owned(), Value::from(value.trim())).is_some() {
            return None;
        }
    }
    Some(Value::Table(table))
}

fn parses<T: std::str::FromStr>(value: &Value) -> Option<Value> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        _ => return None,
    };
    text.parse::<T>().is_ok().then(|| value.clone())
}

/// `LONGSHORE_PEER_DATA_DIR` of `peer` and `data-dir`.
fn variable(section: &str, key: &str) -> String {
    format!("LONGSHORE_{section}_{key}").replace('-', "_").to_ascii_uppercase()
}

fn did_you_mean(name: &str, known: impl Iterator<Item = String>) -> String {
    let name: String = name.chars().take(LONGEST_COMPARED).collect();
    let bare = |candidate: &str| candidate.trim_matches(['`', '[', ']']).to_owned();
    match known.min_by_key(|candidate| strsim::damerau_levenshtein(&name, &bare(candidate))) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => "there are no settings here".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_read_by_kind() {
        let read = |kind: Kind, text| kind.read(text).map(|value| value.to_string());
        assert_eq!(read(Kind::Text, "a,b").unwrap(), r#""a,b""#);
        assert_eq!(read(Kind::List, " a, b,").unwrap(), r#"["a", "b"]"#);
        assert_eq!(read(Kind::Table, "a=b=c, d=e").unwrap(), r#"{ a = "b=c", d = "e" }"#);
        assert_eq!(read(Kind::Bool, "1").unwrap(), "true");
        assert_eq!(read(Kind::Number, "7").unwrap(), "7");
        assert_eq!(read(Kind::Number, "0.5").unwrap(), "0.5");
        assert_eq!(read(Kind::Size, "10GiB").unwrap(), r#""10GiB""#);
        for (kind, bad) in [
            (Kind::Table, "a"),
            (Kind::Table, "=b"),
            (Kind::Table, "a=b,a=c"),
            (Kind::Bool, "yes"),
            (Kind::Number, "inf"),
            (Kind::Size, "big"),
            (Kind::Share, "120%"),
            (Kind::Percent, "1GiB"),
            (Kind::Rate, "200mbps"),
            (Kind::Span, "soon"),
            (Kind::Address, "here"),
        ] {
            assert_eq!(kind.read(bad), None, "{kind:?} {bad}");
        }
    }

    #[test]
    fn files_may_write_the_short_form() {
        let accept = |kind: Kind, toml: &str| {
            let table: toml::Table = toml.parse().unwrap();
            kind.accept(&table["x"]).map(|value| value.to_string())
        };
        assert_eq!(accept(Kind::List, "x = 'a,b'").unwrap(), r#"["a,b"]"#);
        assert_eq!(accept(Kind::Table, "x = ['a=b']").unwrap(), r#"{ a = "b" }"#);
        assert_eq!(accept(Kind::Size, "x = 1024").unwrap(), "1024");
        for (kind, bad) in [
            (Kind::Text, "x = 1"),
            (Kind::List, "x = [1]"),
            (Kind::Table, "x = { a = 1 }"),
            (Kind::Bool, "x = 'true'"),
            (Kind::Number, "x = '1'"),
            (Kind::Size, "x = -1"),
            (Kind::Size, "x = 1.5"),
        ] {
            assert_eq!(accept(kind, bad), None, "{kind:?} {bad}");
        }
    }
}
