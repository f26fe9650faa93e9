//! The text of a `hosts.toml`, which says where containerd finds one registry. containerd tries the hosts in the order
//! of the file, then the server. Called by containerd's planner and by the doctor.
//!
//! # Invariants
//! All that was in the text is in the result, and means the same; the proxy is the first host.

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value, value};

/// What a mirror is asked for: never to take a push.
const CAPABILITIES: [&str; 2] = ["pull", "resolve"];

/// Certificates that containerd finds beside a missing `hosts.toml`, and no more once there is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Certificates {
    /// Of authorities.
    pub(crate) ca: Vec<String>,
    /// For the client itself: a certificate, and its key where that is another file.
    pub(crate) client: Vec<(String, Option<String>)>,
}

/// A further host, from a mirror table of the old kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    pub(crate) url: String,
    /// The path of its URL is all of the path: `/v2` is not put behind it.
    pub(crate) whole_path: bool,
}

/// A new text: the server where it is known, certificates, and the hosts in order.
pub(crate) fn new(server: Option<&str>, certificates: &Certificates) -> String {
    let mut doc = DocumentMut::new();
    if let Some(server) = server {
        doc["server"] = value(server);
    }
    if !certificates.ca.is_empty() {
        doc["ca"] = value(certificates.ca.iter().collect::<Array>());
    }
    if !certificates.client.is_empty() {
        let pair = |(certificate, key): &(String, Option<String>)| -> Array {
            std::iter::once(certificate).chain(key).collect()
        };
        doc["client"] = value(certificates.client.iter().map(pair).map(Value::from).collect::<Array>());
    }
    doc.to_string()
}

/// The text with the proxy as its first host.
///
/// # Errors
/// With why the text cannot be changed, in words.
pub(crate) fn with_first(text: &str, proxy: &str) -> Result<String, String> {
    let mut doc = parsed(text)?;
    let known = tables(&doc)?;
    if known.first().is_some_and(|first| first.url == proxy && first.pulls) {
        return Ok(text.into());
    }
    let is_known = known.iter().any(|host| host.url == proxy);
    let mut table =
        match doc.get_mut("host").and_then(Item::as_table_mut).and_then(|hosts| hosts.remove(proxy)) {
            Some(Item::Table(table)) => table,
            _ => Table::new(),
        };
    if !pulls(&table) {
        table.insert("capabilities", value(CAPABILITIES.into_iter().collect::<Array>()));
    }
    let Some(next) = known.into_iter().find(|host| host.url != proxy) else {
        return if is_known {
            finished(text, &put(doc, proxy, table), proxy)
        } else {
            Ok(appended(text, &table, proxy))
        };
    };
    table.set_position(Some(next.position - 1));
    let is_top = doc.iter().all(|(key, _)| key == "host");
    if !is_known {
        table.decor_mut().set_prefix(if is_top { "" } else { "\n" });
    }
    let hosts = doc.get_mut("host").and_then(Item::as_table_mut);
    if let Some(next) = hosts.and_then(|hosts| hosts.get_mut(&next.url)?.as_table_mut())
        && next.decor().prefix().and_then(|prefix| prefix.as_str()).is_none_or(str::is_empty)
    {
        next.decor_mut().set_prefix("\n");
    }
    finished(text, &put(doc, proxy, table), proxy)
}

/// The text with more hosts behind those that it has.
///
/// # Errors
/// With why the text cannot be changed, in words.
pub(crate) fn with_more(text: &str, mirrors: &[Mirror]) -> Result<String, String> {
    let known = tables(&parsed(text)?)?;
    let mut text = text.to_owned();
    for mirror in mirrors.iter().filter(|mirror| !known.iter().any(|host| host.url == mirror.url)) {
        let mut table = Table::new();
        table.insert("capabilities", value(CAPABILITIES.into_iter().collect::<Array>()));
        if mirror.whole_path {
            table.insert("override_path", value(true));
        }
        text = appended(&text, &table, &mirror.url);
    }
    Ok(text)
}

