//! Processes, threads, limits and users.

// The table has functions of one type.
#![allow(clippy::unnecessary_wraps)]

use std::io::Read;

use cairn_gdbstub::Stop;
use cairn_tcg::Access;

use super::Call;
use crate::abi::{Width, layout};
use crate::errno::Errno;
use crate::host::call::{NEVER, call as host_call};
use crate::host::{self, Word};
use crate::mm::PAGE;
use crate::process::{After, NewThread};
use crate::signal::{Info, SignalSet};

/// Ends the process.
pub(crate) fn exit_process(status: i32) -> ! {
    let _ = host_call(&NEVER, libc::SYS_exit_group, [status.into()]);
    unreachable!("a process that has ended")
}

pub(super) fn exit(call: &mut Call<'_>) -> Result<u64, Errno> {
    call.task.after = After::Exit(call.int(0));
    Ok(0)
}

pub(super) fn exit_group(call: &mut Call<'_>) -> Result<u64, Errno> {
    let status = call.int(0);
    call.task.process.debugger.last_words(Stop::Exited(status as u8));
    exit_process(status)
}

/// What a thread shares with the one that makes it.
const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD) as u64;
/// What may be asked for besides.
const OPTIONAL: u64 = (libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_SETTID
    | libc::CLONE_CHILD_CLEARTID
    | libc::CLONE_DETACHED
    | libc::CLONE_PTRACE
    | libc::CLONE_UNTRACED
    | libc::CLONE_IO) as u64;
/// A child that borrows the parent's memory gets a copy instead, which a correct program cannot tell; the parent waits.
const VFORK: u64 = (libc::CLONE_VFORK | libc::CLONE_VM) as u64;
/// Signals that are handled have their default actions in the child (`CLONE_CLEAR_SIGHAND`).
const CLEAR_HANDLERS: u64 = 1 << 32;
/// The signal at the end of the child.
const SIGNAL_MASK: u64 = 0xff;

/// Makes a thread or a process: `clone(flags, stack, parent_tid, tls, child_tid)`.
pub(super) fn clone(call: &mut Call<'_>) -> Result<u64, Errno> {
    let flags = call.args[0] & 0xffff_ffff;
    let has = |flag: i32| flags & flag as u64 != 0;
    let tls = has(libc::CLONE_SETTLS).then(|| call.long(3));
    let parent_tid = has(libc::CLONE_PARENT_SETTID).then(|| call.long(2));
    let child_tid = has(libc::CLONE_CHILD_SETTID).then(|| call.long(4));
    let clear_tid = if has(libc::CLONE_CHILD_CLEARTID) { call.long(4) } else { 0 };
    let stack = call.long(1);
    let store_tid = [parent_tid, child_tid];
    let new = NewThread { stack, tls, store_tid, clear_tid };
    make(call, flags & !SIGNAL_MASK, flags & SIGNAL_MASK, new)
}

/// Bytes of the first `struct clone_args`, and of the one that is known here.
const CLONE_ARGS: [u64; 2] = [64, 88];

/// As [`clone`], with more room for flags: `clone3(arguments, size)`.
pub(super) fn clone3(call: &mut Call<'_>) -> Result<u64, Errno> {
    let size = call.long(1);
    if size < CLONE_ARGS[0] {
        return Err(Errno::EINVAL);
    }
    if size > PAGE {
        return Err(Errno::E2BIG);
    }
    let bytes = call.read_vec(call.long(0), size as usize)?;
    let known = bytes.len().min(CLONE_ARGS[1] as usize);
    // What a later kernel has to be asked for.
    if bytes[known..].iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    let mut fields = [0; 11];
    for (field, bytes) in fields.iter_mut().zip(bytes.chunks_exact(8)) {
        *field = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    }
    let [flags, _, child_tid, parent_tid, signal, stack, stack_size, tls, set_tid, _, _] = fields;
    let has = |flag: i32| flags & u64::from(flag.cast_unsigned()) != 0;
    if set_tid != 0 || flags & SIGNAL_MASK != 0 || (stack == 0) != (stack_size == 0) {
        return Err(Errno::EINVAL);
    }
    let new = NewThread {
        stack: stack.wrapping_add(stack_size),
        tls: has(libc::CLONE_SETTLS).then_some(tls),
        store_tid: [
            has(libc::CLONE_PARENT_SETTID).then_some(parent_tid),
            has(libc::CLONE_CHILD_SETTID).then_some(child_tid),
        ],
        clear_tid: if has(libc::CLONE_CHILD_CLEARTID) { child_tid } else { 0 },
    };
    make(call, flags, signal, new)
}

