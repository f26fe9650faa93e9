//! The text of a `registries.conf` or a drop-in of it, which podman, buildah, skopeo and CRI-O read. Called by their
//! planner and by the doctor.
//!
//! # Invariants
//! An entry for a registry takes the place of all earlier ones for it, so a new one carries on what they said.

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use super::super::Proxy;

/// What a new drop-in begins with.
const HEADER: &str = "# Made by `longshore setup`; `longshore setup podman --undo` takes it away.\n";

/// A parsed file.
#[derive(Debug, Clone)]
pub(crate) struct Registries {
    doc: DocumentMut,
}

/// What a file says of one registry.
#[derive(Debug, Clone)]
pub(crate) struct Entry(Table);

// === impl Registries ===

impl Registries {
    /// Reads a text.
    ///
    /// # Errors
    /// With why it cannot be read, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let doc =
            text.parse().map_err(|error| format!("it is not TOML, so nothing can be pulled: {error}"))?;
        Ok(Self { doc })
    }

    /// Whether it is of the first form, which cannot stand beside the second.
    pub(crate) fn is_old(&self) -> bool {
        self.doc.contains_key("registries")
    }

    /// All entries, in order.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let list = self.doc.get("registry").cloned().and_then(|item| item.into_array_of_tables().ok());
        list.into_iter().flatten().map(Entry).collect()
    }

    /// What it says of a registry.
    pub(crate) fn entry(&self, registry: &str) -> Option<Entry> {
        self.entries().into_iter().rfind(|entry| entry.prefix() == registry)
    }
}

// === impl Entry ===