/// The text with a host behind all that it says.
fn appended(text: &str, host: &Table, url: &str) -> String {
    let between = match text {
        "" => "",
        _ if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    format!("{text}{between}[host.{}]\n{host}", Value::from(url))
}

/// The text as it must read in the directory beside its own: file names that do not begin at the root lead back.
///
/// # Errors
/// With why the text cannot be changed, in words.
pub(crate) fn moved(text: &str, from: &str) -> Result<String, String> {
    let mut doc = parsed(text)?;
    let lead = |file: &mut Value| relead(file, from);
    for key in ["ca", "client"] {
        doc.get_mut(key).and_then(Item::as_value_mut).into_iter().for_each(lead);
    }
    let hosts = doc.get_mut("host").and_then(Item::as_table_like_mut);
    for (_, host) in hosts.into_iter().flat_map(TableLike::iter_mut) {
        for key in ["ca", "client"] {
            host.get_mut(key).and_then(Item::as_value_mut).into_iter().for_each(lead);
        }
    }
    Ok(doc.to_string())
}

fn relead(file: &mut Value, from: &str) {
    match file {
        Value::Array(list) => list.iter_mut().for_each(|file| relead(file, from)),
        Value::String(name) if !name.value().starts_with('/') => {
            *file = format!("../{from}/{}", name.value()).into();
        }
        _ => {}
    }
}

/// The URLs of a text's hosts, in the order that containerd tries them.
///
/// # Errors
/// With why containerd would not read it, in words.
pub(crate) fn urls(text: &str) -> Result<Vec<String>, String> {
    Ok(tables(&parsed(text)?)?.into_iter().map(|host| host.url).collect())
}

/// One `[host."URL"]`.
struct Host {
    url: String,
    position: isize,
    pulls: bool,
}

fn parsed(text: &str) -> Result<DocumentMut, String> {
    text.parse().map_err(|error| format!("it is not TOML, so containerd passes it over: {error}"))
}

/// The hosts, in order. containerd 2 sees only those that have a header of their own.
fn tables(doc: &DocumentMut) -> Result<Vec<Host>, String> {
    let odd = || "its hosts have no headers of their own; write each as [host.\"URL\"]".to_owned();
    let Some(hosts) = doc.get("host") else { return Ok(vec![]) };
    let mut found = Vec::new();
    for (url, host) in hosts.as_table().ok_or_else(odd)? {
        let table = host.as_table().filter(|table| !table.is_dotted()).ok_or_else(odd)?;
        // A host that has only sub-tables, such as its headers, begins with the first of them.
        let position = table
            .position()
            .or_else(|| table.iter().filter_map(|(_, item)| item.as_table().and_then(Table::position)).min());
        found.push(Host { url: url.into(), position: position.ok_or_else(odd)?, pulls: pulls(table) });
    }
    found.sort_by_key(|host| host.position);
    Ok(found)
}

fn pulls(table: &Table) -> bool {
    let Some(list) = table.get("capabilities") else { return !table.is_empty() };
    let list = list.as_array().into_iter().flatten();
    let has: Vec<&str> = list.filter_map(Value::as_str).collect();
    CAPABILITIES.iter().all(|one| has.contains(one))
}

fn put(mut doc: DocumentMut, url: &str, table: Table) -> DocumentMut {
    if let Some(hosts) = doc.get_mut("host").and_then(Item::as_table_mut) {
        hosts.insert(url, Item::Table(table));
    }
    doc
}

/// Writes the document out, and looks whether it says what was meant.
fn finished(before: &str, doc: &DocumentMut, proxy: &str) -> Result<String, String> {
    let text = doc.to_string();
    let others = |urls: Vec<String>| urls.into_iter().filter(|url| url != proxy).collect::<Vec<_>>();
    let after = urls(&text)?;
    if after.first().is_some_and(|first| first == proxy) && others(after) == others(urls(before)?) {
        return Ok(text);
    }
    Err(format!("its form is not understood; put [host.{proxy:?}] before its other hosts by hand"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "http://127.0.0.1:7711";

    fn becomes(before: &str, after: &str) {
        assert_eq!(with_first(before, PROXY).unwrap(), after);
        assert_eq!(with_first(after, PROXY).unwrap(), after, "a second time");
    }

    #[test]
    fn a_new_text_names_the_server_and_the_proxy() {
        becomes(
            &new(Some("https://registry-1.docker.io"), &Certificates::default()),
            "server = \"https://registry-1.docker.io\"\n\n[host.\"http://127.0.0.1:7711\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        );
        becomes("", "[host.\"http://127.0.0.1:7711\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
        let certificates = Certificates {
            ca: vec!["ca.crt".into()],
            client: vec![("a.cert".into(), Some("a.key".into())), ("b.cert".into(), None)],
        };
        assert_eq!(
            new(None, &certificates),
            "ca = [\"ca.crt\"]\nclient = [[\"a.cert\", \"a.key\"], [\"b.cert\"]]\n"
        );
    }

    #[test]
    fn the_proxy_goes_before_other_hosts_and_comments_stay() {
        becomes(
            "# hub\nserver = \"https://x\" # up\n\n# the old mirror\n[host.\"https://m.example\"]\n  capabilities = [\"pull\"] # only\n\n[host.\"https://m.example\".header]\n  x = [\"y\"]\n",
            "# hub\nserver = \"https://x\" # up\n\n[host.\"http://127.0.0.1:7711\"]\ncapabilities = [\"pull\", \"resolve\"]\n\n# the old mirror\n[host.\"https://m.example\"]\n  capabilities = [\"pull\"] # only\n\n[host.\"https://m.example\".header]\n  x = [\"y\"]\n",
        );
    }

    #[test]
    fn a_proxy_that_is_there_moves_to_the_front_and_keeps_what_it_says() {
        let text = "[host.\"https://m.example\"]\n\n[host.\"http://127.0.0.1:7711\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"1s\"\n";
        let after = with_first(text, PROXY).unwrap();
        assert_eq!(urls(&after).unwrap(), [PROXY, "https://m.example"]);
        assert!(after.contains("dial_timeout = \"1s\""), "{after}");
    }

    #[test]
    fn hosts_without_headers_are_refused() {
        for bad in
            ["host = { \"https://x\" = {} }", "host.\"https://x\".skip_verify = true", "[host", "[[host]]"]
        {
            assert!(with_first(bad, PROXY).is_err(), "{bad}");
        }
    }

    #[test]
    fn more_hosts_follow_and_files_are_found_from_beside() {
        let mirrors = [
            Mirror { url: "https://a.example".into(), whole_path: false },
            Mirror { url: "https://b.example/v2/hub".into(), whole_path: true },
        ];
        let text = with_more("server = \"https://x\"\n", &mirrors).unwrap();
        assert_eq!(urls(&text).unwrap(), ["https://a.example", "https://b.example/v2/hub"]);
        assert_eq!(with_more(&text, &mirrors).unwrap(), text);
        let text = "ca = \"ca.pem\"\n[host.\"https://x\"]\nclient = [[\"a\", \"/b\"]]\n";
        let there = moved(text, "_default").unwrap();
        assert!(
            there.contains("\"../_default/ca.pem\"") && there.contains("[[\"../_default/a\", \"/b\"]]"),
            "{there}"
        );
    }
}
