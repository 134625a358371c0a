//! Finding operations whose results nobody reads, backward.

use crate::env::WORDS;
use crate::ir::{Op, Uop};

#[derive(Clone)]
struct Live([u64; WORDS / 64]);

impl Live {
    fn has(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 != 0
    }

    fn add(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    fn remove(&mut self, index: usize) {
        self.0[index / 64] &= !(1 << (index % 64));
    }

    fn merge(&mut self, other: &Live) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine |= theirs);
    }
}

/// Which operations to keep.
pub(super) fn live(uops: &[Uop], globals: usize) -> Vec<bool> {
    let mut state = Live([0; WORDS / 64]);
    (0..globals).for_each(|index| state.add(index));
    let observed = state.clone();

    // What is live at the targets of branches, which are forward and so have been seen.
    let mut at_target: Vec<Option<Live>> = vec![None; uops.len() + 1];
    for uop in uops {
        if let Some(target) = uop.target() {
            at_target[target] = Some(observed.clone());
        }
    }
    let mut reached = vec![true; uops.len()];
    let mut open = true;
    for (index, uop) in uops.iter().enumerate() {
        // Behind a jump, nothing is reached but by branches that are.
        open |= at_target[index].is_some();
        reached[index] = open;
        open &= !uop.op.ends();
    }

    let mut keep = reached;
    for (index, uop) in uops.iter().enumerate().rev() {
        if !keep[index] {
            continue;
        }
        if uop.op.ends() {
            state = Live([0; WORDS / 64]);
        }
        if let Some(target) = uop.target()
            && let Some(live) = &at_target[target]
        {
            state.merge(live);
        }
        let mut needed = !uop.op.is_pure();
        uop.writes(|slot| needed |= state.has(slot.index()));
        if uop.op == Op::Mov && uop.a == uop.d {
            needed = false;
        }
        if needed {
            uop.writes(|slot| state.remove(slot.index()));
            if uop.op.observes() {
                state.merge(&observed);
            }
            uop.reads(|slot| state.add(slot.index()));
        } else {
            keep[index] = false;
        }
        if at_target[index].is_some() {
            at_target[index] = Some(state.clone());
        }
    }
    keep
}
