//! L2 tables in memory: a bounded cache of slices that any thread reads without excluding others.
//!
//! A slice is an aligned piece of an L2 table. Its entries are atomics, so that looking up an allocated
//! cluster costs a shared lock on one shard of the cache and no more. Changes take the slice's own
//! lock. Dirty slices are listed and cannot be evicted until they are written back.

use std::collections::{HashMap, VecDeque};
use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use parking_lot::{Mutex, RwLock};

use super::entry::RawEntry;
use super::geometry::Geometry;
use crate::buf::{IoBuf, IoBufMut};
use crate::num::AsUsize;

/// Shards of the cache at most.
const MAX_SHARDS: usize = 16;

/// An aligned piece of an L2 table.
pub(crate) struct Slice {
    offset: u64,
    /// One word an entry, or two with extended L2 entries (descriptor, bitmap); host byte order.
    words: Box<[AtomicU64]>,
    words_per_entry: usize,
    /// Odd while an entry of two words changes.
    version: AtomicU64,
    /// Used since the eviction hand passed last.
    recent: AtomicBool,
    /// Guards changes; true if the slice differs from the disk.
    dirty: Mutex<bool>,
}

impl Slice {
    fn new(offset: u64, words: Box<[AtomicU64]>, geometry: &Geometry) -> Slice {
        Slice {
            offset,
            words,
            words_per_entry: if geometry.extended_l2 { 2 } else { 1 },
            version: AtomicU64::new(0),
            recent: AtomicBool::new(true),
            dirty: Mutex::new(false),
        }
    }

    /// Host offset.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    fn word(&self, index: usize, order: Ordering) -> u64 {
        self.words.get(index).map_or(0, |word| word.load(order))
    }

    /// Entry `index` of the slice.
    pub(crate) fn get(&self, index: usize) -> RawEntry {
        if self.words_per_entry == 1 {
            return RawEntry { descriptor: self.word(index, Ordering::Acquire), bitmap: 0 };
        }
        loop {
            let before = self.version.load(Ordering::Acquire);
            let descriptor = self.word(2 * index, Ordering::Relaxed);
            let bitmap = self.word(2 * index + 1, Ordering::Relaxed);
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before {
                return RawEntry { descriptor, bitmap };
            }
            hint::spin_loop();
        }
    }

    /// Sets an entry; the caller holds the lock on `dirty`.
    fn store(&self, index: usize, entry: RawEntry) {
        if self.words_per_entry == 1 {
            if let Some(word) = self.words.get(index) {
                word.store(entry.descriptor, Ordering::Release);
            }
            return;
        }
        if let Some([descriptor, bitmap]) = self.words.get(2 * index..2 * index + 2) {
            let version = self.version.load(Ordering::Relaxed);
            self.version.store(version + 1, Ordering::Relaxed);
            fence(Ordering::Release);
            descriptor.store(entry.descriptor, Ordering::Relaxed);
            bitmap.store(entry.bitmap, Ordering::Relaxed);
            self.version.store(version + 2, Ordering::Release);
        }
    }

    /// The on-disk form.
    pub(crate) fn to_bytes(&self) -> IoBuf {
        let mut buf = IoBufMut::new(self.words.len() * 8);
        for (bytes, word) in buf.chunks_exact_mut(8).zip(&self.words) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_be_bytes());
        }
        buf.freeze()
    }
}

/// A dirty slice as it was when captured.
pub(crate) struct CapturedSlice {
    slice: Arc<Slice>,
    /// Host offset to write to.
    pub(crate) offset: u64,
    /// Content.
    pub(crate) bytes: IoBuf,
}

#[derive(Default)]
struct Shard {
    slices: HashMap<u64, Arc<Slice>>,
    /// Offsets in the order in which the eviction hand meets them.
    hand: VecDeque<u64>,
}

/// The cache.
pub(crate) struct SliceCache {
    geometry: Geometry,
    slice_size: AtomicU64,
    shards: Box<[RwLock<Shard>]>,
    shard_capacity: AtomicUsize,
    /// Dirty slices, each once.
    dirty: Mutex<Vec<Arc<Slice>>>,
    dirty_count: AtomicUsize,
}

