//! The translator: guest instructions become micro-operations, and micro-operations run.
//!
//! A guest's *lifter* ([`Guest::lift`]) turns instructions into a [`Block`] of [`Uop`]s by means of [`Lift`].
//! The optimiser ([`opt`]) simplifies a block in two linear walks, and the interpreter ([`interp`]) runs it;
//! what the interpreter does is what a micro-operation means. Blocks that run often get code of the host (`emit`). [`Vcpu`] finds or makes the block for the
//! guest's program counter ([`code`]) and runs one after the other until something needs its owner: a
//! system call, a fault, a kick.
//!
//! Guest memory is reached through [`Memory`]: [`softmmu::Flat`] is the address space of a user-mode process,
//! [`softmmu::Tlb`] the translation cache for system mode. `unsafe` stays in the former.
//!
//! The page `docs/tcg.md` describes the whole.

pub mod code;
#[cfg(target_arch = "x86_64")]
mod emit;
#[cfg(not(target_arch = "x86_64"))]
#[path = "emit/none.rs"]
mod emit;
mod env;
mod guest;
pub mod interp;
pub mod ir;
mod lockstep;
mod memory;
pub mod opt;
pub mod region;
pub mod softmmu;
mod vcpu;

pub use emit::Direct;
pub use env::{Env, WORDS};
pub use guest::{CpuState, Event, FetchFault, Flow, Global, Guest, Helper, RegisterClass};
pub use ir::{Block, BlockKey, InsnMark, Lift, LiftOptions, MemOp, Op, Slot, Ty, Uop};
pub use memory::{Access, Fault, FaultKind, Memory};
pub use vcpu::{Jit, Kick, Observer, Stop, Vcpu};

/// Makes the examples of the documentation page part of the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/tcg.md")]
struct Page;
