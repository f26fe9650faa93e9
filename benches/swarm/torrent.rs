//! A torrent of the content, written by hand: bencoding, and a SHA-1 over each piece of all files in a row.
//!
//! Source: BEP 3.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::content::Content;

/// The folder that clients write the files into.
pub(crate) const NAME: &str = "content";
/// Writes the torrent of `content`, in pieces of so many bytes, to `file`.
pub(crate) fn write(content: &Content, piece: u64, announce: &str, file: &Path) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for blob in &content.blobs {
        let path = [b"l".to_vec(), text(blob.digest.hex()), b"e".to_vec()].concat();
        files.extend(dictionary(&[("length", number(blob.size)), ("path", path)]));
    }
    let info = dictionary(&[
        ("files", [b"l".to_vec(), files, b"e".to_vec()].concat()),
        ("name", text(NAME)),
        ("piece length", number(piece)),
        ("pieces", text(pieces(content, usize::try_from(piece)?)?)),
    ]);
    Ok(fs::write(file, dictionary(&[("announce", text(announce)), ("info", info)]))?)
}

fn pieces(content: &Content, length: usize) -> anyhow::Result<Vec<u8>> {
    let (mut hashes, mut piece) = (Vec::new(), Vec::with_capacity(length));
    let mut hash = |piece: &mut Vec<u8>| {
        hashes.extend_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, piece).as_ref());
        piece.clear();
    };
    for blob in &content.blobs {
        let mut file = File::open(content.file(blob.digest))?;
        while file.by_ref().take((length - piece.len()) as u64).read_to_end(&mut piece)? > 0 {
            if piece.len() == length {
                hash(&mut piece);
            }
        }
    }
    if !piece.is_empty() {
        hash(&mut piece);
    }
    Ok(hashes)
}

fn number(value: u64) -> Vec<u8> {
    format!("i{value}e").into_bytes()
}

/// A string, as bencoding has it: any bytes behind their number.
pub(crate) fn text(value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [format!("{}:", value.len()).as_bytes(), value].concat()
}

/// A dictionary of values that are encoded already. The keys must be sorted.
pub(crate) fn dictionary(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries = entries.iter().flat_map(|(key, value)| [text(key), value.clone()].concat());
    std::iter::once(b'd').chain(entries).chain([b'e']).collect()
}
