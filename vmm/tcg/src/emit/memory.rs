//! Loads and stores: the way that most of them go is inline, the others call the interpreter.

// Fields of micro-operations are narrow on purpose.
#![allow(clippy::cast_possible_truncation)]

use super::asm::{Alu, Cond, Label, R14, R15, RAX, RBP, RCX, Shift, Width};
use super::context::Context;
use super::lower::{Lowering, Slow};
use crate::ir::{MemOp, Order, PAGE_SIZE, Uop};
use crate::softmmu::{FAST_WRITE, Protection};

impl Lowering<'_> {
    /// Puts the address of an access into `rax`; goes to `slow` unless it is aligned, in the address space, and in a page
    /// with one of `flags`.
    pub(super) fn address(&mut self, uop: &Uop, op: MemOp, offset: u16, flags: u8, slow: Label) {
        let a = self.registers.read(&mut self.code, uop.a);
        let code = &mut self.code;
        code.lea(RAX, a, offset.cast_signed().into());
        if op.is_narrow() {
            code.mov(Width::W32, RAX, RAX);
        }
        let size = op.size() as u8;
        if size == 0 {
            code.alu_mem(Alu::Cmp, RAX, RBP, Context::limit(0));
        } else {
            // What is not aligned has bits that become the highest ones, and is above every limit.
            code.mov(Width::W64, RCX, RAX);
            code.shift_imm(Shift::Ror, Width::W64, RCX, size);
            code.alu_mem(Alu::Cmp, RCX, RBP, Context::limit(size.into()));
        }
        code.branch(Cond::AboveEqual, slow);
        code.mov(Width::W64, RCX, RAX);
        code.shift_imm(Shift::Shr, Width::W64, RCX, PAGE_SIZE.trailing_zeros() as u8);
        code.test_byte(R15, RCX, flags);
        code.branch(Cond::Equal, slow);
    }

    pub(super) fn is_direct(&self, op: MemOp) -> bool {
        self.style.direct && !op.is_big_endian()
    }

    pub(super) fn load(&mut self, at: usize, uop: &Uop) -> bool {
        let (op, offset) = uop.mem_op();
        if !self.is_direct(op) {
            return false;
        }
        let (slow, back) = (self.code.label(), self.code.label());
        // Loads of x86-64 are ordered as any guest asks for.
        self.address(uop, op, offset, Protection::READ.bits(), slow);
        let before = self.registers.clone();
        let d = self.registers.write(&mut self.code, uop.d);
        self.code.load_sized(d, R14, RAX, 8 * op.size().bytes(), op.is_signed());
        self.code.bind(back);
        let after = self.registers.clone();
        let written = Some(uop.d);
        self.slow.push(Slow { entry: slow, back, before, after, at, written, zero: None });
        true
    }

    pub(super) fn store(&mut self, at: usize, uop: &Uop) -> bool {
        let (op, offset) = uop.mem_op();
        // A store that others see before a later load needs a fence, which the interpreter has.
        if !self.is_direct(op) || op.order() == Order::Sequential {
            return false;
        }
        let (slow, back) = (self.code.label(), self.code.label());
        let value = self.registers.read(&mut self.code, uop.b);
        self.address(uop, op, offset, FAST_WRITE, slow);
        self.code.store_sized(value, R14, RAX, 8 * op.size().bytes());
        self.code.bind(back);
        let before = self.registers.clone();
        let after = before.clone();
        self.slow.push(Slow { entry: slow, back, before, after, at, written: None, zero: None });
        true
    }
}
