//! Checks that a block keeps the rules that its users rely on.

use super::block::Block;
use super::op::Shape;
use super::uop::{Slot, Ty, Uop};
use crate::env::WORDS;
use crate::guest::{Event, Guest};

/// A rule that a block breaks, and the micro-operation that breaks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalid {
    /// The block is empty, or too long for its table of instructions.
    Length,
    /// A slot is out of range.
    Slot(usize),
    /// A temporary is read that may not have a value.
    Undefined(usize),
    /// The operation does not exist for this type.
    Type(usize),
    /// A branch goes backward or out of the block.
    Target(usize),
    /// There is no such helper, event or exit.
    Number(usize),
    /// Control reaches the end of the block.
    Open,
    /// Instruction marks are out of order.
    Marks,
}

type Defined = [u64; WORDS / 64];

/// Checks slots, types, branch targets, that temporaries are written before they are read on every path,
/// and that every path leaves.
pub fn verify<G: Guest>(block: &Block) -> Result<(), Invalid> {
    let len = block.uops.len();
    if len == 0 || len > usize::from(u16::MAX) {
        return Err(Invalid::Length);
    }
    let ordered = block.marks.windows(2).all(|pair| pair[0].uop <= pair[1].uop);
    let first = block.marks.first().is_some_and(|mark| mark.uop == 0);
    if !ordered || !first {
        return Err(Invalid::Marks);
    }
    // What is defined on all paths to an operation; `None` if no path leads there yet.
    let mut at: Vec<Option<Defined>> = vec![None; len];
    let mut globals = [0; WORDS / 64];
    for index in 0..G::GLOBALS.len() {
        globals[index / 64] |= 1 << (index % 64);
    }
    at[0] = Some(globals);
    for (index, uop) in block.uops.iter().enumerate() {
        fields::<G>(uop, index)?;
        let Some(mut defined) = at[index] else { continue };
        let mut error = None;
        uop.reads(|slot| {
            if !slot.is_word() {
                error = Some(Invalid::Slot(index));
            } else if defined[slot.index() / 64] >> (slot.index() % 64) & 1 == 0 {
                error = error.or(Some(Invalid::Undefined(index)));
            }
        });
        uop.writes(|slot| {
            if slot.is_word() {
                defined[slot.index() / 64] |= 1 << (slot.index() % 64);
            } else {
                error = Some(Invalid::Slot(index));
            }
        });
        if let Some(error) = error {
            return Err(error);
        }
        if let Some(target) = uop.target() {
            if target <= index || target >= len {
                return Err(Invalid::Target(index));
            }
            join(&mut at[target], defined);
        }
        if !uop.op.ends() {
            join(at.get_mut(index + 1).ok_or(Invalid::Open)?, defined);
        }
    }
    Ok(())
}

fn join(place: &mut Option<Defined>, defined: Defined) {
    match place {
        Some(known) => known.iter_mut().zip(defined).for_each(|(known, new)| *known &= new),
        None => *place = Some(defined),
    }
}

fn fields<G: Guest>(uop: &Uop, index: usize) -> Result<(), Invalid> {
    use super::op::Op;
    let integer = matches!(uop.ty, Ty::I32 | Ty::I64);
    let typed = match (uop.op.shape(), uop.op) {
        (_, Op::Sext | Op::Zext) => !uop.ty.is_float() && uop.ty != Ty::I64,
        (_, Op::BoxNan | Op::UnboxNan) => matches!(uop.ty, Ty::F16 | Ty::F32),
        (_, Op::Bswap | Op::Clz | Op::Ctz | Op::Popcnt) | (Shape::Binary, _) => integer,
        (Shape::FloatUnary | Shape::FloatBinary | Shape::FloatFused, _) => uop.ty.is_float(),
        _ => uop.ty == Ty::I64,
    };
    if !typed {
        return Err(Invalid::Type(index));
    }
    let number = usize::try_from(uop.imm).unwrap_or(usize::MAX);
    let known = match uop.op.shape() {
        Shape::Call => number < G::HELPERS.len(),
        Shape::Raise => number < Event::ALL.len(),
        Shape::Exit => uop.d.raw() < 2,
        _ => true,
    };
    if !known {
        return Err(Invalid::Number(index));
    }
    let operand = uop.b != Slot::IMM || matches!(uop.op.shape(), Shape::Binary | Shape::Branch);
    if operand || matches!(uop.op.shape(), Shape::Const | Shape::Exit) {
        Ok(())
    } else {
        Err(Invalid::Slot(index))
    }
}
