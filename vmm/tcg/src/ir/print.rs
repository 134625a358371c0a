//! Blocks as text, for logs and tests.

use std::fmt::Write;

use super::block::Block;
use super::op::Shape;
use super::uop::{FloatOp, Slot, Uop};
use crate::guest::{Event, Guest};

/// The micro-operations of `block`, one on a line, with the guest's names of globals.
pub fn listing<G: Guest>(block: &Block) -> String {
    let mut text = String::new();
    let mut marks = block.marks.iter().peekable();
    for (index, uop) in block.uops.iter().enumerate() {
        while let Some(mark) = marks.next_if(|mark| usize::from(mark.uop) <= index) {
            // Writing to a String does not fail.
            let _ = writeln!(text, " ---- {:#x}", block.pc_of(*mark));
        }
        let _ = writeln!(text, "{index:4}  {}", line::<G>(uop));
    }
    text
}

fn line<G: Guest>(uop: &Uop) -> String {
    let slot = |slot: Slot| match G::GLOBALS.get(slot.index()) {
        _ if slot == Slot::IMM => format!("{}", uop.imm),
        Some(global) => global.name.to_owned(),
        None => format!("t{}", slot.index() - G::GLOBALS.len()),
    };
    let (d, a, b) = (uop.d, uop.a, uop.b);
    let name = uop.op.name();
    let typed = || format!("{name}.{}", format!("{:?}", uop.ty).to_lowercase());
    let (mem, other) = uop.mem_op();
    let offset = other.cast_signed();
    let other = Slot::from_raw(other);
    match uop.op.shape() {
        Shape::Const => format!("{} = {:#x}", slot(d), uop.wide()),
        Shape::Unary => format!("{} = {} {}", slot(d), typed(), slot(a)),
        Shape::Binary => format!("{} = {} {}, {}", slot(d), typed(), slot(a), slot(b)),
        Shape::Select => {
            format!("{} = {name} {}, {}, {}", slot(d), slot(a), slot(b), slot(uop.third()))
        }
        Shape::Load => format!("{} = {name}.{mem:?} [{}{offset:+}]", slot(d), slot(a)),
        Shape::Store => format!("{name}.{mem:?} [{}{offset:+}], {}", slot(a), slot(b)),
        Shape::Rmw => {
            let function = mem.rmw().name();
            format!("{} = {name}.{function}.{mem:?} [{}], {}", slot(d), slot(a), slot(b))
        }
        Shape::Cas | Shape::CasPair => {
            let new = slot(other);
            format!("{} = {name}.{mem:?} [{}], {}, {new}", slot(d), slot(a), slot(b))
        }
        Shape::Fence => name.to_owned(),
        Shape::FloatUnary => {
            let how = FloatOp::unpack(uop.imm);
            let detail = format!("{:?}, {:?}, {:?}", how.rounding, how.int, how.to);
            format!("{} = {} {} ({detail})", slot(d), typed(), slot(a))
        }
        Shape::FloatBinary => {
            let rounding = FloatOp::unpack(uop.imm).rounding;
            format!("{} = {} {}, {} ({rounding:?})", slot(d), typed(), slot(a), slot(b))
        }
        Shape::FloatFused => {
            let how = FloatOp::unpack(uop.imm);
            let c = slot(uop.third());
            let detail = format!("{:?}, negate {:#x}", how.rounding, how.negate.bits());
            format!("{} = {} {}, {}, {c} ({detail})", slot(d), typed(), slot(a), slot(b))
        }
        Shape::Branch => format!("{name} {}, {} -> {}", slot(a), slot(b), d.raw()),
        Shape::Jump => format!("{name} -> {}", d.raw()),
        Shape::Exit => format!("{name}{} {:#x}", d.raw(), uop.wide()),
        Shape::ExitTo => format!("{name} {}", slot(a)),
        Shape::Raise => {
            let event = usize::try_from(uop.imm).ok().and_then(|index| Event::ALL.get(index));
            format!("{name} {event:?}")
        }
        Shape::Call => {
            let helper = usize::try_from(uop.imm).ok().and_then(|index| G::HELPERS.get(index));
            let callee = helper.map_or("?", |helper| helper.name);
            format!("{} = {name} {callee}({}, {})", slot(d), slot(a), slot(b))
        }
    }
}
