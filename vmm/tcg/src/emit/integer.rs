//! Integer operations.

// Fields of micro-operations are narrow on purpose.
#![allow(clippy::cast_possible_truncation)]

use super::asm::{Alu, Code, Cond, RAX, RCX, RDX, Reg, Shift, Width};
use super::lower::{Lowering, condition, width};
use crate::ir::{Op, Shape, Slot, Ty, Uop};

impl Lowering<'_> {
    /// Does operation `at` together with the next one, which extends its result of 32 bits, if both are less work
    /// than one after the other.
    pub(super) fn extended(&mut self, at: usize) -> bool {
        let [uop, next] = match self.block.uops.get(at..at + 2) {
            Some([uop, next]) => [*uop, *next],
            _ => return false,
        };
        let extends = next.op == Op::Sext
            && next.ty == Ty::I32
            && (next.d, next.a) == (uop.d, uop.d)
            && uop.ty == Ty::I32
            && uop.op.shape() == Shape::Binary
            && uop.b == Slot::IMM
            && self.labels[at].is_none()
            && self.labels[at + 1].is_none();
        if !extends {
            return false;
        }
        let amount = uop.imm.rem_euclid(32) as u8;
        match uop.op {
            Op::Add | Op::Sub | Op::Or | Op::Xor if uop.imm == 0 => {
                let a = self.registers.read(&mut self.code, uop.a);
                let d = self.registers.write(&mut self.code, uop.d);
                self.code.extend(d, a, 32, true);
            }
            // The result is not negative.
            Op::Shr if amount != 0 => return self.binary(&uop),
            Op::And if uop.imm >= 0 => return self.binary(&uop),
            Op::Sar => {
                let a = self.registers.read(&mut self.code, uop.a);
                let d = self.registers.write(&mut self.code, uop.d);
                self.code.extend(d, a, 32, true);
                self.code.shift_imm(Shift::Sar, Width::W64, d, amount);
            }
            _ => return false,
        }
        true
    }

    pub(super) fn unary(&mut self, uop: &Uop) -> bool {
        let (code, registers) = (&mut self.code, &mut self.registers);
        match uop.op {
            Op::Mov => registers.copy(code, uop.d, uop.a),
            Op::Sext | Op::Zext => {
                let a = registers.read(code, uop.a);
                let d = registers.write(code, uop.d);
                code.extend(d, a, uop.ty.bits(), uop.op == Op::Sext);
            }
            Op::Not => {
                registers.copy(code, uop.d, uop.a);
                let d = registers.write(code, uop.d);
                code.not(d);
            }
            Op::Bswap => {
                registers.copy(code, uop.d, uop.a);
                let d = registers.write(code, uop.d);
                code.bswap(width(uop.ty), d);
            }
            Op::BoxNan => {
                registers.copy(code, uop.d, uop.a);
                let d = registers.write(code, uop.d);
                code.constant(RAX, !uop.ty.mask());
                code.alu(Alu::Or, Width::W64, d, RAX);
            }
            Op::UnboxNan if uop.ty == Ty::F32 => {
                const DEFAULT_NAN: u64 = 0x7fc0_0000;
                let a = registers.read(code, uop.a);
                code.constant(RDX, DEFAULT_NAN);
                code.mov(Width::W64, RCX, a);
                code.shift_imm(Shift::Shr, Width::W64, RCX, 32);
                code.mov(Width::W32, RAX, a);
                code.alu_imm(Alu::Cmp, Width::W32, RCX, -1);
                code.cmov(Cond::NotEqual, Width::W32, RAX, RDX);
                let d = registers.write(code, uop.d);
                code.mov(Width::W64, d, RAX);
            }
            _ => return false,
        }
        true
    }

    /// Puts the first operand into the result's register, or into `rax` if the second one is there.
    pub(super) fn two_address(&mut self, uop: &Uop, operate: impl FnOnce(&mut Code, Reg)) {
        let width = width(uop.ty);
        let a = self.registers.read(&mut self.code, uop.a);
        if uop.d == uop.b && uop.d != uop.a {
            self.code.mov(width, RAX, a);
            operate(&mut self.code, RAX);
            let d = self.registers.write(&mut self.code, uop.d);
            self.code.mov(Width::W64, d, RAX);
        } else {
            let d = self.registers.write(&mut self.code, uop.d);
            if d != a {
                self.code.mov(width, d, a);
            }
            operate(&mut self.code, d);
        }
    }

    pub(super) fn binary(&mut self, uop: &Uop) -> bool {
        let width = width(uop.ty);
        let imm = (uop.b == Slot::IMM).then_some(uop.imm);
        let shift = match uop.op {
            Op::Shl => Some(Shift::Shl),
            Op::Shr => Some(Shift::Shr),
            Op::Sar => Some(Shift::Sar),
            Op::Rotl => Some(Shift::Rol),
            Op::Rotr => Some(Shift::Ror),
            _ => None,
        };
        if let Some(shift) = shift {
            let bits = if width == Width::W32 { 32 } else { 64 };
            if let Some(imm) = imm {
                let amount = imm.rem_euclid(bits) as u8;
                self.two_address(uop, |code, d| {
                    code.shift_imm(shift, width, d, amount);
                    if width == Width::W32 && amount == 0 {
                        // Nothing is shifted, and the upper half may stay as it is.
                        code.mov(width, d, d);
                    }
                });
            } else {
                let b = self.registers.read(&mut self.code, uop.b);
                self.code.mov(Width::W64, RCX, b);
                self.two_address(uop, |code, d| {
                    code.shift_cl(shift, width, d);
                    if width == Width::W32 {
                        code.mov(width, d, d);
                    }
                });
            }
            return true;
        }
        // The second operand in a register; immediates go to rcx where an instruction has none.
        let alu = match uop.op {
            Op::Add => Some(Alu::Add),
            Op::Sub => Some(Alu::Sub),
            Op::And => Some(Alu::And),
            Op::Or => Some(Alu::Or),
            Op::Xor => Some(Alu::Xor),
            _ => None,
        };
        if let (Op::Add, Width::W64, Some(imm)) = (uop.op, width, imm) {
            let a = self.registers.read(&mut self.code, uop.a);
            let d = self.registers.write(&mut self.code, uop.d);
            if d == a {
                self.code.alu_imm(Alu::Add, width, d, imm);
            } else {
                self.code.lea(d, a, imm);
            }
            return true;
        }
        if let (Some(alu), Some(imm)) = (alu, imm) {
            self.two_address(uop, |code, d| code.alu_imm(alu, width, d, imm));
            return true;
        }
        if !matches!(
            uop.op,
            Op::Add
                | Op::Sub
                | Op::And
                | Op::Or
                | Op::Xor
                | Op::AndNot
                | Op::Mul
                | Op::MulHiU
                | Op::MulHiS
                | Op::MinS
                | Op::MinU
                | Op::MaxS
                | Op::MaxU
                | Op::SetEq
                | Op::SetNe
                | Op::SetLt
                | Op::SetGe
                | Op::SetLtU
                | Op::SetGeU
        ) {
            return false;
        }
        let b = match imm {
            Some(imm) => {
                self.code.constant(RCX, i64::from(imm).cast_unsigned());
                RCX
            }
            None => self.registers.read(&mut self.code, uop.b),
        };
        if let Some(alu) = alu {
            self.two_address(uop, |code, d| code.alu(alu, width, d, b));
            return true;
        }
        if uop.op == Op::Mul {
            self.two_address(uop, |code, d| code.mul(width, d, b));
            return true;
        }
        let a = self.registers.read(&mut self.code, uop.a);
        let code = &mut self.code;
        match uop.op {
            Op::AndNot => {
                code.mov(width, RAX, b);
                code.not(RAX);
                code.alu(Alu::And, width, RAX, a);
            }
            Op::MulHiU | Op::MulHiS => {
                code.mov(width, RAX, a);
                code.mul_wide(width, b, uop.op == Op::MulHiS);
                code.mov(width, RAX, RDX);
            }
            Op::MinS | Op::MinU | Op::MaxS | Op::MaxU => {
                let other = match uop.op {
                    Op::MinS => Cond::Greater,
                    Op::MinU => Cond::Above,
                    Op::MaxS => Cond::Less,
                    _ => Cond::Below,
                };
                code.mov(width, RAX, a);
                code.alu(Alu::Cmp, width, RAX, b);
                code.cmov(other, width, RAX, b);
            }
            _ => {
                code.alu(Alu::Cmp, width, a, b);
                code.set_rax(condition(uop.op));
            }
        }
        let d = self.registers.write(code, uop.d);
        code.mov(Width::W64, d, RAX);
        true
    }

    /// Divides, unless the divisor is one that the host's instruction does not take: zero, and for signed numbers -1,
    /// whose quotient may not fit.
    pub(super) fn division(&mut self, at: usize, uop: &Uop) -> bool {
        let (signed, remainder) = match uop.op {
            Op::DivU => (false, false),
            Op::DivS => (true, false),
            Op::RemU => (false, true),
            Op::RemS => (true, true),
            _ => return false,
        };
        let width = width(uop.ty);
        let a = self.registers.read(&mut self.code, uop.a);
        let b = if uop.b == Slot::IMM {
            self.code.constant(RCX, i64::from(uop.imm).cast_unsigned());
            RCX
        } else {
            self.registers.read(&mut self.code, uop.b)
        };
        let slow = self.code.label();
        self.code.test(width, b, b);
        self.code.branch(Cond::Equal, slow);
        if signed {
            self.code.alu_imm(Alu::Cmp, width, b, -1);
            self.code.branch(Cond::Equal, slow);
        }
        self.code.mov(width, RAX, a);
        self.code.divide(width, b, signed);
        if remainder {
            self.code.mov(width, RAX, RDX);
        }
        self.finish(at, uop, slow);
        true
    }

    pub(super) fn select(&mut self, uop: &Uop) -> bool {
        let (code, registers) = (&mut self.code, &mut self.registers);
        let condition = registers.read(code, uop.a);
        let yes = registers.read(code, uop.b);
        let no = registers.read(code, uop.third());
        code.mov(Width::W64, RAX, no);
        code.test(Width::W64, condition, condition);
        code.cmov(Cond::NotEqual, Width::W64, RAX, yes);
        let d = registers.write(code, uop.d);
        code.mov(Width::W64, d, RAX);
        true
    }
}
