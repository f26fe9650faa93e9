//! The links of a page by which a server shows a folder (Apache's, nginx's, Caddy's and Python's are such pages). Pure; bytes
//! from outside.
//!
//! Source: HTML, "The a element" and "The base element".

use html5gum::{Token, Tokenizer};
use reqwest::Url;

/// Where its links lead, in their order, without fragments. What is no URL is passed over.
pub fn links(page: &[u8], shown_at: &Url) -> Vec<Url> {
    let mut base = shown_at.clone();
    let mut links = Vec::new();
    for Ok(token) in Tokenizer::new(page) {
        let Token::StartTag(tag) = token else { continue };
        let Some(target) = tag.attributes.get(b"href".as_slice()) else { continue };
        let Ok(target) = std::str::from_utf8(target) else { continue };
        let Ok(mut url) = base.join(target.trim()) else { continue };
        url.set_fragment(None);
        match tag.name.as_slice() {
            b"base" => base = url,
            b"a" => links.push(url),
            _ => {}
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(page: &str) -> Vec<String> {
        let at = Url::parse("http://h/pub/").unwrap();
        links(page.as_bytes(), &at).into_iter().map(Into::into).collect()
    }

    #[test]
    fn links_are_found_however_they_are_written() {
        let page = r##"<html><a href="../">..</a><A HREF='a%20b'>a b</A><a class=x href=sub/>sub</a>
            <a name=here><!-- <a href="no"> --><link href="style.css"><a href="x&amp;y">x</a><a href="c#part">c</a>"##;
        assert_eq!(
            read(page),
            ["http://h/", "http://h/pub/a%20b", "http://h/pub/sub/", "http://h/pub/x&y", "http://h/pub/c"]
        );
        assert_eq!(read(r#"<base href="http://i/x/"><a href="y">"#), ["http://i/x/y"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_page(bytes: Vec<u8>, text in "(<a href=\"|<base href='|\\PC){0,30}") {
            let at = Url::parse("http://h/").unwrap();
            let _ = (links(&bytes, &at), links(text.as_bytes(), &at));
        }
    }
}
