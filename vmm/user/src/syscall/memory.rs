//! Memory.

// The table has functions of one type.
#![allow(clippy::unnecessary_wraps)]

use cairn_tcg::Access;
use cairn_tcg::softmmu::Protection;

use super::Call;
use crate::errno::Errno;
use crate::host::process::borrow;
use crate::mm::{PAGE, Place, Request};

fn protection(bits: u64) -> Protection {
    // The rights are the lowest bits (`include/uapi/asm-generic/mman-common.h`).
    Protection::from_bits_truncate(bits as u8)
}

pub(super) fn brk(call: &mut Call<'_>) -> Result<u64, Errno> {
    Ok(call.task.process.space.set_break(call.long(0)))
}

pub(super) fn mmap(call: &mut Call<'_>) -> Result<u64, Errno> {
    map(call, call.args[5])
}

/// As [`mmap`], with the offset in pages.
pub(super) fn mmap2(call: &mut Call<'_>) -> Result<u64, Errno> {
    map(call, call.long(5).checked_mul(PAGE).ok_or(Errno::EINVAL)?)
}

fn map(call: &Call<'_>, offset: u64) -> Result<u64, Errno> {
    let (address, flags) = (call.long(0), call.int(3));
    let shared = match flags & libc::MAP_TYPE {
        libc::MAP_PRIVATE => false,
        libc::MAP_SHARED | libc::MAP_SHARED_VALIDATE => true,
        _ => return Err(Errno::EINVAL),
    };
    if !offset.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let place = if flags & libc::MAP_FIXED_NOREPLACE != 0 {
        Place::IfFree(address)
    } else if flags & libc::MAP_FIXED != 0 {
        Place::At(address)
    } else {
        Place::Near(address)
    };
    let file =
        if flags & libc::MAP_ANONYMOUS != 0 { None } else { Some((borrow(call.int(4))?, offset)) };
    let protection = protection(call.args[2]);
    let request = Request { place, len: call.long(1), protection, shared, file, name: "" };
    call.task.process.space.map(&request)
}

pub(super) fn munmap(call: &mut Call<'_>) -> Result<u64, Errno> {
    call.task.process.space.unmap(call.long(0), call.long(1))?;
    Ok(0)
}

pub(super) fn mprotect(call: &mut Call<'_>) -> Result<u64, Errno> {
    call.task.process.space.protect(call.long(0), call.long(1), protection(call.args[2]))?;
    Ok(0)
}

pub(super) fn mremap(call: &mut Call<'_>) -> Result<u64, Errno> {
    let flags = call.int(3);
    let to = match flags {
        0 => None,
        libc::MREMAP_MAYMOVE => Some(Place::Near(0)),
        _ if flags == libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED => Some(Place::At(call.long(4))),
        _ => return Err(Errno::EINVAL),
    };
    call.task.process.space.remap(call.long(0), call.long(1), call.long(2), to)
}

/// The pages of a range that is mapped throughout.
fn mapped(call: &Call<'_>) -> Result<(u64, u64), Errno> {
    let start = call.long(0);
    let len = call.long(1).checked_next_multiple_of(PAGE).ok_or(Errno::ENOMEM)?;
    if !start.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let end = start.checked_add(len).filter(|end| *end <= call.task.process.space.end());
    let end = end.ok_or(Errno::ENOMEM)?;
    if !call.task.process.space.lock().vmas.is_mapped(start..end) {
        return Err(Errno::ENOMEM);
    }
    Ok((start, len))
}

/// A call of the host on the pages that the first two arguments say.
fn on_pages(call: &Call<'_>, number: libc::c_long, third: i32) -> Result<u64, Errno> {
    let (start, len) = mapped(call)?;
    call.host(number, [call.task.place(start), len.into(), third.into()])
}

pub(super) fn madvise(call: &mut Call<'_>) -> Result<u64, Errno> {
    let advice = call.int(2);
    match advice {
        // What changes contents, and what is asked of files.
        libc::MADV_DONTNEED | libc::MADV_FREE | libc::MADV_REMOVE | libc::MADV_WILLNEED => {
            on_pages(call, libc::SYS_madvise, advice)
        }
        // Hints for the kernel that change nothing that a program can see.
        libc::MADV_NORMAL
        | libc::MADV_RANDOM
        | libc::MADV_SEQUENTIAL
        | libc::MADV_MERGEABLE
        | libc::MADV_UNMERGEABLE
        | libc::MADV_HUGEPAGE
        | libc::MADV_NOHUGEPAGE
        | libc::MADV_DONTDUMP
        | libc::MADV_DODUMP
        | libc::MADV_COLD
        | libc::MADV_PAGEOUT
        | libc::MADV_POPULATE_READ
        | libc::MADV_POPULATE_WRITE => mapped(call).map(|_| 0),
        // Children would lack a part of the reservation, or find it cleared.
        _ => Err(Errno::EINVAL),
    }
}

pub(super) fn msync(call: &mut Call<'_>) -> Result<u64, Errno> {
    on_pages(call, libc::SYS_msync, call.int(2))
}

pub(super) fn mlock(call: &mut Call<'_>) -> Result<u64, Errno> {
    on_pages(call, libc::SYS_mlock, 0)
}

pub(super) fn mlock2(call: &mut Call<'_>) -> Result<u64, Errno> {
    on_pages(call, libc::SYS_mlock2, call.int(2))
}

pub(super) fn munlock(call: &mut Call<'_>) -> Result<u64, Errno> {
    on_pages(call, libc::SYS_munlock, 0)
}

/// All memory would be the emulator's, too: there is nothing that could be locked for the program alone.
pub(super) fn lock_nothing(_: &mut Call<'_>) -> Result<u64, Errno> {
    Err(Errno::EPERM)
}

pub(super) fn mincore(call: &mut Call<'_>) -> Result<u64, Errno> {
    let (start, len) = mapped(call)?;
    let vector = call.span(call.long(2), len / PAGE, Access::Write)?;
    call.host(libc::SYS_mincore, [call.task.place(start), len.into(), vector])
}
