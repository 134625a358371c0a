//! Branches within a block, and the ways out of it.

// Offsets are narrow on purpose.
#![allow(clippy::cast_possible_truncation)]

use super::arena::Seen;
use super::asm::{Alu, Cond, Datum, Label, RAX, RBP, RBX, RCX, RDX, Shift, Width};
use super::context::{Context, JUMP_MASK, Jump};
use super::lower::{GATE, HEAT, Lowering, SEEN, condition, width};
use super::regs::place;
use crate::ir::{Slot, Uop};

impl Lowering<'_> {
    /// Goes to `shut` if the unit is closed, and to `out` if it has run often enough to ask for attention.
    pub(super) fn gate(&mut self, shut: Label, out: Label) {
        self.code.compare_datum_zero(GATE);
        self.code.branch(Cond::NotEqual, shut);
        if self.style.counted.is_some() {
            self.code.count_down(HEAT);
            self.code.branch(Cond::Sign, out);
        }
    }

    /// Goes to `out` if the CPU is kicked. Every loop comes by here: back edges and computed ones do.
    pub(super) fn kick(&mut self, out: Label) {
        self.code.load(RCX, RBP, Context::KICK);
        self.code.compare_byte_zero(RCX);
        self.code.branch(Cond::NotEqual, out);
    }

    pub(super) fn branch(&mut self, uop: &Uop) -> bool {
        let width = width(uop.ty);
        let a = self.registers.read(&mut self.code, uop.a);
        if uop.b == Slot::IMM {
            self.registers.flush(&mut self.code);
            self.code.alu_imm(Alu::Cmp, width, a, uop.imm);
        } else {
            let b = self.registers.read(&mut self.code, uop.b);
            self.registers.flush(&mut self.code);
            self.code.alu(Alu::Cmp, width, a, b);
        }
        if let Some(target) = uop.target().and_then(|target| self.labels[target].as_mut()) {
            self.code.branch(condition(uop.op), target.label);
            let mut registers = self.registers.clone();
            registers.unlock();
            target.registers = Some(registers);
        }
        true
    }

    pub(super) fn jump(&mut self, uop: &Uop) {
        if let Some(target) = uop.target().and_then(|target| self.labels[target].as_ref()) {
            self.code.jump(target.label);
        }
    }

    /// Goes to the block at `pc`: by a cell that is linked to it once it is known.
    pub(super) fn exit(&mut self, pc: u64) {
        self.registers.flush(&mut self.code);
        if !self.chained {
            self.leave_to(pc);
            return;
        }
        if pc == self.block.key.pc {
            self.go_round();
            return;
        }
        if pc < self.block.key.pc {
            let kicked = self.code.label();
            self.kick(kicked);
            self.kicked.push((kicked, pc));
        }
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        let cell = Datum(self.data.len() as u32);
        self.data.extend([0; 8]);
        let unlinked = self.code.label();
        self.code.jump_datum(cell);
        self.code.bind(unlinked);
        self.code.constant(RAX, pc);
        self.code.store(RAX, RBX, place(self.style.pc));
        self.code.address_of(RAX, cell);
        self.code.store(RAX, RBP, Context::EXIT);
        self.code.constant(RAX, 0);
        self.code.jump_mem(RBP, Context::LEAVE);
        self.cells.push((cell, unlinked));
    }

    /// Goes to the beginning of this block, with the words in registers that are expected there. All are in memory.
    pub(super) fn go_round(&mut self) {
        self.registers.unlock();
        if self.round.is_none() {
            self.round = Some((self.code.label(), self.registers.clone()));
        }
        if let Some((head, registers)) = &self.round {
            registers.load_missing(&mut self.code, &self.registers);
            self.code.jump(*head);
        }
    }

    /// Goes to the block at the address in `a`, if this CPU knows where that is.
    pub(super) fn exit_to(&mut self, a: Slot) {
        let from = self.registers.read(&mut self.code, a);
        self.code.mov(Width::W64, RAX, from);
        self.registers.flush(&mut self.code);
        let code = &mut self.code;
        if self.style.counted.is_some() {
            code.mov(Width::W64, RCX, RAX);
            code.alu_imm(Alu::And, Width::W32, RCX, Seen::MASK);
            code.shift_imm(Shift::Shl, Width::W32, RCX, 2);
            code.address_of(RDX, SEEN);
            code.store_sized(RAX, RDX, RCX, 64);
        }
        if self.chained {
            let miss = code.label();
            code.load(RCX, RBP, Context::KICK);
            code.compare_byte_zero(RCX);
            code.branch(Cond::NotEqual, miss);
            code.mov(Width::W64, RCX, RAX);
            code.shift_imm(Shift::Shr, Width::W64, RCX, 1);
            code.alu_imm(Alu::And, Width::W32, RCX, JUMP_MASK);
            code.shift_imm(Shift::Shl, Width::W32, RCX, Jump::SIZE.trailing_zeros() as u8);
            code.alu(Alu::Add, Width::W64, RCX, RBP);
            code.alu_mem(Alu::Cmp, RAX, RCX, Context::JUMPS);
            code.branch(Cond::NotEqual, miss);
            code.jump_mem(RCX, Context::JUMPS + Jump::ENTRY);
            code.bind(miss);
        }
        code.store(RAX, RBX, place(self.style.pc));
        code.store_zero(RBP, Context::EXIT);
        code.constant(RAX, 0);
        code.jump_mem(RBP, Context::LEAVE);
    }

    /// Goes back with the program counter at `pc`.
    pub(super) fn leave_to(&mut self, pc: u64) {
        self.code.constant(RAX, pc);
        self.code.store(RAX, RBX, place(self.style.pc));
        self.code.store_zero(RBP, Context::EXIT);
        self.code.constant(RAX, 0);
        self.code.jump_mem(RBP, Context::LEAVE);
    }
}
