//! GDB's remote serial protocol (Debugging with GDB, appendix E), in all-stop mode.
//!
//! A [`Target`] is what is debugged: a process in user mode, a machine in system mode. [`serve`] talks to one GDB for it
//! until that goes away. The target runs on threads of its own and tells by a [`Notifier`] when it has stopped.
//!
//! | file | what it holds |
//! |---|---|
//! | `packet` | framing, checksums, hexadecimal |
//! | `session` | one packet after the other, and what is answered |
//! | `resume` | packets that let the target run |
//! | `query` | `q` and `Q` packets |
//! | `description` | registers, as XML for GDB |
//! | `address` | where GDB connects to |

mod address;
mod description;
mod packet;
mod query;
mod resume;
mod session;

pub use address::{Address, Connection, Listener};
pub use description::{Feature, Register, Registers};
pub use session::{End, serve};

use std::sync::mpsc::Sender;

/// A thread or CPU of a target, by a number that is not zero.
pub type ThreadId = u64;

/// What is debugged. It is stopped whenever GDB is answered, except for [`Target::interrupt`] and [`Target::kill`].
///
/// Functions are called from one thread. They do not wait for guest code to run.
pub trait Target {
    /// The registers of all threads.
    fn registers(&self) -> &Registers;
    /// The number of the process, or 1.
    fn process(&self) -> u64;
    /// All threads; there is at least one while the target lives.
    fn threads(&self) -> Vec<ThreadId>;
    /// What a thread is called or does.
    fn thread_name(&self, thread: ThreadId) -> Option<String>;
    /// A register, by its index in [`Target::registers`], in the guest's byte order; `None` if it has no value.
    fn read_register(&self, thread: ThreadId, register: usize) -> Option<Vec<u8>>;
    /// Changes a register; whether that was possible.
    fn write_register(&self, thread: ThreadId, register: usize, value: &[u8]) -> bool;
    /// Memory from `address` on, up to what cannot be read.
    fn read_memory(&self, address: u64, len: usize) -> Vec<u8>;
    /// Changes memory, and code that cannot be written to by the guest too; whether that was possible.
    fn write_memory(&self, address: u64, bytes: &[u8]) -> bool;
    /// Sets a point that stops the target, or takes it away.
    fn set_point(&self, point: Point, set: bool) -> PointAnswer;
    /// Lets some threads run. The others stay as they are.
    fn resume(&self, actions: &[(ThreadId, Action)]);
    /// Stops all threads soon, with a [`Stop`] of signal 2 (`SIGINT`).
    fn interrupt(&self);
    /// Ends the target.
    fn kill(&self);
    /// Lets all threads run for good, without points.
    fn detach(&self);
    /// Whether system calls stop the target: none, all, or some by number. Whether that is possible.
    fn catch_calls(&self, calls: Calls) -> bool;
    /// An object that GDB asks for; `None` if there is none of this kind.
    fn object(&self, object: Object) -> Option<Vec<u8>>;
    /// How far code and data were moved from where the program's file has them.
    fn offset(&self) -> Option<u64>;
}

/// What is done with a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It runs, beginning with a signal if that is given.
    Continue(Option<u8>),
    /// It runs one instruction, beginning with a signal if that is given.
    Step(Option<u8>),
}

/// What stops a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    /// What it looks at.
    pub kind: PointKind,
    /// The first address.
    pub address: u64,
    /// Bytes; for breakpoints, those of the instruction.
    pub len: u64,
}

/// What a point looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum PointKind {
    SoftwareBreakpoint,
    HardwareBreakpoint,
    Write,
    Read,
    Access,
}

/// What became of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointAnswer {
    /// It is set, or gone.
    Done,
    /// There is no such kind here.
    Unsupported,
    /// It cannot be there.
    Failed,
}

/// System calls that stop a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Calls {
    /// None does.
    #[default]
    None,
    /// All do.
    All,
    /// These do.
    Some(Vec<u64>),
}

/// What GDB may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// The auxiliary vector, as the guest has it.
    AuxiliaryVector,
    /// The path of the program's file.
    ExecutableFile,
    /// `<memory-map>`
    MemoryMap,
    /// The `siginfo_t` of the signal that stopped a thread.
    SignalInfo(ThreadId),
}

/// Why a target has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A thread gets a signal, by GDB's number, or has done a step (5, `SIGTRAP`).
    Signal(ThreadId, u8),
    /// A thread has come to a breakpoint.
    Breakpoint(ThreadId, PointKind),
    /// A thread has accessed an address that a point of this kind is for.
    Watch(ThreadId, PointKind, u64),
    /// A thread is about to make a system call.
    CallEntry(ThreadId, u64),
    /// A thread has made a system call.
    CallReturn(ThreadId, u64),
    /// The target has ended with a status.
    Exited(u8),
    /// The target was ended by a signal, by GDB's number.
    Killed(u8),
}

impl Stop {
    /// The thread that it is about.
    fn thread(self) -> Option<ThreadId> {
        match self {
            Stop::Signal(thread, _)
            | Stop::Breakpoint(thread, _)
            | Stop::Watch(thread, ..)
            | Stop::CallEntry(thread, _)
            | Stop::CallReturn(thread, _) => Some(thread),
            Stop::Exited(_) | Stop::Killed(_) => None,
        }
    }
}

/// What comes to a session.
#[derive(Debug)]
pub(crate) enum Input {
    Gdb(packet::Incoming),
    /// GDB has gone away.
    Closed,
    Stopped(Stop),
}

/// Tells a session that the target has stopped.
#[derive(Clone, Debug)]
pub struct Notifier(Sender<Input>);

impl Notifier {
    /// All threads have stopped, for this reason. Once for each [`Target::resume`].
    pub fn stopped(&self, stop: Stop) {
        // Nobody is interested if the session is over.
        let _ = self.0.send(Input::Stopped(stop));
    }
}
