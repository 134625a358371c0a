//! What differs between guests: registers of system calls, signal frames, layouts of structures.

pub(crate) mod layout;
pub(crate) mod riscv;

use cairn_gdbstub::Registers;
use cairn_tcg::softmmu::Flat;
use cairn_tcg::{CpuState, Fault, Guest};
use thiserror::Error;

use crate::elf::{self, Class, Elf};
use crate::process::Traits;
use crate::signal::{Action, AltStack, Info, SignalSet};

/// Width of pointers and longs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    W32,
    W64,
}

impl Width {
    /// Bytes of a pointer.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Width::W32 => 4,
            Width::W64 => 8,
        }
    }
}

/// A machine: what is constant for all programs of one architecture and width.
#[derive(Debug)]
pub(crate) struct Machine {
    /// As `uname -m` says it.
    pub(crate) name: &'static str,
    pub(crate) width: Width,
    /// Size of the address space of a program.
    pub(crate) address_space: u64,
    /// System calls by number.
    pub(crate) calls: fn() -> &'static crate::syscall::Numbers,
    /// Code that returns from a signal handler.
    pub(crate) trampoline: &'static [u8],
    /// Registers, for debuggers.
    pub(crate) registers: fn() -> &'static Registers,
    /// The architecture in ELF files.
    pub(crate) elf: elf::Machine,
}

impl Machine {
    /// All machines.
    pub(crate) const ALL: [&'static Machine; 2] = [&riscv::RISCV64, &riscv::RISCV32];

    /// The machine that a file is for.
    pub(crate) fn of_elf(elf: &Elf) -> Option<&'static Machine> {
        let width = match elf.class {
            Class::Elf32 => Width::W32,
            Class::Elf64 => Width::W64,
        };
        let mut all = Machine::ALL.into_iter();
        all.find(|machine| machine.elf == elf.machine && machine.width == width)
    }

    /// The machine with this name.
    pub(crate) fn named(name: &str) -> Option<&'static Machine> {
        Machine::ALL.into_iter().find(|machine| machine.name == name)
    }
}

/// A choice of `-cpu` that cannot be.
#[derive(Debug, Error)]
pub(crate) enum CpuError {
    #[error("there is no CPU '{0}'; -cpu help lists what there is")]
    Model(String),
    #[error("a CPU has no property '{0}'")]
    Property(String),
    #[error("the property '{0}' is on or off")]
    Value(String),
}

/// The first CPU of a program, of any architecture.
pub(crate) enum Cpu {
    Riscv(cairn_riscv::Cpu),
}

impl Cpu {
    /// A CPU of `machine`, by the model and properties in `choice`.
    pub(crate) fn new(machine: &Machine, choice: Option<&str>) -> Result<Cpu, CpuError> {
        riscv::cpu(machine, choice).map(Cpu::Riscv)
    }

    /// `AT_HWCAP`
    pub(crate) fn hwcap(&self) -> u64 {
        match self {
            Cpu::Riscv(cpu) => riscv::hwcap(cpu),
        }
    }

    /// What programs find out about it.
    pub(crate) fn traits(&self) -> Traits {
        match self {
            Cpu::Riscv(cpu) => riscv::traits(cpu),
        }
    }
}

/// A signal that is about to be handled.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) number: i32,
    pub(crate) action: Action,
    pub(crate) info: Info,
    /// What is blocked once the handler has returned.
    pub(crate) mask: SignalSet,
    /// The alternative stack, for `uc_stack`.
    pub(crate) stack: AltStack,
    /// Where the frame goes: below this address.
    pub(crate) top: u64,
    /// Address of [`Machine::trampoline`].
    pub(crate) trampoline: u64,
}

/// What a return from a handler brings back besides registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returned {
    pub(crate) mask: SignalSet,
    pub(crate) stack: AltStack,
}

/// A guest CPU as the kernel of its programs sees it.
pub(crate) trait UserCpu: CpuState {
    fn pc(&self) -> u64;
    fn sp(&self) -> u64;
    /// Puts the CPU at `entry` with an empty stack, as `execve` leaves it.
    fn start(&mut self, entry: u64, sp: u64);
    /// Number and arguments of the system call that the CPU stands at.
    fn call(&self) -> (u64, [u64; 6]);
    /// Goes on behind the system call instruction.
    fn skip_call(&mut self);
    /// Sets the result of the system call: a value, or an error number below zero.
    fn set_result(&mut self, value: i64);
    fn set_sp(&mut self, sp: u64);
    /// Sets the pointer to the thread's local storage.
    fn set_tls(&mut self, tls: u64);
    /// Writes the frame of a signal below [`Delivery::top`], and goes to its handler.
    fn enter_handler(&mut self, memory: &Flat, delivery: &Delivery) -> Result<(), Fault>;
    /// Takes registers from the frame that the stack pointer is at.
    fn leave_handler(&mut self, memory: &Flat) -> Result<Returned, Fault>;
    /// The values of [`Machine::registers`], in the guest's byte order; `None` for those that this CPU does not have.
    fn read_registers(&self) -> Vec<Option<Vec<u8>>>;
    /// The general registers as core files have them.
    fn core_registers(&self) -> Vec<u64>;
    /// The state of the floating-point unit as core files have it.
    fn core_float(&self) -> Vec<u8>;
    /// Changes one of the registers for debuggers, by its index.
    fn write_register(&mut self, index: usize, value: &[u8]);
    /// The registers, for logs.
    fn describe(&self) -> String;
}

/// A guest whose programs can be run.
pub(crate) trait UserGuest: Guest<Cpu: UserCpu + Clone> {
    /// Instruction at `pc` as text, with the bytes that it has.
    fn disassemble(bytes: &[u8], pc: u64, cpu_mode: u64) -> (String, usize);
}
