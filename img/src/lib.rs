//! What `cairn-img` and `cairn-io` do, as a library.
//!
//! [`cli`] turns arguments into typed requests, [`ops`] carries them out, and [`output`] makes text of
//! the results. [`io`] is the I/O exerciser.

pub mod cli;
pub mod error;
pub mod io;
pub mod ops;
pub mod output;
pub mod progress;
pub mod runtime;
