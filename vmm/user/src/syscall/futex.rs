//! Futexes (futex(2)), which the host's kernel keeps for the guest, and robust ones, which it cannot: their list is
//! made of the guest's pointers.

use cairn_tcg::ir::{MemOp, Size};
use cairn_tcg::{Access, Memory};

use super::Call;
use crate::abi::Width;
use crate::errno::Errno;
use crate::host::Word;
use crate::process::Task;

/// Entries of a list that are looked at (`ROBUST_LIST_LIMIT`).
const ROBUST_LIMIT: usize = 2048;

pub(super) fn futex(call: &mut Call<'_>) -> Result<u64, Errno> {
    let operation = call.int(1);
    let (word, value) = (call.long(0), call.args[2] & 0xffff_ffff);
    let command = operation & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
    let fourth = match command {
        libc::FUTEX_WAIT
        | libc::FUTEX_WAIT_BITSET
        | libc::FUTEX_LOCK_PI
        | libc::FUTEX_LOCK_PI2
        | libc::FUTEX_WAIT_REQUEUE_PI => call.span(call.long(3), 16, Access::Read)?,
        // A second number stands in its place.
        _ => Word::Number(call.args[3] & 0xffff_ffff),
    };
    // The kernel looks at the words themselves.
    let words = [
        call.task.place(word),
        operation.into(),
        value.into(),
        fourth,
        call.task.place(call.long(4)),
        (call.args[5] & 0xffff_ffff).into(),
    ];
    call.host(libc::SYS_futex, words)
}

/// Wakes up to `count` threads that wait on the word at `address`.
pub(crate) fn wake(task: &Task, address: u64, count: i32) -> Result<u64, Errno> {
    crate::host::call(
        &crate::host::call::NEVER,
        libc::SYS_futex,
        [task.place(address), libc::FUTEX_WAKE.into(), count.into()],
    )
}

/// Bytes of `struct robust_list_head`: two pointers and an offset.
fn head_size(width: Width) -> u64 {
    3 * width.bytes() as u64
}

pub(super) fn set_robust_list(call: &mut Call<'_>) -> Result<u64, Errno> {
    if call.long(1) != head_size(call.width()) {
        return Err(Errno::EINVAL);
    }
    call.task.robust_list = call.long(0);
    Ok(0)
}

pub(super) fn get_robust_list(call: &mut Call<'_>) -> Result<u64, Errno> {
    let thread = call.int(0);
    if thread != 0 && thread.cast_unsigned() != call.task.tid() {
        return Err(Errno::EPERM);
    }
    let width = call.width().bytes();
    call.write(call.long(1), &call.task.robust_list.to_le_bytes()[..width])?;
    call.write(call.long(2), &head_size(call.width()).to_le_bytes()[..width])?;
    Ok(0)
}

/// Lets others have the robust futexes that an ending thread holds, and tells them that it died.
pub(crate) fn release_robust(task: &mut Task) {
    let head = std::mem::take(&mut task.robust_list);
    if head != 0 {
        // A list that cannot be read ends there, as it does for the kernel.
        let _ = walk(task, head);
    }
}

fn walk(task: &Task, head: u64) -> Result<(), Errno> {
    let memory = &task.process.space.memory;
    let long = task.process.machine.width.bytes() as u64;
    let load = |address: u64| {
        let size = if long == 8 { Size::B8 } else { Size::B4 };
        memory.load(address, MemOp::new(size)).map_err(Errno::from)
    };
    let mut entry = load(head)?;
    let offset = load(head.wrapping_add(long))?;
    // Offsets are signed, and 32-bit guests add modulo 2^32.
    let wrap = |address: u64| if long == 8 { address } else { address & 0xffff_ffff };
    let pending = load(head.wrapping_add(2 * long))?;
    for _ in 0..ROBUST_LIMIT {
        // The lowest bit says that a futex inherits priorities.
        let at = entry & !1;
        if at == head {
            break;
        }
        let next = load(at)?;
        if at != pending & !1 {
            release(task, wrap(at.wrapping_add(offset)))?;
        }
        entry = next;
    }
    if pending & !1 != 0 {
        release(task, wrap((pending & !1).wrapping_add(offset)))?;
    }
    Ok(())
}

fn release(task: &Task, address: u64) -> Result<(), Errno> {
    const WAITERS: u64 = 0x8000_0000;
    const OWNER_DIED: u64 = 0x4000_0000;
    const OWNER: u64 = 0x3fff_ffff;
    let memory = &task.process.space.memory;
    let word = MemOp::new(Size::B4).aligned();
    let mut old = memory.load(address, word)?;
    loop {
        if old & OWNER != u64::from(task.tid()) {
            return Ok(());
        }
        let found = memory.cas(address, old, old & WAITERS | OWNER_DIED, word)?;
        if found == old {
            break;
        }
        old = found;
    }
    if old & WAITERS != 0 {
        wake(task, address, 1)?;
    }
    Ok(())
}
