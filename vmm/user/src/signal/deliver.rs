//! Giving signals to the guest.

use cairn_gdbstub::Stop;

use super::{Action, AltStack, DefaultAction, Info, SignalSet, default_action};
use crate::abi::{Delivery, UserCpu};
use crate::core_file::{self, leaves_core};
use crate::debug::to_gdb;
use crate::errno::Errno;
use crate::host::call::{NEVER, Word, call};
use crate::host::signal::{Disposition, set_disposition, set_mask};
use crate::process::Task;

/// What becomes of an interrupted system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restart {
    /// It is made again, unless a handler without `SA_RESTART` runs.
    IfAsked,
    /// It is made again, unless a handler runs.
    UnlessHandled,
}

impl Task {
    /// Hands over the signals that have come, and lets the host block what the guest does.
    pub(crate) fn settle(&mut self, cpu: &mut dyn UserCpu) {
        use std::sync::atomic::Ordering;
        while self.unsettled || self.inbox.news.load(Ordering::Acquire) != 0 {
            set_mask(SignalSet::ALL);
            self.inbox.news.store(0, Ordering::Release);
            self.unsettled = false;
            loop {
                let blocked = self.signals.waiting_mask.unwrap_or(self.signals.mask);
                let Some(number) = self.inbox.noted().without(blocked).first() else { break };
                if let Some(bytes) = self.inbox.take(number) {
                    self.handle(cpu, Info(bytes));
                }
            }
            self.signals.waiting_mask = None;
            // A call that nothing has ended is made again: the CPU still stands at it.
            self.restart = None;
            set_mask(self.signals.mask);
        }
    }

    /// Raises a signal that an instruction causes. It cannot be put off.
    pub(crate) fn raise(&mut self, cpu: &mut dyn UserCpu, info: Info, why: &str) {
        let Some(info) = self.filter(cpu, info) else { return };
        let number = info.number();
        let handler = self.process.actions.of(number).handler;
        if handler <= Action::IGNORE || self.signals.mask.contains(number) {
            let pc = cpu.pc();
            let name = super::name(number);
            self.process.log.message(&format!("ended by {name} at {pc:#x}: {why}"));
            self.die(cpu, info);
        }
        self.unsettled = true;
        self.enter_handler_of(cpu, info);
    }

    /// Ends the process by a signal, with a core file if that is wanted; a debugger is told first.
    fn die(&self, cpu: &dyn UserCpu, info: Info) -> ! {
        let number = info.number();
        if leaves_core(number) {
            match core_file::write(self, cpu, info) {
                Ok(None) => {}
                Ok(Some(path)) => {
                    self.process.log.message(&format!("the core file is '{}'", path.display()));
                }
                Err(error) => self.process.log.message(&format!("no core file: {error}")),
            }
        }
        self.process.debugger.last_words(Stop::Killed(to_gdb(number)));
        die(number)
    }

    /// Asks the debugger which signal the guest gets in place of this one.
    fn filter(&self, cpu: &mut dyn UserCpu, info: Info) -> Option<Info> {
        let debugger = &self.process.debugger;
        if !debugger.is_active() {
            return Some(info);
        }
        let number = debugger.signal(self.tid(), cpu, info)?;
        Some(if number == info.number() { info } else { Info::sent_by_self(number) })
    }

    /// Does what the guest wants signal `info` to do, unless a debugger drops it.
    fn handle(&mut self, cpu: &mut dyn UserCpu, info: Info) {
        if let Some(info) = self.filter(cpu, info) {
            self.enter_handler_of(cpu, info);
        }
    }

    fn enter_handler_of(&mut self, cpu: &mut dyn UserCpu, info: Info) {
        let number = info.number();
        let action = self.process.actions.of(number);
        match action.handler {
            Action::IGNORE => {}
            Action::DEFAULT => match default_action(number) {
                DefaultAction::Ignore => {}
                DefaultAction::Stop => {
                    let _ = self.host(
                        libc::SYS_kill,
                        [std::process::id().cast_signed().into(), libc::SIGSTOP.into()],
                    );
                }
                DefaultAction::Terminate => self.die(cpu, info),
            },
            _ => self.enter_handler(cpu, action, info),
        }
    }

    fn enter_handler(&mut self, cpu: &mut dyn UserCpu, action: Action, info: Info) {
        let number = info.number();
        let ended = match self.restart.take() {
            None => false,
            Some(Restart::IfAsked) => !action.has(libc::SA_RESTART),
            Some(Restart::UnlessHandled) => true,
        };
        if ended {
            cpu.set_result(-i64::from(Errno::EINTR.0));
            cpu.skip_call();
        }
        let stack = self.signals.stack;
        let sp = cpu.sp();
        let switches = action.has(libc::SA_ONSTACK) && stack.size != 0 && !stack.holds(sp);
        let delivery = Delivery {
            number,
            action,
            info,
            mask: self.signals.mask,
            stack,
            top: if switches { stack.start.wrapping_add(stack.size) } else { sp },
            trampoline: self.process.trampoline,
        };
        let entered = cpu.enter_handler(&self.process.space.memory, &delivery);
        if let Err(fault) = entered {
            let why = format!("no room for the frame of {}: {fault}", super::name(number));
            if number == libc::SIGSEGV {
                self.process.log.message(&format!("ended by SIGSEGV: {why}"));
                self.die(cpu, info);
            }
            return self.raise(cpu, Info::of_fault(fault), &why);
        }
        if action.has(libc::SA_RESETHAND) {
            self.process.actions.lock()[number as usize - 1].handler = Action::DEFAULT;
            // SIGSEGV and SIGBUS stay with us; others exist, as this one came.
            if !matches!(number, libc::SIGSEGV | libc::SIGBUS) {
                let _ = set_disposition(number, Disposition::Default);
            }
        }
        if stack.flags & AltStack::AUTODISARM != 0 {
            self.signals.stack = AltStack::default();
        }
        let own =
            if action.has(libc::SA_NODEFER) { SignalSet::default() } else { SignalSet::of(number) };
        self.signals.mask = self.signals.mask.union(action.mask).union(own).blockable();
        self.signals.waiting_mask = None;
    }
}

/// Ends the process as `SIGKILL` does.
pub(crate) fn kill() -> ! {
    die(libc::SIGKILL)
}

/// Ends the process by signal `number`, as its parent shall see it.
fn die(number: i32) -> ! {
    let _ = set_disposition(number, Disposition::Default);
    // A core file would be the emulator's, with the whole address space reserved.
    let core = u64::from(libc::RLIMIT_CORE);
    let _ = call(&NEVER, libc::SYS_setrlimit, [core.into(), Word::In(&[0; 16])]);
    let pid = std::process::id().cast_signed();
    let _ = call(&NEVER, libc::SYS_kill, [pid.into(), number.into()]);
    set_mask(SignalSet::default());
    // The signal ends the process here at the latest, unless it is one that does not.
    std::process::abort()
}
