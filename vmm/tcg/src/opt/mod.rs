//! The optimiser: one walk forward that folds constants and copies, one walk backward that drops what nobody reads.
//!
//! It sees one block at a time and keeps every effect in its place. A global has its value whenever the guest's
//! state may be looked at ([`Op::observes`](crate::Op::observes)), so faults stay precise.

mod dead;
mod fold;

use crate::ir::{InsnMark, Uop};

/// Simplifies the micro-operations of a block; `globals` are those that outlive it.
pub fn optimise(uops: &mut Vec<Uop>, marks: &mut [InsnMark], globals: usize) {
    fold::fold(uops);
    let keep = dead::live(uops, globals);
    compact(uops, marks, &keep);
}

/// Removes the operations that are not kept; branches and marks follow.
fn compact(uops: &mut Vec<Uop>, marks: &mut [InsnMark], keep: &[bool]) {
    // The new place of each old index: how many before it are kept.
    let mut places = Vec::with_capacity(keep.len());
    let mut kept: u16 = 0;
    for keep in keep {
        places.push(kept);
        kept += u16::from(*keep);
    }
    for uop in uops.iter_mut() {
        if let Some(target) = uop.target() {
            uop.retarget(places[target]);
        }
    }
    for mark in marks {
        mark.uop = places.get(usize::from(mark.uop)).copied().unwrap_or(kept);
    }
    let mut index = 0;
    uops.retain(|_| {
        index += 1;
        keep[index - 1]
    });
}
