//! Folding of constants and copies, forward.

use crate::env::WORDS;
use crate::interp::alu;
use crate::ir::{Op, Shape, Slot, Ty, Uop};

/// What is known of a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fact {
    Unknown,
    Const(u64),
    /// It equals another word.
    Copy(Slot),
}

struct Facts {
    of: Box<[Fact; WORDS]>,
    /// Slots that have been found to be copies; some may have stopped to be.
    copies: Vec<Slot>,
    /// Slots about which something is known; some may have been forgotten.
    known: Vec<Slot>,
}

impl Facts {
    fn constant(&self, slot: Slot) -> Option<u64> {
        match self.of[slot.index()] {
            Fact::Const(value) => Some(value),
            _ => None,
        }
    }

    /// Where the word in `slot` may be read instead.
    fn origin(&self, slot: Slot) -> Slot {
        match self.of[slot.index()] {
            Fact::Copy(origin) => origin,
            _ => slot,
        }
    }

    /// `slot` is about to get a value of which `fact` is known.
    fn write(&mut self, slot: Slot, fact: Fact) {
        self.copies.retain(|copy| {
            let stale = self.of[copy.index()] == Fact::Copy(slot);
            if stale {
                self.of[copy.index()] = Fact::Unknown;
            }
            !stale
        });
        self.of[slot.index()] = fact;
        match fact {
            Fact::Copy(_) => self.copies.push(slot),
            Fact::Const(_) => self.known.push(slot),
            Fact::Unknown => {}
        }
    }

    fn forget(&mut self) {
        for slot in self.copies.drain(..).chain(self.known.drain(..)) {
            self.of[slot.index()] = Fact::Unknown;
        }
    }
}

/// Replaces operations on constants by their results, and operands that are copies by their origins.
pub(super) fn fold(uops: &mut [Uop]) {
    let mut targets = vec![false; uops.len() + 1];
    for uop in uops.iter() {
        if let Some(target) = uop.target() {
            targets[target] = true;
        }
    }
    let of = Box::new([Fact::Unknown; WORDS]);
    let mut facts = Facts { of, copies: Vec::new(), known: Vec::new() };
    for (uop, is_target) in uops.iter_mut().zip(targets) {
        if is_target {
            // Other paths come in here.
            facts.forget();
        }
        operands(uop, &facts);
        simplify(uop, &facts);
        let fact = match uop.op {
            Op::Const => Fact::Const(uop.wide()),
            Op::Mov if uop.a != uop.d => Fact::Copy(uop.a),
            // A helper may change any global.
            Op::Call => {
                facts.forget();
                Fact::Unknown
            }
            _ => Fact::Unknown,
        };
        uop.writes(|slot| facts.write(slot, fact));
    }
}

/// Reads words where they were first.
fn operands(uop: &mut Uop, facts: &Facts) {
    match uop.op.shape() {
        Shape::Unary | Shape::Load | Shape::ExitTo => uop.a = facts.origin(uop.a),
        Shape::FloatUnary => {
            uop.a = facts.origin(uop.a);
            uop.b = uop.a;
        }
        Shape::Binary
        | Shape::Branch
        | Shape::Store
        | Shape::Rmw
        | Shape::Cas
        | Shape::FloatBinary
        | Shape::Call => {
            uop.a = facts.origin(uop.a);
            if uop.b != Slot::IMM {
                uop.b = facts.origin(uop.b);
            }
        }
        Shape::Select | Shape::FloatFused => {
            uop.a = facts.origin(uop.a);
            uop.b = facts.origin(uop.b);
            let third = facts.origin(uop.third());
            uop.set_third(third);
        }
        // Pairs stay where they are.
        Shape::CasPair | Shape::Const | Shape::Fence | Shape::Jump | Shape::Exit | Shape::Raise => {
        }
    }
}

fn simplify(uop: &mut Uop, facts: &Facts) {
    match uop.op.shape() {
        Shape::Unary => {
            let value = facts.constant(uop.a).and_then(|a| alu::unary(uop.op, uop.ty, a));
            if let Some(value) = value {
                *uop = Uop::with_wide(Op::Const, Ty::I64, uop.d, value);
            }
        }
        Shape::Binary => binary(uop, facts),
        Shape::Branch => {
            immediate(uop, facts);
            let condition = uop.op.condition().zip(facts.constant(uop.a)).zip(second(uop, facts));
            if let Some(((op, a), b)) = condition
                && alu::binary(op, uop.ty, a, b) == Some(1)
            {
                (uop.op, uop.b, uop.imm) = (Op::Jump, uop.a, 0);
            }
        }
        Shape::Select => {
            if let Some(condition) = facts.constant(uop.a) {
                let from = if condition == 0 { uop.third() } else { uop.b };
                *uop = match facts.constant(from) {
                    Some(value) => Uop::with_wide(Op::Const, Ty::I64, uop.d, value),
                    None => copy(uop.d, from),
                };
            }
        }
        Shape::ExitTo => {
            if let Some(pc) = facts.constant(uop.a) {
                *uop = Uop::with_wide(Op::Exit, Ty::I64, Slot::new(0), pc);
            }
        }
        _ => {}
    }
}

fn copy(d: Slot, a: Slot) -> Uop {
    Uop { op: Op::Mov, ty: Ty::I64, d, a, b: a, imm: 0 }
}

/// The second operand's value, if it is known.
fn second(uop: &Uop, facts: &Facts) -> Option<u64> {
    if uop.b == Slot::IMM {
        Some(i64::from(uop.imm).cast_unsigned())
    } else {
        facts.constant(uop.b)
    }
}

/// Makes a second operand that is a small constant immediate.
fn immediate(uop: &mut Uop, facts: &Facts) {
    if uop.b != Slot::IMM
        && let Some(value) = facts.constant(uop.b)
        && let Ok(imm) = i32::try_from(value.cast_signed())
    {
        uop.b = Slot::IMM;
        uop.imm = imm;
    }
}

fn binary(uop: &mut Uop, facts: &Facts) {
    if let Some((a, b)) = facts.constant(uop.a).zip(second(uop, facts))
        && let Some(value) = alu::binary(uop.op, uop.ty, a, b)
    {
        *uop = Uop::with_wide(Op::Const, Ty::I64, uop.d, value);
        return;
    }
    let commutes = matches!(uop.op, Op::Add | Op::Mul | Op::And | Op::Or | Op::Xor);
    if commutes && uop.b != Slot::IMM && facts.constant(uop.a).is_some() {
        std::mem::swap(&mut uop.a, &mut uop.b);
    }
    immediate(uop, facts);
    if uop.b != Slot::IMM || uop.ty != Ty::I64 {
        return;
    }
    match (uop.op, uop.imm) {
        // x + 0 = x | 0 = x & -1 = … = x
        (Op::Add | Op::Sub | Op::Or | Op::Xor | Op::Shl | Op::Shr | Op::Sar | Op::AndNot, 0)
        | (Op::And, -1)
        | (Op::Mul, 1) => *uop = copy(uop.d, uop.a),
        // x & 0 = x * 0 = 0
        (Op::And | Op::Mul, 0) => *uop = Uop::with_wide(Op::Const, Ty::I64, uop.d, 0),
        _ => {}
    }
}
