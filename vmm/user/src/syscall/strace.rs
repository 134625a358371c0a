//! The trace of system calls: `PID name(arguments) = result`.

use super::{Call, Kind, Syscall};
use crate::errno::Errno;
use crate::signal;

/// Bytes of a buffer or string that are shown.
const SHOWN: usize = 32;

#[rustfmt::skip]
pub(super) const OPEN: &[(u64, &str)] = &[
    (3, "O_ACCMODE"), (1, "O_WRONLY"), (2, "O_RDWR"), (0o100, "O_CREAT"), (0o200, "O_EXCL"), (0o400, "O_NOCTTY"),
    (0o1000, "O_TRUNC"), (0o2000, "O_APPEND"), (0o4000, "O_NONBLOCK"), (0o4_010_000, "O_SYNC"),
    (0o10000, "O_DSYNC"), (0o40000, "O_DIRECT"), (0o100_000, "O_LARGEFILE"), (0o20_200_000, "O_TMPFILE"),
    (0o200_000, "O_DIRECTORY"), (0o400_000, "O_NOFOLLOW"), (0o1_000_000, "O_NOATIME"), (0o2_000_000, "O_CLOEXEC"),
    (0o10_000_000, "O_PATH"),
];
pub(super) const PROTECTION: &[(u64, &str)] =
    &[(1, "PROT_READ"), (2, "PROT_WRITE"), (4, "PROT_EXEC")];
#[rustfmt::skip]
pub(super) const MAP: &[(u64, &str)] = &[
    (3, "MAP_SHARED_VALIDATE"), (1, "MAP_SHARED"), (2, "MAP_PRIVATE"), (0x10, "MAP_FIXED"), (0x20, "MAP_ANONYMOUS"),
    (0x100, "MAP_GROWSDOWN"), (0x800, "MAP_DENYWRITE"), (0x2000, "MAP_LOCKED"), (0x4000, "MAP_NORESERVE"),
    (0x8000, "MAP_POPULATE"), (0x20000, "MAP_STACK"), (0x40000, "MAP_HUGETLB"), (0x10_0000, "MAP_FIXED_NOREPLACE"),
];
#[rustfmt::skip]
pub(super) const CLONE: &[(u64, &str)] = &[
    (0x100, "CLONE_VM"), (0x200, "CLONE_FS"), (0x400, "CLONE_FILES"), (0x800, "CLONE_SIGHAND"),
    (0x4000, "CLONE_VFORK"), (0x10000, "CLONE_THREAD"), (0x20000, "CLONE_NEWNS"), (0x40000, "CLONE_SYSVSEM"),
    (0x80000, "CLONE_SETTLS"), (0x10_0000, "CLONE_PARENT_SETTID"), (0x20_0000, "CLONE_CHILD_CLEARTID"),
    (0x100_0000, "CLONE_CHILD_SETTID"), (17, "SIGCHLD"),
];
#[rustfmt::skip]
pub(super) const AT: &[(u64, &str)] = &[
    (0x100, "AT_SYMLINK_NOFOLLOW"), (0x200, "AT_REMOVEDIR"), (0x400, "AT_SYMLINK_FOLLOW"),
    (0x800, "AT_NO_AUTOMOUNT"), (0x1000, "AT_EMPTY_PATH"),
];

/// The line up to the result. It is written at once if the call may not come back.
pub(super) fn before(call: &Call<'_>, number: u64, syscall: Option<&Syscall>) -> String {
    let pid = std::process::id();
    let Some(syscall) = syscall else {
        return format!("{pid} unknown system call {number}");
    };
    let mut register = 0;
    let mut arguments = Vec::new();
    for kind in syscall.args {
        arguments.push(show(call, *kind, register));
        register += kind.registers(call.width());
    }
    let line = format!("{pid} {}({})", syscall.name, arguments.join(","));
    if matches!(syscall.name, "execve" | "execveat" | "exit" | "exit_group" | "rt_sigreturn") {
        call.task.process.log.write(&format!("{line}\n"));
        return String::new();
    }
    line
}

