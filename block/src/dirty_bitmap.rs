//! Dirty bitmaps: which parts of a disk were written since the bitmap was cleared last.
//!
//! One bit stands for one granule of the disk. Above the bits lie summaries, one bit for each word that
//! is not zero, so that long clean stretches cost nothing to search. Changes and searches take a lock
//! for a few instructions; any thread may use a bitmap.
//!
//! The stored form is that of qcow2 (specification, "Bitmaps extension"): bit n of the disk is bit
//! n % 8 of byte n / 8.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::num::AsUsize;

/// Smallest and largest base 2 logarithm of a granularity: 512 bytes to 2 GiB.
pub const GRANULARITY_BITS: std::ops::RangeInclusive<u32> = 9..=31;
/// Largest bitmap in memory, in bytes.
pub const MAX_BYTES: u64 = 512 << 20;
const WORD: u64 = 64;

/// A persistent bitmap of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitmapInfo {
    /// Its name.
    pub name: String,
    /// Base 2 logarithm of the bytes that one bit stands for.
    pub granularity_bits: u32,
    /// It records changes.
    pub enabled: bool,
    /// It was not stored after its last change: its content is lost, and all that can be done is to
    /// remove it.
    pub inconsistent: bool,
}

/// A change of a persistent bitmap.
#[derive(Clone)]
pub enum BitmapChange {
    /// Creates it.
    Add {
        /// Base 2 logarithm of the bytes that one bit stands for; by default as the image's clusters
        /// suggest.
        granularity_bits: Option<u32>,
        /// It records changes.
        enabled: bool,
    },
    /// Makes it clean.
    Clear,
    /// Lets it record changes no longer.
    Disable,
    /// Lets it record changes.
    Enable,
    /// Marks what is dirty in another one.
    Merge(Arc<DirtyBitmap>),
    /// Deletes it.
    Remove,
}

/// The bits and their summaries.
struct Levels {
    /// Size of the disk in bytes.
    size: u64,
    /// Level 0 holds the bits; a bit of level n + 1 is set if its word of level n is not zero.
    words: Vec<Vec<u64>>,
    /// Bits set.
    count: u64,
}

/// A dirty bitmap.
pub struct DirtyBitmap {
    granularity_bits: u32,
    levels: Mutex<Levels>,
}

fn too_large() -> Error {
    Error::unsupported(
        "dirty bitmap",
        "it would take more than 512 MiB; choose a coarser granularity",
    )
}

/// Words of each level for `bits` bits, zeroed.
fn levels(bits: u64) -> Result<Vec<Vec<u64>>> {
    if bits.div_ceil(8) > MAX_BYTES {
        return Err(too_large());
    }
    let mut all = Vec::new();
    let mut len = bits;
    loop {
        len = len.div_ceil(WORD).max(1);
        let mut words = Vec::new();
        words.try_reserve_exact(len.as_usize()).map_err(|_| too_large())?;
        words.resize(len.as_usize(), 0);
        all.push(words);
        if len == 1 {
            return Ok(all);
        }
    }
}

/// The bits of word number `word` that lie in `bits`.
fn mask(word: u64, bits: &Range<u64>) -> u64 {
    let start = bits.start.clamp(word * WORD, (word + 1) * WORD) - word * WORD;
    let end = bits.end.clamp(word * WORD, (word + 1) * WORD) - word * WORD;
    if start >= end {
        return 0;
    }
    (u64::MAX << start) & (u64::MAX >> (WORD - end))
}

impl Levels {
    fn new(size: u64, granularity_bits: u32) -> Result<Levels> {
        Ok(Levels { size, words: levels(bits_of(size, granularity_bits))?, count: 0 })
    }

    fn word(&self, level: usize, index: u64) -> u64 {
        self.words.get(level).and_then(|words| words.get(index.as_usize())).copied().unwrap_or(0)
    }

    /// Sets a word of level 0, and what follows from it above.
    fn store(&mut self, index: u64, value: u64) {
        let (mut index, mut value) = (index, value);
        for level in 0..self.words.len() {
            let old = self.word(level, index);
            if let Some(word) = self.words.get_mut(level).and_then(|w| w.get_mut(index.as_usize()))
            {
                *word = value;
            }
            if level == 0 {
                self.count =
                    self.count + u64::from(value.count_ones()) - u64::from(old.count_ones());
            }
            if (old == 0) == (value == 0) {
                return;
            }
            let bit = 1 << (index % WORD);
            index /= WORD;
            let above = self.word(level + 1, index);
            value = if value == 0 { above & !bit } else { above | bit };
        }
    }

    fn change(&mut self, bits: Range<u64>, set: bool) {
        for index in bits.start / WORD..bits.end.div_ceil(WORD) {
            let old = self.word(0, index);
            let mask = mask(index, &bits);
            let new = if set { old | mask } else { old & !mask };
            if new != old {
                self.store(index, new);
            }
        }
    }

