//! The template emitter (T1): from a block to instructions of the host, in one pass.
//!
//! A unit is the code of one block. Units go on to each other through cells in their data, and through a table of each CPU
//! for computed addresses, until something needs the rest of the translator. What a micro-operation means
//! is what the interpreter does, and all that is not frequent is left to it.
//!
//! The code of regions is made elsewhere and placed here, behind a few instructions that enter and leave it.

pub mod abi;
mod arena;
mod asm;
mod context;
mod float;
mod flow;
mod integer;
mod lower;
mod memory;
mod region;
mod regs;

pub(crate) use arena::{Arena, Frozen, Gate, Heat, Seen};
pub use context::Direct;
pub(crate) use context::{Cell, Context, Entry};
pub use region::RegionData;
pub(crate) use region::{Door, install};

use crate::guest::Guest;
use crate::ir::Block;
use lower::{FORWARD, GATE, HEAT, SEEN, Style};

/// The code of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) entry: Entry,
    /// The place behind all checks.
    pub(crate) body: Entry,
    pub(crate) gate: Gate,
    pub(crate) heat: Heat,
    /// Where the unit goes while its gate is closed: back, or to a region.
    pub(crate) forward: Cell,
    /// The place that goes back.
    pub(crate) out: Entry,
    /// Where it has gone, if it goes to a computed address.
    pub(crate) seen: Option<Seen>,
}

/// How units are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They go on to each other.
    Plain,
    /// They count how often they run, too, and ask for attention after that many times.
    Counted(u32),
    /// They leave after the block, and the interpreter does all accesses to memory.
    Checked,
}

/// Makes the unit of a block; `None` if there is no room for it.
pub(crate) fn emit<G: Guest>(arena: &Arena, block: &Block, kind: Kind) -> Option<Unit> {
    let counted = if let Kind::Counted(times) = kind { Some(times) } else { None };
    let style = Style {
        pc: G::PC,
        globals: G::GLOBALS.len(),
        direct: kind != Kind::Checked,
        chained: kind != Kind::Checked,
        counted,
        plain_float: G::PLAIN_FLOAT,
        fma: std::arch::is_x86_feature_detected!("fma"),
    };
    let lowered = lower::lower(block, style);
    let code = &lowered.draft.code;
    let (body, out) = (code.offset(lowered.body), code.offset(lowered.out));
    let placed = arena.install(lowered.draft)?;
    Some(Unit {
        entry: placed.entry(0),
        body: placed.entry(body),
        gate: placed.gate(GATE),
        heat: placed.heat(HEAT, counted.unwrap_or(0)),
        forward: placed.cell(FORWARD),
        out: placed.entry(out),
        seen: lowered.computed.then(|| placed.seen(SEEN)),
    })
}
