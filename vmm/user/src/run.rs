//! The life of a thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;

use cairn_gdbstub::{Address, Stop as Last};
use cairn_tcg::{Event, Stop, Vcpu};

use crate::abi::{UserCpu, UserGuest};
use crate::debug::{Debugger, Watched};
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
/// The exit code if a debugger cannot connect.
const NO_DEBUGGER: i32 = 1;

fn vcpu<G: UserGuest>(process: &Process, cpu: G::Cpu) -> Vcpu<G> {
    let code = process.space.memory.code().clone();
    let mut vcpu = Vcpu::new(cpu, code, process.choices.lift);
    vcpu.jit = process.choices.jit;
    vcpu.observer = LogObserver::of(&process.log);
    vcpu
}

/// Runs the first thread of `process`, which is this one, from `cpu` on. `mask` are the signals blocked at the start.
///
/// If a debugger is to come at `debugger`, it waits for that.
pub(crate) fn main_thread<G: UserGuest>(
    process: Arc<Process>,
    cpu: G::Cpu,
    mask: SignalSet,
    debugger: Option<Address>,
) -> ! {
    let mut vcpu = vcpu::<G>(&process, cpu);
    let inbox = host::signal::Registered::new(vcpu.kick());
    if let Some(address) = debugger {
        let (tid, kick) = (std::process::id(), vcpu.kick());
        if let Err(error) = Debugger::wait_for_gdb(&process, &address, tid, kick, &mut vcpu.cpu) {
            process.log.message(&format!("no debugger at {address}: {error}"));
            syscall::process::exit_process(NO_DEBUGGER);
        }
    }
    let signals = ThreadSignals { mask, ..ThreadSignals::default() };
    let mut task = Task::new(process, signals, inbox);
    let status = run(&mut task, &mut vcpu);
    if !task.end() {
        task.process.debugger.last_words(Last::Exited(status as u8));
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
        let debugged = process.debugger.is_active();
        let stop = if debugged { run_debugged(task, vcpu) } else { vcpu.run(memory) };
        match stop {
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
                let caught = if debugged { begin_call(task, vcpu) } else { None };
                let result = syscall::dispatch(task, &mut vcpu.cpu);
                if debugged {
                    process.debugger.end_call(task.tid());
                }
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
                if let Some(number) = caught {
                    let tid = task.tid();
                    let stop = Last::CallReturn(tid.into(), number);
                    process.debugger.report(tid, &mut vcpu.cpu, stop);
                }
            }
        }
    }
}

/// As [`Vcpu::run`], as far as the debugger lets this thread go.
fn run_debugged<G: UserGuest>(task: &Task, vcpu: &mut Vcpu<G>) -> Stop {
    let process = &task.process;
    let (debugger, memory, tid) = (&process.debugger, &process.space.memory, task.tid());
    let orders = debugger.pass(tid, &mut vcpu.cpu);
    if let Some(signal) = orders.signal {
        let pid = std::process::id().cast_signed();
        // It comes as any other does.
        let _ = task.host(libc::SYS_tgkill, [pid.into(), tid.cast_signed().into(), signal.into()]);
    }
    let points = debugger.watchpoints();
    let stop = if points.is_empty() && !orders.step {
        vcpu.run(memory)
    } else {
        let watched = Watched::new(memory, &points);
        let stop = vcpu.step(&watched);
        if let Some((kind, address)) = watched.hit() {
            debugger.report(tid, &mut vcpu.cpu, Last::Watch(tid.into(), kind, address));
            return Stop::Stepped;
        }
        if orders.step && !matches!(stop, Stop::Event(Event::Breakpoint)) {
            debugger.finish_step(tid);
        }
        stop
    };
    if stop == Stop::Event(Event::Breakpoint)
        && let Some(kind) = debugger.breakpoint(vcpu.pc())
    {
        debugger.report(tid, &mut vcpu.cpu, Last::Breakpoint(tid.into(), kind));
        return Stop::Stepped;
    }
    stop
}

/// Tells the debugger of a system call; returns its number if that wants to know of its end, too.
fn begin_call<G: UserGuest>(task: &Task, vcpu: &mut Vcpu<G>) -> Option<u64> {
    let (debugger, tid) = (&task.process.debugger, task.tid());
    let (number, _) = vcpu.cpu.call();
    let caught = debugger.catches(number);
    if caught {
        debugger.report(tid, &mut vcpu.cpu, Last::CallEntry(tid.into(), number));
    }
    debugger.begin_call(tid, &vcpu.cpu);
    caught.then_some(number)
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
            let mut task = Task::new(process.clone(), signals, inbox);
            task.clear_tid = new.clear_tid;
            let tid = task.tid();
            if process.debugger.is_active() {
                process.debugger.enter(tid, vcpu.kick());
            }
            for address in new.store_tid.into_iter().flatten() {
                // As the kernel does, without a look at whether it worked.
                let _ = task.process.space.memory.write(address, &tid.to_le_bytes());
            }
            // The parent waits for it.
            let _ = sender.send(tid);
            let status = run(&mut task, &mut vcpu);
            if !task.end() {
                task.process.debugger.last_words(Last::Exited(status as u8));
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
