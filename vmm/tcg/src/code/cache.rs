//! The table of blocks.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::emit::{Arena, Gate};
use crate::ir::{Block, BlockKey, page_of};
use crate::region::{RegionChoices, RegionCompiler, Regions, RegionsFrozen};

const SHARDS: usize = 16;

type Blocks = HashMap<BlockKey, Arc<Block>>;
type Pages = HashMap<u64, Vec<Arc<Block>>>;

/// A part of the table. Its map is whole at all times, so a panic elsewhere does no harm.
#[derive(Debug, Default)]
struct Shard(RwLock<Blocks>);

impl Shard {
    fn read(&self) -> RwLockReadGuard<'_, Blocks> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Blocks> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Blocks by their keys and by the pages of their guest code.
///
/// All functions may be called from any thread, in a handler of a memory access too: no lock of the cache is held
/// while it calls out.
#[derive(Debug, Default)]
pub struct Cache {
    shards: [Shard; SHARDS],
    pages: Mutex<Pages>,
    generation: AtomicU64,
    arena: Arena,
    regions: Regions,
    breakpoints: Mutex<BTreeSet<u64>>,
    has_breakpoints: AtomicBool,
}

/// A cache in which nothing changes, until this is dropped.
pub struct Frozen<'a> {
    _pages: MutexGuard<'a, Pages>,
    _shards: [RwLockWriteGuard<'a, Blocks>; SHARDS],
    _arena: crate::emit::Frozen<'a>,
    _regions: RegionsFrozen<'a>,
    _breakpoints: MutexGuard<'a, BTreeSet<u64>>,
}

impl Cache {
    /// An empty cache.
    pub fn new() -> Cache {
        Cache::default()
    }

    fn shard(&self, key: &BlockKey) -> &Shard {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        // The remainder is below the number of shards.
        #[allow(clippy::cast_possible_truncation)]
        let index = hasher.finish() as usize % SHARDS;
        &self.shards[index]
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The block with this key that is not stale.
    pub fn find(&self, key: &BlockKey) -> Option<Arc<Block>> {
        let found = self.shard(key).read().get(key).cloned();
        found.filter(|block| !block.is_stale())
    }

    /// Adds a block, which takes the place of one with the same key.
    pub fn insert(&self, block: Arc<Block>) {
        let mut pages = self.pages();
        for page in block.pages() {
            pages.entry(page).or_default().push(block.clone());
        }
        drop(pages);
        self.shard(&block.key).write().insert(block.key, block);
    }

    /// Makes a block stale and forgets it.
    pub fn remove(&self, block: &Block) {
        block.make_stale();
        self.regions.close(block, Gate::STALE);
        let mut pages = self.pages();
        for page in block.pages() {
            if let Some(list) = pages.get_mut(&page) {
                list.retain(|other| !std::ptr::eq(Arc::as_ptr(other), block));
            }
        }
        drop(pages);
        if let Entry::Occupied(entry) = self.shard(&block.key).write().entry(block.key)
            && std::ptr::eq(Arc::as_ptr(entry.get()), block)
        {
            entry.remove();
        }
    }

    /// Makes the blocks stale that have guest code in the page of `address`.
    pub fn invalidate(&self, address: u64) {
        let blocks = self.pages().get(&page_of(address)).cloned().unwrap_or_default();
        for block in blocks {
            self.remove(&block);
        }
    }

    /// Holds off all use of the cache. No other function of it holds two of its locks at once, so this ends.
    pub fn freeze(&self) -> Frozen<'_> {
        let pages = self.pages();
        let shards = self.shards.each_ref().map(Shard::write);
        Frozen {
            _pages: pages,
            _shards: shards,
            _arena: self.arena.freeze(),
            _regions: self.regions.freeze(),
            _breakpoints: self.breakpoints(),
        }
    }

    /// Tells the cache that it is in the child of a fork.
    pub fn forked(&self) {
        self.arena.forked();
        self.regions.forked();
    }

    /// Lets `compiler` make code of regions, from now on and for good.
    pub fn set_compiler(&self, compiler: Arc<dyn RegionCompiler>, choices: RegionChoices) {
        self.regions.set_compiler(compiler, choices);
    }

    /// Regions that have code.
    pub fn region_count(&self) -> usize {
        self.regions.len()
    }

    /// The regions of blocks.
    pub(crate) fn regions(&self) -> &Regions {
        &self.regions
    }

    fn breakpoints(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.breakpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the instruction at `pc` raise [`Event::Breakpoint`](crate::Event::Breakpoint) in place of what it does, or not
    /// any more. CPUs that run meanwhile may not notice at once.
    pub fn set_breakpoint(&self, pc: u64, set: bool) {
        let mut breakpoints = self.breakpoints();
        if set {
            breakpoints.insert(pc);
        } else {
            breakpoints.remove(&pc);
        }
        self.has_breakpoints.store(!breakpoints.is_empty(), Ordering::SeqCst);
        drop(breakpoints);
        self.invalidate(pc);
    }

    /// Takes all breakpoints away.
    pub fn clear_breakpoints(&self) {
        let all: Vec<u64> = self.breakpoints().iter().copied().collect();
        for pc in all {
            self.set_breakpoint(pc, false);
        }
    }

    /// Whether there is a breakpoint at `pc`.
    #[inline]
    pub fn has_breakpoint(&self, pc: u64) -> bool {
        self.has_breakpoints.load(Ordering::SeqCst) && self.breakpoints().contains(&pc)
    }

    /// Where the code of blocks is.
    pub(crate) fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Begins a new generation: blocks are compared with guest memory before they run again.
    pub fn sync(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        for shard in &self.shards {
            shard.read().values().for_each(|block| block.close());
        }
        self.regions.close_all();
    }

    /// The generation.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Blocks that are not stale.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
