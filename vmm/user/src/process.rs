//! A running program, and its threads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cairn_tcg::{Jit, LiftOptions};

use crate::abi::Machine;
use crate::debug::Debugger;
use crate::errno::Errno;
use crate::fs::Sysroot;
use crate::host::{self, Word};
use crate::log::Log;
use crate::mm::AddressSpace;
use crate::signal::deliver::Restart;
use crate::signal::{Actions, ThreadSignals};

/// What a process knows about the program that it runs.
#[derive(Debug)]
pub(crate) struct Image {
    /// Its file.
    pub(crate) path: PathBuf,
    /// Its arguments, each with a zero behind it.
    pub(crate) command_line: Vec<u8>,
    /// Its auxiliary vector.
    pub(crate) auxiliary: Vec<u8>,
    /// What was added to the addresses in its file.
    pub(crate) bias: u64,
    /// The stack pointer that it began with.
    pub(crate) stack: u64,
}

/// What was asked for when the program was started, and holds for its threads and for what it executes.
#[derive(Debug)]
pub(crate) struct Choices {
    /// The emulator's options, to be passed on to programs that are executed.
    pub(crate) arguments: Vec<std::ffi::OsString>,
    /// The release that `uname` shows.
    pub(crate) release: Option<String>,
    /// How blocks are made, and run.
    pub(crate) lift: LiftOptions,
    pub(crate) jit: Jit,
}

/// What a program can find out about its CPUs.
#[derive(Debug)]
pub(crate) struct Traits {
    /// `/proc/cpuinfo`
    pub(crate) cpu_info: String,
    /// Keys and values of `riscv_hwprobe`.
    pub(crate) probe: Vec<(i64, u64)>,
}

/// A process. Its threads share it.
pub(crate) struct Process {
    pub(crate) machine: &'static Machine,
    pub(crate) space: AddressSpace,
    pub(crate) actions: Actions,
    pub(crate) sysroot: Sysroot,
    pub(crate) choices: Choices,
    pub(crate) traits: Traits,
    pub(crate) image: Image,
    pub(crate) log: Arc<Log>,
    /// Address of the code that returns from signal handlers.
    pub(crate) trampoline: u64,
    /// Threads that have not ended.
    pub(crate) threads: AtomicUsize,
    pub(crate) debugger: Debugger,
}

/// A thread to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewThread {
    /// Its stack pointer, unless that is 0.
    pub(crate) stack: u64,
    pub(crate) tls: Option<u64>,
    /// Where its number is stored before it runs, in the memory of the parent and of the child.
    pub(crate) store_tid: [Option<u64>; 2],
    /// Where a zero is stored when it ends, or 0.
    pub(crate) clear_tid: u64,
}

/// What a system call leaves to be done once it is over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum After {
    /// The result is set.
    Result,
    /// The registers are what they shall be.
    Registers,
    /// A thread is made, whose number is the result.
    Thread(NewThread),
    /// The thread ends.
    Exit(i32),
}

/// A thread of the guest. It stays on the thread of the host that made it.
pub(crate) struct Task {
    pub(crate) process: Arc<Process>,
    pub(crate) signals: ThreadSignals,
    pub(crate) inbox: host::signal::Registered,
    /// Whether the host's signal mask has to be set to the guest's.
    pub(crate) unsettled: bool,
    /// Whether the last system call was interrupted before it did anything.
    pub(crate) restart: Option<Restart>,
    /// Where a zero is stored, and one waiter woken, when the thread ends (`set_tid_address`); or 0.
    pub(crate) clear_tid: u64,
    /// Head of the list of robust futexes, or 0.
    pub(crate) robust_list: u64,
    pub(crate) after: After,
}

impl Task {
    /// The thread that calls this, with signals blocked.
    pub(crate) fn new(
        process: Arc<Process>,
        signals: ThreadSignals,
        inbox: host::signal::Registered,
    ) -> Task {
        Task {
            process,
            signals,
            inbox,
            unsettled: true,
            restart: None,
            clear_tid: 0,
            robust_list: 0,
            after: After::Result,
        }
    }

    /// A system call of the host, which signals interrupt.
    pub(crate) fn host<const N: usize>(
        &self,
        number: libc::c_long,
        words: [Word<'_>; N],
    ) -> Result<u64, Errno> {
        host::call(&self.inbox.news, number, words)
    }

    /// The number of the thread.
    pub(crate) fn tid(&self) -> u32 {
        self.host(libc::SYS_gettid, []).unwrap_or_default() as u32
    }

    /// Address in the host for the kernel, which finds out itself whether it may be used. Null stays null, and what
    /// is no address of the guest becomes one that the kernel refuses.
    pub(crate) fn place(&self, address: u64) -> Word<'static> {
        let memory = &self.process.space.memory;
        Word::Guest(match address {
            0 => 0,
            _ if address >= self.process.space.end() => u64::MAX - 4095,
            _ => memory.base() + address,
        })
    }

    /// Does what is due when a thread ends, and returns whether others go on.
    pub(crate) fn end(&mut self) -> bool {
        self.process.debugger.leave(self.tid());
        host::signal::set_mask(crate::signal::SignalSet::ALL);
        crate::syscall::futex::release_robust(self);
        if self.clear_tid != 0 && self.process.space.memory.write(self.clear_tid, &[0; 4]).is_ok() {
            let _ = crate::syscall::futex::wake(self, self.clear_tid, 1);
        }
        self.process.threads.fetch_sub(1, Ordering::SeqCst) > 1
    }
}
