//! The interpreter: the meaning of micro-operations.

pub mod alu;
mod float;
mod run;

pub use run::{Leave, run};
