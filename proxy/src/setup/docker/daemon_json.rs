//! The text of docker's `daemon.json`, changed in one place only: every other byte of it stays. JSON keeps no
//! comments, but people keep an order, an indentation and line ends in it.
//!
//! # Invariants
//! What comes out means what went in, but for `registry-mirrors`: each result is parsed and compared before it is given
//! out.

use std::ops::Range;

use serde_json::Value;

/// The key that this is about.
const KEY: &str = "registry-mirrors";
/// Some editors begin a file with this; docker takes it.
const MARK: char = '\u{feff}';

/// The text with `mirror` as the first of docker's mirrors.
///
/// # Errors
/// With why the text cannot be changed, in words.
pub(crate) fn with_mirror(text: &str, mirror: &str) -> Result<String, String> {
    let (mark, body) = match text.strip_prefix(MARK) {
        Some(body) => (&text[..MARK.len_utf8()], body),
        None => ("", text),
    };
    let entry = quoted(mirror);
    if body.trim().is_empty() {
        return Ok(format!("{mark}{{\n  \"{KEY}\": [{entry}]\n}}\n"));
    }
    let before = parsed(body)?;
    let mirrors = mirrors_of(&before)?;
    if mirrors.first().is_some_and(|first| same(first, mirror)) {
        return Ok(text.into());
    }
    let members = members(body)?;
    let mut of_key = members.iter().filter(|member| member.key == KEY);
    let changed = match (of_key.next(), of_key.next()) {
        (_, Some(_)) => return Err(format!("it has {KEY:?} twice; leave one")),
        (Some(member), None) => {
            let list = list(&body[member.value.clone()], mirror, &entry);
            splice(body, member.value.clone(), &list)
        }
        (None, None) => add(body, &members, &format!("\"{KEY}\": [{entry}]")),
    };
    let mut meant = before;
    meant[KEY] = std::iter::once(mirror.to_owned())
        .chain(mirrors.into_iter().filter(|other| !same(other, mirror)))
        .collect();
    match parsed(&changed) {
        Ok(after) if after == meant => Ok(format!("{mark}{changed}")),
        _ => Err(format!("its form is not understood; add {entry} to {KEY:?} by hand")),
    }
}

/// The mirrors that a text names, in order.
///
/// # Errors
/// With why the text is not what docker reads, in words.
pub(crate) fn mirrors(text: &str) -> Result<Vec<String>, String> {
    let body = text.strip_prefix(MARK).unwrap_or(text);
    if body.trim().is_empty() { Ok(vec![]) } else { mirrors_of(&parsed(body)?) }
}

fn mirrors_of(settings: &Value) -> Result<Vec<String>, String> {
    let wrong = || format!("{KEY:?} is not a list of URLs; correct it first");
    match settings.get(KEY) {
        None | Some(Value::Null) => Ok(vec![]),
        Some(Value::Array(list)) => {
            list.iter().map(|url| url.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

fn parsed(body: &str) -> Result<Value, String> {
    match serde_json::from_str(body) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("it holds no JSON object; docker would not start with it".into()),
        Err(error) => Err(format!("it is not JSON, so docker would not start with it: {error}")),
    }
}

fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn splice(body: &str, at: Range<usize>, with: &str) -> String {
    format!("{}{with}{}", &body[..at.start], &body[at.end..])
}

/// Adds a member behind the last one, set like it.
fn add(body: &str, members: &[Member], member: &str) -> String {
    match members.last() {
        Some(last) => {
            let lead = if last.lead.is_empty() { " " } else { last.lead };
            let lead = if members.len() == 1 && !lead.contains('\n') { " " } else { lead };
            splice(body, last.value.end..last.value.end, &format!(",{lead}{member}"))
        }
        None => {
            let open = body.find('{').unwrap_or(0);
            let close = body.rfind('}').unwrap_or(open);
            let end = if body.contains("\r\n") { "\r\n" } else { "\n" };
            splice(body, open + 1..close, &format!("{end}  {member}{end}"))
        }
    }
}

/// A list's text with `entry` in front. The others keep their places, line ends and indentation.
fn list(text: &str, mirror: &str, entry: &str) -> String {
    let items = items(text);
    let Some(first) = items.first() else { return format!("[{entry}]") };
    let is_mirror = |at: &Range<usize>| {
        serde_json::from_str::<String>(&text[at.clone()]).is_ok_and(|url| same(&url, mirror))
    };
    let lead = &text[1..first.start];
    let between = if lead.is_empty() { " " } else { lead };
    let mut out = format!("[{lead}{entry}");
    let others = items.iter().filter(|at| !is_mirror(at));
    others.for_each(|at| out.extend([",", between, &text[at.clone()]]));
    let last = items.last().map_or(first.end, |last| last.end);
    out + &text[last..]
}

/// One `"key": value` of the outermost object.
struct Member<'a> {
    key: String,
    /// The white space in front of the key.
    lead: &'a str,
    value: Range<usize>,
}

/// The members of the outermost object of a text that is known to be one.
fn members(body: &str) -> Result<Vec<Member<'_>>, String> {
    let odd = || "its form is not understood".to_owned();
    let bytes = body.as_bytes();
    let mut at = blank(bytes, 0) + 1;
    let mut members = Vec::new();
    loop {
        let lead = at;
        at = blank(bytes, at);
        if bytes.get(at) != Some(&b'"') {
            return Ok(members);
        }
        let key = at..value(bytes, at);
        let name = serde_json::from_str(&body[key.clone()]).map_err(|_| odd())?;
        let colon = blank(bytes, key.end);
        let start = blank(bytes, colon + 1);
        let end = value(bytes, start);
        members.push(Member { key: name, lead: &body[lead..key.start], value: start..end });
        at = blank(bytes, end);
        if bytes.get(at) == Some(&b',') {
            at += 1;
        }
    }
}

/// Where the values of a list lie, in a text that is known to be one.
fn items(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut items = Vec::new();
    let mut at = blank(bytes, 1);
    while at < bytes.len() && bytes[at] == b'"' {
        let end = value(bytes, at);
        items.push(at..end);
        at = blank(bytes, end);
        if bytes.get(at) == Some(&b',') {
            at = blank(bytes, at + 1);
        }
    }
    items
}

/// Where the white space from `at` on ends.
fn blank(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| b" \t\r\n".contains(byte)).count()
}

