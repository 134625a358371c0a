//! A guest CPU: finds blocks and runs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::code::{Cache, translate};
use crate::emit::{self, Cell, Context, Gate, Kind, Unit};
use crate::guest::{CpuState, Event, Guest};
use crate::interp::{self, Leave};
use crate::ir::{Block, BlockKey, LiftOptions};
use crate::lockstep::Recorder;
use crate::memory::{Fault, Memory};
use crate::region::GuestFacts;

/// Entries of the table of blocks that a CPU has entered.
const RECENT: usize = 4096;

/// Why a CPU stopped. The program counter is that of the instruction the reason is about, or of the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// An instruction raised an event; the program counter is still at it.
    Event(Event),
    /// An access faulted; the program counter is at the instruction.
    Fault(Fault),
    /// [`Kick::kick`] was called.
    Kicked,
    /// The step is done.
    Stepped,
    /// The interpreter and code of the host do not do the same ([`Jit::Lockstep`]).
    Diverged,
}

/// Stops a running CPU from another thread or from a signal handler.
#[derive(Clone, Debug, Default)]
pub struct Kick(Arc<AtomicBool>);

impl Kick {
    /// Lets [`Vcpu::run`] return [`Stop::Kicked`] soon. Async-signal-safe.
    pub fn kick(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Takes the kick, if there is one.
    #[inline]
    fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::SeqCst)
    }
}

/// What looks on while a CPU runs, for logs.
pub trait Observer<G: Guest>: Send {
    /// A block was translated.
    fn translated(&mut self, block: &Block);
    /// A block is about to run.
    fn entering(&mut self, block: &Block, cpu: &G::Cpu);
}

/// How blocks are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jit {
    /// By the interpreter.
    #[default]
    Off,
    /// By the interpreter, and once they have run as many times, by code of the host.
    After(u32),
    /// As above, and those that run very often by regions, if the cache has a compiler for them
    /// ([`Cache::set_compiler`]).
    Regions(u32),
    /// By code of the host from the beginning, and by the interpreter, which must come to the same ([`Stop::Diverged`]).
    /// All CPUs of a cache are run like this, or none.
    Lockstep,
}

impl Jit {
    /// [`Jit::After`] with what pays: making code costs about as much as running it in the interpreter this often.
    pub const UNITS: Jit = Jit::After(16);
    /// [`Jit::Regions`] with what pays.
    pub const ON: Jit = Jit::Regions(16);
    /// Runs of a block in lockstep, behind which a region is made.
    const LOCKSTEP_REGION: u32 = 16;

    /// How the unit of a block that has run `times` is made, if it shall have one; `heat` is how often that runs before a
    /// region is made.
    fn kind(self, times: u32, heat: Option<u32>) -> Option<Kind> {
        match self {
            Jit::Off => None,
            Jit::After(enough) => (times > enough).then_some(Kind::Plain),
            Jit::Regions(enough) => {
                (times > enough).then_some(heat.map_or(Kind::Plain, Kind::Counted))
            }
            Jit::Lockstep => Some(Kind::Checked),
        }
    }
}

/// A guest CPU. One thread owns it.
pub struct Vcpu<G: Guest> {
    /// The state. Changing the program counter or the mode between runs is fine.
    pub cpu: G::Cpu,
    /// How blocks are made from now on.
    pub options: LiftOptions,
    /// How they are run. While somebody looks on, and in memory that code of the host cannot reach, the interpreter
    /// does it.
    pub jit: Jit,
    /// Looks on.
    pub observer: Option<Box<dyn Observer<G>>>,
    code: Arc<Cache>,
    recent: Box<[Option<Arc<Block>>]>,
    kick: Kick,
    context: Option<Box<Context>>,
    /// The mode and options that the context's table of jumps is for.
    jumps_for: Option<(u64, LiftOptions)>,
    divergence: String,
}

impl<G: Guest> Vcpu<G> {
    /// A CPU whose blocks are in `code`, which belongs to the memory it runs on.
    pub fn new(cpu: G::Cpu, code: Arc<Cache>, options: LiftOptions) -> Vcpu<G> {
        let recent = vec![None; RECENT].into();
        Vcpu {
            cpu,
            options,
            jit: Jit::Off,
            observer: None,
            code,
            recent,
            kick: Kick::default(),
            context: None,
            jumps_for: None,
            divergence: String::new(),
        }
    }

    /// What stops this CPU.
    pub fn kick(&self) -> Kick {
        self.kick.clone()
    }