/// Makes a thread, or a process at whose end `signal` is sent.
fn make(call: &mut Call<'_>, flags: u64, signal: u64, new: NewThread) -> Result<u64, Errno> {
    let has = |flag: i32| flags & flag as u64 != 0;
    if has(libc::CLONE_THREAD) {
        if flags & !(THREAD | OPTIONAL) != 0 || flags & THREAD != THREAD {
            return Err(Errno::EINVAL);
        }
        call.task.after = After::Thread(new);
        return Ok(0);
    }
    let waits = has(libc::CLONE_VFORK);
    let rest = if waits { flags & !VFORK } else { flags };
    if rest & !(OPTIONAL | CLEAR_HANDLERS) != 0 || signal != libc::SIGCHLD as u64 {
        return Err(Errno::EINVAL);
    }
    let child = fork(call, new, waits)?;
    if child == 0 && rest & CLEAR_HANDLERS != 0 {
        call.task.process.actions.forget_handlers();
    }
    Ok(child)
}

/// Makes a copy of the process; with `waits`, returns when that has ended or executed another program.
fn fork(call: &mut Call<'_>, new: NewThread, waits: bool) -> Result<u64, Errno> {
    // The child holds the second end as long as it lives, or until it executes something.
    let ends = if waits { Some(host::process::pipe()?) } else { None };
    // A signal that came to the child before it knows that it is one would be the parent's.
    host::signal::set_mask(SignalSet::ALL);
    call.task.unsettled = true;
    let process = call.task.process.clone();
    let child = {
        let _space = process.space.lock();
        let _frozen = process.space.memory.freeze();
        let _actions = process.actions.lock();
        host::fork()?
    };
    if let Some(child) = child {
        let child = child.cast_unsigned();
        if let Some(address) = new.store_tid[0] {
            let _ = call.write(address, &child.to_le_bytes());
        }
        if let Some((mut first, second)) = ends {
            drop(second);
            // Nothing is ever written. Signals are blocked.
            let _ = first.read(&mut [0]);
        }
        return Ok(child.into());
    }
    if let Some((_, second)) = ends {
        std::mem::forget(second);
    }
    process.threads.store(1, std::sync::atomic::Ordering::SeqCst);
    process.space.memory.code().forked();
    process.debugger.forked(&process);
    call.task.inbox.clear();
    call.task.clear_tid = new.clear_tid;
    call.task.robust_list = 0;
    let tid = call.task.tid();
    for address in new.store_tid.into_iter().flatten() {
        let _ = call.write(address, &tid.to_le_bytes());
    }
    if new.stack != 0 {
        call.cpu.set_sp(new.stack);
    }
    if let Some(tls) = new.tls {
        call.cpu.set_tls(tls);
    }
    Ok(0)
}

pub(super) fn set_tid_address(call: &mut Call<'_>) -> Result<u64, Errno> {
    call.task.clear_tid = call.long(0);
    Ok(call.task.tid().into())
}

