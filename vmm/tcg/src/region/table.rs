//! The regions of a cache, and the thread that compiles them.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use super::{GuestFacts, RegionChoices, RegionCompiler, form};
use crate::code::Cache;
use crate::emit::{self, Entry, Gate};
use crate::ir::Block;

/// Requests that wait at most; a block whose request is turned away asks again.
const WAITING: usize = 64;

/// A region that has code.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(crate) entry: Entry,
    pub(crate) gate: Gate,
    /// All blocks. They stay as long as the region is in the table.
    pub(crate) members: Arc<[Arc<Block>]>,
}

#[derive(Default)]
struct State {
    /// Regions by the block that they begin at.
    installed: HashMap<*const Block, Installed>,
    /// Gates of the regions that a block is in.
    gates: HashMap<*const Block, Vec<Gate>>,
    waiting: VecDeque<(Arc<Block>, GuestFacts)>,
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
        f.debug_struct("Regions").field("compiler", &self.compiler.get().is_some()).finish()
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

    /// The region that begins at `block`.
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

    /// Gives up the region that begins at `block`, whose own unit runs again.
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
        block.set_replaced(false);
        if let Some(unit) = block.unit() {
            unit.forward.link(unit.out);
            unit.gate.open(Gate::REPLACED);
        }
    }

    /// Asks for a region that begins at `block`.
    pub(crate) fn request(&self, cache: &Arc<Cache>, block: &Arc<Block>, facts: GuestFacts) {
        let Some((_, choices)) = self.compiler.get() else { return };
        if !choices.background {
            self.compile(cache, block, facts, false);
            return;
        }
        let mut state = self.lock();
        if state.waiting.len() < WAITING {
            state.waiting.push_back((block.clone(), facts));
        }
        if !state.running {
            let cache = cache.clone();
            state.running = spawn(move || cache.regions().work(&cache));
        }
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
            let Some((block, facts)) = next else { return };
            self.compile(cache, &block, facts, false);
        }
    }

    /// Compiles the region that begins at `block`; whether there is one now.
    pub(crate) fn compile(
        &self,
        cache: &Cache,
        block: &Arc<Block>,
        facts: GuestFacts,
        checked: bool,
    ) -> bool {
        let (Some((compiler, _)), Some(unit)) = (self.compiler.get(), block.unit()) else {
            return false;
        };
        if block.is_replaced() {
            return true;
        }
        let compiled = form(cache, block, facts, checked)
            .and_then(|region| Some((compiler.compile(&region)?, region)));
        let Some((compiled, region)) = compiled else { return false };
        let placed = emit::install(cache.arena(), compiled, block.key.pc, facts.pc, unit.body);
        let Some((entry, gate)) = placed else { return false };
        // Whoever enters it first compares all blocks with memory.
        gate.close(Gate::UNCHECKED);
        let members = region.blocks.into_iter().map(|member| member.block).collect();
        self.publish(block, Installed { entry, gate, members });
        true
    }

    fn publish(&self, block: &Arc<Block>, region: Installed) {
        let mut state = self.lock();
        if block.is_replaced() {
            return;
        }
        for member in &*region.members {
            state.gates.entry(Arc::as_ptr(member)).or_default().push(region.gate);
        }
        if let Some(unit) = block.unit() {
            unit.forward.link(region.entry);
            unit.gate.close(Gate::REPLACED);
        }
        // Blocks that become stale from here on find the gate.
        if region.members.iter().any(|member| member.is_stale()) {
            region.gate.close(Gate::STALE);
        }
        state.installed.insert(Arc::as_ptr(block), region);
        block.set_replaced(true);
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
