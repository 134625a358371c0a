//! Files.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use cairn_tcg::Access;

use super::Call;
use crate::abi::{Width, layout};
use crate::errno::Errno;
use crate::fs::{View, view};
use crate::host::Word;
use crate::process::Task;

impl Task {
    /// Where a path that the guest names is: the program itself, in the sysroot, or as it says.
    pub(crate) fn resolve(&self, path: &std::ffi::CStr) -> CString {
        if view(path.to_bytes()) == Some(View::Exe)
            && let Ok(path) = CString::new(self.process.image.path.as_os_str().as_bytes())
        {
            return path;
        }
        self.process.sysroot.resolve(path)
    }
}

/// Closes a file, unless it is the log's.
pub(super) fn close(call: &mut Call<'_>) -> Result<u64, Errno> {
    if call.task.process.log.owns(call.int(0)) {
        return Err(Errno::EBADF);
    }
    call.host(libc::SYS_close, [call.int(0).into()])
}

/// Closes files, but not the log's.
pub(super) fn close_range(call: &mut Call<'_>) -> Result<u64, Errno> {
    let (first, last, flags) = (call.args[0] as u32, call.args[1] as u32, call.args[2]);
    let close = |first: u32, last: u32| {
        if first > last {
            return Ok(0);
        }
        let words = [u64::from(first).into(), u64::from(last).into(), Word::Number(flags)];
        call.host(libc::SYS_close_range, words)
    };
    if first > last {
        return Err(Errno::EINVAL);
    }
    match call.task.process.log.descriptor() {
        Some(own) if (first..=last).contains(&own) => {
            if own > 0 {
                close(first, own - 1)?;
            }
            own.checked_add(1).map_or(Ok(0), |behind| close(behind, last))
        }
        _ => close(first, last),
    }
}

/// Opens a file; some of `/proc` are made for the occasion.
pub(super) fn openat(call: &mut Call<'_>) -> Result<u64, Errno> {
    let (flags, mode) = (call.args[2] & 0xffff_ffff, call.args[3] & 0xffff_ffff);
    let path = call.read_path(call.long(1))?;
    if let Some(content) = own_content(call, path.to_bytes()) {
        return open_content(call, &content, flags);
    }
    let path = call.task.resolve(&path);
    let words = [call.int(0).into(), Word::In(path.as_bytes_with_nul()), flags.into(), mode.into()];
    call.host(libc::SYS_openat, words)
}

/// As [`openat`], with its flags in a structure.
pub(super) fn openat2(call: &mut Call<'_>) -> Result<u64, Errno> {
    let size = call.long(3);
    if !(24..=4096).contains(&size) {
        return Err(if size < 24 { Errno::EINVAL } else { Errno::E2BIG });
    }
    let how = call.read_vec(call.long(2), size as usize)?;
    let path = call.read_path(call.long(1))?;
    if let Some(content) = own_content(call, path.to_bytes()) {
        let flags = layout::Reader::new(Width::W64, &how).u64();
        return open_content(call, &content, flags);
    }
    let path = call.task.resolve(&path);
    let words =
        [call.int(0).into(), Word::In(path.as_bytes_with_nul()), Word::In(&how), size.into()];
    call.host(libc::SYS_openat2, words)
}

fn own_content(call: &Call<'_>, path: &[u8]) -> Option<Vec<u8>> {
    view(path)?.content(&call.task.process)
}

/// A file of the memory with this content, at its beginning.
fn open_content(call: &Call<'_>, content: &[u8], flags: u64) -> Result<u64, Errno> {
    let close = if flags & libc::O_CLOEXEC as u64 != 0 { libc::MFD_CLOEXEC } else { 0 };
    let name = Word::In(b"proc\0");
    let file = call.host(libc::SYS_memfd_create, [name, u64::from(close).into()])?;
    let mut rest = content;
    while !rest.is_empty() {
        let words = [file.into(), Word::In(rest), (rest.len() as u64).into()];
        let done = call.host(libc::SYS_write, words)?;
        rest = &rest[done as usize..];
    }
    call.host(libc::SYS_lseek, [file.into(), 0_u64.into(), libc::SEEK_SET.into()])?;
    Ok(file)
}

/// Reads a link; that to the program leads to the guest's.
pub(super) fn readlinkat(call: &mut Call<'_>) -> Result<u64, Errno> {
    let path = call.read_path(call.long(1))?;
    let (buffer, size) = (call.long(2), call.int(3));
    let size = u64::try_from(size).ok().filter(|size| *size != 0).ok_or(Errno::EINVAL)?;
    if view(path.to_bytes()) == Some(View::Exe) {
        let exe = call.task.process.image.path.as_os_str().as_bytes().to_vec();
        let len = exe.len().min(size as usize);
        call.write(buffer, &exe[..len])?;
        return Ok(len as u64);
    }
    let path = call.task.process.sysroot.resolve(&path);
    let place = call.span(buffer, size, Access::Write)?;
    let words = [call.int(0).into(), Word::In(path.as_bytes_with_nul()), place, size.into()];
    call.host(libc::SYS_readlinkat, words)
}

