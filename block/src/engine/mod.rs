//! I/O threads and the system calls that they make.
//!
//! An I/O thread is a tokio current-thread runtime with an `io_uring` of its own ([`block_on`],
//! [`IoThread`]). Requests of one turn of its loop enter the kernel together, completions wake local
//! futures, and nothing on that path needs `Send` or crosses threads. Where `io_uring` is refused
//! (sysctl, seccomp, old kernels) a small pool of threads makes the same calls; [`active_mode`] says
//! which of the two a thread uses.
//!
//! Every request owns its buffer and a reference to its [`File`] until the kernel is done with both,
//! so a future may be dropped at any time.

mod compute;
mod file;
mod pool;
mod request;
mod ring;
mod runtime;
mod share;
pub mod sys;
mod thread;
mod vsock;

#[cfg(test)]
mod tests;

pub use compute::compute;
pub use file::{Aio, File, FileOptions};
pub use pool::{Pool, run_blocking};
pub use runtime::{ActiveMode, EngineConfig, Mode, active_mode, block_on, spawn_local};
pub use thread::IoThread;
pub use vsock::VsockAddress;
