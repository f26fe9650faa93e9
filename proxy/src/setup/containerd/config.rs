//! One file of containerd's own settings: what it says about registries, and how that is changed. The main file and
//! each one that it imports are read by this. Called by containerd's planner and by the doctor.
//!
//! Where the keys are depends on the `version` that the file states: 1 has short names of plugins, 2 full ones, and 3
//! (containerd 2) has the registries in a plugin of their own.

use toml_edit::{DocumentMut, Entry, InlineTable, Item, Table, TableLike, Value};

/// A file of settings.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    doc: DocumentMut,
    /// The lines end as in DOS.
    dos: bool,
    version: i64,
}

/// A table of the old kind: endpoints of one registry's mirrors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OldMirror {
    pub(crate) registry: String,
    pub(crate) endpoints: Vec<String>,
    /// It holds more than endpoints.
    pub(crate) more: bool,
}

// === impl Config ===

impl Config {
    /// Reads a text. `of_main` is the version of the file that imports it, which holds where it states none itself.
    ///
    /// # Errors
    /// With why the text cannot be read, in words.
    pub(crate) fn parse(text: &str, of_main: Option<i64>) -> Result<Self, String> {
        // The editor writes plain line ends; what came with others gets them back.
        let dos = text.contains("\r\n") && !text.replace("\r\n", "").contains('\n');
        let doc: DocumentMut = text
            .parse()
            .map_err(|error| format!("it is not TOML, so containerd would not start with it: {error}"))?;
        let stated = doc.get("version").and_then(Item::as_integer);
        // Without a word, containerd takes version 1 for meant.
        Ok(Self { version: stated.or(of_main).unwrap_or(1), doc, dos })
    }

    /// The text.
    pub(crate) fn text(&self) -> String {
        let text = self.doc.to_string();
        if self.dos { text.replace("\r\n", "\n").replace('\n', "\r\n") } else { text }
    }

    pub(crate) fn version(&self) -> i64 {
        self.version
    }

