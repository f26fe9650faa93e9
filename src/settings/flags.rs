//! Flags of one section, as they were typed. What is not given leaves room for the environment and the file.

use serde::Serialize;
use toml::{Table, Value};

/// Values by key.
#[derive(Clone, Default)]
pub struct Flags(Table);

// === impl Flags ===

impl Flags {
    /// A part of the command line: its fields are named like the keys.
    ///
    /// # Panics
    /// When a field is neither a text, a number, nor a list of these: that is seen by every test that starts a daemon.
    pub fn of(part: &impl Serialize) -> Self {
        let mut given = Table::try_from(part).expect("invariant: flags are texts, numbers and lists");
        given.retain(|_, value| value.as_array().is_none_or(|values| !values.is_empty()));
        Self(given)
    }

    /// These and those.
    pub fn and(mut self, part: &impl Serialize) -> Self {
        self.0.extend(Self::of(part).0);
        self
    }

    /// A flag that is a key under another name, and may be missing.
    pub fn text(mut self, key: &str, value: Option<String>) -> Self {
        self.0.extend(value.map(|value| (key.to_owned(), Value::String(value))));
        self
    }

    /// The same, repeatable.
    pub fn list(mut self, key: &str, values: Vec<String>) -> Self {
        if !values.is_empty() {
            let values = values.into_iter().map(Value::String).collect();
            self.0.insert(key.to_owned(), Value::Array(values));
        }
        self
    }

    /// Each key and its value.
    pub(super) fn each(self) -> impl Iterator<Item = (String, Value)> {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Arguments;
    use clap::Parser as _;

    fn supernode(flags: &[&str]) -> Vec<(String, Value)> {
        let line = ["longshore", "supernode"].iter().chain(flags);
        match Arguments::try_parse_from(line).unwrap().command {
            crate::cli::Command::Supernode(flags) => Flags::of(&flags).each().collect(),
            _ => unreachable!("that is the command"),
        }
    }

    #[test]
    fn only_what_was_typed_is_set_and_under_its_key() {
        assert_eq!(supernode(&[]), []);
        let typed =
            supernode(&["--config", "f", "--quota", "1GiB", "--max-uploads", "3", "--registry", "a=b"]);
        let list = Value::Array(vec![Value::from("a=b")]);
        let expected = [("max-uploads", Value::from(3)), ("quota", Value::from("1GiB")), ("registry", list)];
        assert_eq!(typed, expected.map(|(key, value)| (key.to_owned(), value)));
    }
}
