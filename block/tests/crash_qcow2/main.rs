//! Power cuts in the middle of qcow2 workloads and commands.
//!
//! Each test runs one workload on disks with a volatile cache and looks at the image in every state in
//! which a power cut can leave it ([`survey`]): it must open, check without corruption (leaks are
//! allowed), hold all that was flushed, and take writes again. A failure names the state; to see that
//! state alone, with the log around it, set `CAIRN_CRASH=NAME:STATE`, and to keep its files,
//! `CAIRN_CRASH_DIR`. With `CAIRN_SEED=N` the workloads, interleavings and states are others.

mod bitmaps_and_amendments;
mod compaction;
mod create_and_repair;
mod encryption;
mod requests;
mod session;
mod snapshots;
mod survey;