    /// Patterns of the files that are read after it.
    pub(crate) fn imports(&self) -> Vec<String> {
        let list = self.doc.get("imports").and_then(Item::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// The plugin that pulls images for Kubernetes, as this version calls it.
    pub(crate) fn plugin(&self) -> &'static str {
        match self.version {
            ..=1 => "cri",
            2 => "io.containerd.grpc.v1.cri",
            _ => "io.containerd.cri.v1.images",
        }
    }

    /// Whether it says anything about that plugin.
    pub(crate) fn has_plugin(&self) -> bool {
        self.at(&[]).is_some()
    }

    /// Whether that plugin, or the one that carries it, is turned off.
    pub(crate) fn is_off(&self) -> bool {
        let list = self.doc.get("disabled_plugins").and_then(Item::as_array).into_iter().flatten();
        let mut off = list.filter_map(Value::as_str);
        off.any(|name| matches!(name, "cri" | "io.containerd.grpc.v1.cri" | "io.containerd.cri.v1.images"))
    }

    /// Where hosts are looked up, if it says so.
    pub(crate) fn config_path(&self) -> Option<&str> {
        self.at(&["registry", "config_path"])?.as_str()
    }

    /// Whether compressed layers are thrown away once they are unpacked.
    pub(crate) fn discards_layers(&self) -> bool {
        let at = if self.version >= 3 {
            &["discard_unpacked_layers"][..]
        } else {
            &["containerd", "discard_unpacked_layers"]
        };
        self.at(at).and_then(Item::as_bool).unwrap_or(false)
    }

    /// Mirrors of the old kind.
    pub(crate) fn mirrors(&self) -> Vec<OldMirror> {
        let Some(mirrors) = self.at(&["registry", "mirrors"]).and_then(Item::as_table_like) else {
            return vec![];
        };
        let of = |(registry, mirror): (&str, &Item)| {
            let list = mirror.get("endpoint").and_then(Item::as_array).into_iter().flatten();
            let endpoints = list.filter_map(Value::as_str).map(str::to_owned).collect();
            let keys = mirror.as_table_like().map_or(0, TableLike::len);
            let more = keys > usize::from(mirror.get("endpoint").is_some());
            OldMirror { registry: registry.into(), endpoints, more }
        };
        mirrors.iter().map(of).collect()
    }

    /// Hosts that have TLS settings of the old kind.
    pub(crate) fn old_tls(&self) -> Vec<String> {
        let configs = self.at(&["registry", "configs"]).and_then(Item::as_table_like);
        let configs = configs.into_iter().flat_map(TableLike::iter);
        configs.filter(|(_, host)| host.get("tls").is_some()).map(|(host, _)| host.into()).collect()
    }

    /// Says where hosts are looked up.
    ///
    /// # Errors
    /// With why that is not possible, in words.
    pub(crate) fn set_config_path(&mut self, path: &str) -> Result<(), String> {
        let plugin = self.plugin();
        let indent = self.indent();
        let is_new = self.at(&["registry"]).is_none();
        let mut item = self.doc.as_item_mut();
        for key in ["plugins", plugin, "registry"] {
            item = inside(item, key).ok_or_else(|| format!("{key:?} in it is no table; correct it first"))?;
        }
        if let Some(table) = item.as_table_mut().filter(|_| is_new) {
            table.insert("config_path", toml_edit::value(path));
            table.decor_mut().set_prefix(format!("\n{indent}"));
            if let Some(mut key) = table.key_mut("config_path") {
                key.leaf_decor_mut().set_prefix(if indent.is_empty() {
                    String::new()
                } else {
                    format!("{indent}  ")
                });
            }
        }
        let registry = item.as_table_like_mut().ok_or("\"registry\" in it is no table; correct it first")?;
        match registry.entry("config_path") {
            Entry::Occupied(mut old) => {
                let decor = old.get().as_value().map(|old| old.decor().clone());
                let mut new = Value::from(path);
                *new.decor_mut() = decor.unwrap_or_default();
                old.insert(Item::Value(new));
            }
            Entry::Vacant(empty) => {
                empty.insert(toml_edit::value(path));
            }
        }
        if self.config_path() == Some(path) { Ok(()) } else { Err("its form is not understood".into()) }
    }

    /// How far a table inside the plugin's is indented: two steps, where the plugin's itself is.
    fn indent(&self) -> String {
        let plugin = self.at(&[]).and_then(Item::as_table);
        let prefix = plugin.and_then(|table| table.decor().prefix()?.as_str()).unwrap_or_default();
        let own = prefix.rsplit('\n').next().unwrap_or_default();
        if own.is_empty() || !own.trim().is_empty() { String::new() } else { own.repeat(2) }
    }

    /// Takes the mirrors of the old kind out.
    pub(crate) fn remove_mirrors(&mut self) {
        let plugin = self.plugin();
        let registry =
            self.doc.get_mut("plugins").and_then(|plugins| plugins.get_mut(plugin)?.get_mut("registry"));
        if let Some(registry) = registry.and_then(Item::as_table_like_mut) {
            registry.remove("mirrors");
        }
    }

    fn at(&self, keys: &[&str]) -> Option<&Item> {
        let plugin = self.doc.get("plugins")?.get(self.plugin())?;
        keys.iter().try_fold(plugin, |item, key| item.get(key))
    }
}

/// The table `key` inside another, made if it is not there.
fn inside<'a>(item: &'a mut Item, key: &str) -> Option<&'a mut Item> {
    let inline = item.is_inline_table();
    let table = item.as_table_like_mut()?;
    if !table.contains_key(key) {
        let made = if inline {
            Item::Value(Value::InlineTable(InlineTable::new()))
        } else {
            let mut made = Table::new();
            made.set_implicit(true);
            Item::Table(made)
        };
        table.insert(key, made);
    }
    table.get_mut(key).filter(|item| item.is_table_like())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/etc/containerd/certs.d";

    fn set(text: &str) -> String {
        let mut config = Config::parse(text, None).unwrap();
        config.set_config_path(PATH).unwrap();
        let after = config.text();
        assert_eq!(Config::parse(&after, None).unwrap().config_path(), Some(PATH));
        after
    }

    #[test]
    fn an_empty_value_is_replaced_and_all_else_stays() {
        let text = "version = 2\n\n[plugins]\n\n  [plugins.\"io.containerd.grpc.v1.cri\".registry]\n    config_path = \"\" # unset\n\n    [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors]\n\n# end\n";
        assert_eq!(set(text), text.replace("\"\" # unset", "\"/etc/containerd/certs.d\" # unset"));
    }

    #[test]
    fn a_missing_table_is_added_where_the_version_has_it() {
        let two = set(
            "version = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    sandbox_image = \"x\"\n[debug]\n",
        );
        assert!(
            two.contains("\n    [plugins.\"io.containerd.grpc.v1.cri\".registry]\n      config_path = "),
            "{two}"
        );
        let three = set("version = 3\n");
        assert!(three.contains("[plugins.\"io.containerd.cri.v1.images\".registry]"), "{three}");
        let one = set("[plugins.cri]\n");
        assert!(one.contains("[plugins.cri.registry]"), "{one}");
        let inline =
            set("version = 2\nplugins = { \"io.containerd.grpc.v1.cri\" = { sandbox_image = \"x\" } }\n");
        assert!(inline.contains("registry = { config_path = "), "{inline}");
    }

    #[test]
    fn line_ends_and_comments_survive() {
        let text = "# a\r\nversion = 2\r\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\r\n\t# b\r\n\tconfig_path = ''\r\n";
        assert_eq!(set(text), text.replace("''", "\"/etc/containerd/certs.d\""));
    }

    #[test]
    fn the_old_tables_are_seen_and_can_be_taken_out() {
        let text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"https://m.example\"]\n[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"m.example\".tls]\nca_file = \"x\"\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\ndiscard_unpacked_layers = true\n";
        let mut config = Config::parse(text, None).unwrap();
        let mirrors = vec![OldMirror {
            registry: "docker.io".into(),
            endpoints: vec!["https://m.example".into()],
            more: false,
        }];
        assert_eq!((config.mirrors(), config.old_tls()), (mirrors, vec!["m.example".to_owned()]));
        assert!(config.discards_layers());
        config.remove_mirrors();
        assert!(
            config.mirrors().is_empty() && !config.text().contains("m.example\"]\n["),
            "{}",
            config.text()
        );
        assert_eq!(config.old_tls(), ["m.example"]);
    }
}
