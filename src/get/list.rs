//! A list of sources (`--input-file`): one a line, perhaps with its digest behind it. Pure but for reading it.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};

use crate::usage;

/// A list is typed or generated, and every source on it is fetched: more than this is a mistake.
const MAX_LIST: u64 = 16 * 1024 * 1024;

/// A source as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub source: String,
    pub digest: Option<String>,
}

/// Reads the list in a file, or from standard input where the file is `-`.
pub fn read(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let shown = path.display();
    let mut text = String::new();
    let failed = || format!("cannot read the list {shown}");
    if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_LIST + 1).read_to_string(&mut text).with_context(failed)?;
    } else {
        std::fs::File::open(path)
            .with_context(failed)?
            .take(MAX_LIST + 1)
            .read_to_string(&mut text)
            .with_context(failed)?;
    }
    if text.len() as u64 > MAX_LIST {
        return Err(usage(anyhow!("the list {shown} is longer than {MAX_LIST} bytes: cut it in parts")));
    }
    parse(&text).map_err(|line| {
        usage(anyhow!("line {line} of the list {shown} makes no sense: expected SOURCE, or SOURCE sha256:…"))
    })
}

/// The entries of a text; lines that are empty or begin with `#` say nothing. Errors with a line's number.
fn parse(text: &str) -> Result<Vec<Entry>, usize> {
    let mut entries = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (None, ..) => {}
            (Some(word), ..) if word.starts_with('#') => {}
            (Some(source), digest, None) => {
                entries.push(Entry { source: source.to_owned(), digest: digest.map(str::to_owned) });
            }
            _ => return Err(at + 1),
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_has_one_source_a_line() {
        let text = "# mirrors\nhttp://a/x\n\n  http://a/y  sha256:00 \r\n#http://a/z\n";
        let of = |source: &str, digest: Option<&str>| Entry {
            source: source.into(),
            digest: digest.map(Into::into),
        };
        assert_eq!(parse(text), Ok(vec![of("http://a/x", None), of("http://a/y", Some("sha256:00"))]));
        assert_eq!(parse("a\nb c d\n"), Err(2));
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\PC|\n){0,80}") {
            let _ = parse(&text);
        }
    }
}
