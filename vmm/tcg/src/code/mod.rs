//! Translated code: finding it, and giving it up when the guest's code changes.
//!
//! The cache is shared by all CPUs of a guest. A block is *stale* once its guest bytes have been written to;
//! CPUs look at that before they enter it. Stores are noticed by the memory, which watches the pages that have
//! been translated. A store that races with the translation of what it writes may slip through, as
//! it may on hardware; a guest that writes code for another CPU must synchronise, and that begins a new
//! *generation* ([`Cache::sync`]), in which each block's bytes are compared once more before it runs.

mod cache;
mod translate;

pub use cache::{Cache, Frozen};
pub use translate::translate;
