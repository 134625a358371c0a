//! System calls for files, block devices and the keyring that no library offers as safe functions.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Setter, ioctl, opcode};
use zeroize::Zeroizing;

/// `BLKGETSIZE64` and its relatives of linux/fs.h, whose numbers are the same everywhere but for the
/// direction bits that `opcode` adds.
const BLKDISCARD: Opcode = opcode::none(0x12, 119);
const BLKGETSIZE64: Opcode = opcode::read::<usize>(0x12, 114);
const BLKZEROOUT: Opcode = opcode::none(0x12, 127);
const FS_IOC_FSGETXATTR: Opcode = opcode::read::<FsXattr>(b'X', 31);
const FS_IOC_FSSETXATTR: Opcode = opcode::write::<FsXattr>(b'X', 32);

/// `FS_XFLAG_EXTSIZE`: the extent size hint counts.
const XFLAG_EXTSIZE: u32 = 0x800;

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// Size of a block device in bytes.
pub fn device_size(fd: impl AsFd) -> io::Result<u64> {
    // SAFETY: BLKGETSIZE64 stores a 64-bit number, whatever type its opcode was made with.
    Ok(unsafe { ioctl(fd, Getter::<BLKGETSIZE64, u64>::new()) }?)
}

/// Writes zeroes to a range of a block device, by a command of the device if it has one.
pub fn device_zero_out(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: BLKZEROOUT reads two 64-bit numbers.
    Ok(unsafe { ioctl(fd, RangeSetter::<BLKZEROOUT>::new([offset, len])) }?)
}

/// Discards a range of a block device.
pub fn device_discard(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    // SAFETY: BLKDISCARD reads two 64-bit numbers.
    Ok(unsafe { ioctl(fd, RangeSetter::<BLKDISCARD>::new([offset, len])) }?)
}

/// The payload of the key with the number `serial` in the kernel's keyring.
pub fn read_key(serial: u32) -> io::Result<Zeroizing<Vec<u8>>> {
    /// Kernel keys are at most this long in bytes (`big_key` payloads are below 1 MiB).
    const MAX_LEN: usize = 1 << 20;
    let mut payload = Zeroizing::new(vec![0u8; MAX_LEN]);
    // SAFETY: KEYCTL_READ stores at most `MAX_LEN` bytes at `payload`, which has that many.
    let len = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_READ,
            serial,
            payload.as_mut_ptr(),
            payload.len(),
        )
    };
    match usize::try_from(len) {
        Ok(len) if len <= MAX_LEN => {
            payload.truncate(len);
            Ok(payload)
        }
        Ok(_) => Err(io::Error::other("the key is too long")),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Gives memory that is not in use back to the system, where the allocator would keep it. Takes some
/// milliseconds.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) touches free memory only, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A new descriptor for what `fd`, a number that came with the start of the program, stands for.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC touches no memory and fails if there is no such descriptor.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// A stream connected to a port of the virtual machine, or host, with the number `cid` (vsock(7)).
/// Blocks until the peer has answered.
pub fn connect_vsock(cid: u32, port: u32) -> io::Result<OwnedFd> {
    // SAFETY: `socket` takes plain numbers.
    let fd = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor, and nobody else knows of it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all fields are plain integers, for which zero is a value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::sa_family_t::try_from(libc::AF_VSOCK).unwrap_or_default();
    address.svm_cid = cid;
    address.svm_port = port;
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_vm>()).unwrap_or_default();
    // SAFETY: `address` is a `struct sockaddr_vm` and `len` its length.
    let result = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

type RangeSetter<const OPCODE: Opcode> = Setter<OPCODE, [u64; 2]>;

/// The extent size hint of a file in bytes; 0 if it has none. Fails on file systems without hints.
pub fn extent_size_hint(fd: impl AsFd) -> io::Result<u32> {
    let attributes = extended_attributes(fd)?;
    Ok(if attributes.xflags & XFLAG_EXTSIZE != 0 { attributes.extsize } else { 0 })
}

/// Makes the file system allocate extents of `bytes` for a file. Fails on file systems without hints.
pub fn set_extent_size_hint(fd: impl AsFd, bytes: u32) -> io::Result<()> {
    let mut attributes = extended_attributes(&fd)?;
    attributes.xflags |= XFLAG_EXTSIZE;
    attributes.extsize = bytes;
    // SAFETY: FS_IOC_FSSETXATTR reads a `struct fsxattr`.
    Ok(unsafe { ioctl(fd, Setter::<FS_IOC_FSSETXATTR, FsXattr>::new(attributes)) }?)
}

fn extended_attributes(fd: impl AsFd) -> io::Result<FsXattr> {
    // SAFETY: FS_IOC_FSGETXATTR stores a `struct fsxattr`.
    Ok(unsafe { ioctl(fd, Getter::<FS_IOC_FSGETXATTR, FsXattr>::new()) }?)
}

/// A small constant whose type differs from that of its field.
#[allow(clippy::cast_possible_truncation)]
const fn short(constant: libc::c_int) -> libc::c_short {
    constant as libc::c_short
}

fn byte_lock(
    fd: impl AsFd,
    command: libc::c_int,
    kind: libc::c_int,
    byte: u64,
) -> io::Result<libc::flock> {
    let offset = i64::try_from(byte).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut lock = libc::flock {
        l_type: short(kind),
        l_whence: short(libc::SEEK_SET),
        l_start: offset,
        l_len: 1,
        l_pid: 0,
    };
    rustix::io::retry_on_intr(|| {
        // SAFETY: the OFD lock commands read and write one `struct flock`, which `lock` is.
        let result = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), command, &raw mut lock) };
        if result < 0 { Err(last_errno()) } else { Ok(()) }
    })?;
    Ok(lock)
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Takes a shared lock on one byte of a file for its open file description (`F_OFD_SETLK`). The file
/// must be open for reading.
pub fn lock_byte(fd: impl AsFd, byte: u64) -> io::Result<()> {
    byte_lock(fd, libc::F_OFD_SETLK, libc::F_RDLCK, byte).map(drop)
}

/// Gives the lock on one byte of a file back.
pub fn unlock_byte(fd: impl AsFd, byte: u64) -> io::Result<()> {
    byte_lock(fd, libc::F_OFD_SETLK, libc::F_UNLCK, byte).map(drop)
}

/// Whether another open file description, or a process, holds a lock on one byte of a file.
pub fn is_byte_locked(fd: impl AsFd, byte: u64) -> io::Result<bool> {
    let lock = byte_lock(fd, libc::F_OFD_GETLK, libc::F_WRLCK, byte)?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}
