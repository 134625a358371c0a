//! The translation cache of system mode: from pages of a guest's virtual addresses to host addresses.
//!
//! One [`Tlb`] serves one translation regime of one CPU. An access compares a tag and adds: the low bits of tags hold
//! reasons to take the slow path, so one comparison covers them all. The table grows and shrinks with use; what
//! it evicts goes to a small victim table first.

use bitflags::bitflags;

use crate::ir::{PAGE_SIZE, page_of};
use crate::memory::Access;

bitflags! {
    /// Reasons for the slow path, in the low bits of a tag.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TlbFlags: u64 {
        /// The access is not allowed, or the entry is empty.
        const INVALID = 1 << 0;
        /// Not memory, but a device.
        const MMIO = 1 << 1;
        /// The first write to the page has to be noticed: it is clean, or has translated code.
        const CLEAN = 1 << 2;
        /// A watchpoint lies in the page.
        const WATCH = 1 << 3;
        /// Bytes are swapped.
        const SWAP = 1 << 4;
        /// A plugin wants to know.
        const PLUGIN = 1 << 5;
    }
}

/// A page's translation. Generated code reads it: four words, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TlbEntry {
    /// Page address and [`TlbFlags`] for loads.
    pub read: u64,
    /// The same for stores.
    pub write: u64,
    /// The same for instruction fetches.
    pub code: u64,
    /// What to add to a guest address to get the host address, or the place in a device.
    pub addend: u64,
}

impl TlbEntry {
    const EMPTY: TlbEntry = TlbEntry { read: u64::MAX, write: u64::MAX, code: u64::MAX, addend: 0 };

    /// A translation of the page at `page` with the flags of loads, stores and fetches.
    pub fn new(page: u64, flags: [TlbFlags; 3], addend: u64) -> TlbEntry {
        let tag = |flags: TlbFlags| page_of(page) | flags.bits();
        TlbEntry { read: tag(flags[0]), write: tag(flags[1]), code: tag(flags[2]), addend }
    }

    #[inline]
    fn tag(&self, access: Access) -> u64 {
        match access {
            Access::Read => self.read,
            Access::Write => self.write,
            Access::Fetch => self.code,
        }
    }

    /// The page, whichever access is allowed.
    fn page(&self) -> Option<u64> {
        (*self != TlbEntry::EMPTY).then_some(page_of(self.read))
    }
}

/// What a lookup finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Memory at this host address.
    Fast(u64),
    /// A translation that needs care.
    Slow(TlbEntry, TlbFlags),
    /// Nothing: the guest's page tables must be walked.
    Miss,
}

const MIN_BITS: u32 = 6;
const MAX_BITS: u32 = 14;
const VICTIMS: usize = 8;

/// Translations of one regime.
#[derive(Clone, Debug)]
pub struct Tlb {
    entries: Vec<TlbEntry>,
    victims: [TlbEntry; VICTIMS],
    next_victim: usize,
    /// Entries filled since the last flush.
    used: usize,
}

impl Default for Tlb {
    fn default() -> Tlb {
        Tlb::new()
    }
}

impl Tlb {
    /// An empty table of the smallest size.
    pub fn new() -> Tlb {
        Tlb {
            entries: vec![TlbEntry::EMPTY; 1 << MIN_BITS],
            victims: [TlbEntry::EMPTY; VICTIMS],
            next_victim: 0,
            used: 0,
        }
    }

    /// Number of entries, a power of two.
    pub fn size(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    fn index(&self, address: u64) -> usize {
        // Masked to the size of the table.
        #[allow(clippy::cast_possible_truncation)]
        let page = (address / PAGE_SIZE) as usize;
        page & (self.entries.len() - 1)
    }

    /// The translation of an access of `len` bytes; one that leaves the page is never fast.
    #[inline]
    pub fn lookup(&mut self, address: u64, len: u64, access: Access) -> Lookup {
        let entry = self.entries[self.index(address)];
        // The page of the last byte: another one than the tag's, if the access leaves the page.
        if page_of(address.wrapping_add(len - 1)) == entry.tag(access)
            && page_of(address) == entry.tag(access)
        {
            return Lookup::Fast(address.wrapping_add(entry.addend));
        }
        self.lookup_slow(address, access)
    }

    #[cold]
    fn lookup_slow(&mut self, address: u64, access: Access) -> Lookup {
        let page = page_of(address);
        let index = self.index(address);
        if self.entries[index].page() != Some(page) {
            let Some(victim) = self.victims.iter().position(|entry| entry.page() == Some(page))
            else {
                return Lookup::Miss;
            };
            std::mem::swap(&mut self.victims[victim], &mut self.entries[index]);
        }
        let entry = self.entries[index];
        let flags = TlbFlags::from_bits_truncate(entry.tag(access) % PAGE_SIZE);
        if flags.contains(TlbFlags::INVALID) { Lookup::Miss } else { Lookup::Slow(entry, flags) }
    }

    /// Adds a translation. The table grows if it is full.
    pub fn fill(&mut self, entry: TlbEntry) {
        let Some(page) = entry.page() else { return };
        if self.used * 4 > self.entries.len() * 3 && self.entries.len() < 1 << MAX_BITS {
            self.resize(self.entries.len() * 2);
        }
        for victim in &mut self.victims {
            if victim.page() == Some(page) {
                *victim = TlbEntry::EMPTY;
            }
        }
        let index = self.index(page);
        let old = std::mem::replace(&mut self.entries[index], entry);
        match old.page() {
            None => self.used += 1,
            Some(old_page) if old_page != page => {
                self.victims[self.next_victim] = old;
                self.next_victim = (self.next_victim + 1) % VICTIMS;
            }
            Some(_) => {}
        }
    }

    fn resize(&mut self, size: usize) {
        let old = std::mem::replace(&mut self.entries, vec![TlbEntry::EMPTY; size]);
        self.used = 0;
        for entry in old {
            if let Some(page) = entry.page() {
                let index = self.index(page);
                self.entries[index] = entry;
                self.used += 1;
            }
        }
    }

    /// Forgets everything. A table that was hardly used since the last time shrinks.
    pub fn flush(&mut self) {
        let size = self.entries.len();
        let size = if self.used * 4 < size && size > 1 << MIN_BITS { size / 2 } else { size };
        self.entries.clear();
        self.entries.resize(size, TlbEntry::EMPTY);
        self.victims = [TlbEntry::EMPTY; VICTIMS];
        self.used = 0;
    }

    /// Forgets the translation of one page.
    pub fn flush_page(&mut self, address: u64) {
        let page = page_of(address);
        let index = self.index(page);
        let entry = &mut self.entries[index];
        if entry.page() == Some(page) {
            *entry = TlbEntry::EMPTY;
            self.used = self.used.saturating_sub(1);
        }
        for victim in &mut self.victims {
            if victim.page() == Some(page) {
                *victim = TlbEntry::EMPTY;
            }
        }
    }

    /// Adds reasons for the slow path to all stores to host memory in `host .. host + len`, such as
    /// [`TlbFlags::CLEAN`] when dirty tracking begins.
    pub fn guard_writes(&mut self, host: u64, len: u64, flags: TlbFlags) {
        for entry in self.entries.iter_mut().chain(&mut self.victims) {
            if let Some(page) = entry.page()
                && page.wrapping_add(entry.addend).wrapping_sub(host) < len
            {
                entry.write |= flags.bits();
            }
        }
    }
}
