//! Runs Linux programs that were built for another architecture.
//!
//! [`main`] is the program `cairn-user`. It loads an ELF file ([`elf`]) into an address space of its own, lets the
//! translator run the code, and does what the kernel would: system calls, signals, threads. What differs between
//! architectures is in `abi`; `docs/cairn-user.md` says how the program is used.
//!
//! `unsafe` is in `host`, which is the way to the host's kernel, and nowhere else.

// System calls are about registers: numbers are narrower than what holds them, and have the sign that the call says.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]
// Modules are private; what they share is.
#![allow(clippy::redundant_pub_crate)]

mod abi;
mod cli;
mod core_file;
mod debug;
pub mod elf;
mod errno;
mod fs;
mod host;
mod log;
mod mm;
mod process;
mod run;
mod signal;
mod start;
mod syscall;

pub use cli::main;