impl SliceCache {
    /// A cache for at most `capacity` slices (but at least one) of `slice_size` bytes.
    pub(crate) fn new(geometry: Geometry, slice_size: u64, capacity: usize) -> SliceCache {
        let shards = capacity.clamp(1, MAX_SHARDS);
        SliceCache {
            geometry,
            slice_size: AtomicU64::new(slice_size),
            shards: (0..shards).map(|_| RwLock::default()).collect(),
            shard_capacity: AtomicUsize::new(capacity.max(1) / shards),
            dirty: Mutex::default(),
            dirty_count: AtomicUsize::new(0),
        }
    }

    /// Drops everything and gives the cache another size of slices and another capacity, which comes
    /// to at least one slice a shard. Nothing is dirty and nobody uses the cache meanwhile.
    pub(crate) fn reconfigure(&self, slice_size: u64, capacity: usize) {
        self.clear();
        self.slice_size.store(slice_size, Ordering::Relaxed);
        self.shard_capacity.store((capacity / self.shards.len()).max(1), Ordering::Relaxed);
    }

    /// Size of a slice in bytes.
    pub(crate) fn slice_size(&self) -> u64 {
        self.slice_size.load(Ordering::Relaxed)
    }

    fn shard_capacity(&self) -> usize {
        self.shard_capacity.load(Ordering::Relaxed)
    }

    /// Entries of a slice.
    pub(crate) fn slice_entries(&self) -> u64 {
        self.slice_size() / self.geometry.l2_entry_size()
    }

    /// Slices that the cache holds at most.
    pub(crate) fn capacity(&self) -> usize {
        self.shard_capacity() * self.shards.len()
    }

    fn shard(&self, offset: u64) -> &RwLock<Shard> {
        let number = (offset / self.slice_size()).as_usize() % self.shards.len();
        // There is at least one shard, and the number is below their count.
        &self.shards[number]
    }

    /// The slice at host offset `offset`, if it is in memory.
    pub(crate) fn get(&self, offset: u64) -> Option<Arc<Slice>> {
        let shard = self.shard(offset).read();
        let slice = shard.slices.get(&offset)?;
        // Written only when needed, to keep the cache line shared.
        if !slice.recent.load(Ordering::Relaxed) {
            slice.recent.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(slice))
    }

    /// Adds the slice at `offset` with the content `bytes` as on disk, unless it is there already,
    /// and returns what is there then. Other slices make room.
    pub(crate) fn insert(&self, offset: u64, bytes: &[u8]) -> Arc<Slice> {
        let words = bytes.chunks_exact(8).map(|raw| {
            let raw = raw.try_into().unwrap_or_default();
            AtomicU64::new(u64::from_be_bytes(raw))
        });
        let slice = Arc::new(Slice::new(offset, words.collect(), &self.geometry));
        let mut shard = self.shard(offset).write();
        if let Some(present) = shard.slices.get(&offset) {
            return Arc::clone(present);
        }
        shard.evict(self.shard_capacity().saturating_sub(1));
        shard.slices.insert(offset, Arc::clone(&slice));
        shard.hand.push_back(offset);
        slice
    }

    /// Drops all slices of the `len` bytes at `offset`, which are no L2 table any more.
    pub(crate) fn forget(&self, offset: u64, len: u64) {
        let slices = (offset..offset + len).step_by(self.slice_size().as_usize());
        for offset in slices {
            let mut shard = self.shard(offset).write();
            if shard.slices.remove(&offset).is_some() {
                shard.hand.retain(|&o| o != offset);
            }
        }
        let mut dirty = self.dirty.lock();
        dirty.retain(|slice| !(offset..offset + len).contains(&slice.offset));
        self.dirty_count.store(dirty.len(), Ordering::Relaxed);
    }

