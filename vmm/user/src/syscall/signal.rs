//! Signals.

// The table has functions of one type.
#![allow(clippy::unnecessary_wraps)]

use std::sync::atomic::Ordering;

use cairn_tcg::Access;

use super::Call;
use crate::abi::layout::{Reader, Writer};
use crate::errno::Errno;
use crate::host::Word;
use crate::host::signal::{Disposition, set_disposition, set_mask};
use crate::process::After;
use crate::signal::{Action, AltStack, Info, SignalSet, is_signal};

/// Bytes of a signal set.
const SET: u64 = 8;

impl Call<'_> {
    /// The signal set at `address`; `None` for a null pointer.
    pub(super) fn signal_set(&self, address: u64, size: u64) -> Result<Option<SignalSet>, Errno> {
        if address == 0 {
            return Ok(None);
        }
        if size != SET {
            return Err(Errno::EINVAL);
        }
        Ok(Some(SignalSet(u64::from_le_bytes(self.read(address)?)).blockable()))
    }

    /// Makes a call that waits with other signals blocked, and has them noted as the guest has them meanwhile.
    pub(super) fn waiting(
        &mut self,
        mask: Option<SignalSet>,
        make: impl FnOnce(&Self, Word<'_>) -> Result<u64, Errno>,
    ) -> Result<u64, Errno> {
        let Some(mask) = mask else { return make(self, Word::Number(0)) };
        self.task.signals.waiting_mask = Some(mask);
        if self.task.inbox.noted().without(mask).first().is_some() {
            // It was put off before, and now is not.
            self.task.inbox.news.store(1, Ordering::Release);
        }
        let result = make(self, Word::In(&mask.0.to_le_bytes()));
        if !matches!(result, Err(Errno::EINTR | Errno::ERESTARTSYS)) {
            self.task.signals.waiting_mask = None;
        }
        result
    }
}

pub(super) fn rt_sigaction(call: &mut Call<'_>) -> Result<u64, Errno> {
    let number = call.int(0);
    if call.long(3) != SET || !is_signal(number) {
        return Err(Errno::EINVAL);
    }
    // A handler, flags, a mask: RISC-V has no restorer.
    let long = call.width().bytes();
    let size = 2 * long + SET as usize;
    let new = match call.pointer(1) {
        None => None,
        Some(address) => {
            if matches!(number, libc::SIGKILL | libc::SIGSTOP) {
                return Err(Errno::EINVAL);
            }
            let bytes = call.read_vec(address, size)?;
            let mut from = Reader::new(call.width(), &bytes);
            let (handler, flags) = (from.long(), from.long());
            let mask = SignalSet(u64::from(from.uint()) | u64::from(from.uint()) << 32);
            Some(Action { handler, flags, mask: mask.blockable() })
        }
    };
    let process = call.task.process.clone();
    let mut actions = process.actions.lock();
    let action = &mut actions[number as usize - 1];
    let old = *action;
    if let Some(new) = new {
        *action = new;
        // SIGSEGV and SIGBUS always come to us, to tell the guest's faults from our own.
        if !matches!(number, libc::SIGSEGV | libc::SIGBUS) {
            let disposition = match new.handler {
                Action::DEFAULT => Disposition::Default,
                Action::IGNORE => Disposition::Ignore,
                _ => Disposition::Note { restart: new.has(libc::SA_RESTART) },
            };
            set_disposition(number, disposition)?;
        }
    }
    drop(actions);
    if let Some(address) = call.pointer(2) {
        let mut out = Writer::new(call.width());
        out.long(old.handler).long(old.flags);
        out.uint(old.mask.0 as u32).uint((old.mask.0 >> 32) as u32);
        call.write(address, &out.finish())?;
    }
    Ok(0)
}

