//! What every whole-suite test shares: the tools under comparison, a process runner with limits and
//! resource figures, generators of disk contents and images, and a JSON reader for their reports.
//!
//! The same runner and sample disks serve `cargo xtask demo` and `cargo xtask bench`.

pub mod bitmaps;
pub mod json;
pub mod mutate;
pub mod pattern;
pub mod process;
pub mod qcow2;
pub mod random;
pub mod sample;
pub mod tool;