/// Where the value that begins at `at` ends. What is inside a string does not count.
fn value(bytes: &[u8], at: usize) -> usize {
    let (mut at, mut depth, mut quoted) = (at, 0_usize, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted && depth == 0 => return at,
            b'}' | b']' if !quoted => depth -= 1,
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' if !quoted && depth == 0 => return at,
            _ => {}
        }
        at += 1;
        if !quoted && depth == 0 && matches!(byte, b'"' | b'}' | b']') {
            return at;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const URL: &str = "http://127.0.0.1:7711";

    fn becomes(before: &str, after: &str) {
        assert_eq!(with_mirror(before, URL).unwrap(), after);
        assert_eq!(with_mirror(after, URL).unwrap(), after, "a second time");
    }

    #[test]
    fn a_missing_key_is_added_in_the_style_of_the_file() {
        let key = "\"registry-mirrors\": [\"http://127.0.0.1:7711\"]";
        becomes("", &format!("{{\n  {key}\n}}\n"));
        becomes("\u{feff} \n", &format!("\u{feff}{{\n  {key}\n}}\n"));
        becomes("{}", &format!("{{\n  {key}\n}}"));
        becomes("{\"debug\":true}", &format!("{{\"debug\":true, {key}}}"));
        becomes("{ \"a\": 1, \"debug\": true }\n", &format!("{{ \"a\": 1, \"debug\": true, {key} }}\n"));
        becomes("{\r\n\t\"debug\": true\r\n}\r\n", &format!("{{\r\n\t\"debug\": true,\r\n\t{key}\r\n}}\r\n"));
        becomes(
            "{\n    \"log-opts\": {\n        \"max-size\": \"1]}\\\"0m\"\n    }\n}\n",
            &format!(
                "{{\n    \"log-opts\": {{\n        \"max-size\": \"1]}}\\\"0m\"\n    }},\n    {key}\n}}\n"
            ),
        );
    }

    #[test]
    fn a_mirror_is_put_before_the_others() {
        becomes("{\"registry-mirrors\":[]}", "{\"registry-mirrors\":[\"http://127.0.0.1:7711\"]}");
        becomes("{\"registry-mirrors\":null}", "{\"registry-mirrors\":[\"http://127.0.0.1:7711\"]}");
        becomes(
            "{\n  \"registry-mirrors\": [\n    \"https://m.example\"\n  ],\n  \"debug\": true\n}",
            "{\n  \"registry-mirrors\": [\n    \"http://127.0.0.1:7711\",\n    \"https://m.example\"\n  ],\n  \"debug\": true\n}",
        );
        becomes(
            "{\"registry-mirrors\": [\"https://m.example\",\"http://127.0.0.1:7711/\"]}",
            "{\"registry-mirrors\": [\"http://127.0.0.1:7711\", \"https://m.example\"]}",
        );
    }

    #[test]
    fn what_docker_would_not_read_is_refused() {
        for bad in [
            "[]",
            "{\"a\":}",
            "// no\n{}",
            "{\"registry-mirrors\": \"x\"}",
            "{\"registry-mirrors\": [1]}",
            "{} x",
        ] {
            assert!(with_mirror(bad, URL).is_err(), "{bad}");
        }
        assert!(with_mirror("{\"registry-mirrors\":[],\"registry-mirrors\":[\"x\"]}", URL).is_err());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z\"\\\\{}\\[\\],: é]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"\\\\]{0,5}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_object_keeps_its_meaning_and_its_other_bytes(
            settings in prop::collection::btree_map("[a-z-]{1,6}", json(), 0..5),
            mirrors in prop::option::of(prop::collection::vec("https://[a-z]{1,4}", 0..3)),
            pretty: bool,
        ) {
            let mut map: serde_json::Map<String, Value> = settings.into_iter().collect();
            map.extend(mirrors.clone().map(|mirrors| (KEY.to_owned(), Value::from(mirrors))));
            let value = Value::Object(map);
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            let changed = with_mirror(&text, URL).unwrap();
            let mut after: Value = serde_json::from_str(&changed).unwrap();
            let mut list = vec![URL.to_owned()];
            list.extend(mirrors.unwrap_or_default());
            prop_assert_eq!(&after[KEY], &Value::from(list));
            after[KEY] = value.get(KEY).cloned().unwrap_or_default();
            if value.get(KEY).is_none() {
                after.as_object_mut().unwrap().remove(KEY);
            }
            prop_assert_eq!(&after, &value);
            prop_assert_eq!(with_mirror(&changed, URL).unwrap(), changed);
        }

        #[test]
        fn no_text_breaks_it(text in ".{0,60}|[\\[\\]{}\",: a\\\\]{0,40}") {
            let _ = with_mirror(&text, URL);
            let _ = mirrors(&text);
        }
    }
}