    /// The program counter.
    pub fn pc(&self) -> u64 {
        self.cpu.env().word(G::PC)
    }

    /// What the interpreter and code of the host did not agree on, after [`Stop::Diverged`].
    pub fn divergence(&self) -> &str {
        &self.divergence
    }

    /// Runs until there is a reason to stop.
    pub fn run(&mut self, memory: &impl Memory) -> Stop {
        let fast = self.jit != Jit::Off && self.observer.is_none();
        if fast && self.context.is_none() {
            self.context = memory.direct().and_then(Context::new);
        }
        let fast = fast && self.context.is_some();
        // The exit that the last unit was left by, if it can be linked to the next one.
        let mut exit = None;
        loop {
            if self.kick.take() {
                return Stop::Kicked;
            }
            let left =
                if fast { self.unit(memory, &mut exit) } else { self.block(memory, self.options) };
            if let Some(stop) = left {
                return stop;
            }
        }
    }

    /// Runs one instruction.
    pub fn step(&mut self, memory: &impl Memory) -> Stop {
        let options = LiftOptions { instructions: 1, ..self.options };
        self.block(memory, options).unwrap_or(Stop::Stepped)
    }

    /// Runs one block by the interpreter.
    fn block(&mut self, memory: &impl Memory, options: LiftOptions) -> Option<Stop> {
        let index = match self.look_up(memory, options) {
            Ok(index) => index,
            Err(fault) => return Some(Stop::Fault(fault)),
        };
        let block = self.recent[index].as_ref()?;
        if let Some(observer) = &mut self.observer {
            observer.entering(block, &self.cpu);
        }
        stop_of(interp::run::<G>(&mut self.cpu, memory, block))
    }

    /// Runs one block by its unit, and those that follow it, or by the interpreter if it has none yet.
    fn unit<M: Memory>(&mut self, memory: &M, exit: &mut Option<Cell>) -> Option<Stop> {
        let index = match self.look_up(memory, self.options) {
            Ok(index) => index,
            Err(fault) => return Some(Stop::Fault(fault)),
        };
        let block = self.recent[index].as_ref()?;
        let Some(unit) = block.unit() else {
            *exit = None;
            if let Some(kind) = self.jit.kind(block.warm(), self.code.regions().heat()) {
                emit::<G>(&self.code, block, kind);
                if kind == Kind::Checked && block.unit().is_some() {
                    return None;
                }
            }
            return stop_of(interp::run::<G>(&mut self.cpu, memory, block));
        };
        if unit.heat.take()
            && let Some(direct) = memory.direct()
        {
            self.code.regions().request(&self.code, block, GuestFacts::of::<G>(), direct);
        }
        if block.is_replaced() || self.jit == Jit::Lockstep {
            let block = block.clone();
            self.settle(memory, &block);
            if self.jit == Jit::Lockstep {
                return self.checked(memory, &block, unit);
            }
        }
        let (block, context) = (self.recent[index].as_ref()?, self.context.as_mut()?);
        let now = (block.key.mode, block.key.options);
        if self.jumps_for != Some(now) {
            context.forget_jumps();
            self.jumps_for = Some(now);
        }
        if let Some(cell) = exit.take() {
            cell.link(unit.entry);
        }
        context.note_jump(block.key.pc, unit.entry);
        let (left, cell) = context.run::<G, M>(unit.entry, &mut self.cpu, memory, &self.kick.0);
        *exit = cell;
        stop_of(left)
    }

    /// Runs a block, or the region that begins at it, and compares that with the interpreter.
    fn checked<M: Memory>(&mut self, memory: &M, block: &Arc<Block>, unit: Unit) -> Option<Stop> {
        if block.warm() == Jit::LOCKSTEP_REGION
            && let Some(direct) = memory.direct()
        {
            self.code.regions().compile(&self.code, block, GuestFacts::of::<G>(), direct, true);
            self.settle(memory, block);
        }
        let region = self.code.regions().of(block);
        let context = self.context.as_mut()?;
        let before = self.cpu.clone();
        let recorder = Recorder::new(memory);
        let (left, _) = context.run::<G, _>(unit.entry, &mut self.cpu, &recorder, &self.kick.0);
        let blocks = context.take_blocks();
        let members = region.as_ref().map_or(std::slice::from_ref(block), |region| &region.members);
        if let Err(text) = recorder.check::<G>(members, blocks, before, &self.cpu, left) {
            self.divergence = text;
            return Some(Stop::Diverged);
        }
        if let Some(seen) = unit.seen {
            seen.note(self.pc());
        }
        stop_of(left)
    }

