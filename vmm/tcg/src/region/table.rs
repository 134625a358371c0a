//! The regions of a cache, and the thread that compiles them.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use super::{Direct, GuestFacts, Region, RegionBlock, RegionChoices, RegionCompiler, form};
use crate::code::Cache;
use crate::emit::{self, Door, Entry, Gate};
use crate::ir::Block;

/// Requests that wait at most; a block whose request is turned away asks again.
const WAITING: usize = 64;

/// A region that has code.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(crate) gate: Gate,
    /// The blocks at which it is entered, and how.
    entries: Arc<[(Arc<Block>, Entry)]>,
    /// All blocks. They stay as long as the region is in the table.
    pub(crate) members: Arc<[Arc<Block>]>,
}

#[derive(Default)]
struct State {
    /// Regions by the blocks at which they are entered.
    installed: HashMap<*const Block, Installed>,
    /// Gates of the regions that a block is in.
    gates: HashMap<*const Block, Vec<Gate>>,
    waiting: VecDeque<(Arc<Block>, GuestFacts, Direct)>,
    /// Whether there is a thread that compiles what waits.
    running: bool,
}

// SAFETY: the pointers are names of blocks and are never followed.
unsafe impl Send for State {}

/// The regions of a cache.
///
/// The state is whole whenever the lock is free, so a panic elsewhere does no harm. Code is
/// made and placed without the lock; what is changed in blocks and units is changed under it.
#[derive(Default)]
pub(crate) struct Regions {
    compiler: OnceLock<(Arc<dyn RegionCompiler>, RegionChoices)>,
    state: Mutex<State>,
}

impl fmt::Debug for Regions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Regions")
            .field("compiler", &self.compiler.get().is_some())
            .finish_non_exhaustive()
    }
}

/// A table in which nothing changes, until this is dropped.
pub(crate) struct RegionsFrozen<'a> {
    _state: MutexGuard<'a, State>,
}

impl Regions {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the compiler, once.
    pub(crate) fn set_compiler(&self, compiler: Arc<dyn RegionCompiler>, choices: RegionChoices) {
        // The first one stays.
        let _ = self.compiler.set((compiler, choices));
    }

    /// How often a unit runs before it asks for a region; `None` if there is no compiler.
    pub(crate) fn heat(&self) -> Option<u32> {
        self.compiler.get().map(|(_, choices)| choices.heat)
    }

