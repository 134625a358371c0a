//! Making blocks: what lifters write micro-operations with.

use super::block::{InsnMark, LiftOptions};
use super::memop::{MemOp, Rmw};
use super::op::Op;
use super::uop::{FloatOp, Slot, Ty, Uop};
use crate::env::WORDS;
use crate::guest::{Event, FetchFault};
use crate::memory::Memory;

/// A second operand: a slot, or a number.
#[derive(Clone, Copy, Debug)]
pub enum Operand {
    /// The word in a slot.
    Slot(Slot),
    /// A constant.
    Imm(i64),
}

impl From<Slot> for Operand {
    fn from(slot: Slot) -> Operand {
        Operand::Slot(slot)
    }
}

impl From<i64> for Operand {
    fn from(value: i64) -> Operand {
        Operand::Imm(value)
    }
}

/// A place further on in the block, for branches that come before it.
#[derive(Debug)]
#[must_use = "a branch needs its target"]
pub struct Label {
    branches: Vec<usize>,
}

/// The block in the making, and the guest code that it is made from.
///
/// Temporaries live until the end of the instruction that asked for them. Branches inside of a block go
/// forward only, so that every block ends.
pub struct Lift<'a> {
    memory: &'a dyn Memory,
    mode: u64,
    options: LiftOptions,
    start: u64,
    pc: u64,
    globals: u16,
    temps: u16,
    uops: Vec<Uop>,
    marks: Vec<InsnMark>,
    bytes: Vec<u8>,
}

