//! The debugger's side of a process: threads stop for GDB, and go on when it says so.
//!
//! All threads stop together. One that has a reason to stop says so and waits; the others are kicked, and wait when they come
//! by. A thread in a system call counts as stopped: its registers do not change until the call is over, and then
//! it waits, too. GDB sees registers as they were when a thread stopped; what it changes is put in when the
//! thread goes on.

mod numbers;
mod target;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use cairn_gdbstub::{Action, Address, Calls, End, Notifier, Point, PointKind, Stop};
use cairn_tcg::Kick;

pub(crate) use numbers::{of_gdb, to_gdb};
pub(crate) use watch::Watched;

use crate::abi::UserCpu;
use crate::process::Process;
use crate::signal::Info;
use target::ProcessTarget;

/// How long the end of the process waits until GDB has been told.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a thread is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Running,
    /// It waits for an action.
    Stopped,
    InCall,
}

/// A thread as GDB sees it.
#[derive(Default)]
struct Thread {
    kick: Kick,
    phase: Phase,
    registers: Vec<Option<Vec<u8>>>,
    /// Registers that GDB has changed, by index.
    changes: Vec<(usize, Vec<u8>)>,
    /// What GDB wants it to do.
    action: Option<Action>,
    /// What it does when it comes by next.
    orders: Option<Orders>,
    /// It has done its step.
    stepped: bool,
    signal: Option<Info>,
}

#[derive(Default)]
struct State {
    threads: BTreeMap<u32, Thread>,
    notifier: Option<Notifier>,
    /// All threads are to stop.
    stopping: bool,
    /// The first reason.
    reason: Option<Stop>,
    /// GDB knows that they have.
    told: bool,
    points: Vec<Point>,
    calls: Calls,
    /// GDB knows of the end of the process.
    over: bool,
}

/// What a thread does next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// One instruction.
    pub(crate) step: bool,
    /// The signal that GDB lets through, by the host's number.
    pub(crate) signal: Option<i32>,
}

impl From<Action> for Orders {
    fn from(action: Action) -> Orders {
        let (step, signal) = match action {
            Action::Continue(signal) => (false, signal),
            Action::Step(signal) => (true, signal),
        };
        Orders { step, signal: signal.and_then(of_gdb) }
    }
}

