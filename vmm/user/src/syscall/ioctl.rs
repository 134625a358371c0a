//! Requests to devices (ioctl_list(2)).
//!
//! Their numbers and structures are the same on the generic architectures and on the host, as long as no pointers and
//! no longs are in them. Others are refused.

use cairn_tcg::Access;

use super::Call;
use crate::errno::Errno;
use crate::host::Word;
use crate::log::LogItems;

/// What the argument is.
enum Argument {
    /// A number, or nothing.
    Number,
    /// A structure of as many bytes that is read.
    In(u64),
    /// A structure that is written.
    Out(u64),
}
use Argument::{In, Number, Out};

/// Bytes of the kernel's `struct termios` and `struct termios2`.
const TERMIOS: u64 = 36;
const TERMIOS2: u64 = 44;

fn argument(request: u64) -> Option<Argument> {
    Some(match request {
        libc::TCGETS => Out(TERMIOS),
        libc::TCSETS | libc::TCSETSW | libc::TCSETSF => In(TERMIOS),
        libc::TCGETS2 => Out(TERMIOS2),
        libc::TCSETS2 | libc::TCSETSW2 | libc::TCSETSF2 => In(TERMIOS2),
        libc::TIOCSWINSZ | libc::FS_IOC_SETFLAGS => In(8),
        libc::TIOCGWINSZ
        | libc::TIOCGPGRP
        | libc::TIOCGSID
        | libc::TIOCOUTQ
        | libc::FIONREAD
        | libc::TIOCMGET
        | libc::TIOCGSOFTCAR
        | libc::TIOCGETD
        | libc::TIOCGPTLCK
        | libc::TIOCGPKT
        | TIOCGPTN
        | libc::FIOQSIZE
        | BLKROGET
        | libc::BLKSSZGET
        | libc::BLKPBSZGET
        | BLKGETSIZE64
        | libc::FS_IOC_GETFLAGS
        | libc::FS_IOC_GETVERSION
        | SIOCATMARK => Out(8),
        libc::TIOCSPGRP
        | libc::TIOCMSET
        | libc::TIOCMBIS
        | libc::TIOCMBIC
        | libc::TIOCPKT
        | libc::TIOCSSOFTCAR
        | libc::TIOCSETD
        | libc::TIOCSPTLCK
        | libc::FIONBIO
        | libc::FIOASYNC => In(4),
        libc::TIOCSTI => In(1),
        libc::TCSBRK
        | libc::TCSBRKP
        | libc::TCXONC
        | libc::TCFLSH
        | libc::TIOCSCTTY
        | libc::TIOCNOTTY
        | libc::TIOCSBRK
        | libc::TIOCCBRK
        | libc::TIOCEXCL
        | libc::TIOCNXCL
        | libc::TIOCGPTPEER
        | libc::FIOCLEX
        | libc::FIONCLEX
        | libc::FICLONE => Number,
        // struct file_clone_range; struct fstrim_range
        libc::FICLONERANGE => In(32),
        // Configuration of network interfaces by name: struct ifreq, with no pointer in these.
        0x8910 | 0x8913 | 0x8915 | 0x8917 | 0x8919 | 0x891b | 0x8921 | 0x8927 | 0x8933 => Out(40),
        _ => return None,
    })
}

// `include/uapi/asm-generic/{ioctls,sockios}.h` and `include/uapi/linux/fs.h`
const BLKROGET: u64 = 0x125e;
const BLKGETSIZE64: u64 = 0x8008_1272;
const TIOCGPTN: u64 = 0x8004_5430;
const SIOCATMARK: u64 = 0x8905;

pub(super) fn ioctl(call: &mut Call<'_>) -> Result<u64, Errno> {
    let request = call.args[1] & 0xffff_ffff;
    let argument = match argument(request) {
        Some(Number) => Word::Number(call.args[2]),
        Some(In(len)) => call.span(call.long(2), len, Access::Read)?,
        // The kernel writes as much as the request says, which may be less than is asked for here.
        Some(Out(len)) => {
            let address = call.long(2);
            call.span(address, len, Access::Write)
                .or_else(|_| call.span(address, 4, Access::Write))?
        }
        None => {
            let log = &call.task.process.log;
            if log.has(LogItems::UNIMP) {
                log.write(&format!("ioctl request {request:#x} is not supported\n"));
            }
            return Err(Errno::ENOTTY);
        }
    };
    call.host(libc::SYS_ioctl, [call.int(0).into(), request.into(), argument])
}
