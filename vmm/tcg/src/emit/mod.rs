//! The template emitter (T1): from a block to instructions of the host, in one pass.
//!
//! A unit is the code of one block. Units go on to each other through cells in their data, and through a table of each CPU
//! for computed addresses, until something needs the rest of the translator. What a micro-operation means
//! is what the interpreter does, and all that is not frequent is left to it.

mod arena;
mod asm;
mod context;
mod float;
mod flow;
mod integer;
mod lower;
mod memory;
mod regs;

pub(crate) use arena::{Arena, Frozen, Gate};
pub use context::Direct;
pub(crate) use context::{Cell, Context, Entry};

use crate::guest::Guest;
use crate::ir::Block;
use lower::Style;

/// The code of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) entry: Entry,
    pub(crate) gate: Gate,
}

/// Makes the unit of a block; `None` if there is no room for it.
///
/// With `checked`, it leaves after the block, and the interpreter does all accesses to memory.
pub(crate) fn emit<G: Guest>(arena: &Arena, block: &Block, checked: bool) -> Option<Unit> {
    let style = Style {
        pc: G::PC,
        globals: G::GLOBALS.len(),
        direct: !checked,
        chained: !checked,
        plain_float: G::PLAIN_FLOAT,
        fma: std::arch::is_x86_feature_detected!("fma"),
    };
    let (entry, gate) = arena.install(lower::lower(block, style))?;
    Some(Unit { entry, gate })
}
