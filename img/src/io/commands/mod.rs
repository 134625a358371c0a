//! What each command does.

pub(super) mod alloc;
pub(super) mod asynchronous;
pub(super) mod breakpoint;
pub(super) mod discard;
pub(super) mod info;
pub(super) mod open;
pub(super) mod process;
pub(super) mod read;
pub(super) mod reopen;
mod request;
pub(super) mod resize;
pub(super) mod write;
pub(super) mod zone;
