//! The host's kernel: system calls that signals interrupt without a gap, and the signals themselves.
//!
//! All `unsafe` of this crate is in this folder.

pub(crate) mod call;
pub(crate) mod process;
pub(crate) mod signal;

pub(crate) use call::{Word, call};
pub(crate) use process::{core_limit, exit_thread, fork, local_time};
