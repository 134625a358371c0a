//! How guest addresses become host addresses.

// Guest addresses are offsets into host memory.
const _: () = assert!(usize::BITS == 64, "a host with 64-bit addresses");

mod flat;
mod map;
mod pair;
mod tlb;

#[cfg(target_arch = "x86_64")]
pub(crate) use flat::FAST_WRITE;
pub use flat::Flat;
pub use map::{Backing, Frozen, MapError, Protection};
pub use tlb::{Lookup, Tlb, TlbEntry, TlbFlags};
