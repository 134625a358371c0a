//! What a guest architecture provides.

use crate::env::Env;
use crate::ir::{InsnMark, Lift, Slot};
use crate::memory::Fault;

/// State of one guest CPU. `repr(C)`, with the [`Env`] first.
pub trait CpuState: Send + 'static {
    /// The words and the floating-point unit.
    fn env(&self) -> &Env;
    /// The words and the floating-point unit.
    fn env_mut(&mut self) -> &mut Env;
}

/// What a register is for, in snapshots and debuggers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterClass {
    /// A general-purpose register.
    General,
    /// A floating-point register.
    Float,
    /// The program counter.
    ProgramCounter,
    /// State that the architecture does not show, such as a reservation.
    Hidden,
}

/// A word of [`Env`] that keeps its value from block to block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Global {
    /// Name as the architecture's assembler writes it.
    pub name: &'static str,
    /// Where it is. Globals fill the slots from zero up, in order.
    pub slot: Slot,
    /// What it is for.
    pub class: RegisterClass,
}

/// A function that a block calls for what micro-operations cannot say.
///
/// It may read and write all of the CPU's state but its temporaries, and may raise an event in place of a
/// result; the instruction has no effect then other than what the function did.
pub struct Helper<C> {
    /// Name in listings.
    pub name: &'static str,
    /// Computes the result from two operands.
    pub call: fn(&mut C, u64, u64) -> Result<u64, Event>,
}

/// Why an instruction needs the attention of whoever runs the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// A system call.
    Syscall,
    /// A breakpoint instruction.
    Breakpoint,
    /// An instruction that does not exist, or not in this mode.
    Illegal,
}

impl Event {
    /// All events, by their number.
    pub(crate) const ALL: [Event; 3] = [Event::Syscall, Event::Breakpoint, Event::Illegal];
}

/// How translation goes on behind an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// With the next instruction, after as many bytes.
    Next(u64),
    /// Not: the instruction always leaves the block. It has as many bytes.
    End(u64),
}

/// An instruction could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchFault(pub Fault);

/// A guest architecture.
///
/// Implementors are types without values. All functions are called from many threads at once; state is in
/// the [`CpuState`] only, which one thread owns.
pub trait Guest: Send + Sync + Sized + 'static {
    /// State of a CPU.
    type Cpu: CpuState + Clone;

    /// The words that live between blocks.
    const GLOBALS: &'static [Global];
    /// Where the program counter is. It is up to date whenever no block runs.
    const PC: Slot;
    /// Functions that [`Op::Call`](crate::Op::Call) calls, by index.
    const HELPERS: &'static [Helper<Self::Cpu>];

    /// Whether floating-point operations are plain IEEE 754: nothing is ever flushed, and no flag tells of denormal
    /// operands. Code of the host then computes with the host's unit.
    const PLAIN_FLOAT: bool = false;

    /// Every bit of the CPU's state that the lifter takes for constant. Blocks are found by it.
    fn mode(cpu: &Self::Cpu) -> u64;

    /// Translates the instruction at [`Lift::pc`].
    ///
    /// The instruction's bytes come from [`Lift::fetch`], whose faults it hands on.
    fn lift(cx: &mut Lift<'_>) -> Result<Flow, FetchFault>;

    /// Recomputes what the lifter left implicit at the instruction that `mark` is of, after a fault.
    fn restore(cpu: &mut Self::Cpu, mark: InsnMark);
}
