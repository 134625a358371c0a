//! Image formats.

pub mod luks;
mod new_file;
pub mod qcow2;
pub(crate) mod raw;
