//! The life of a thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;

use cairn_tcg::{Event, Stop, Vcpu};

use crate::abi::{UserCpu, UserGuest};
use crate::errno::Errno;
use crate::host;
use crate::log::LogObserver;
use crate::process::{After, NewThread, Process, Task};
use crate::signal::{Info, SignalSet, ThreadSignals};
use crate::syscall;

/// Bytes of the host's stack of a thread; the guest's is in guest memory.
const HOST_STACK: usize = 1 << 20;
/// `ILL_ILLOPC` and `TRAP_BRKPT`.
const ILLEGAL_OPCODE: i32 = 1;
const BREAKPOINT: i32 = 1;
/// The exit code if the checks of `--accel` fail.
const DIVERGED: i32 = 254;

fn vcpu<G: UserGuest>(process: &Process, cpu: G::Cpu) -> Vcpu<G> {
    let code = process.space.memory.code().clone();
    let mut vcpu = Vcpu::new(cpu, code, process.choices.lift);
    vcpu.jit = process.choices.jit;
    vcpu.observer = LogObserver::of(&process.log);
    vcpu
}

/// Runs the first thread of `process`, which is this one, from `cpu` on. `mask` are the signals blocked at the start.
pub(crate) fn main_thread<G: UserGuest>(process: Arc<Process>, cpu: G::Cpu, mask: SignalSet) -> ! {
    let mut vcpu = vcpu::<G>(&process, cpu);
    let inbox = host::signal::Registered::new(vcpu.kick());
    let signals = ThreadSignals { mask, ..ThreadSignals::default() };
    let mut task = Task::new(process, signals, inbox);
    let status = run(&mut task, &mut vcpu);
    if !task.end() {
        syscall::process::exit_process(status);
    }
    host::exit_thread(status)
}

/// Runs a thread to its end, and returns its status.
fn run<G: UserGuest>(task: &mut Task, vcpu: &mut Vcpu<G>) -> i32 {
    let process = task.process.clone();
    let memory = &process.space.memory;
    loop {
        task.settle(&mut vcpu.cpu);
        match vcpu.run(memory) {
            Stop::Kicked | Stop::Stepped => {}
            Stop::Fault(fault) => {
                task.raise(&mut vcpu.cpu, Info::of_fault(fault), &fault.to_string());
            }
            Stop::Diverged => {
                let text = vcpu.divergence();
                process.log.message(&format!("translations do not agree: {text}"));
                syscall::process::exit_process(DIVERGED);
            }
            Stop::Event(Event::Illegal) => {
                let info = Info::of_instruction(libc::SIGILL, ILLEGAL_OPCODE, vcpu.pc());
                task.raise(&mut vcpu.cpu, info, "the instruction does not exist");
            }
            Stop::Event(Event::Breakpoint) => {
                let info = Info::of_instruction(libc::SIGTRAP, BREAKPOINT, vcpu.pc());
                task.raise(&mut vcpu.cpu, info, "a breakpoint instruction");
            }
            Stop::Event(Event::Syscall) => {
                let result = syscall::dispatch(task, &mut vcpu.cpu);
                let result = match std::mem::replace(&mut task.after, After::Result) {
                    After::Registers => continue,
                    After::Exit(status) => return status,
                    After::Thread(new) => spawn::<G>(task, vcpu, new),
                    After::Result => result,
                };
                let value = match result {
                    Err(Errno::ERESTARTSYS) => continue,
                    Err(errno) => -i64::from(errno.0),
                    Ok(value) => value.cast_signed(),
                };
                vcpu.cpu.set_result(value);
                vcpu.cpu.skip_call();
            }
        }
    }
}

/// Makes a thread that goes on behind the system call, with a result of 0.
fn spawn<G: UserGuest>(task: &mut Task, vcpu: &Vcpu<G>, new: NewThread) -> Result<u64, Errno> {
    let mut cpu = vcpu.cpu.clone();
    cpu.set_result(0);
    cpu.skip_call();
    if new.stack != 0 {
        cpu.set_sp(new.stack);
    }
    if let Some(tls) = new.tls {
        cpu.set_tls(tls);
    }
    // The new thread begins with everything blocked, until it can take signals.
    host::signal::set_mask(SignalSet::ALL);
    task.unsettled = true;
    let signals = ThreadSignals { mask: task.signals.mask, ..ThreadSignals::default() };
    let process = task.process.clone();
    let (sender, receiver) = mpsc::sync_channel(1);
    process.threads.fetch_add(1, Ordering::SeqCst);
    let spawned = thread::Builder::new().stack_size(HOST_STACK).spawn({
        let process = process.clone();
        move || {
            let mut vcpu = self::vcpu::<G>(&process, cpu);
            let inbox = host::signal::Registered::new(vcpu.kick());
            let mut task = Task::new(process, signals, inbox);
            task.clear_tid = new.clear_tid;
            let tid = task.tid();
            for address in new.store_tid.into_iter().flatten() {
                // As the kernel does, without a look at whether it worked.
                let _ = task.process.space.memory.write(address, &tid.to_le_bytes());
            }
            // The parent waits for it.
            let _ = sender.send(tid);
            let status = run(&mut task, &mut vcpu);
            if !task.end() {
                syscall::process::exit_process(status);
            }
        }
    });
    if spawned.is_err() {
        process.threads.fetch_sub(1, Ordering::SeqCst);
        return Err(Errno::EAGAIN);
    }
    receiver.recv().map(u64::from).map_err(|_| Errno::EAGAIN)
}
