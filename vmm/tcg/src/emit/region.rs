//! Regions: code that was made elsewhere, and what leads into and out of it.

// Offsets are narrow on purpose.
#![allow(clippy::cast_possible_truncation)]

use super::abi;
use super::arena::{Arena, Gate};
use super::asm::{Code, Cond, Datum, RAX, RBP, RBX, RDI, RDX, RSI, Width};
use super::context::{Context, Entry, Record};
use super::lower::{Draft, GATE};
use super::regs::place;
use crate::ir::{Block, Slot};
use crate::region::Compiled;

/// A place in the data that holds the code that runs while floating-point results must be looked at more closely.
const FALLBACK: Datum = Datum(8);

/// The data of a region in the making.
#[derive(Debug)]
pub struct RegionData {
    bytes: Vec<u8>,
    cells: Vec<(Datum, u64)>,
}

impl Default for RegionData {
    fn default() -> RegionData {
        RegionData { bytes: vec![0; 16], cells: Vec::new() }
    }
}

impl RegionData {
    /// The offset of a place that holds the code for the address `pc`, once that is known.
    pub fn cell(&mut self, pc: u64) -> i32 {
        if let Some((cell, _)) = self.cells.iter().find(|(_, known)| *known == pc) {
            return cell.0 as i32;
        }
        let cell = self.push(&[0; 8]);
        self.cells.push((cell, pc));
        cell.0 as i32
    }

    /// The offset of a record for the operation with index `at` of `block`, which the interpreter does.
    pub fn record(&mut self, block: &Block, at: usize) -> i32 {
        let bytes = Record::of(block, at).to_bytes();
        self.push(&bytes).0 as i32
    }

    /// Puts in bytes that are aligned to eight.
    fn push(&mut self, bytes: &[u8]) -> Datum {
        let datum = Datum(self.bytes.len() as u32);
        self.bytes.extend(bytes);
        datum
    }
}

/// Puts a region into memory, for a block at `pc` whose own unit begins at `fallback`; `None` if there is no room.
pub(crate) fn install(
    arena: &Arena,
    compiled: Compiled,
    pc: u64,
    pc_slot: Slot,
    fallback: Entry,
) -> Option<(Entry, Gate)> {
    let mut code = Code::default();
    let (out, fall_back, function) = (code.label(), code.label(), code.label());
    code.compare_datum_zero(GATE);
    code.branch(Cond::NotEqual, out);
    if compiled.needs_inexact {
        let (place, bit) = abi::inexact();
        code.test_mem(RBX, place, bit);
        code.branch(Cond::Equal, fall_back);
    }
    code.mov(Width::W64, RDI, RBX);
    code.mov(Width::W64, RSI, RBP);
    code.address_of(RDX, GATE);
    code.call(function);
    code.jump_to(RAX);

    code.bind(fall_back);
    code.jump_datum(FALLBACK);
    code.bind(out);
    code.constant(RAX, pc);
    code.store(RAX, RBX, place(pc_slot));
    code.jump_mem(RBP, Context::MISS);
    let RegionData { mut bytes, cells } = compiled.data;
    let mut targets = Vec::new();
    for (cell, pc) in cells {
        let unlinked = code.label();
        code.bind(unlinked);
        code.constant(RAX, pc);
        code.store(RAX, RBX, place(pc_slot));
        code.address_of(RAX, cell);
        code.store(RAX, RBP, Context::EXIT);
        code.constant(RAX, 0);
        code.jump_mem(RBP, Context::LEAVE);
        targets.push((cell, unlinked));
    }
    code.align();
    code.bind(function);
    code.append(&compiled.code);
    let at = FALLBACK.0 as usize;
    bytes[at..at + 8].copy_from_slice(&fallback.0.to_ne_bytes());
    let placed = arena.install(Draft { code, data: bytes, cells: targets })?;
    Some((placed.entry(0), placed.gate(GATE)))
}
