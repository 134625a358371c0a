//! Test devices and models for the block layer.
//!
//! * [`Memory`], [`Volatile`] and [`Faulty`] are protocol drivers that a test puts into a graph with
//!   `Graph::add_driver`: plain memory, a disk whose cache is lost in a power cut, and a wrapper that
//!   fails chosen requests; [`Fault`] has the ways in which tests let them fail.
//! * [`CrashLog`] enumerates the states in which a power cut can leave the disks of a [`Recorder`].
//! * [`Workload`] is a seeded sequence of requests; [`Model`] knows which bytes may be read after any
//!   part of it.
//! * [`TaskLog`] does the same for tasks that write at once.
//! * [`qcow2`] has the kinds of images that the tests of that format work on.
//! * [`Watchdog`] ends a test that hangs; [`stock`] asks the reference tools for a second opinion.
//!
//! Everything is deterministic: the same seed gives the same requests, states and faults. Tests pass
//! theirs through [`seeded`], so that `CAIRN_SEED=N` makes them go another way.

mod crash;
mod disk;
mod fault;
mod faulty;
mod memory;
mod model;
pub mod qcow2;
mod range_map;
mod rng;
mod run;
pub mod stock;
mod tasks;
mod value;
mod volatile;
mod watchdog;
mod workload;

pub use crash::{CrashLog, CrashState, Plan, StateId};
pub use disk::Disk;
pub use fault::{Announce, Fault};
pub use faulty::{Faults, Faulty, IoKind, IoKinds, Rule};
pub use memory::Memory;
pub use model::{Effect, Knowledge, Mismatch, Model};
pub use range_map::RangeMap;
pub use rng::{Rng, seeded};
pub use run::{Failure, Reopen, Run, effect, perform, run};
pub use tasks::TaskLog;
pub use value::Value;
pub use volatile::{Recorder, Volatile};
pub use watchdog::Watchdog;
pub use workload::{Op, Profile, Workload};
