//! RV32I, RV64I and M: arithmetic, loads and stores, jumps.

use cairn_tcg::ir::{Operand, Size};
use cairn_tcg::{Event, Op, Slot, Ty};

use crate::lift::Lifter;
use crate::lift::decode::{ArgsB, ArgsI, ArgsJ, ArgsR, ArgsS, ArgsSh, ArgsU};

/// What an operation works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// Whole registers.
    Register,
    /// The low 32 bits of 64-bit registers.
    Word,
}

impl Lifter<'_, '_> {
    /// The type that `width` means; `None` if there is no such instruction.
    pub(crate) fn width(&self, width: Width) -> Option<Ty> {
        match width {
            Width::Register => Some(self.ty()),
            Width::Word => self.is_rv64().then_some(Ty::I32),
        }
    }

    /// `rd = a op b`
    pub(crate) fn operate(&mut self, op: Op, ty: Ty, rd: i32, a: Slot, b: impl Into<Operand>) {
        let d = self.dest(rd);
        self.cx.binary(op, ty, d, a, b);
        self.extend(ty, d);
    }

    pub(crate) fn register(&mut self, args: ArgsR, op: Op, width: Width) -> bool {
        let Some(ty) = self.width(width) else { return false };
        let (a, b) = (self.x(args.rs1), self.x(args.rs2));
        self.operate(op, ty, args.rd, a, b);
        true
    }

    pub(crate) fn immediate(&mut self, args: ArgsI, op: Op, width: Width) -> bool {
        let Some(ty) = self.width(width) else { return false };
        let a = self.x(args.rs1);
        self.operate(op, ty, args.rd, a, i64::from(args.imm));
        true
    }

    /// `c.addiw` of RV64, where register 0 is reserved.
    pub(crate) fn add_word_compressed(&mut self, args: ArgsI) -> bool {
        if self.is_rv64() && args.rd == 0 {
            return self.event(Event::Illegal);
        }
        self.immediate(args, Op::Add, Width::Word)
    }

    pub(crate) fn shift(&mut self, args: ArgsSh, op: Op, width: Width) -> bool {
        let Some(ty) = self.width(width) else { return false };
        if args.shamt.cast_unsigned() >= ty.bits() {
            return false;
        }
        let a = self.x(args.rs1);
        self.operate(op, ty, args.rd, a, i64::from(args.shamt));
        true
    }

    pub(crate) fn upper(&mut self, args: ArgsU) -> bool {
        let d = self.dest(args.rd);
        self.cx.set(d, i64::from(args.imm).cast_unsigned());
        true
    }

    pub(crate) fn upper_pc(&mut self, args: ArgsU) -> bool {
        let value = self.cx.pc().wrapping_add_signed(i64::from(args.imm));
        let value = self.register_value(value);
        let d = self.dest(args.rd);
        self.cx.set(d, value);
        true
    }

    /// The address at `offset` from this instruction.
    fn relative(&self, offset: i32) -> u64 {
        self.wrap(self.cx.pc().wrapping_add_signed(i64::from(offset)))
    }

    fn link(&mut self, rd: i32) {
        let d = self.dest(rd);
        let value = self.register_value(self.next_pc());
        self.cx.set(d, value);
    }

    pub(crate) fn jump_and_link(&mut self, args: ArgsJ) -> bool {
        let target = self.relative(args.imm);
        self.link(args.rd);
        self.cx.exit(0, target);
        self.ends = true;
        true
    }

    pub(crate) fn jump_register(&mut self, args: ArgsI) -> bool {
        let base = self.x(args.rs1);
        let target = self.cx.temp();
        self.cx.binary(Op::Add, self.ty(), target, base, i64::from(args.imm));
        self.cx.binary(Op::And, Ty::I64, target, target, -2);
        self.link(args.rd);
        self.cx.exit_to(target);
        self.ends = true;
        true
    }

    pub(crate) fn conditional(&mut self, args: ArgsB, op: Op) -> bool {
        let (a, b) = (self.x(args.rs1), self.x(args.rs2));
        let mut taken = self.cx.label();
        self.cx.branch(op, a, b, &mut taken);
        let next = self.next_pc();
        self.cx.exit(0, next);
        self.cx.place(taken);
        let target = self.relative(args.imm);
        self.cx.exit(1, target);
        self.ends = true;
        true
    }

    pub(crate) fn load(&mut self, args: ArgsI, size: Size, signed: bool) -> bool {
        let wide = size == Size::B8 || (size == Size::B4 && !signed);
        if wide && !self.is_rv64() {
            return false;
        }
        let op = self.mem(size);
        let op = if signed { op.signed() } else { op };
        let (base, d) = (self.x(args.rs1), self.dest(args.rd));
        self.cx.load(d, base, offset(args.imm), op);
        true
    }

    /// `c.ldsp` of RV64, where register 0 is reserved.
    pub(crate) fn load_compressed(&mut self, args: ArgsI) -> bool {
        if self.is_rv64() && args.rd == 0 {
            return self.event(Event::Illegal);
        }
        self.load(args, Size::B8, true)
    }

    pub(crate) fn store(&mut self, args: ArgsS, size: Size) -> bool {
        if size == Size::B8 && !self.is_rv64() {
            return false;
        }
        let (base, value) = (self.x(args.rs1), self.x(args.rs2));
        let op = self.mem(size);
        self.cx.store(value, base, offset(args.imm), op);
        true
    }
}

/// The offset of a load or store, which has twelve bits.
pub(crate) fn offset(imm: i32) -> i16 {
    i16::try_from(imm).unwrap_or(0)
}