/// The debugger of a process. It is there from the beginning, and active while GDB is connected.
#[derive(Default)]
pub(crate) struct Debugger {
    active: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Debugger {
    /// Each change is made under the lock as a whole, so a panic elsewhere does no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether GDB is connected.
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// In the child of a fork: GDB stays with the parent.
    pub(crate) fn forked(&self, process: &Process) {
        if self.active.swap(false, Ordering::SeqCst) {
            process.space.memory.code().clear_breakpoints();
        }
    }

    /// Waits for GDB, and for what it lets this thread do, which is the only one.
    pub(crate) fn wait_for_gdb(
        process: &Arc<Process>,
        address: &Address,
        tid: u32,
        kick: Kick,
        cpu: &mut dyn UserCpu,
    ) -> io::Result<()> {
        let connection = address.listen()?.accept()?;
        let debugger = &process.debugger;
        debugger.enter(tid, kick);
        debugger.active.store(true, Ordering::SeqCst);
        {
            let mut state = debugger.lock();
            (state.stopping, state.told) = (true, true);
        }
        // The thread that talks to GDB gets none of the guest's signals: they are blocked here.
        let session = process.clone();
        thread::Builder::new().name("debugger".to_owned()).spawn(move || {
            let target = ProcessTarget::new(&session);
            let started = |notifier| {
                session.debugger.lock().notifier = Some(notifier);
                Stop::Signal(tid.into(), TRAP)
            };
            let end = cairn_gdbstub::serve(connection, &target, started);
            session.debugger.ended(&session, end.unwrap_or(End::Detached));
        })?;
        debugger.wait(tid, cpu);
        Ok(())
    }

    /// The connection is over.
    fn ended(&self, process: &Process, end: End) {
        let exiting = {
            let mut state = self.lock();
            let exiting = matches!(state.reason, Some(Stop::Exited(_) | Stop::Killed(_)));
            state.over = true;
            exiting
        };
        self.changed.notify_all();
        match end {
            End::Killed if !exiting => crate::signal::deliver::kill(),
            End::Killed => {}
            End::Detached => self.release(process),
        }
    }

    /// Lets all threads run for good.
    fn release(&self, process: &Process) {
        self.active.store(false, Ordering::SeqCst);
        process.space.memory.code().clear_breakpoints();
        let mut state = self.lock();
        state.points.clear();
        state.stopping = false;
        state.notifier = None;
        for thread in state.threads.values_mut() {
            thread.action = Some(Action::Continue(None));
        }
        drop(state);
        self.changed.notify_all();
    }

    /// A thread begins.
    pub(crate) fn enter(&self, tid: u32, kick: Kick) {
        self.lock().threads.insert(tid, Thread { kick, ..Thread::default() });
    }

    /// A thread ends.
    pub(crate) fn leave(&self, tid: u32) {
        if self.is_active() {
            let mut state = self.lock();
            state.threads.remove(&tid);
            state.tell();
        }
    }

    /// Waits if all threads are to stop, and returns what this one does next.
    pub(crate) fn pass(&self, tid: u32, cpu: &mut dyn UserCpu) -> Orders {
        let (stopping, stepped) = {
            let mut state = self.lock();
            let thread = state.threads.get_mut(&tid);
            let stepped = thread.is_some_and(|thread| std::mem::take(&mut thread.stepped));
            (state.stopping, stepped)
        };
        if stepped {
            self.report(tid, cpu, Stop::Signal(tid.into(), TRAP));
        } else if stopping {
            self.wait(tid, cpu);
        }
        let mut state = self.lock();
        let Some(thread) = state.threads.get_mut(&tid) else { return Orders::default() };
        let action = thread.action.take().map(Orders::from);
        thread.orders.take().or(action).unwrap_or_default()
    }

    /// Tells GDB of a reason to stop, and waits until it lets this thread go on. Whether GDB was told: if another thread was
    /// faster, this one comes to the same once more.
    pub(crate) fn report(&self, tid: u32, cpu: &mut dyn UserCpu, stop: Stop) -> bool {
        let first = {
            let mut state = self.lock();
            if state.notifier.is_none() {
                return true;
            }
            let first = !state.stopping;
            if first {
                state.reason = Some(stop);
                state.stop_all();
            }
            first
        };
        self.wait(tid, cpu);
        first
    }

    /// As [`Debugger::report`] for a signal. Returns the one that GDB lets through.
    pub(crate) fn signal(&self, tid: u32, cpu: &mut dyn UserCpu, info: Info) -> Option<i32> {
        let number = info.number();
        loop {
            if let Some(thread) = self.lock().threads.get_mut(&tid) {
                thread.signal = Some(info);
            }
            let told = self.report(tid, cpu, Stop::Signal(tid.into(), to_gdb(number)));
            if !self.is_active() {
                return Some(number);
            }
            if told {
                let mut state = self.lock();
                let thread = state.threads.get_mut(&tid)?;
                let orders = thread.orders.take().unwrap_or_default();
                // A step goes to the handler's first instruction.
                thread.stepped = orders.step && orders.signal.is_some();
                if !thread.stepped {
                    thread.orders = Some(Orders { signal: None, ..orders });
                }
                return orders.signal;
            }
        }
    }

    /// A thread has done its step, and is to stop when it comes by.
    pub(crate) fn finish_step(&self, tid: u32) {
        if let Some(thread) = self.lock().threads.get_mut(&tid) {
            thread.stepped = true;
        }
    }

    /// Stops this thread until GDB says what it does next.
    fn wait(&self, tid: u32, cpu: &mut dyn UserCpu) {
        let mut state = self.lock();
        if let Some(thread) = state.threads.get_mut(&tid) {
            thread.publish(cpu);
            thread.phase = Phase::Stopped;
            (thread.action, thread.orders) = (None, None);
        }
        state.tell();
        while self.is_active() {
            let Some(thread) = state.threads.get_mut(&tid) else { return };
            if let Some(action) = thread.action.take() {
                thread.phase = Phase::Running;
                thread.signal = None;
                thread.orders = Some(action.into());
                for (register, value) in std::mem::take(&mut thread.changes) {
                    cpu.write_register(register, &value);
                }
                return;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A thread begins a system call.
    pub(crate) fn begin_call(&self, tid: u32, cpu: &dyn UserCpu) {
        let mut state = self.lock();
        if let Some(thread) = state.threads.get_mut(&tid) {
            thread.publish(cpu);
            thread.phase = Phase::InCall;
        }
        state.tell();
    }

    /// A system call is over.
    pub(crate) fn end_call(&self, tid: u32) {
        if let Some(thread) = self.lock().threads.get_mut(&tid) {
            thread.phase = Phase::Running;
        }
    }

    /// Whether GDB wants to know of this system call.
    pub(crate) fn catches(&self, number: u64) -> bool {
        match &self.lock().calls {
            Calls::None => false,
            Calls::All => true,
            Calls::Some(numbers) => numbers.contains(&number),
        }
    }

    /// The watchpoints.
    pub(crate) fn watchpoints(&self) -> Vec<Point> {
        let state = self.lock();
        let watches = |point: &&Point| {
            matches!(point.kind, PointKind::Write | PointKind::Read | PointKind::Access)
        };
        state.points.iter().filter(watches).copied().collect()
    }

    /// The kind of breakpoint at `pc`, if there is one.
    pub(crate) fn breakpoint(&self, pc: u64) -> Option<PointKind> {
        let state = self.lock();
        let breaks = |point: &&Point| {
            point.address == pc
                && matches!(
                    point.kind,
                    PointKind::SoftwareBreakpoint | PointKind::HardwareBreakpoint
                )
        };
        state.points.iter().find(breaks).map(|point| point.kind)
    }

    /// Tells GDB of the end of the process, and waits until it knows.
    pub(crate) fn last_words(&self, stop: Stop) {
        if !self.is_active() {
            return;
        }
        let mut state = self.lock();
        let Some(notifier) = state.notifier.take() else { return };
        state.reason = Some(stop);
        notifier.stopped(stop);
        let over = self.changed.wait_timeout_while(state, LAST_WORDS, |state| !state.over);
        drop(over);
    }
}

/// GDB's number of `SIGTRAP`, and of `SIGINT`.
pub(crate) const TRAP: u8 = 5;
const INTERRUPT: u8 = 2;

impl Thread {
    fn publish(&mut self, cpu: &dyn UserCpu) {
        self.registers = cpu.read_registers();
        self.changes.clear();
    }
}

impl State {
    /// Lets all threads come to a stop.
    fn stop_all(&mut self) {
        (self.stopping, self.told) = (true, false);
        self.threads.values().for_each(|thread| thread.kick.kick());
    }

    /// Tells GDB once no thread runs any more.
    fn tell(&mut self) {
        let quiet = self.threads.values().all(|thread| thread.phase != Phase::Running);
        if !self.stopping || self.told || !quiet {
            return;
        }
        let Some(first) = self.threads.keys().next() else { return };
        let stop = self.reason.take().unwrap_or(Stop::Signal(u64::from(*first), INTERRUPT));
        self.told = true;
        if let Some(notifier) = &self.notifier {
            notifier.stopped(stop);
        }
    }
}
