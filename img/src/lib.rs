//! What `cairn-img` does, as a library.
//!
//! [`cli`] turns arguments into typed requests, [`ops`] carries them out, and [`output`] makes text of
//! the results.

pub mod cli;
pub mod error;
pub mod ops;
pub mod output;
pub mod progress;
mod runtime;