impl<'a> Lift<'a> {
    /// An empty block at `pc`, for a guest with as many globals.
    pub fn new(
        memory: &'a dyn Memory,
        pc: u64,
        mode: u64,
        options: LiftOptions,
        globals: usize,
    ) -> Lift<'a> {
        assert!(globals < WORDS / 2, "room for temporaries");
        #[allow(clippy::cast_possible_truncation)]
        let globals = globals as u16;
        Lift {
            memory,
            mode,
            options,
            start: pc,
            pc,
            globals,
            temps: globals,
            uops: Vec::new(),
            marks: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// The address of the instruction.
    pub fn pc(&self) -> u64 {
        self.pc
    }

    /// The mode of the CPU at the entry of the block.
    pub fn mode(&self) -> u64 {
        self.mode
    }

    /// How the block is made.
    pub fn options(&self) -> LiftOptions {
        self.options
    }

    /// The guest bytes from the instruction on, with `offset` from its beginning; `N` is at most a few.
    pub fn fetch<const N: usize>(&mut self, offset: u64) -> Result<[u8; N], FetchFault> {
        let mut bytes = [0; N];
        let address = self.pc.wrapping_add(offset);
        let room = super::PAGE_SIZE - address % super::PAGE_SIZE;
        let split = usize::try_from(room).unwrap_or(N).min(N);
        let (first, second) = bytes.split_at_mut(split);
        // Watched before it is read: a write that comes between is noticed.
        self.memory.watch_code(address);
        self.memory.fetch(address, first).map_err(FetchFault)?;
        if !second.is_empty() {
            let address = address.wrapping_add(room);
            self.memory.watch_code(address);
            self.memory.fetch(address, second).map_err(FetchFault)?;
        }
        let at = usize::try_from(address.wrapping_sub(self.start)).unwrap_or(usize::MAX);
        self.bytes.truncate(at);
        self.bytes.extend_from_slice(&bytes);
        Ok(bytes)
    }

    /// Begins the instruction at `pc`.
    pub(crate) fn begin(&mut self, pc: u64) {
        self.pc = pc;
        self.temps = self.globals;
        let offset = pc.wrapping_sub(self.start);
        #[allow(clippy::cast_possible_truncation)]
        let mark = InsnMark { uop: self.uops.len() as u16, pc: offset as u16, unwind: 0 };
        self.marks.push(mark);
    }

    /// Takes back the instruction that was begun last, whose bytes could not be read.
    pub(crate) fn take_back(&mut self) {
        if let Some(mark) = self.marks.pop() {
            self.uops.truncate(usize::from(mark.uop));
            self.bytes.truncate(usize::from(mark.pc));
        }
    }

    /// Micro-operations so far.
    pub(crate) fn len(&self) -> usize {
        self.uops.len()
    }

    /// Instructions so far.
    pub(crate) fn instructions(&self) -> usize {
        self.marks.len()
    }

    /// The parts of the block: guest bytes up to `end`, micro-operations, marks.
    pub(crate) fn finish(mut self, end: u64) -> (Vec<u8>, Vec<Uop>, Vec<InsnMark>) {
        let len = usize::try_from(end.wrapping_sub(self.start)).unwrap_or(usize::MAX);
        self.bytes.truncate(len);
        (self.bytes, self.uops, self.marks)
    }

    /// Leaves a word for the guest's [`restore`](crate::Guest::restore), should this instruction fault.
    pub fn unwind(&mut self, word: u32) {
        if let Some(mark) = self.marks.last_mut() {
            mark.unwind = word;
        }
    }

    /// A temporary, whose value is not defined yet.
    pub fn temp(&mut self) -> Slot {
        let slot = Slot::new(self.temps);
        self.temps += 1;
        slot
    }

    /// Two temporaries in a row.
    pub fn temp_pair(&mut self) -> Slot {
        let low = self.temp();
        self.temp();
        low
    }

    fn push(&mut self, op: Op, ty: Ty, d: Slot, a: Slot, b: Slot, imm: i32) {
        self.uops.push(Uop { op, ty, d, a, b, imm });
    }

    /// `d` = `value`
    pub fn set(&mut self, d: Slot, value: u64) {
        self.uops.push(Uop::with_wide(Op::Const, Ty::I64, d, value));
    }

    /// A temporary with the value.
    pub fn constant(&mut self, value: u64) -> Slot {
        let slot = self.temp();
        self.set(slot, value);
        slot
    }

    /// `d` = `a`
    pub fn mov(&mut self, d: Slot, a: Slot) {
        self.unary(Op::Mov, Ty::I64, d, a);
    }

    /// `d` = `op a`
    pub fn unary(&mut self, op: Op, ty: Ty, d: Slot, a: Slot) {
        self.push(op, ty, d, a, a, 0);
    }

    /// `d` = `a op b`
    pub fn binary(&mut self, op: Op, ty: Ty, d: Slot, a: Slot, b: impl Into<Operand>) {
        let (b, imm) = self.operand(b.into());
        self.push(op, ty, d, a, b, imm);
    }

    fn operand(&mut self, operand: Operand) -> (Slot, i32) {
        match operand {
            Operand::Slot(slot) => (slot, 0),
            Operand::Imm(value) => match i32::try_from(value) {
                Ok(imm) => (Slot::IMM, imm),
                Err(_) => (self.constant(value.cast_unsigned()), 0),
            },
        }
    }

    /// `d` = `yes` if `condition` is not zero, else `no`
    pub fn select(&mut self, d: Slot, condition: Slot, yes: Slot, no: Slot) {
        self.push(Op::Select, Ty::I64, d, condition, yes, i32::from(no.raw()));
    }

    /// `d` = what is in memory at `a + offset`
    pub fn load(&mut self, d: Slot, a: Slot, offset: i16, op: MemOp) {
        self.push(Op::Load, Ty::I64, d, a, a, op.pack(offset.cast_unsigned()));
    }

    /// Memory at `a + offset` = `value`
    pub fn store(&mut self, value: Slot, a: Slot, offset: i16, op: MemOp) {
        self.push(Op::Store, Ty::I64, a, a, value, op.pack(offset.cast_unsigned()));
    }

    /// `d` = memory at `a`, which becomes `rmw` of it and `value`
    pub fn atomic(&mut self, rmw: Rmw, d: Slot, a: Slot, value: Slot, op: MemOp) {
        self.push(Op::AtomicRmw, Ty::I64, d, a, value, op.with_rmw(rmw).pack(0));
    }

    /// `d` = memory at `a`, which becomes `new` if it was `expected`
    pub fn cas(&mut self, d: Slot, a: Slot, expected: Slot, new: Slot, op: MemOp) {
        self.push(Op::AtomicCas, Ty::I64, d, a, expected, op.pack(new.raw()));
    }

    /// As [`Lift::cas`] with two slots in a row for each value.
    pub fn cas_pair(&mut self, d: Slot, a: Slot, expected: Slot, new: Slot, op: MemOp) {
        self.push(Op::AtomicCasPair, Ty::I64, d, a, expected, op.pack(new.raw()));
    }

    /// [`Op::Fence`] or [`Op::FenceCode`]
    pub fn fence(&mut self, op: Op) {
        let none = Slot::new(0);
        self.push(op, Ty::I64, none, none, none, 0);
    }

    /// `d` = `op a`, on floats
    pub fn float_unary(&mut self, op: Op, ty: Ty, d: Slot, a: Slot, how: FloatOp) {
        self.push(op, ty, d, a, a, how.pack(a));
    }

    /// `d` = `a op b`, on floats
    pub fn float(&mut self, op: Op, ty: Ty, d: Slot, [a, b]: [Slot; 2], how: FloatOp) {
        self.push(op, ty, d, a, b, how.pack(a));
    }

    /// `d` = `± a × b ± c`, on floats
    pub fn fused(&mut self, ty: Ty, d: Slot, [a, b, c]: [Slot; 3], how: FloatOp) {
        self.push(Op::FFused, ty, d, a, b, how.pack(c));
    }

    /// `d` = what the helper makes of `a` and `b`
    pub fn call(&mut self, helper: u16, d: Slot, a: Slot, b: Slot) {
        self.push(Op::Call, Ty::I64, d, a, b, i32::from(helper));
    }

    /// A place that is not known yet.
    pub fn label(&self) -> Label {
        Label { branches: Vec::new() }
    }

    /// Goes to `label` if `a op b`.
    pub fn branch(&mut self, op: Op, a: Slot, b: impl Into<Operand>, label: &mut Label) {
        let (b, imm) = self.operand(b.into());
        label.branches.push(self.uops.len());
        self.push(op, Ty::I64, Slot::new(0), a, b, imm);
    }

    /// Goes to `label`.
    pub fn jump(&mut self, label: &mut Label) {
        label.branches.push(self.uops.len());
        let none = Slot::new(0);
        self.push(Op::Jump, Ty::I64, none, none, none, 0);
    }

    /// Puts `label` here.
    pub fn place(&mut self, label: Label) {
        #[allow(clippy::cast_possible_truncation)]
        let here = Slot::from_raw(self.uops.len() as u16);
        for branch in label.branches {
            self.uops[branch].d = here;
        }
    }

    /// Leaves to the constant address `pc`, by exit 0 or 1.
    pub fn exit(&mut self, number: u16, pc: u64) {
        self.uops.push(Uop::with_wide(Op::Exit, Ty::I64, Slot::new(number), pc));
    }

    /// Leaves to the address in `a`.
    pub fn exit_to(&mut self, a: Slot) {
        self.push(Op::ExitTo, Ty::I64, a, a, a, 0);
    }

    /// Raises `event` at this instruction.
    pub fn raise(&mut self, event: Event) {
        let none = Slot::new(0);
        self.push(Op::Raise, Ty::I64, none, none, none, event as i32);
    }
}