/// Parts of the process that guest threads share by being threads of one process cannot be unshared.
pub(super) fn unshare(call: &mut Call<'_>) -> Result<u64, Errno> {
    let flags = call.args[0] & 0xffff_ffff;
    if flags & (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64 != 0 {
        return Err(Errno::EINVAL);
    }
    call.host(libc::SYS_unshare, [flags.into()])
}

/// Bytes of the host's `struct rusage`.
const RUSAGE: usize = 144;

pub(super) fn getrusage(call: &mut Call<'_>) -> Result<u64, Errno> {
    let mut usage = [0; RUSAGE];
    call.host(libc::SYS_getrusage, [call.int(0).into(), Word::Out(&mut usage)])?;
    call.write(call.long(1), &layout::rusage(call.width(), &usage))?;
    Ok(0)
}

pub(super) fn wait4(call: &mut Call<'_>) -> Result<u64, Errno> {
    let status = call.optional(1, 4)?;
    let mut usage = [0; RUSAGE];
    let words = [call.int(0).into(), status, call.int(2).into(), Word::Out(&mut usage)];
    let pid = call.host(libc::SYS_wait4, words)?;
    if let (Some(address), true) = (call.pointer(3), pid != 0) {
        call.write(address, &layout::rusage(call.width(), &usage))?;
    }
    Ok(pid)
}

pub(super) fn waitid(call: &mut Call<'_>) -> Result<u64, Errno> {
    let mut info = Info([0; crate::signal::INFO_SIZE]);
    let mut usage = [0; RUSAGE];
    let words = [
        call.int(0).into(),
        call.int(1).into(),
        Word::Out(&mut info.0),
        call.int(3).into(),
        Word::Out(&mut usage),
    ];
    call.host(libc::SYS_waitid, words)?;
    if let Some(address) = call.pointer(2) {
        call.write(address, &info.encode(call.width()))?;
    }
    if let Some(address) = call.pointer(4) {
        call.write(address, &layout::rusage(call.width(), &usage))?;
    }
    Ok(0)
}

pub(super) fn times(call: &mut Call<'_>) -> Result<u64, Errno> {
    let mut times = [0; 32];
    let ticks = call.host(libc::SYS_times, [Word::Out(&mut times)])?;
    if let Some(address) = call.pointer(0) {
        call.write(address, &layout::longs(call.width(), &times, 4))?;
    }
    Ok(ticks)
}

/// Limits of memory are those of the emulator as well, which needs more than the program: they are left as they are.
fn is_of_memory(resource: i32) -> bool {
    matches!(u32::try_from(resource), Ok(libc::RLIMIT_AS | libc::RLIMIT_DATA | libc::RLIMIT_STACK))
}

pub(super) fn prlimit64(call: &mut Call<'_>) -> Result<u64, Errno> {
    let (pid, resource) = (call.int(0), call.int(1));
    let own = pid == 0 || pid.cast_unsigned() == std::process::id();
    let new = match call.pointer(2) {
        Some(address) if own && is_of_memory(resource) => {
            call.read::<16>(address)?;
            Word::Number(0)
        }
        _ => call.span(call.long(2), 16, Access::Read)?,
    };
    let old = call.optional(3, 16)?;
    call.host(libc::SYS_prlimit64, [pid.into(), resource.into(), new, old])
}

pub(super) fn getrlimit(call: &mut Call<'_>) -> Result<u64, Errno> {
    let old = call.optional(1, 16)?;
    call.host(libc::SYS_getrlimit, [call.int(0).into(), old])
}

pub(super) fn setrlimit(call: &mut Call<'_>) -> Result<u64, Errno> {
    let new = call.span(call.long(1), 16, Access::Read)?;
    if is_of_memory(call.int(0)) {
        return Ok(0);
    }
    call.host(libc::SYS_setrlimit, [call.int(0).into(), new])
}

/// Groups that a call may name.
const MAX_GROUPS: i32 = 65536;

pub(super) fn getgroups(call: &mut Call<'_>) -> Result<u64, Errno> {
    let count = call.int(0);
    if !(0..=MAX_GROUPS).contains(&count) {
        return Err(Errno::EINVAL);
    }
    let list = call.optional(1, 4 * count as u64)?;
    call.host(libc::SYS_getgroups, [count.into(), list])
}

pub(super) fn setgroups(call: &mut Call<'_>) -> Result<u64, Errno> {
    let count = call.int(0);
    if !(0..=MAX_GROUPS).contains(&count) {
        return Err(Errno::EINVAL);
    }
    let list = call.span(call.long(1), 4 * count as u64, Access::Read)?;
    call.host(libc::SYS_setgroups, [count.into(), list])
}

/// Bytes of a thread's name.
const NAME: u64 = 16;

pub(super) fn prctl(call: &mut Call<'_>) -> Result<u64, Errno> {
    let option = call.int(0);
    let second = match option {
        libc::PR_SET_NAME => {
            let name = call.read_string(call.long(1), super::PATH_MAX)?;
            let mut bytes = [0; NAME as usize];
            let len = name.as_bytes().len().min(bytes.len() - 1);
            bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
            return call.host(libc::SYS_prctl, [option.into(), Word::In(&bytes)]);
        }
        libc::PR_GET_NAME => call.optional(1, NAME)?,
        libc::PR_GET_PDEATHSIG | libc::PR_GET_CHILD_SUBREAPER => call.optional(1, 4)?,
        libc::PR_GET_TID_ADDRESS => {
            let bytes = call.task.clear_tid.to_le_bytes();
            let len = if call.width() == Width::W64 { 8 } else { 4 };
            call.write(call.long(1), &bytes[..len])?;
            return Ok(0);
        }
        libc::PR_SET_PDEATHSIG
        | libc::PR_SET_CHILD_SUBREAPER
        | libc::PR_GET_DUMPABLE
        | libc::PR_SET_DUMPABLE
        | libc::PR_GET_KEEPCAPS
        | libc::PR_SET_KEEPCAPS
        | libc::PR_GET_NO_NEW_PRIVS
        | libc::PR_SET_NO_NEW_PRIVS
        | libc::PR_GET_SECUREBITS
        | libc::PR_SET_SECUREBITS
        | libc::PR_GET_TIMERSLACK
        | libc::PR_SET_TIMERSLACK
        | libc::PR_CAPBSET_READ
        | libc::PR_CAPBSET_DROP
        | libc::PR_CAP_AMBIENT
        | libc::PR_GET_THP_DISABLE
        | libc::PR_SET_THP_DISABLE => Word::Number(call.args[1]),
        // Filters of system calls would see the emulator's; the rest is of other architectures.
        _ => return Err(Errno::EINVAL),
    };
    let rest = [call.args[2], call.args[3], call.args[4]].map(Word::Number);
    let [third, fourth, fifth] = rest;
    call.host(libc::SYS_prctl, [option.into(), second, third, fourth, fifth])
}