    /// The first bit set at `from` or behind it.
    fn next_set(&self, from: u64) -> Option<u64> {
        let mut level = 0;
        let mut at = from;
        loop {
            let index = at / WORD;
            let word = self.word(level, index) & (u64::MAX << (at % WORD));
            if word != 0 {
                let mut found = index * WORD + u64::from(word.trailing_zeros());
                for below in (0..level).rev() {
                    let word = self.word(below, found);
                    found = found * WORD + u64::from(word.trailing_zeros());
                }
                return Some(found);
            }
            // Nothing in the rest of this word: go on with the next one, as its summary says.
            at = index + 1;
            level += 1;
            if level >= self.words.len() {
                return None;
            }
        }
    }

    /// The first bit not set at `from` or behind it.
    fn next_clear(&self, from: u64) -> u64 {
        let mut at = from;
        loop {
            let word = !self.word(0, at / WORD) & (u64::MAX << (at % WORD));
            if word != 0 {
                return at / WORD * WORD + u64::from(word.trailing_zeros());
            }
            at = (at / WORD + 1) * WORD;
        }
    }
}

/// Bits that a disk of `size` bytes takes.
fn bits_of(size: u64, granularity_bits: u32) -> u64 {
    size.div_ceil(1 << granularity_bits)
}

impl DirtyBitmap {
    /// A clean bitmap for a disk of `size` bytes whose bits stand for `1 << granularity_bits` bytes.
    pub fn new(size: u64, granularity_bits: u32) -> Result<DirtyBitmap> {
        if !GRANULARITY_BITS.contains(&granularity_bits) {
            let what = "the granularity must be a power of two from 512 bytes to 2 GiB";
            return Err(Error::unsupported("dirty bitmap", what));
        }
        let levels = Mutex::new(Levels::new(size, granularity_bits)?);
        Ok(DirtyBitmap { granularity_bits, levels })
    }

    /// Whether a bitmap for a disk of `size` bytes is small enough to be kept in memory.
    pub fn fits(size: u64, granularity_bits: u32) -> bool {
        bits_of(size, granularity_bits).div_ceil(8) <= MAX_BYTES
    }

    /// Base 2 logarithm of the bytes that one bit stands for.
    pub fn granularity_bits(&self) -> u32 {
        self.granularity_bits
    }