    /// Drops everything; dirty slices must have been written back.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            *shard.write() = Shard::default();
        }
    }

    /// Drops what was not used since the last call.
    pub(crate) fn trim(&self) {
        for shard in &self.shards {
            let mut shard = shard.write();
            let Shard { slices, hand } = &mut *shard;
            slices.retain(|_, slice| {
                slice.recent.swap(false, Ordering::Relaxed) || Arc::strong_count(slice) > 1
            });
            hand.retain(|offset| slices.contains_key(offset));
        }
    }

    /// Sets entries of a slice: (index within the slice, entry).
    pub(crate) fn update(
        &self,
        slice: &Arc<Slice>,
        entries: impl IntoIterator<Item = (usize, RawEntry)>,
    ) {
        let mut dirty = slice.dirty.lock();
        for (index, entry) in entries {
            slice.store(index, entry);
        }
        if !*dirty {
            *dirty = true;
            self.list_dirty(Arc::clone(slice));
        }
    }

    fn list_dirty(&self, slice: Arc<Slice>) {
        let mut list = self.dirty.lock();
        list.push(slice);
        self.dirty_count.store(list.len(), Ordering::Relaxed);
    }

    /// Number of slices that wait to be written.
    pub(crate) fn dirty_count(&self) -> usize {
        self.dirty_count.load(Ordering::Relaxed)
    }

    /// Takes the dirty slices as they are now, in the order of their offsets; they count as clean
    /// from here on, but stay in memory as long as the result lives.
    pub(crate) fn capture(&self) -> Vec<CapturedSlice> {
        let list = {
            let mut list = self.dirty.lock();
            self.dirty_count.store(0, Ordering::Relaxed);
            std::mem::take(&mut *list)
        };
        let mut captured: Vec<_> = list
            .into_iter()
            .map(|slice| {
                let mut dirty = slice.dirty.lock();
                *dirty = false;
                let bytes = slice.to_bytes();
                drop(dirty);
                CapturedSlice { offset: slice.offset, bytes, slice }
            })
            .collect();
        captured.sort_unstable_by_key(|c| c.offset);
        captured
    }

    /// Marks captured slices dirty again, since they did not reach the disk.
    pub(crate) fn restore(&self, captured: &[CapturedSlice]) {
        for c in captured {
            let mut dirty = c.slice.dirty.lock();
            if !*dirty {
                *dirty = true;
                self.list_dirty(Arc::clone(&c.slice));
            }
        }
    }

    /// Slices in memory.
    #[cfg(test)]
    fn resident(&self) -> usize {
        self.shards.iter().map(|s| s.read().slices.len()).sum()
    }
}

impl Shard {
    /// Evicts until at most `keep` slices are left. Slices in use, dirty or just used stay: with
    /// more of those than `keep`, the cache outgrows its bound by the requests under way.
    fn evict(&mut self, keep: usize) {
        // Once round to take the marks away, once more to evict.
        let mut steps = 2 * self.hand.len();
        while self.slices.len() > keep && steps > 0 {
            steps -= 1;
            let Some(offset) = self.hand.pop_front() else { return };
            let idle = self.slices.get(&offset).is_some_and(|slice| {
                Arc::strong_count(slice) == 1 && !slice.recent.swap(false, Ordering::Relaxed)
            });
            if idle {
                self.slices.remove(&offset);
            } else {
                self.hand.push_back(offset);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(extended_l2: bool) -> Geometry {
        Geometry {
            cluster_bits: 16,
            refcount_order: 4,
            extended_l2,
            external_data: false,
            zero_flag: true,
        }
    }

    #[test]
    fn the_bound_holds_and_dirty_slices_stay() {
        let cache = SliceCache::new(geometry(false), 4096, 32);
        let zero = vec![0; 4096];
        let first = cache.insert(0, &zero);
        cache.update(&first, [(3, RawEntry { descriptor: 0x50000, bitmap: 0 })]);
        drop(first);
        for n in 1..1000 {
            cache.insert(n * 4096, &zero);
        }
        assert!(cache.resident() <= 32);
        assert_eq!(cache.get(0).expect("dirty").get(3).descriptor, 0x50000);
        assert_eq!(cache.dirty_count(), 1);
        let captured = cache.capture();
        assert_eq!(captured[0].bytes[24..32], 0x50000u64.to_be_bytes());
        cache.restore(&captured);
        assert_eq!(cache.dirty_count(), 1);
        drop(captured);
        drop(cache.capture());
        for n in 1000..2000 {
            cache.insert(n * 4096, &zero);
        }
        assert!(cache.get(0).is_none(), "clean slices leave");
    }

    #[test]
    fn extended_entries_are_never_seen_half_changed() {
        let cache = SliceCache::new(geometry(true), 4096, 4);
        let slice = cache.insert(0, &[0; 4096]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..20_000u64 {
                    cache.update(&slice, [(7, RawEntry { descriptor: n, bitmap: n })]);
                }
            });
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let entry = slice.get(7);
                    assert_eq!(entry.descriptor, entry.bitmap);
                }
            });
        });
    }
}
