//! The part of a CPU's state that micro-operations work on.

use cairn_fpu::Rules;

use crate::ir::Slot;

/// Words in an [`Env`]: the guest's globals, and temporaries behind them.
pub const WORDS: usize = 512;

/// An array of words, and the state of the floating-point unit.
///
/// Every scalar register that translated code touches is a word, so that the interpreter is an array
/// machine and snapshots and debuggers need no knowledge of the guest. It stands first in a CPU's state.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Env {
    words: [u64; WORDS],
    /// Modes and collected flags of floating-point operations. Each operation brings its own rounding mode.
    pub float: cairn_fpu::Env,
}

impl Env {
    /// All words zero.
    pub fn new(rules: &'static Rules) -> Env {
        Env { words: [0; WORDS], float: cairn_fpu::Env::new(rules) }
    }

    /// The word in `slot`.
    #[inline]
    pub fn word(&self, slot: Slot) -> u64 {
        self.words[slot.index()]
    }

    /// Replaces the word in `slot`.
    #[inline]
    pub fn set_word(&mut self, slot: Slot, value: u64) {
        self.words[slot.index()] = value;
    }
}
