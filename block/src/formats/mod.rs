//! Image formats.

pub mod qcow2;
