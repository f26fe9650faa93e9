//! Memory for what is read: used again and again, since giving a megabyte back to the system and taking a fresh one
//! costs more than the read itself. [`super::Blob::read`] fills it; whoever drops the bytes gives it back.
//!
//! # Invariants
//! - What lies idle here is at most [`MAX_IDLE`] bytes.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Some of the longest pieces, or what a few dozen readers at 256 KiB each have in hand.
const MAX_IDLE: usize = 8 * 1024 * 1024;

/// Idle memory. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Idle>>);

#[derive(Default)]
struct Idle {
    /// The last one in is the first one out: it may still be in the processor's cache.
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// Memory in use, which goes back when it is dropped.
struct Lent {
    buffer: Vec<u8>,
    home: Buffers,
}

// === impl Buffers ===

impl Buffers {
    /// Bytes that `fill` puts into an empty buffer with room for `length`.
    pub(super) fn bytes<E>(
        &self,
        length: usize,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        let mut lent = Lent { buffer: self.take(length), home: self.clone() };
        fill(&mut lent.buffer)?;
        Ok(Bytes::from_owner(lent))
    }

    fn take(&self, length: usize) -> Vec<u8> {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Reads come in few lengths: a larger buffer would be filled beyond what was asked for.
        let fits = |buffer: &Vec<u8>| buffer.capacity() == length;
        let Some(found) = idle.buffers.iter().rposition(fits) else {
            drop(idle);
            return Vec::with_capacity(length);
        };
        let mut buffer = idle.buffers.remove(found);
        idle.bytes -= buffer.capacity();
        buffer.clear();
        buffer
    }

    fn give_back(&self, buffer: Vec<u8>) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.bytes += buffer.capacity();
        idle.buffers.push(buffer);
        // Those that nobody has asked for the longest go first.
        let mut gone = 0;
        while idle.bytes > MAX_IDLE {
            idle.bytes -= idle.buffers[gone].capacity();
            gone += 1;
        }
        drop(idle.buffers.drain(..gone));
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const KIB: usize = 1024;

    fn filled(buffers: &Buffers, byte: u8, length: usize) -> Bytes {
        let fill = |buffer: &mut Vec<u8>| {
            assert!(buffer.is_empty() && buffer.capacity() >= length);
            buffer.resize(length, byte);
            Ok::<_, Infallible>(())
        };
        buffers.bytes(length, fill).unwrap()
    }

    #[test]
    fn memory_comes_back_once_the_last_slice_is_gone() {
        let buffers = Buffers::default();
        let bytes = filled(&buffers, 1, 64 * KIB);
        let (at, slice) = (bytes.as_ptr(), bytes.slice(10..20));
        drop(bytes);
        assert_ne!(filled(&buffers, 2, 64 * KIB).as_ptr(), at, "a slice still holds it");
        assert_eq!(&slice[..], [1; 10]);
        drop(slice);
        assert_eq!(filled(&buffers, 3, 64 * KIB).as_ptr(), at);
    }

    #[test]
    fn a_short_read_takes_no_long_buffer_and_little_lies_idle() {
        let buffers = Buffers::default();
        drop(filled(&buffers, 1, 1024 * KIB));
        assert!(filled(&buffers, 2, 64 * KIB).len() == 64 * KIB);
        assert_eq!(buffers.0.lock().unwrap().buffers.len(), 2);
        let many: Vec<Bytes> = (0..12).map(|byte| filled(&buffers, byte, 1024 * KIB)).collect();
        drop(many);
        let idle = buffers.0.lock().unwrap();
        assert!(
            idle.bytes <= MAX_IDLE && idle.bytes == idle.buffers.iter().map(Vec::capacity).sum::<usize>()
        );
    }

    #[test]
    fn a_read_that_fails_gives_its_memory_back() {
        let buffers = Buffers::default();
        assert_eq!(buffers.bytes(KIB, |_| Err("no")).unwrap_err(), "no");
        assert_eq!(buffers.0.lock().unwrap().buffers.len(), 1);
    }
}