    /// Size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.levels.lock().size
    }

    /// Bytes of all granules that are dirty; the last one counts whole.
    pub fn dirty_bytes(&self) -> u64 {
        self.levels.lock().count << self.granularity_bits
    }

    /// The granules that `range` touches, within the disk.
    fn bits(&self, range: &Range<u64>, size: u64) -> Range<u64> {
        let end = range.end.min(size);
        range.start.min(end) >> self.granularity_bits..bits_of(end, self.granularity_bits)
    }

    /// Marks all granules that `range` touches.
    pub fn mark(&self, range: Range<u64>) {
        let mut levels = self.levels.lock();
        let bits = self.bits(&range, levels.size);
        if range.start < range.end {
            levels.change(bits, true);
        }
    }

    /// Makes everything clean.
    pub fn clear(&self) {
        let mut levels = self.levels.lock();
        for words in &mut levels.words {
            words.fill(0);
        }
        levels.count = 0;
    }

    /// The first dirty range at `from` or behind it, cut to the disk.
    pub fn next_dirty(&self, from: u64) -> Option<Range<u64>> {
        let levels = self.levels.lock();
        let first = levels.next_set(from >> self.granularity_bits)?;
        let end = levels.next_clear(first);
        let start = (first << self.granularity_bits).max(from);
        let end = (end << self.granularity_bits).min(levels.size);
        (start < end).then_some(start..end)
    }

    /// Marks all that is dirty in `other`, whose granularity may differ.
    pub fn merge(&self, other: &DirtyBitmap) -> Result<()> {
        let (size, theirs) = (self.size(), other.size());
        if size != theirs {
            return Err(Error::unsupported(
                "dirty bitmap",
                format!(
                    "bitmaps of disks of different sizes ({size} and {theirs} bytes) cannot be merged"
                ),
            ));
        }
        let mut at = 0;
        while let Some(range) = other.next_dirty(at) {
            at = range.end;
            self.mark(range);
        }
        Ok(())
    }

    /// Follows a change of the disk's size. What is new is clean.
    pub fn resize(&self, size: u64) -> Result<()> {
        let mut new = Levels::new(size, self.granularity_bits)?;
        let mut levels = self.levels.lock();
        let bits = bits_of(size, self.granularity_bits);
        let mut at = 0;
        while let Some(first) = levels.next_set(at).filter(|&first| first < bits) {
            at = levels.next_clear(first).min(bits);
            new.change(first..at, true);
        }
        *levels = new;
        Ok(())
    }

    /// Bytes of the stored form.
    pub fn stored_len(&self) -> u64 {
        bits_of(self.size(), self.granularity_bits).div_ceil(8)
    }

    /// Part of the stored form: the bytes at `offset` that fit into `out`. If they are all zero, `out`
    /// stays as it is, and the result is false.
    pub fn store(&self, offset: u64, out: &mut [u8]) -> bool {
        let levels = self.levels.lock();
        let bits = offset * 8..(offset + out.len() as u64) * 8;
        if levels.next_set(bits.start).is_none_or(|first| first >= bits.end) {
            return false;
        }
        for (at, byte) in (offset..).zip(out.iter_mut()) {
            let word = levels.word(0, at / 8).to_le_bytes();
            *byte = word.get((at % 8).as_usize()).copied().unwrap_or(0);
        }
        true
    }

    /// Takes part of a stored form, from byte `offset` on; what is dirty there becomes dirty here.
    pub fn load(&self, offset: u64, stored: &[u8]) {
        let mut levels = self.levels.lock();
        let bits = bits_of(levels.size, self.granularity_bits);
        for (at, &byte) in (offset..).zip(stored).filter(|(_, byte)| **byte != 0) {
            let index = at / 8;
            let inside = mask(index, &(0..bits));
            let word = u64::from(byte) << (at % 8 * 8) & inside;
            let old = levels.word(0, index);
            if old | word != old {
                levels.store(index, old | word);
            }
        }
    }

    /// Marks what the stored bytes in `range` stand for.
    pub fn load_ones(&self, range: Range<u64>) {
        let mut levels = self.levels.lock();
        let bits = bits_of(levels.size, self.granularity_bits);
        let end = range.end.saturating_mul(8).min(bits);
        levels.change((range.start.saturating_mul(8)).min(end)..end, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: u64 = 1 << 10;

    fn dirty(bitmap: &DirtyBitmap) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        let mut at = 0;
        while let Some(range) = bitmap.next_dirty(at) {
            at = range.end;
            ranges.push(range);
        }
        ranges
    }

    #[test]
    fn marks_cover_whole_granules_within_the_disk() {
        let bitmap = DirtyBitmap::new(100 * KIB + 1, 12).expect("fits");
        bitmap.mark(5 * KIB..5 * KIB + 1);
        bitmap.mark(99 * KIB..200 * KIB);
        bitmap.mark(50 * KIB..50 * KIB);
        assert_eq!(dirty(&bitmap), [4 * KIB..8 * KIB, 96 * KIB..100 * KIB + 1]);
        assert_eq!(bitmap.dirty_bytes(), 12 * KIB);
        assert_eq!(bitmap.next_dirty(6 * KIB), Some(6 * KIB..8 * KIB));
        bitmap.clear();
        assert_eq!((dirty(&bitmap).len(), bitmap.dirty_bytes()), (0, 0));
    }

    #[test]
    fn a_merge_needs_the_same_size_only() {
        let fine = DirtyBitmap::new(1 << 20, 9).expect("fits");
        let coarse = DirtyBitmap::new(1 << 20, 16).expect("fits");
        fine.mark(512..1024);
        coarse.merge(&fine).expect("same size");
        assert_eq!(coarse.next_dirty(0), Some(0..64 * KIB));
        fine.merge(&coarse).expect("same size");
        assert_eq!(fine.next_dirty(0), Some(0..64 * KIB));
        let other = DirtyBitmap::new(2 << 20, 9).expect("fits");
        assert!(fine.merge(&other).is_err());
    }

    #[test]
    fn a_resize_keeps_what_is_left_and_adds_clean_granules() {
        let bitmap = DirtyBitmap::new(1 << 20, 12).expect("fits");
        bitmap.mark(0..8 * KIB);
        bitmap.mark(512 * KIB..1 << 20);
        bitmap.resize(600 * KIB).expect("fits");
        bitmap.resize(4 << 20).expect("fits");
        assert_eq!(dirty(&bitmap), [0..8 * KIB, 512 * KIB..600 * KIB]);
    }

    #[test]
    fn limits_are_enforced() {
        assert!(DirtyBitmap::new(1 << 20, 8).is_err());
        assert!(DirtyBitmap::new(1 << 20, 32).is_err());
        assert!(DirtyBitmap::new(1 << 60, 16).is_err());
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_list_of_flags(
            changes in prop::collection::vec((0u64..400_000, 0u64..70_000), 0..30),
            cut in 0usize..100,
        ) {
            let size = 400_000;
            let bitmap = DirtyBitmap::new(size, 9).expect("fits");
            let mut flags = vec![false; usize::try_from(size.div_ceil(512)).expect("small")];
            for (start, len) in changes {
                bitmap.mark(start..start + len);
                if len > 0 {
                    for granule in start / 512..(start + len).min(size).div_ceil(512) {
                        flags[usize::try_from(granule).expect("small")] = true;
                    }
                }
            }
            let mut found = vec![false; flags.len()];
            for range in dirty(&bitmap) {
                for granule in range.start / 512..range.end.div_ceil(512) {
                    found[usize::try_from(granule).expect("small")] = true;
                }
            }
            prop_assert_eq!(&found, &flags);
            let mut bytes = vec![0; usize::try_from(bitmap.stored_len()).expect("small")];
            let any = bitmap.store(0, &mut bytes);
            prop_assert_eq!(any, flags.contains(&true));
            let again = DirtyBitmap::new(size, 9).expect("fits");
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            again.load(0, head);
            again.load(head.len() as u64, tail);
            prop_assert_eq!(dirty(&again), dirty(&bitmap));
        }
    }
}
