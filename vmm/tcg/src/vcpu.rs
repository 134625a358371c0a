//! A guest CPU: finds blocks and runs them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::code::{Cache, translate};
use crate::guest::{CpuState, Event, Guest};
use crate::interp::{self, Leave};
use crate::ir::{Block, BlockKey, LiftOptions};
use crate::memory::{Fault, Memory};

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

/// A guest CPU. One thread owns it.
pub struct Vcpu<G: Guest> {
    /// The state. Changing the program counter or the mode between runs is fine.
    pub cpu: G::Cpu,
    /// How blocks are made from now on.
    pub options: LiftOptions,
    /// Looks on.
    pub observer: Option<Box<dyn Observer<G>>>,
    code: Arc<Cache>,
    recent: Box<[Option<Arc<Block>>]>,
    kick: Kick,
}

impl<G: Guest> Vcpu<G> {
    /// A CPU whose blocks are in `code`, which belongs to the memory it runs on.
    pub fn new(cpu: G::Cpu, code: Arc<Cache>, options: LiftOptions) -> Vcpu<G> {
        let recent = vec![None; RECENT].into();
        Vcpu { cpu, options, observer: None, code, recent, kick: Kick::default() }
    }

    /// What stops this CPU.
    pub fn kick(&self) -> Kick {
        self.kick.clone()
    }

    /// The program counter.
    pub fn pc(&self) -> u64 {
        self.cpu.env().word(G::PC)
    }

    /// Runs until there is a reason to stop.
    pub fn run(&mut self, memory: &impl Memory) -> Stop {
        loop {
            if self.kick.take() {
                return Stop::Kicked;
            }
            if let Some(stop) = self.block(memory, self.options) {
                return stop;
            }
        }
    }

    /// Runs one instruction.
    pub fn step(&mut self, memory: &impl Memory) -> Stop {
        let options = LiftOptions { instructions: 1, ..self.options };
        self.block(memory, options).unwrap_or(Stop::Stepped)
    }

    /// Runs one block.
    fn block(&mut self, memory: &impl Memory, options: LiftOptions) -> Option<Stop> {
        let key = BlockKey { pc: self.pc(), mode: G::mode(&self.cpu), options };
        // Instructions are rarely closer than two bytes; the remainder is below the table's size.
        #[allow(clippy::cast_possible_truncation)]
        let index = (key.pc >> 1) as usize % RECENT;
        let generation = self.code.generation();
        let known = self.recent[index].as_ref().is_some_and(|block| {
            block.key == key && !block.is_stale() && block.is_checked(generation)
        });
        if !known {
            match self.find(memory, key, generation) {
                Ok(block) => self.recent[index] = Some(block),
                Err(fault) => return Some(Stop::Fault(fault)),
            }
        }
        let block = self.recent[index].as_ref()?;
        if let Some(observer) = &mut self.observer {
            observer.entering(block, &self.cpu);
        }
        match interp::run::<G>(&mut self.cpu, memory, block) {
            Leave::Next => None,
            Leave::Event(event) => Some(Stop::Event(event)),
            Leave::Fault(fault) => Some(Stop::Fault(fault)),
        }
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
                block.set_checked(generation);
                return Ok(block);
            }
            self.code.remove(&block);
        }
        loop {
            let block = Arc::new(translate::<G>(memory, key, generation)?);
            if let Some(observer) = &mut self.observer {
                observer.translated(&block);
            }
            self.code.insert(block.clone());
            // A store between the reading of the bytes and the insertion found no block to make stale.
            if matches_memory(&block, memory) {
                return Ok(block);
            }
            self.code.remove(&block);
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
