//! What code of regions relies on.
//!
//! A region is a function of the System V convention with four arguments: the CPU's words, the context of its thread,
//! the region's data, and the index of the entry. It returns the address of the code to go on with. The numbers
//! here are offsets into these in bytes.

// Numbers of a context are small, as `offset` asserts.
#![allow(clippy::cast_possible_wrap, clippy::cast_possible_truncation)]

use std::mem::offset_of;

use super::context::{Context, JUMP_MASK, Jump};
use super::lower::GATE;
use crate::env::Env;
use crate::ir::{PAGE_SIZE, Slot};
use crate::softmmu;

/// A flag of pages that may be read.
pub const READABLE: u8 = softmmu::Protection::READ.bits();
/// A flag of pages that may be written without further care.
pub const WRITABLE: u8 = softmmu::FAST_WRITE;
/// The logarithm of a page's size.
pub const PAGE_BITS: u8 = PAGE_SIZE.trailing_zeros() as u8;
/// In the context: address of a byte that is not zero if the CPU is to stop. Every loop looks at it.
pub const KICK: i32 = Context::KICK;
/// In the context: what to return once the program counter has been set.
pub const MISS: i32 = Context::MISS;
/// In the context: what to return once an operation has asked to leave.
pub const STOP: i32 = Context::STOP;
/// In the context: a function without arguments that keeps all registers, for callers with a frame pointer. The interpreter
/// does an operation on the words in memory.
pub const STEP: i32 = Context::STEP_KEPT;
/// In the context: address of the record of that operation.
pub const RECORD: i32 = Context::RECORD;
/// In the context: 64 bits that are not zero if the last operation has asked to leave.
pub const STOPPED: i32 = Context::STOPPED;
/// In the context: 64 bits that a checked region counts its blocks in.
pub const BLOCKS: i32 = Context::BLOCKS;
/// In the context: the table of computed jumps, entries of an address and of the code for it.
pub const JUMPS: i32 = Context::JUMPS;
/// The size of its entries.
pub const JUMP_SIZE: i32 = Jump::SIZE as i32;
/// Where the code is in an entry.
pub const JUMP_ENTRY: i32 = Jump::ENTRY;
/// What is left of half of an address as its index.
pub const JUMP_INDEX: i32 = JUMP_MASK;
/// In the data: 32 bits that are not zero if the region is to be left. Every loop looks at them.
pub const CLOSED: i32 = GATE.0 as i32;

/// In the words: where a slot is.
pub fn word(slot: Slot) -> i32 {
    super::regs::place(slot)
}

/// In the words: the byte with the flags of floating-point operations, and the bit for inexact results.
pub fn inexact() -> (i32, u8) {
    // The flags are of 16 bits; this one is in the first byte, little-endian.
    let place = offset_of!(Env, float) + offset_of!(cairn_fpu::Env, flags);
    let bit = u8::try_from(cairn_fpu::Flags::INEXACT.bits()).unwrap_or_default();
    (i32::try_from(place).unwrap_or_default(), bit)
}
