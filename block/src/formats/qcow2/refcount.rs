//! Refcount block entries of 1 to 64 bits (qcow2 specification, "Host cluster management").

use std::ops::Range;

/// Reads and writes the refcounts of a block in its on-disk form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Codec {
    order: u32,
}

impl Codec {
    /// Refcounts of `1 << order` bits; `order` is at most 6.
    pub(crate) fn new(order: u32) -> Codec {
        Codec { order: order.min(6) }
    }

    /// Largest refcount that fits.
    pub(crate) fn max(self) -> u64 {
        u64::MAX >> (64 - (1 << self.order))
    }

    /// Refcount number `index`; 0 beyond the end of the block.
    pub(crate) fn get(self, block: &[u8], index: usize) -> u64 {
        if self.order < 3 {
            let per_byte = 3 - self.order;
            let shift = (index & ((1 << per_byte) - 1)) << self.order;
            let byte = block.get(index >> per_byte).copied().unwrap_or(0);
            return u64::from(byte >> shift) & self.max();
        }
        let width = 1 << (self.order - 3);
        let bytes = index.checked_mul(width).and_then(|at| block.get(at..at + width));
        bytes.unwrap_or_default().iter().fold(0, |n, &b| n << 8 | u64::from(b))
    }

    /// Sets refcount number `index`. Values above [`Codec::max`] and places beyond the block are the
    /// caller's mistake and leave the block as it is.
    pub(crate) fn set(self, block: &mut [u8], index: usize, value: u64) {
        debug_assert!(value <= self.max(), "refcount {value} too large");
        if self.order < 3 {
            let per_byte = 3 - self.order;
            let shift = (index & ((1 << per_byte) - 1)) << self.order;
            if let Some(byte) = block.get_mut(index >> per_byte) {
                let [.., mask] = (self.max() << shift).to_be_bytes();
                let [.., bits] = (value << shift).to_be_bytes();
                *byte = (*byte & !mask) | (bits & mask);
            }
            return;
        }
        let width = 1 << (self.order - 3);
        let place = index.checked_mul(width).and_then(|at| block.get_mut(at..at + width));
        if let Some(place) = place {
            place.copy_from_slice(&value.to_be_bytes()[8 - width..]);
        }
    }

    /// The bytes of a block that refcount number `index` is in.
    pub(crate) fn bytes(self, index: usize) -> Range<usize> {
        let first = (index << self.order) / 8;
        first..first + (1 << self.order.saturating_sub(3))
    }

    /// Index of the first refcount at or after `from` that is zero, looking at `entries` of them.
    pub(crate) fn first_free(self, block: &[u8], from: usize, entries: usize) -> Option<usize> {
        (from..entries).find(|&i| self.get(block, i) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn narrow_entries_start_at_the_least_significant_bit() {
        let mut block = [0u8; 4];
        Codec::new(0).set(&mut block, 0, 1);
        Codec::new(0).set(&mut block, 9, 1);
        assert_eq!(block, [0x01, 0x02, 0, 0]);
        let mut block = [0u8; 4];
        Codec::new(2).set(&mut block, 1, 0xf);
        assert_eq!(block, [0xf0, 0, 0, 0]);
        let mut block = [0u8; 4];
        Codec::new(4).set(&mut block, 1, 0x1234);
        assert_eq!(block, [0, 0, 0x12, 0x34]);
    }

    proptest! {
        #[test]
        fn every_width_stores_its_values(
            order in 0u32..=6,
            writes in prop::collection::vec((0usize..64, any::<u64>()), 1..40),
        ) {
            let codec = Codec::new(order);
            let mut block = vec![0u8; 512];
            let mut model = [0u64; 64];
            for (index, value) in writes {
                model[index] = value & codec.max();
                codec.set(&mut block, index, model[index]);
            }
            for (index, &value) in model.iter().enumerate() {
                prop_assert_eq!(codec.get(&block, index), value);
            }
            let free = codec.first_free(&block, 3, 64);
            prop_assert_eq!(free, (3..64).find(|&i| model[i] == 0));
        }
    }
}
