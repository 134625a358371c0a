//! Regions (T2): blocks that run very often are compiled together, by an optimising compiler on another thread.
//!
//! A region begins at one block and holds those that follow it often, with loops and calls inside
//! ([`mod@form`]). The compiler is somebody else's ([`RegionCompiler`]), so that this crate is quick to build;
//! what its code may rely on is in [`crate::emit::abi`]. The table of regions and the thread are in [`table`].

mod form;
mod table;

use std::sync::Arc;

#[cfg(target_arch = "x86_64")]
pub use crate::emit::abi;
pub use crate::emit::{Direct, RegionData};
pub(crate) use form::form;
pub(crate) use table::{Regions, RegionsFrozen};

use crate::guest::{Global, Guest};
use crate::ir::{Block, Slot};

/// Blocks to be compiled together.
#[derive(Clone, Debug)]
pub struct Region {
    /// The blocks. All have the same mode and options.
    pub blocks: Vec<RegionBlock>,
    /// Blocks at which the region is entered, by index; the first one is among them.
    pub entries: Vec<usize>,
    /// What the compiler has to know of the guest.
    pub facts: GuestFacts,
    /// The memory that the code touches.
    pub memory: Direct,
    /// Whether the region is compared with the interpreter: then it leaves all accesses to that, counts its blocks, and
    /// goes back where it goes to another region.
    pub checked: bool,
}

/// A block of a region.
#[derive(Clone, Debug)]
pub struct RegionBlock {
    /// The block. It calls no helper and does not synchronise code.
    pub block: Arc<Block>,
    /// How often it has run, more or less.
    pub heat: u32,
    /// Blocks of the region, by index, that a computed exit of this one has gone to.
    pub computed: Vec<usize>,
}

impl Region {
    /// The block of the region at `pc`.
    pub fn block_at(&self, pc: u64) -> Option<usize> {
        self.blocks.iter().position(|member| member.block.key.pc == pc)
    }
}

/// What a compiler has to know of a guest.
#[derive(Clone, Copy, Debug)]
pub struct GuestFacts {
    /// Where the program counter is.
    pub pc: Slot,
    /// The words that live between blocks.
    pub globals: &'static [Global],
    /// As [`Guest::PLAIN_FLOAT`].
    pub plain_float: bool,
}

impl GuestFacts {
    /// The facts of a guest.
    pub fn of<G: Guest>() -> GuestFacts {
        GuestFacts { pc: G::PC, globals: G::GLOBALS, plain_float: G::PLAIN_FLOAT }
    }
}

/// The code of a region.
#[derive(Debug)]
pub struct Compiled {
    /// Code that runs at any address that is a multiple of 16.
    pub code: Vec<u8>,
    /// The data that it uses.
    pub data: RegionData,
    /// Whether the code is right only while the flag for inexact floating-point results is set, which it never clears.
    pub needs_inexact: bool,
}

/// Makes code of regions. Called on any thread.
pub trait RegionCompiler: Send + Sync {
    /// The code of `region`; `None` if the compiler cannot make it.
    fn compile(&self, region: &Region) -> Option<Compiled>;
}

/// When regions are made, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionChoices {
    /// How often the unit of a block runs before a region is made that begins there.
    pub heat: u32,
    /// Whether another thread makes it, and not the one that asks for it.
    pub background: bool,
}

impl Default for RegionChoices {
    fn default() -> RegionChoices {
        // Compiling takes about as long as the unit has run by then.
        RegionChoices { heat: 32768, background: true }
    }
}
