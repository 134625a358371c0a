//! In place of the emitter on hosts that it has no instructions for: no block ever gets code.

use std::convert::Infallible;
use std::sync::atomic::AtomicBool;

use crate::guest::Guest;
use crate::interp::Leave;
use crate::ir::{Block, Slot};
use crate::memory::Memory;
use crate::region::Compiled;

/// Guest memory that generated code may touch.
#[derive(Clone, Copy, Debug)]
pub struct Direct {
    /// Host address of guest address 0.
    pub base: u64,
    /// Host address of the flags of page 0, a byte for each page.
    pub flags: u64,
    /// Number of guest addresses, a multiple of eight.
    pub size: u64,
}

/// The first instruction of a unit: there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry(Infallible);

/// The target of an exit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell(Infallible);

impl Cell {
    pub(crate) fn link(self, _entry: Entry) {
        match self.0 {}
    }
}

/// A word that keeps a unit from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gate(Infallible);

impl Gate {
    pub(crate) const STALE: u32 = 1;
    pub(crate) const UNCHECKED: u32 = 2;
    pub(crate) const REPLACED: u32 = 4;

    pub(crate) fn close(self, _reason: u32) {
        match self.0 {}
    }

    pub(crate) fn open(self, _reason: u32) {
        match self.0 {}
    }

    pub(crate) fn is_closed(self, _reason: u32) -> bool {
        match self.0 {}
    }
}

/// Counts the entries of a unit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heat(Infallible);

impl Heat {
    pub(crate) fn entries(self) -> u32 {
        match self.0 {}
    }

    pub(crate) fn take(self) -> bool {
        match self.0 {}
    }
}

/// Where a unit has gone to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen(Infallible);

impl Seen {
    pub(crate) fn note(self, _pc: u64) {
        match self.0 {}
    }

    pub(crate) fn addresses(self) -> Vec<u64> {
        match self.0 {}
    }
}

/// The code of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) entry: Entry,
    pub(crate) body: Entry,
    pub(crate) gate: Gate,
    pub(crate) heat: Heat,
    pub(crate) forward: Cell,
    pub(crate) out: Entry,
    pub(crate) seen: Option<Seen>,
}

/// How units would be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Counted(u32),
    Checked,
}

/// The data of a region in the making.
#[derive(Debug, Default)]
pub struct RegionData(());

/// Where a region is entered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    pub(crate) pc: u64,
    pub(crate) fallback: Entry,
}

/// Places no region.
pub(crate) fn install(
    _arena: &Arena,
    _compiled: Compiled,
    _pc_slot: Slot,
    _doors: &[Door],
) -> Option<(Vec<Entry>, Gate)> {
    None
}

/// Memory for code.
#[derive(Debug, Default)]
pub(crate) struct Arena;

/// An arena in which nothing changes.
pub(crate) struct Frozen<'a>(std::marker::PhantomData<&'a Arena>);

impl Arena {
    #[allow(clippy::unused_self)]
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        Frozen(std::marker::PhantomData)
    }

    #[allow(clippy::unused_self)]
    pub(crate) fn forked(&self) {}
}

/// The state of a CPU besides the guest's.
pub(crate) struct Context(Infallible);

impl Context {
    /// No CPU has one.
    pub(crate) fn new(_direct: Direct) -> Option<Box<Context>> {
        None
    }

    pub(crate) fn forget_jumps(&mut self) {
        match self.0 {}
    }

    pub(crate) fn note_jump(&mut self, _pc: u64, _entry: Entry) {
        match self.0 {}
    }

    pub(crate) fn take_blocks(&mut self) -> u64 {
        match self.0 {}
    }

    pub(crate) fn run<G: Guest, M: Memory>(
        &mut self,
        _entry: Entry,
        _cpu: &mut G::Cpu,
        _memory: &M,
        _kick: &AtomicBool,
    ) -> (Leave, Option<Cell>) {
        match self.0 {}
    }
}

/// Makes no unit.
pub(crate) fn emit<G: Guest>(_arena: &Arena, _block: &Block, _kind: Kind) -> Option<Unit> {
    None
}