pub(super) fn rt_sigprocmask(call: &mut Call<'_>) -> Result<u64, Errno> {
    if call.long(3) != SET {
        return Err(Errno::EINVAL);
    }
    let old = call.task.signals.mask;
    if let Some(set) = call.signal_set(call.long(1), SET)? {
        let mask = match call.int(0) {
            libc::SIG_BLOCK => old.union(set),
            libc::SIG_UNBLOCK => old.without(set),
            libc::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        if mask != old {
            call.task.signals.mask = mask;
            if old.without(mask) == SignalSet::default() {
                // Nothing is unblocked, so nothing is due.
                set_mask(mask);
            } else {
                call.task.unsettled = true;
            }
        }
    }
    if let Some(address) = call.pointer(2) {
        call.write(address, &old.0.to_le_bytes())?;
    }
    Ok(0)
}

pub(super) fn rt_sigpending(call: &mut Call<'_>) -> Result<u64, Errno> {
    if call.long(1) != SET {
        return Err(Errno::EINVAL);
    }
    let mut set = [0; SET as usize];
    call.host(libc::SYS_rt_sigpending, [Word::Out(&mut set), SET.into()])?;
    let set = SignalSet(u64::from_le_bytes(set)).union(call.task.inbox.noted());
    call.write(call.long(0), &set.0.to_le_bytes())?;
    Ok(0)
}

pub(super) fn rt_sigsuspend(call: &mut Call<'_>) -> Result<u64, Errno> {
    let mask = call.signal_set(call.long(0), call.long(1))?.ok_or(Errno::EFAULT)?;
    call.waiting(Some(mask), |call, set| call.host(libc::SYS_rt_sigsuspend, [set, SET.into()]))
}

pub(super) fn rt_sigtimedwait(call: &mut Call<'_>) -> Result<u64, Errno> {
    let set = call.signal_set(call.long(0), call.long(3))?.ok_or(Errno::EFAULT)?;
    let time = call.span(call.long(2), 16, Access::Read)?;
    let mut info = Info([0; crate::signal::INFO_SIZE]);
    // One may have been noted and put off before it was waited for.
    let noted = SignalSet(call.task.inbox.noted().0 & set.0).first();
    let number = match noted.and_then(|number| Some((number, call.task.inbox.take(number)?))) {
        Some((number, bytes)) => {
            info = Info(bytes);
            number as u64
        }
        None => call.host(
            libc::SYS_rt_sigtimedwait,
            [Word::In(&set.0.to_le_bytes()), Word::Out(&mut info.0), time, SET.into()],
        )?,
    };
    if let Some(address) = call.pointer(1) {
        call.write(address, &info.encode(call.width()))?;
    }
    Ok(number)
}

/// Bytes that an alternative stack has at least (`MINSIGSTKSZ` of RISC-V's kernel).
const MIN_STACK: u64 = 2048;

pub(super) fn sigaltstack(call: &mut Call<'_>) -> Result<u64, Errno> {
    let sp = call.cpu.sp();
    let old = call.task.signals.stack;
    if let Some(address) = call.pointer(0) {
        let bytes = call.read_vec(address, 3 * call.width().bytes())?;
        let mut from = Reader::new(call.width(), &bytes);
        let (start, flags, size) = (from.long(), from.uint(), from.long());
        if old.size != 0 && old.holds(sp) {
            return Err(Errno::EPERM);
        }
        call.task.signals.stack = match flags & !AltStack::AUTODISARM {
            AltStack::DISABLE => AltStack::default(),
            0 | AltStack::ON_STACK if size < MIN_STACK => return Err(Errno::ENOMEM),
            0 | AltStack::ON_STACK => AltStack { start, size, flags: flags & AltStack::AUTODISARM },
            _ => return Err(Errno::EINVAL),
        };
    }
    if let Some(address) = call.pointer(1) {
        let mut out = Writer::new(call.width());
        out.long(old.start).uint(old.status(sp)).long(old.size);
        call.write(address, &out.finish())?;
    }
    Ok(0)
}

pub(super) fn rt_sigreturn(call: &mut Call<'_>) -> Result<u64, Errno> {
    call.task.after = After::Registers;
    match call.cpu.leave_handler(&call.task.process.space.memory) {
        Ok(returned) => {
            call.task.signals.mask = returned.mask.blockable();
            call.task.signals.stack = returned.stack;
            call.task.unsettled = true;
        }
        Err(fault) => {
            let info = Info::of_fault(fault);
            call.task.raise(call.cpu, info, "the frame of a signal cannot be read");
        }
    }
    Ok(0)
}
