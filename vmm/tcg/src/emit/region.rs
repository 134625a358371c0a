//! Regions: code that was made elsewhere, and what leads into and out of it.

// Offsets are narrow on purpose.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

use super::abi;
use super::arena::{Arena, Gate};
use super::asm::{Code, Cond, Datum, RAX, RBP, RBX, RCX, RDI, RDX, RSI, Width};
use super::context::{Context, Entry, Record};
use super::lower::{Draft, GATE};
use super::regs::place;
use crate::ir::{Block, Slot};
use crate::region::Compiled;

/// The data of a region in the making.
#[derive(Debug)]
pub struct RegionData {
    bytes: Vec<u8>,
    cells: Vec<(Datum, u64)>,
}

impl Default for RegionData {
    fn default() -> RegionData {
        RegionData { bytes: vec![0; 8], cells: Vec::new() }
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

/// Where a region is entered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    /// The address of the block.
    pub(crate) pc: u64,
    /// What runs in place of the region while floating-point results must be looked at more closely.
    pub(crate) fallback: Entry,
}

/// Puts a region into memory; `None` if there is no room. Also returns how it is entered at each of the doors.
pub(crate) fn install(
    arena: &Arena,
    compiled: Compiled,
    pc_slot: Slot,
    doors: &[Door],
) -> Option<(Vec<Entry>, Gate)> {
    let mut code = Code::default();
    let (enter, function) = (code.label(), code.label());
    let mut data = compiled.data;
    let mut places = Vec::new();
    let set_pc = |code: &mut Code, pc: u64| {
        code.constant(RAX, pc);
        code.store(RAX, RBX, place(pc_slot));
    };
    for (index, door) in doors.iter().enumerate() {
        let fallback = data.push(&door.fallback.0.to_ne_bytes());
        let (out, fall_back) = (code.label(), code.label());
        places.push(code.len());
        code.compare_datum_zero(GATE);
        code.branch(Cond::NotEqual, out);
        if compiled.needs_inexact {
            let (place, bit) = abi::inexact();
            code.test_mem(RBX, place, bit);
            code.branch(Cond::Equal, fall_back);
        }
        code.constant(RCX, index as u64);
        code.jump(enter);
        code.bind(fall_back);
        code.jump_datum(fallback);
        code.bind(out);
        set_pc(&mut code, door.pc);
        code.jump_mem(RBP, Context::MISS);
        code.align();
    }
    code.bind(enter);
    code.mov(Width::W64, RDI, RBX);
    code.mov(Width::W64, RSI, RBP);
    code.address_of(RDX, GATE);
    code.call(function);
    code.jump_to(RAX);

    let RegionData { bytes, cells } = data;
    let mut targets = Vec::new();
    for (cell, pc) in cells {
        let unlinked = code.label();
        code.bind(unlinked);
        set_pc(&mut code, pc);
        code.address_of(RAX, cell);
        code.store(RAX, RBP, Context::EXIT);
        code.constant(RAX, 0);
        code.jump_mem(RBP, Context::LEAVE);
        targets.push((cell, unlinked));
    }
    code.align();
    code.bind(function);
    code.append(&compiled.code);
    let placed = arena.install(Draft { code, data: bytes, cells: targets })?;
    let entries = places.into_iter().map(|offset| placed.entry(offset)).collect();
    Some((entries, placed.gate(GATE)))
}
