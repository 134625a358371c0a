//! What tests write: contents that tell which write they come from and where they belong.

use cairn_block::IoBuf;
use cairn_block::buf::{IoBufMut, is_zero};
use cairn_block::num::AsUsize;

use crate::rng::mix;

/// Unit in which contents change; also what a disk writes atomically, in bytes.
pub(crate) const SECTOR: u64 = 512;

/// The content of a byte range, as a function of the offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// Zeroes.
    Zero,
    /// Every sector repeats eight bytes made from this number and the sector's: compressible, and
    /// different for any other number or place.
    Tag(u32),
}

impl Value {
    fn word(self, sector: u64) -> [u8; 8] {
        match self {
            Value::Zero => [0; 8],
            // Never zero, so that a tag cannot be taken for zeroes.
            Value::Tag(tag) => (mix(mix(u64::from(tag)) ^ sector) | 1).to_le_bytes(),
        }
    }

    /// Fills `bytes`, which belong at `offset`, with this content.
    pub fn fill(self, offset: u64, bytes: &mut [u8]) {
        if self == Value::Zero {
            bytes.fill(0);
            return;
        }
        for (at, piece) in sectors(offset, bytes.len()) {
            let word = self.word(at / SECTOR);
            let skip = (at % 8).as_usize();
            for (i, byte) in bytes[piece].iter_mut().enumerate() {
                *byte = word[(skip + i) % 8];
            }
        }
    }

    /// A buffer of `len` bytes with this content, for a write at `offset`.
    pub fn buffer(self, offset: u64, len: u64) -> IoBuf {
        let mut buf = IoBufMut::new(len.as_usize());
        self.fill(offset, &mut buf);
        buf.freeze()
    }

    /// Whether `bytes`, found at `offset` and within one sector, have this content.
    pub fn matches(self, offset: u64, bytes: &[u8]) -> bool {
        if self == Value::Zero {
            return is_zero(bytes);
        }
        let word = self.word(offset / SECTOR);
        if offset.is_multiple_of(8) {
            let mut words = bytes.chunks_exact(8);
            return words.by_ref().all(|w| w == word) && word.starts_with(words.remainder());
        }
        let skip = (offset % 8).as_usize();
        bytes.iter().enumerate().all(|(i, &byte)| byte == word[(skip + i) % 8])
    }
}

/// Cuts `len` bytes at `offset` at the sector borders: the offset and the index range of each piece.
pub(crate) fn sectors(
    offset: u64,
    len: usize,
) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = offset + done as u64;
        let piece = (SECTOR - at % SECTOR).as_usize().min(len - done);
        let range = done..done + piece;
        done += piece;
        Some((at, range))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_recognised_at_their_place_only() {
        let mut bytes = vec![0; 2000];
        Value::Tag(7).fill(1001, &mut bytes);
        for (at, piece) in sectors(1001, 2000) {
            let part = &bytes[piece];
            assert!(Value::Tag(7).matches(at, part));
            assert!(!Value::Tag(8).matches(at, part));
            assert!(!Value::Tag(7).matches(at + SECTOR, part));
            assert!(!Value::Zero.matches(at, part));
        }
        // A part filled on its own is the same as that part of the whole.
        let mut part = vec![0; 100];
        Value::Tag(7).fill(1300, &mut part);
        assert_eq!(part, bytes[299..399]);
    }
}