impl Entry {
    fn text(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// Which names it is about.
    pub(crate) fn prefix(&self) -> &str {
        self.text("prefix").filter(|prefix| !prefix.is_empty()).or(self.location()).unwrap_or_default()
    }

    /// Where those are, if it says so.
    fn location(&self) -> Option<&str> {
        self.text("location").filter(|location| !location.is_empty())
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.0.get("blocked").and_then(Item::as_bool).unwrap_or(false)
    }

    fn tables(&self) -> Vec<Table> {
        let list = self.0.get("mirror").cloned().and_then(|item| item.into_array_of_tables().ok());
        list.into_iter().flatten().collect()
    }

    /// Its mirrors' locations, in order.
    pub(crate) fn mirrors(&self) -> Vec<String> {
        let location = |table: &Table| table.get("location")?.as_str().map(str::to_owned);
        self.tables().iter().filter_map(location).collect()
    }

    /// Where its images are, seen through the proxy.
    pub(crate) fn through(&self, proxy: &Proxy) -> String {
        format!("{}/{}", proxy.authority(), self.location().unwrap_or(self.prefix()))
    }

    /// Whether the proxy is asked first.
    pub(crate) fn goes_through(&self, proxy: &Proxy) -> bool {
        self.mirrors().first().is_some_and(|first| *first == self.through(proxy))
    }

    /// The same, with the proxy before all other mirrors.
    fn with_proxy(&self, proxy: &Proxy) -> Table {
        let mut table = Table::new();
        table.insert("prefix", value(self.prefix()));
        table.insert("location", value(self.location().unwrap_or(self.prefix())));
        carry(&self.0, &mut table);
        let through = self.through(proxy);
        let mut mirrors = ArrayOfTables::new();
        let mut first = Table::new();
        first.insert("location", value(&through));
        if proxy.is_plain() {
            first.insert("insecure", value(true));
        }
        mirrors.push(first);
        for other in self.tables() {
            if other.get("location").and_then(Item::as_str) != Some(&through) {
                let mut mirror = Table::new();
                carry(&other, &mut mirror);
                mirrors.push(mirror);
            }
        }
        mirrors.iter_mut().for_each(|mirror| mirror.decor_mut().set_prefix("\n"));
        table.insert("mirror", Item::ArrayOfTables(mirrors));
        table.decor_mut().set_prefix("\n");
        table
    }
}

/// An entry for a registry of which nothing was said before.
pub(crate) fn plain(registry: &str) -> Entry {
    let mut table = Table::new();
    table.insert("prefix", value(registry));
    Entry(table)
}

/// Copies plain values that are not there yet, without their comments.
fn carry(from: &Table, to: &mut Table) {
    for (key, item) in from {
        if let Some(old) = item.as_value()
            && !to.contains_key(key)
            && key != "mirror"
        {
            let mut new = old.clone();
            new.decor_mut().clear();
            to.insert(key, Item::Value(new));
        }
    }
}

/// The drop-in's text with an entry that goes through the proxy; an entry of its own for the same names gives way.
///
/// # Errors
/// With why the text cannot be changed, in words.
pub(crate) fn with_entry(text: &str, entry: &Entry, proxy: &Proxy) -> Result<String, String> {
    let text = if text.trim().is_empty() { HEADER } else { text };
    let mut doc = Registries::parse(text)?.doc;
    if doc.get("registry").is_some_and(|item| item.as_array_of_tables().is_none()) {
        return Err("its registries have no headers of their own; write each as [[registry]]".into());
    }
    // What the file ends with belongs behind its header, not behind what is added.
    let list = doc.entry("registry").or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    if let Some(list) = list.as_array_of_tables_mut() {
        list.retain(|table| Entry(table.clone()).prefix() != entry.prefix());
        list.push(entry.with_proxy(proxy));
    }
    let end = doc.trailing().as_str().unwrap_or_default().to_owned();
    doc.set_trailing("");
    let after = format!("{end}{doc}");
    let reads =
        Registries::parse(&after)?.entry(entry.prefix()).is_some_and(|entry| entry.goes_through(proxy));
    if reads { Ok(after) } else { Err("its form is not understood; remove it, and run this again".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str, registry: &str) -> Entry {
        Registries::parse(text).unwrap().entry(registry).unwrap()
    }

    #[test]
    fn a_new_drop_in_sends_each_registry_to_the_proxy_by_its_name() {
        let proxy = Proxy::default();
        let one = with_entry("", &plain("docker.io"), &proxy).unwrap();
        let expected = "\n[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n\n[[registry.mirror]]\nlocation = \"127.0.0.1:7711/docker.io\"\ninsecure = true\n";
        assert_eq!(one, format!("{HEADER}{expected}"));
        let two = with_entry(&one, &plain("ghcr.io"), &proxy).unwrap();
        assert!(two.starts_with(&one), "{two}");
        assert_eq!(entry(&two, "ghcr.io").mirrors(), ["127.0.0.1:7711/ghcr.io"]);
    }

    #[test]
    fn what_was_said_of_a_registry_is_carried_on() {
        let old = "[[registry]]\nprefix = \"docker.io\" # x\nlocation = \"hub.corp/proxy\"\ninsecure = true\nblocked = false\nmirror-by-digest-only = true\nmirror = [{ location = \"m.example\", insecure = true, pull-from-mirror = \"tag-only\" }]\n";
        let proxy = Proxy::default();
        let after = with_entry("", &entry(old, "docker.io"), &proxy).unwrap();
        let read = entry(&after, "docker.io");
        assert_eq!(read.mirrors(), ["127.0.0.1:7711/hub.corp/proxy", "m.example"]);
        for line in [
            "insecure = true",
            "blocked = false",
            "mirror-by-digest-only = true",
            "pull-from-mirror = \"tag-only\"",
        ] {
            assert!(after.contains(line), "{after}");
        }
        assert_eq!(with_entry("", &read, &proxy).unwrap(), after);
    }

    #[test]
    fn the_old_form_is_known() {
        assert!(Registries::parse("[registries.search]\nregistries = ['docker.io']\n").unwrap().is_old());
        assert!(!Registries::parse("unqualified-search-registries = ['docker.io']\n").unwrap().is_old());
    }
}
