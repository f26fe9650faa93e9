//! What a file is called that nobody gave a name: the last part of its URL's path, as `curl -O` and `wget` do it. Pure.
//!
//! # Invariants
//! - A name is one part of a path: nothing that an origin or a list says can lead out of the folder.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

/// The longest name that file systems take, less what is put behind it while the file is partial.
const MAX_NAME: usize = 255 - ".part.pieces".len();

/// The name in a URL's path.
pub fn of_path(path: &str) -> Option<OsString> {
    checked(decoded(path.rsplit('/').next()?))
}

/// The same of a part of a bucket's key, in which nothing is escaped.
pub fn of_key(part: &str) -> Option<OsString> {
    checked(part.as_bytes().to_vec())
}

fn checked(name: Vec<u8>) -> Option<OsString> {
    let plain = !name.iter().any(|byte| *byte == b'/' || byte.is_ascii_control());
    let usual = !matches!(name.as_slice(), b"" | b"." | b"..");
    (plain && usual && name.len() <= MAX_NAME).then(|| OsString::from_vec(name))
}

/// The bytes that a text with `%41` stands for; what is no escape stays.
pub fn decoded(text: &str) -> Vec<u8> {
    let (bytes, mut at) = (text.as_bytes(), 0);
    let mut all = Vec::with_capacity(bytes.len());
    while at < bytes.len() {
        let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
        match (bytes[at], hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                all.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                all.push(byte);
                at += 1;
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_part_of_the_path_is_the_name() {
        for (path, name) in [
            ("/a/big.iso", Some("big.iso")),
            ("/a%20b", Some("a b")),
            ("/100%", Some("100%")),
            ("/.hidden", Some(".hidden")),
            ("/", None),
            ("/a/", None),
            ("/..", None),
            ("/%2e%2e", None),
            ("/..%2f..%2fetc%2fpasswd", None),
            ("/a%00b", None),
            ("/a%0ab", None),
        ] {
            assert_eq!(of_path(path), name.map(OsString::from), "{path}");
        }
        assert_eq!(of_path(&format!("/{}", "a".repeat(300))), None);
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_the_folder(path in "([a-z./%]|%2[ef]|%00|\\PC){0,40}") {
            if let Some(name) = of_path(&path) {
                let mut parts = Path::new(&name).components();
                prop_assert!(matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)));
            }
        }
    }
}
