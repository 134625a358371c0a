//! ELF files (System V ABI, "Object Files" and "Program Loading").
//!
//! Files are hostile: every number is checked before it is used, and memory that a header asks for is bounded by the
//! address space that it is given.

mod load;
mod parse;

pub(crate) use load::load;
pub use load::{Loaded, Loader};
pub use parse::{Class, Elf, ElfError, Kind, Machine, Rights, Segment};
