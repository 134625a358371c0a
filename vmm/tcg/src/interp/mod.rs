//! The interpreter: the meaning of micro-operations.

pub mod alu;
mod float;
mod run;

#[cfg(target_arch = "x86_64")]
pub(crate) use run::step_one;
pub use run::{Leave, run};