/// Writes the line with the result.
pub(super) fn after(call: &Call<'_>, line: &str, result: Result<u64, Errno>) {
    let log = &call.task.process.log;
    let result = match result {
        Ok(value) if value < 1 << 31 => format!("{value}"),
        Ok(value) => format!("{value:#x}"),
        Err(Errno::ERESTARTSYS) => "? (interrupted)".to_owned(),
        Err(errno) => format!("-1 errno={} ({})", errno.0, errno.describe()),
    };
    if !line.is_empty() {
        log.write(&format!("{line} = {result}\n"));
    }
}

fn show(call: &Call<'_>, kind: Kind, register: usize) -> String {
    let raw = call.args[register];
    let address = call.long(register);
    match kind {
        Kind::DirFd if raw as i32 == libc::AT_FDCWD => "AT_FDCWD".to_owned(),
        Kind::Int | Kind::Fd | Kind::DirFd => (raw as i32).to_string(),
        Kind::Uint => (raw as u32).to_string(),
        Kind::Long => raw.cast_signed().to_string(),
        Kind::Size | Kind::Offset => address.to_string(),
        Kind::Hex => format!("{address:#x}"),
        Kind::Octal => format!("{:#o}", raw as u32),
        Kind::Signal => signal::name(raw as i32),
        Kind::Flags(names) => flags(address, names),
        Kind::Path | Kind::NewPath | Kind::Text => match call.read_path(address) {
            Ok(text) => quoted(text.as_bytes(), super::PATH_MAX),
            Err(_) => pointer(address),
        },
        Kind::Source(index) => {
            let len = call.long(usize::from(index)) as usize;
            match call.read_vec(address, len.min(SHOWN + 1)) {
                Ok(bytes) if address != 0 => quoted(&bytes, SHOWN),
                _ => pointer(address),
            }
        }
        Kind::In(16) => match call.read::<16>(address) {
            Ok(bytes) => {
                let (seconds, rest) = bytes.split_at(8);
                let number =
                    |bytes: &[u8]| bytes.try_into().map(i64::from_le_bytes).unwrap_or_default();
                format!("{{{},{}}}", number(seconds), number(rest))
            }
            Err(_) => pointer(address),
        },
        Kind::Pointer
        | Kind::In(_)
        | Kind::Out(_)
        | Kind::InOut(_)
        | Kind::Native(_)
        | Kind::Sink(_)
        | Kind::SinkAt(_) => pointer(address),
    }
}

fn pointer(address: u64) -> String {
    if address == 0 { "NULL".to_owned() } else { format!("{address:#x}") }
}

/// The names of the bits; the first of several that share bits is taken.
fn flags(value: u64, names: &[(u64, &str)]) -> String {
    let mut rest = value;
    let mut words = Vec::new();
    for (bits, name) in names {
        if rest & bits == *bits {
            rest &= !bits;
            words.push((*name).to_owned());
        }
    }
    if rest != 0 || words.is_empty() {
        words.push(if rest == 0 { "0".to_owned() } else { format!("{rest:#x}") });
    }
    words.join("|")
}

fn quoted(bytes: &[u8], limit: usize) -> String {
    let shown = &bytes[..bytes.len().min(limit)];
    let more = if bytes.len() > limit { "..." } else { "" };
    format!("\"{}\"{more}", shown.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_shown_by_name() {
        assert_eq!(flags(0, PROTECTION), "0");
        assert_eq!(flags(3, PROTECTION), "PROT_READ|PROT_WRITE");
        assert_eq!(flags(0x22, MAP), "MAP_PRIVATE|MAP_ANONYMOUS");
        assert_eq!(flags(0o2_200_000, OPEN), "O_DIRECTORY|O_CLOEXEC");
        assert_eq!(flags(0x8001, PROTECTION), "PROT_READ|0x8000");
    }

    #[test]
    fn bytes_are_escaped_and_cut() {
        assert_eq!(quoted(b"a\n\"", 8), r#""a\n\"""#);
        assert_eq!(quoted(b"abcdef", 3), r#""abc"..."#);
    }
}