    /// Holds off all changes, so that the process can be forked.
    pub(crate) fn freeze(&self) -> RegionsFrozen<'_> {
        RegionsFrozen { _state: self.lock() }
    }

    /// The child of a fork has no thread that compiles.
    pub(crate) fn forked(&self) {
        let mut state = self.lock();
        state.running = false;
        state.waiting.clear();
    }

    /// Regions that have code.
    pub(crate) fn len(&self) -> usize {
        self.lock().installed.len()
    }

    /// The region that is entered at `block`.
    pub(crate) fn of(&self, block: &Block) -> Option<Installed> {
        self.lock().installed.get(&std::ptr::from_ref(block)).cloned()
    }

    /// Closes the regions that `block` is in.
    pub(crate) fn close(&self, block: &Block, reason: u32) {
        for gate in self.lock().gates.get(&std::ptr::from_ref(block)).into_iter().flatten() {
            gate.close(reason);
        }
    }

    /// Closes all regions, until their blocks have been compared with memory.
    pub(crate) fn close_all(&self) {
        for region in self.lock().installed.values() {
            region.gate.close(Gate::UNCHECKED);
        }
    }

    /// Gives up the region that is entered at `block`; the units of its blocks run again.
    pub(crate) fn remove(&self, block: &Block) {
        let mut state = self.lock();
        let Some(region) = state.installed.remove(&std::ptr::from_ref(block)) else { return };
        region.gate.close(Gate::STALE);
        for member in &*region.members {
            if let Some(gates) = state.gates.get_mut(&Arc::as_ptr(member)) {
                gates.retain(|gate| *gate != region.gate);
                if gates.is_empty() {
                    state.gates.remove(&Arc::as_ptr(member));
                }
            }
        }
        for (entry, _) in &*region.entries {
            let other = state.installed.get(&Arc::as_ptr(entry));
            if other.is_some_and(|other| other.gate != region.gate) {
                continue;
            }
            state.installed.remove(&Arc::as_ptr(entry));
            entry.set_replaced(false);
            if let Some(unit) = entry.unit() {
                unit.forward.link(unit.out);
                unit.gate.open(Gate::REPLACED);
            }
        }
    }

    /// Asks for a region that begins at `block`.
    pub(crate) fn request(
        &self,
        cache: &Arc<Cache>,
        block: &Arc<Block>,
        facts: GuestFacts,
        memory: Direct,
    ) {
        let Some((_, choices)) = self.compiler.get() else { return };
        if !choices.background {
            self.compile(cache, block, facts, memory, false);
            return;
        }
        let mut state = self.lock();
        if state.waiting.len() < WAITING {
            state.waiting.push_back((block.clone(), facts, memory));
        }
        if !state.running {
            let cache = cache.clone();
            state.running = spawn(move || cache.regions().work(&cache));
        }
    }

    /// Whether its first block or most of a region is in others.
    fn is_known(&self, region: &Region) -> bool {
        let state = self.lock();
        let known = |member: &RegionBlock| state.gates.contains_key(&Arc::as_ptr(&member.block));
        let count = region.blocks.iter().filter(|member| known(member)).count();
        region.blocks.first().is_some_and(known) || count * 4 > region.blocks.len() * 3
    }

    /// Compiles what waits.
    fn work(&self, cache: &Cache) {
        loop {
            let next = {
                let mut state = self.lock();
                let next = state.waiting.pop_front();
                state.running = next.is_some();
                next
            };
            let Some((block, facts, memory)) = next else { return };
            self.compile(cache, &block, facts, memory, false);
        }
    }

    /// Compiles the region that begins at `block`; whether there is one now.
    pub(crate) fn compile(
        &self,
        cache: &Cache,
        block: &Arc<Block>,
        facts: GuestFacts,
        memory: Direct,
        checked: bool,
    ) -> bool {
        let Some((compiler, _)) = self.compiler.get() else { return false };
        if block.is_replaced() {
            return true;
        }
        let region = form(cache, block, facts, memory, checked);
        // Most of it is in regions already, which will be entered soon. If not, the block asks again.
        let region = region.filter(|region| !self.is_known(region) || !block.asks_first());
        let Some((compiled, region)) =
            region.and_then(|region| Some((compiler.compile(&region)?, region)))
        else {
            return false;
        };
        let entries = region.entries.iter().filter_map(|index| {
            let block = &region.blocks.get(*index)?.block;
            let door = Door { pc: block.key.pc, fallback: block.unit()?.body };
            Some((block.clone(), door))
        });
        let (blocks, doors): (Vec<_>, Vec<_>) = entries.unzip();
        if doors.len() != region.entries.len() {
            return false;
        }
        let placed = emit::install(cache.arena(), compiled, facts.pc, &doors);
        let Some((entries, gate)) = placed else { return false };
        // Whoever enters it first compares all blocks with memory.
        gate.close(Gate::UNCHECKED);
        let entries = blocks.into_iter().zip(entries).collect();
        let members = region.blocks.into_iter().map(|member| member.block).collect();
        self.publish(Installed { gate, entries, members });
        true
    }

    fn publish(&self, region: Installed) {
        let mut state = self.lock();
        for member in &*region.members {
            state.gates.entry(Arc::as_ptr(member)).or_default().push(region.gate);
        }
        // Blocks that become stale from here on find the gate.
        if region.members.iter().any(|member| member.is_stale()) {
            region.gate.close(Gate::STALE);
        }
        for (block, entry) in &*region.entries {
            if block.is_replaced() {
                continue;
            }
            if let Some(unit) = block.unit() {
                unit.forward.link(*entry);
                unit.gate.close(Gate::REPLACED);
            }
            state.installed.insert(Arc::as_ptr(block), region.clone());
            block.set_replaced(true);
        }
    }
}

/// Starts a thread that gets no signals; whether that worked.
fn spawn(work: impl FnOnce() + Send + 'static) -> bool {
    let builder = thread::Builder::new().name("regions".to_owned());
    let mut old = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the sets are valid for the calls; the second is written by the first before it is read. A new thread inherits
    // what is blocked, and this one gets its signals a moment later.
    unsafe {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
    }
    let spawned = builder.spawn(work);
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), std::ptr::null_mut()) };
    spawned.is_ok()
}
