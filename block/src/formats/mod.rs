//! Image formats.

pub mod qcow2;
pub(crate) mod raw;
