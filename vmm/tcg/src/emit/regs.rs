//! Which words are in registers.
//!
//! Within a block, words live in registers from their first use on; those that have changed are written back when
//! somebody may look, or when the register is needed. At labels everything is in memory.

use super::asm::{Code, RBX, Reg, Width};
use crate::env::WORDS;
use crate::ir::{Slot, Uop};

/// Registers for words: first those that calls keep.
const POOL: [Reg; 8] = [Reg(12), Reg(13), Reg(6), Reg(7), Reg(8), Reg(9), Reg(10), Reg(11)];
/// How many of them calls keep.
const KEPT: usize = 2;

/// Where a word is in memory, from what `rbx` points to.
pub(super) fn place(slot: Slot) -> i32 {
    8 * i32::try_from(slot.index()).unwrap_or_default()
}

#[derive(Clone, Copy, Debug, Default)]
struct Home {
    slot: Option<Slot>,
    /// The word in memory is older.
    dirty: bool,
    /// Not to be given away: used by the current operation.
    locked: bool,
    /// When it was used last.
    used: u32,
}

/// The words in registers at some place in the code.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    homes: [Home; POOL.len()],
    clock: u32,
}

/// The last operation that reads each temporary.
pub(super) struct Lives {
    globals: usize,
    last: Box<[u32; WORDS]>,
}

impl Lives {
    pub(super) fn new(uops: &[Uop], globals: usize) -> Lives {
        let mut last = Box::new([0; WORDS]);
        for (index, uop) in (1..).zip(uops) {
            uop.reads(|slot| last[slot.index()] = index);
        }
        Lives { globals, last }
    }

    /// Whether anybody reads the word behind operation `at`.
    pub(super) fn outlives(&self, slot: Slot, at: usize) -> bool {
        slot.index() < self.globals || self.last[slot.index()] as usize > at + 1
    }
}

impl Registers {
    pub(super) fn new() -> Registers {
        Registers { homes: [Home::default(); POOL.len()], clock: 0 }
    }

    fn find(&self, slot: Slot) -> Option<usize> {
        self.homes.iter().position(|home| home.slot == Some(slot))
    }

    fn touch(&mut self, index: usize) -> Reg {
        self.clock += 1;
        self.homes[index].used = self.clock;
        self.homes[index].locked = true;
        POOL[index]
    }

    /// Makes a register free, by writing back what is in it if it must be.
    fn take(&mut self, code: &mut Code) -> usize {
        let free = self.homes.iter().position(|home| home.slot.is_none() && !home.locked);
        let index = free.unwrap_or_else(|| {
            let oldest = (0..POOL.len())
                .filter(|index| !self.homes[*index].locked)
                .min_by_key(|index| self.homes[*index].used);
            // An operation has at most four operands.
            oldest.unwrap_or_default()
        });
        if let Some(slot) = self.homes[index].slot
            && self.homes[index].dirty
        {
            code.store(POOL[index], RBX, place(slot));
        }
        self.homes[index] = Home::default();
        index
    }

    /// The register with the word, which is loaded if need be.
    pub(super) fn read(&mut self, code: &mut Code, slot: Slot) -> Reg {
        if let Some(index) = self.find(slot) {
            return self.touch(index);
        }
        let index = self.take(code);
        code.load(POOL[index], RBX, place(slot));
        self.homes[index].slot = Some(slot);
        self.touch(index)
    }

    /// The register that the word's new value goes to.
    pub(super) fn write(&mut self, code: &mut Code, slot: Slot) -> Reg {
        let index = self.find(slot).unwrap_or_else(|| self.take(code));
        self.homes[index].slot = Some(slot);
        self.homes[index].dirty = true;
        self.touch(index)
    }

    /// Ends operation `at`: its registers may be given away, and what nobody reads any more is forgotten.
    pub(super) fn end(&mut self, lives: &Lives, at: usize) {
        for home in &mut self.homes {
            home.locked = false;
            if home.slot.is_some_and(|slot| !lives.outlives(slot, at)) {
                *home = Home::default();
            }
        }
    }

    /// Writes back what has changed; it stays in registers.
    pub(super) fn flush(&mut self, code: &mut Code) {
        self.spill(code);
        for home in &mut self.homes {
            home.dirty = false;
        }
    }

    /// Writes back what has changed, on a path of its own.
    pub(super) fn spill(&self, code: &mut Code) {
        for (home, register) in self.homes.iter().zip(POOL) {
            if let (Some(slot), true) = (home.slot, home.dirty) {
                code.store(register, RBX, place(slot));
            }
        }
    }

    /// Loads what a call has destroyed, on a path of its own: all words are in memory.
    pub(super) fn reload(&self, code: &mut Code) {
        for (home, register) in self.homes.iter().zip(POOL).skip(KEPT) {
            if let Some(slot) = home.slot {
                code.load(register, RBX, place(slot));
            }
        }
    }

    /// Loads one word that has changed in memory.
    pub(super) fn reload_word(&self, code: &mut Code, slot: Slot) {
        if let Some(index) = self.find(slot) {
            code.load(POOL[index], RBX, place(slot));
        }
    }

    /// Forgets what a call has destroyed, and the words that it has written. Nothing is dirty.
    pub(super) fn after_call(&mut self, written: &[Slot]) {
        for (index, home) in self.homes.iter_mut().enumerate() {
            let stale = home.slot.is_some_and(|slot| written.contains(&slot));
            if index >= KEPT || stale {
                *home = Home::default();
            }
        }
    }

    /// Lets all registers be given away.
    pub(super) fn unlock(&mut self) {
        self.homes.iter_mut().for_each(|home| home.locked = false);
    }

    /// Loads those of these words that are not where they are expected in `now`. All are in memory.
    pub(super) fn load_missing(&self, code: &mut Code, now: &Registers) {
        for ((home, other), register) in self.homes.iter().zip(&now.homes).zip(POOL) {
            if let Some(slot) = home.slot
                && other.slot != Some(slot)
            {
                code.load(register, RBX, place(slot));
            }
        }
    }

    /// Forgets everything. Nothing is dirty.
    pub(super) fn clear(&mut self) {
        self.homes = [Home::default(); POOL.len()];
    }

    /// `mov d, a` for words.
    pub(super) fn copy(&mut self, code: &mut Code, d: Slot, a: Slot) {
        let from = self.read(code, a);
        let to = self.write(code, d);
        code.mov(Width::W64, to, from);
    }
}