/// `struct stat` of the host, as bytes and as its fields.
fn host_stat(fill: impl FnOnce(Word<'_>) -> Result<u64, Errno>) -> Result<Vec<u8>, Errno> {
    // Fields of x86-64 (`arch/x86/include/uapi/asm/stat.h`).
    let mut bytes = [0; 144];
    fill(Word::Out(&mut bytes))?;
    let mut from = layout::Reader::new(Width::W64, &bytes);
    let (dev, ino, nlink) = (from.u64(), from.u64(), from.u64());
    let (mode, uid, gid, _) = (from.uint(), from.uint(), from.uint(), from.uint());
    let (rdev, size, block_size, blocks) = (from.u64(), from.u64(), from.u64(), from.u64());
    let times = std::array::from_fn(|_| from.u64());
    let links = u32::try_from(nlink).unwrap_or(u32::MAX);
    let stat =
        layout::Stat { dev, ino, mode, links, uid, gid, rdev, size, block_size, blocks, times };
    Ok(stat.encode())
}

pub(super) fn fstat(call: &mut Call<'_>) -> Result<u64, Errno> {
    let stat = host_stat(|out| call.host(libc::SYS_fstat, [call.int(0).into(), out]))?;
    call.write(call.long(1), &stat)?;
    Ok(0)
}

pub(super) fn fstatat(call: &mut Call<'_>) -> Result<u64, Errno> {
    // A null path asks for the file itself, since Linux 6.11.
    let path = match call.pointer(1) {
        Some(address) => call.lookup(address)?,
        None => CString::default(),
    };
    let path = Word::In(path.as_bytes_with_nul());
    let stat = host_stat(|out| {
        call.host(libc::SYS_newfstatat, [call.int(0).into(), path, out, call.int(3).into()])
    })?;
    call.write(call.long(2), &stat)?;
    Ok(0)
}

/// Bytes of the host's `struct statfs`.
const STATFS: usize = 120;

pub(super) fn statfs(call: &mut Call<'_>) -> Result<u64, Errno> {
    let path = call.lookup(call.long(0))?;
    let mut bytes = [0; STATFS];
    let words = [Word::In(path.as_bytes_with_nul()), Word::Out(&mut bytes)];
    call.host(libc::SYS_statfs, words)?;
    put_statfs(call, &bytes)
}

pub(super) fn fstatfs(call: &mut Call<'_>) -> Result<u64, Errno> {
    let mut bytes = [0; STATFS];
    call.host(libc::SYS_fstatfs, [call.int(0).into(), Word::Out(&mut bytes)])?;
    put_statfs(call, &bytes)
}

/// 32-bit guests have the size of the structure before its address.
fn put_statfs(call: &Call<'_>, bytes: &[u8]) -> Result<u64, Errno> {
    let width = call.width();
    let address = call.long(if width == Width::W64 { 1 } else { 2 });
    call.write(address, &layout::statfs(width, bytes))?;
    Ok(0)
}

pub(super) fn getcwd(call: &mut Call<'_>) -> Result<u64, Errno> {
    let size = call.long(1);
    let place = call.span(call.long(0), size, Access::Write)?;
    call.host(libc::SYS_getcwd, [place, size.into()])
}

pub(super) fn llseek(call: &mut Call<'_>) -> Result<u64, Errno> {
    let offset = call.args[1] << 32 | call.long(2);
    let words = [call.int(0).into(), offset.into(), call.int(4).into()];
    let at = call.host(libc::SYS_lseek, words)?;
    call.write(call.long(3), &at.to_le_bytes())?;
    Ok(0)
}

pub(super) fn fcntl(call: &mut Call<'_>) -> Result<u64, Errno> {
    // The numbers of commands are the generic ones, which the host has, too; `F_*64` are those of 32-bit guests.
    const GETLK64: i32 = 12;
    const SETLK64: i32 = 13;
    const SETLKW64: i32 = 14;
    let command = match call.int(1) {
        GETLK64 => libc::F_GETLK,
        SETLK64 => libc::F_SETLK,
        SETLKW64 => libc::F_SETLKW,
        other => other,
    };
    let argument = match command {
        libc::F_GETLK
        | libc::F_SETLK
        | libc::F_SETLKW
        | libc::F_OFD_GETLK
        | libc::F_OFD_SETLK
        | libc::F_OFD_SETLKW => {
            // struct flock with 64-bit offsets
            let access = match command {
                libc::F_GETLK | libc::F_OFD_GETLK => Access::Write,
                _ => Access::Read,
            };
            call.span(call.long(2), 32, access)?
        }
        // struct f_owner_ex; hints of 64 bits
        15 | 16 | 1035 | 1037 => call.span(call.long(2), 8, Access::Read)?,
        1036 | 1038 => call.span(call.long(2), 8, Access::Write)?,
        _ => Word::Number(call.args[2]),
    };
    call.host(libc::SYS_fcntl, [call.int(0).into(), command.into(), argument])
}

pub(super) fn mount(call: &mut Call<'_>) -> Result<u64, Errno> {
    let text = |index: usize| call.pointer(index).map(|at| call.read_path(at)).transpose();
    let (source, target, kind, data) = (text(0)?, text(1)?, text(2)?, text(4)?);
    fn word(text: Option<&CString>) -> Word<'_> {
        text.map_or(Word::Number(0), |text| Word::In(text.as_bytes_with_nul()))
    }
    let words = [
        word(source.as_ref()),
        word(target.as_ref()),
        word(kind.as_ref()),
        call.long(3).into(),
        word(data.as_ref()),
    ];
    call.host(libc::SYS_mount, words)
}
