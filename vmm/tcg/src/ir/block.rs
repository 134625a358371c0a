//! A translated stretch of guest code.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::uop::Uop;
use crate::emit::{Gate, Unit};

/// Bytes of a page: the unit in which code is watched for changes.
pub const PAGE_SIZE: u64 = 4096;

/// The address of the page that `address` is in.
pub const fn page_of(address: u64) -> u64 {
    address & !(PAGE_SIZE - 1)
}

/// Choices that translations depend on besides the CPU's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LiftOptions {
    /// The most instructions of a block; 1 for single steps.
    pub instructions: u16,
    /// Whether blocks are optimised.
    pub optimise: bool,
}

impl Default for LiftOptions {
    fn default() -> LiftOptions {
        LiftOptions { instructions: 64, optimise: true }
    }
}

/// What a translation depends on: equal keys and equal bytes, equal translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockKey {
    /// Address of the first instruction.
    pub pc: u64,
    /// [`Guest::mode`](crate::Guest::mode) at the entry.
    pub mode: u64,
    /// How it was made.
    pub options: LiftOptions,
}

/// Where an instruction begins. The marks of a block are a table beside the micro-operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct InsnMark {
    /// Its first micro-operation.
    pub uop: u16,
    /// Its address, from the address of the block.
    pub pc: u16,
    /// A word of the guest's for [`Guest::restore`](crate::Guest::restore).
    pub unwind: u32,
}

/// A translated stretch of guest code with one entry.
#[derive(Debug)]
pub struct Block {
    /// What it is a translation of.
    pub key: BlockKey,
    /// The guest bytes it was made from, from the first to the last instruction.
    pub bytes: Box<[u8]>,
    /// The micro-operations. The last one, and every path through them, leaves the block.
    pub uops: Box<[Uop]>,
    /// Where instructions begin, in order.
    pub marks: Box<[InsnMark]>,
    state: State,
}

/// What changes while a block is in use.
#[derive(Debug, Default)]
struct State {
    stale: AtomicBool,
    /// The generation of the cache in which the bytes were last compared.
    checked: AtomicU64,
    /// Times that the interpreter has run it.
    heat: AtomicU32,
    unit: OnceLock<Unit>,
    /// Whether a region is entered here.
    replaced: AtomicBool,
    /// Whether it has asked for a region most of which there is already.
    has_asked: AtomicBool,
}

impl Block {
    /// A block that was translated in `generation` of the cache.
    pub fn new(
        key: BlockKey,
        bytes: Vec<u8>,
        uops: Vec<Uop>,
        marks: Vec<InsnMark>,
        generation: u64,
    ) -> Block {
        let state = State { checked: AtomicU64::new(generation), ..State::default() };
        Block { key, bytes: bytes.into(), uops: uops.into(), marks: marks.into(), state }
    }

    /// The instruction that the micro-operation with this index belongs to.
    pub fn mark_of(&self, uop: usize) -> Option<InsnMark> {
        let behind = self.marks.partition_point(|mark| usize::from(mark.uop) <= uop);
        self.marks.get(behind.checked_sub(1)?).copied()
    }

    /// The address of the instruction that `mark` is of.
    pub fn pc_of(&self, mark: InsnMark) -> u64 {
        self.key.pc.wrapping_add(u64::from(mark.pc))
    }

    /// Whether the block must not be entered again, as its guest code has changed.
    #[inline]
    pub fn is_stale(&self) -> bool {
        self.state.stale.load(Ordering::Acquire)
    }

    pub(crate) fn make_stale(&self) {
        self.state.stale.store(true, Ordering::SeqCst);
        if let Some(unit) = self.state.unit.get() {
            unit.gate.close(Gate::STALE);
        }
    }

    /// Keeps the block's unit from running until the bytes have been compared.
    pub(crate) fn close(&self) {
        if let Some(unit) = self.state.unit.get() {
            unit.gate.close(Gate::UNCHECKED);
        }
    }

    /// Lets the block's unit run, as the bytes were compared.
    pub(crate) fn open(&self) {
        if let Some(unit) = self.state.unit.get() {
            unit.gate.open(Gate::UNCHECKED);
        }
    }

    /// Counts a run by the interpreter; returns how many there were.
    #[inline]
    pub(crate) fn warm(&self) -> u32 {
        self.state.heat.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How often the block has run, more or less.
    pub(crate) fn heat(&self) -> u32 {
        let interpreted = self.state.heat.load(Ordering::Relaxed);
        interpreted.saturating_add(self.unit().map_or(0, |unit| unit.heat.entries()))
    }

    /// Whether this is the first time that the block asks for a region most of which there is already.
    pub(crate) fn asks_first(&self) -> bool {
        !self.state.has_asked.swap(true, Ordering::Relaxed)
    }

    /// Whether a region is entered here.
    #[inline]
    pub(crate) fn is_replaced(&self) -> bool {
        self.state.replaced.load(Ordering::Acquire)
    }

    pub(crate) fn set_replaced(&self, replaced: bool) {
        self.state.replaced.store(replaced, Ordering::Release);
    }

    /// The block's code.
    #[inline]
    pub(crate) fn unit(&self) -> Option<Unit> {
        self.state.unit.get().copied()
    }

    /// Gives the block its code, unless another thread was faster.
    pub(crate) fn set_unit(&self, unit: Unit) {
        if self.state.unit.set(unit).is_ok() && self.state.stale.load(Ordering::SeqCst) {
            unit.gate.close(Gate::STALE);
        }
    }

    /// Whether the bytes were compared in `generation`.
    #[inline]
    pub(crate) fn is_checked(&self, generation: u64) -> bool {
        self.state.checked.load(Ordering::Relaxed) == generation
    }

    pub(crate) fn set_checked(&self, generation: u64) {
        self.state.checked.store(generation, Ordering::Relaxed);
    }

    /// The pages that the guest code lies in: one, or two if its last instruction crosses a boundary.
    pub(crate) fn pages(&self) -> impl Iterator<Item = u64> {
        let first = page_of(self.key.pc);
        let last = self.key.pc.wrapping_add(self.bytes.len().saturating_sub(1) as u64);
        let last = page_of(last);
        std::iter::once(first).chain((last != first).then_some(last))
    }
}
