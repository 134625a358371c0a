//! Guest memory as translated code sees it.

use crate::emit::Direct;
use crate::ir::{MemOp, Rmw};

/// What is done to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store, or a read-modify-write.
    Write,
    /// An instruction fetch.
    Fetch,
}

/// Why an access failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing is there.
    Unmapped,
    /// The mapping does not allow it.
    Protected,
    /// The address is not a multiple of what the operation asks for.
    Misaligned,
}

/// A failed access. The instruction that made it has had no effect on memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The first byte that could not be reached.
    pub address: u64,
    /// What was tried.
    pub access: Access,
    /// Why it failed.
    pub kind: FaultKind,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let access = match self.access {
            Access::Read => "load from",
            Access::Write => "store to",
            Access::Fetch => "instruction fetch from",
        };
        let reason = match self.kind {
            FaultKind::Unmapped => "nothing is mapped there",
            FaultKind::Protected => "the page does not allow it",
            FaultKind::Misaligned => "the address is not aligned",
        };
        write!(f, "{access} guest address {:#x}: {reason}", self.address)
    }
}

impl std::error::Error for Fault {}

/// Memory that guest CPUs share.
///
/// All functions may be called from several threads at once. Aligned accesses of up to eight bytes are single-copy
/// atomic; the order of accesses is that of [`MemOp::order`], and accesses of one thread to one
/// place are never reordered. Values are in the low bits; a load extends them as the operation says.
pub trait Memory: Sync {
    /// Reads.
    fn load(&self, address: u64, op: MemOp) -> Result<u64, Fault>;
    /// Writes. Translations of the bytes are invalid afterwards.
    fn store(&self, address: u64, value: u64, op: MemOp) -> Result<(), Fault>;
    /// Replaces a value by a function of it, and returns the old one.
    fn rmw(&self, address: u64, value: u64, rmw: Rmw, op: MemOp) -> Result<u64, Fault>;
    /// Replaces a value if it is `expected`, and returns the old one.
    fn cas(&self, address: u64, expected: u64, new: u64, op: MemOp) -> Result<u64, Fault>;
    /// As [`Memory::cas`] for 16 bytes, low half first. The size in `op` is ignored.
    fn cas_pair(
        &self,
        address: u64,
        expected: [u64; 2],
        new: [u64; 2],
        op: MemOp,
    ) -> Result<[u64; 2], Fault>;

    /// Reads instruction bytes that lie in one page.
    fn fetch(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault>;
    /// Announces that bytes of the page at `address` are going to be translated, so that writes to them
    /// are noticed from now on.
    fn watch_code(&self, address: u64);
    /// Lets instruction fetches of all CPUs see the stores before it.
    fn sync_code(&self);

    /// Memory that generated code may touch by itself, if it is such. It stays as long as the object.
    fn direct(&self) -> Option<Direct> {
        None
    }
}
