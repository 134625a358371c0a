//! What the tool does, one module for each operation, without command line and printing.
//!
//! Operations are futures for an I/O thread ([`crate::runtime`]). Dropping one cancels it: what it
//! created and did not finish is removed again.

pub mod amend;
pub mod bench;
pub mod bitmap;
pub mod check;
pub mod checksum;
pub mod commit;
pub mod compact;
pub mod compare;
pub mod convert;
pub mod create;
pub mod dd;
pub mod image;
pub mod info;
pub mod limits;
pub mod map;
pub mod measure;
pub mod rebase;
pub mod resize;
pub mod safety;
pub mod snapshot;
mod staging;