    /// Lets the region that begins at `block` run, if its blocks are still translations of what is in memory, or else
    /// gives it up.
    fn settle(&mut self, memory: &impl Memory, block: &Block) {
        if !block.is_replaced() {
            return;
        }
        let Some(region) = self.code.regions().of(block) else { return };
        if !region.gate.is_closed(Gate::STALE | Gate::UNCHECKED) {
            return;
        }
        let generation = self.code.generation();
        let valid = |member: &Arc<Block>| {
            if member.is_stale() {
                return false;
            }
            if !member.is_checked(generation) {
                if !matches_memory(member, memory) {
                    self.code.remove(member);
                    return false;
                }
                self.approve(member, generation);
            }
            true
        };
        if region.members.iter().all(valid) {
            region.gate.open(Gate::UNCHECKED);
            if self.code.generation() != generation {
                // Memory may have changed meanwhile.
                region.gate.close(Gate::UNCHECKED);
            }
        } else {
            self.code.regions().remove(block);
        }
    }

    /// Lets a block run that equals what was in memory in `generation`.
    fn approve(&self, block: &Block, generation: u64) {
        block.set_checked(generation);
        block.open();
        if self.code.generation() != generation {
            // Memory may have changed meanwhile.
            block.close();
        }
    }

    /// Where the block for the program counter is in the table.
    fn look_up(&mut self, memory: &impl Memory, options: LiftOptions) -> Result<usize, Fault> {
        let key = BlockKey { pc: self.pc(), mode: G::mode(&self.cpu), options };
        // Instructions are rarely closer than two bytes; the remainder is below the table's size.
        #[allow(clippy::cast_possible_truncation)]
        let index = (key.pc >> 1) as usize % RECENT;
        let generation = self.code.generation();
        let known = self.recent[index].as_ref().is_some_and(|block| {
            block.key == key && !block.is_stale() && block.is_checked(generation)
        });
        if !known {
            self.recent[index] = Some(self.find(memory, key, generation)?);
        }
        Ok(index)
    }

    /// The block for `key` from the cache, if it is still a translation of what is in memory, or a new one.
    #[cold]
    fn find(
        &mut self,
        memory: &impl Memory,
        key: BlockKey,
        generation: u64,
    ) -> Result<Arc<Block>, Fault> {
        if let Some(block) = self.code.find(&key) {
            if block.is_checked(generation) || matches_memory(&block, memory) {
                self.approve(&block, generation);
                return Ok(block);
            }
            self.code.remove(&block);
        }
        loop {
            let is_breakpoint = |pc| self.code.has_breakpoint(pc);
            let block = Arc::new(translate::<G>(memory, key, generation, is_breakpoint)?);
            if let Some(observer) = &mut self.observer {
                observer.translated(&block);
            }
            self.code.insert(block.clone());
            // A store between the reading of the bytes and the insertion found no block to make stale, nor did a breakpoint.
            let stops = self.code.has_breakpoint(key.pc);
            if matches_memory(&block, memory) && stops == block.bytes.is_empty() {
                return Ok(block);
            }
            self.code.remove(&block);
        }
    }
}

fn stop_of(leave: Leave) -> Option<Stop> {
    match leave {
        Leave::Next => None,
        Leave::Event(event) => Some(Stop::Event(event)),
        Leave::Fault(fault) => Some(Stop::Fault(fault)),
    }
}

/// Gives `block` a unit, if there is room for one.
fn emit<G: Guest>(code: &Cache, block: &Block, kind: Kind) {
    let generation = code.generation();
    if let Some(unit) = emit::emit::<G>(code.arena(), block, kind) {
        block.set_unit(unit);
        if code.generation() != generation {
            block.close();
        }
    }
}

/// Whether the guest code that `block` was made from is unchanged. It is watched again first.
fn matches_memory(block: &Block, memory: &impl Memory) -> bool {
    let (first, second) = {
        let room = crate::ir::PAGE_SIZE - block.key.pc % crate::ir::PAGE_SIZE;
        let split = usize::try_from(room).unwrap_or(usize::MAX).min(block.bytes.len());
        block.bytes.split_at(split)
    };
    let same = |address: u64, expected: &[u8]| {
        let mut bytes = vec![0; expected.len()];
        memory.watch_code(address);
        memory.fetch(address, &mut bytes).is_ok() && bytes == expected
    };
    let behind = block.key.pc.wrapping_add(first.len() as u64);
    same(block.key.pc, first) && (second.is_empty() || same(behind, second))
}
