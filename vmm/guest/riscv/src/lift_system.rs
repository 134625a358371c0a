//! Zicsr, Zawrs and Zicbo*.

use cairn_tcg::ir::Size;
use cairn_tcg::{Op, Slot, Ty};

use crate::cpu::{Extensions, NO_RESERVATION, RESERVED};
use crate::helpers::{CSR_READ, CSR_WRITE, csr};
use crate::lift::Lifter;
use crate::lift::decode::{ArgsCbo, ArgsCsr};

/// Bytes of a cache block.
const CACHE_BLOCK: u8 = 64;

/// How an instruction changes a control register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CsrOp {
    /// To its operand.
    Write,
    /// Sets the operand's bits.
    Set,
    /// Clears the operand's bits.
    Clear,
}

impl Lifter<'_, '_> {
    pub(crate) fn csr_register(&mut self, args: ArgsCsr, op: CsrOp) -> bool {
        let operand = self.x(args.rs1);
        self.csr(args, op, operand)
    }

    pub(crate) fn csr_immediate(&mut self, args: ArgsCsr, op: CsrOp) -> bool {
        let operand = self.cx.constant(u64::from(args.rs1.cast_unsigned()));
        self.csr(args, op, operand)
    }

    fn csr(&mut self, args: ArgsCsr, op: CsrOp, operand: Slot) -> bool {
        let number = u64::from(args.csr.cast_unsigned());
        // Setting or clearing no bits, by x0 or 0, is no write.
        let writes = op == CsrOp::Write || args.rs1 != 0;
        let exists = match number {
            csr::FFLAGS | csr::FRM | csr::FCSR => self.has(Extensions::F),
            csr::CYCLE | csr::TIME | csr::INSTRET => !writes,
            csr::CYCLEH | csr::TIMEH | csr::INSTRETH => !writes && !self.is_rv64(),
            _ => false,
        };
        if !exists {
            return false;
        }
        let number = self.cx.constant(number);
        let (old, new, unused) = (self.cx.temp(), self.cx.temp(), self.cx.temp());
        self.cx.call(CSR_READ, old, number, number);
        if writes {
            match op {
                CsrOp::Write => self.cx.mov(new, operand),
                CsrOp::Set => self.cx.binary(Op::Or, Ty::I64, new, old, operand),
                CsrOp::Clear => self.cx.binary(Op::AndNot, Ty::I64, new, old, operand),
            }
            self.cx.call(CSR_WRITE, unused, number, new);
        }
        let d = self.dest(args.rd);
        if self.is_rv64() {
            self.cx.mov(d, old);
        } else {
            self.cx.unary(Op::Sext, Ty::I32, d, old);
        }
        if writes {
            // The rounding mode is part of what blocks depend on.
            self.leave();
        }
        true
    }

    /// Waiting may end at any time: here it does at once.
    pub(crate) fn wait_on_reservation(&mut self) -> bool {
        if !self.has(Extensions::ZAWRS) {
            return false;
        }
        self.cx.set(RESERVED, NO_RESERVATION);
        true
    }

    /// Memory is coherent, so that there is nothing to do but to fault if the block cannot be read.
    pub(crate) fn cache_block(&mut self, args: ArgsCbo) -> bool {
        let (address, t) = (self.x(args.rs1), self.cx.temp());
        let op = self.mem(Size::B1);
        self.cx.load(t, address, 0, op);
        true
    }

    pub(crate) fn zero_cache_block(&mut self, args: ArgsCbo) -> bool {
        let (address, start) = (self.x(args.rs1), self.cx.temp());
        self.cx.binary(Op::And, Ty::I64, start, address, -i64::from(CACHE_BLOCK));
        let zero = self.cx.constant(0);
        let op = self.mem(Size::B8);
        for offset in (0..i16::from(CACHE_BLOCK)).step_by(8) {
            self.cx.store(zero, start, offset, op);
        }
        true
    }
}
