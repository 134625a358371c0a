//! All system calls: name, arguments, and what makes them.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::Kind::{
    DirFd, Fd, Flags, Hex, In, InOut, Int, Long, Native, NewPath, Octal, Offset, Out, Path,
    Pointer, Signal, Sink, SinkAt, Size, Source, Text, Uint,
};
use super::{
    Call, Kind, Run, Syscall, exec, file, futex, ioctl, memory, poll, process, signal, socket,
    strace, system, vector,
};
use crate::errno::Errno;
use crate::signal::deliver::Restart;

/// The call with this name.
pub(super) fn find(name: &str) -> Option<&'static Syscall> {
    static BY_NAME: LazyLock<HashMap<&'static str, &'static Syscall>> =
        LazyLock::new(|| TABLE.iter().map(|syscall| (syscall.name, syscall)).collect());
    BY_NAME.get(name).copied()
}

/// A call that the host makes.
const fn host(name: &'static str, number: libc::c_long, args: &'static [Kind]) -> Syscall {
    Syscall { name, args, run: Run::Host(number), restart: Restart::IfAsked }
}

/// A call that a function makes.
const fn own(
    name: &'static str,
    function: fn(&mut Call<'_>) -> Result<u64, Errno>,
    args: &'static [Kind],
) -> Syscall {
    Syscall { name, args, run: Run::Own(function), restart: Restart::IfAsked }
}

impl Syscall {
    /// One that a handler ends, whatever its flags (signal(7), "Interruption of system calls").
    const fn waits(self) -> Syscall {
        Syscall { restart: Restart::UnlessHandled, ..self }
    }
}

const OPEN: Kind = Flags(strace::OPEN);
const PROTECTION: Kind = Flags(strace::PROTECTION);
const MAP: Kind = Flags(strace::MAP);
const CLONE: Kind = Flags(strace::CLONE);
const AT: Kind = Flags(strace::AT);
/// `struct timespec` and `struct itimerspec` with times of 64 bits.
const TIME: Kind = In(16);
const TIMER: Kind = In(32);

#[rustfmt::skip]
static TABLE: &[Syscall] = &[
    // Files
    host("accept", libc::SYS_accept, &[Fd, SinkAt(2), InOut(4)]),
    host("accept4", libc::SYS_accept4, &[Fd, SinkAt(2), InOut(4), Hex]),
    host("acct", libc::SYS_acct, &[Path]),
    host("chdir", libc::SYS_chdir, &[Path]),
    host("chroot", libc::SYS_chroot, &[NewPath]),
    own("close", file::close, &[Fd]),
    own("close_range", file::close_range, &[Uint, Uint, Hex]),
    host("copy_file_range", libc::SYS_copy_file_range, &[Fd, InOut(8), Fd, InOut(8), Size, Hex]),
    host("dup", libc::SYS_dup, &[Fd]),
    host("dup3", libc::SYS_dup3, &[Fd, Fd, OPEN]),
    host("faccessat", libc::SYS_faccessat, &[DirFd, Path, Octal]),
    host("faccessat2", libc::SYS_faccessat2, &[DirFd, Path, Octal, AT]),
    host("fadvise64", libc::SYS_fadvise64, &[Fd, Offset, Offset, Int]),
    host("fallocate", libc::SYS_fallocate, &[Fd, Hex, Offset, Offset]),
    host("fchdir", libc::SYS_fchdir, &[Fd]),
    host("fchmod", libc::SYS_fchmod, &[Fd, Octal]),
    host("fchmodat", libc::SYS_fchmodat, &[DirFd, NewPath, Octal]),
    host("fchmodat2", libc::SYS_fchmodat2, &[DirFd, NewPath, Octal, AT]),
    host("fchown", libc::SYS_fchown, &[Fd, Int, Int]),
    host("fchownat", libc::SYS_fchownat, &[DirFd, NewPath, Int, Int, AT]),
    own("fcntl", file::fcntl, &[Fd, Int, Hex]),
    host("fdatasync", libc::SYS_fdatasync, &[Fd]),
    host("fgetxattr", libc::SYS_fgetxattr, &[Fd, Text, Sink(3), Size]),
    host("flistxattr", libc::SYS_flistxattr, &[Fd, Sink(2), Size]),
    host("flock", libc::SYS_flock, &[Fd, Int]),
    host("fremovexattr", libc::SYS_fremovexattr, &[Fd, Text]),
    host("fsetxattr", libc::SYS_fsetxattr, &[Fd, Text, Source(3), Size, Hex]),
    own("fstat", file::fstat, &[Fd, Pointer]),
    own("fstatfs", file::fstatfs, &[Fd, Pointer]),
    host("fsync", libc::SYS_fsync, &[Fd]),
    host("ftruncate", libc::SYS_ftruncate, &[Fd, Offset]),
    own("getcwd", file::getcwd, &[Pointer, Size]),
    host("getdents64", libc::SYS_getdents64, &[Fd, Sink(2), Size]),
    host("getxattr", libc::SYS_getxattr, &[Path, Text, Sink(3), Size]),
    host("inotify_add_watch", libc::SYS_inotify_add_watch, &[Fd, Path, Hex]),
    host("inotify_init1", libc::SYS_inotify_init1, &[OPEN]),
    host("inotify_rm_watch", libc::SYS_inotify_rm_watch, &[Fd, Int]),
    own("ioctl", ioctl::ioctl, &[Fd, Hex, Hex]),
    host("lgetxattr", libc::SYS_lgetxattr, &[Path, Text, Sink(3), Size]),
    host("linkat", libc::SYS_linkat, &[DirFd, NewPath, DirFd, NewPath, AT]),
    host("listxattr", libc::SYS_listxattr, &[Path, Sink(2), Size]),
    host("llistxattr", libc::SYS_llistxattr, &[Path, Sink(2), Size]),
    host("lremovexattr", libc::SYS_lremovexattr, &[NewPath, Text]),
    host("lseek", libc::SYS_lseek, &[Fd, Long, Int]),
    own("_llseek", file::llseek, &[Fd, Hex, Hex, Pointer, Int]),
    host("lsetxattr", libc::SYS_lsetxattr, &[NewPath, Text, Source(3), Size, Hex]),
    host("memfd_create", libc::SYS_memfd_create, &[Text, Hex]),
    host("mkdirat", libc::SYS_mkdirat, &[DirFd, NewPath, Octal]),
    host("mknodat", libc::SYS_mknodat, &[DirFd, NewPath, Octal, Size]),
    own("mount", file::mount, &[NewPath, NewPath, Text, Hex, Pointer]),
    own("newfstatat", file::fstatat, &[DirFd, Path, Pointer, AT]),
    own("openat", file::openat, &[DirFd, Path, OPEN, Octal]),
    own("openat2", file::openat2, &[DirFd, Path, Pointer, Size]),
    host("pidfd_getfd", libc::SYS_pidfd_getfd, &[Fd, Fd, Hex]),
    host("pipe2", libc::SYS_pipe2, &[Out(8), OPEN]),
    host("pivot_root", libc::SYS_pivot_root, &[NewPath, NewPath]),
    host("pread64", libc::SYS_pread64, &[Fd, Sink(2), Size, Offset]),
    host("pwrite64", libc::SYS_pwrite64, &[Fd, Source(2), Size, Offset]),
    own("preadv", vector::preadv, &[Fd, Pointer, Int, Hex, Hex]),
    own("preadv2", vector::preadv2, &[Fd, Pointer, Int, Hex, Hex, Hex]),
    own("pwritev", vector::pwritev, &[Fd, Pointer, Int, Hex, Hex]),
    own("pwritev2", vector::pwritev2, &[Fd, Pointer, Int, Hex, Hex, Hex]),
    host("read", libc::SYS_read, &[Fd, Sink(2), Size]),
    host("readahead", libc::SYS_readahead, &[Fd, Offset, Size]),
    own("readlinkat", file::readlinkat, &[DirFd, Path, Pointer, Size]),
    own("readv", vector::readv, &[Fd, Pointer, Int]),
    host("removexattr", libc::SYS_removexattr, &[NewPath, Text]),
    host("renameat2", libc::SYS_renameat2, &[DirFd, NewPath, DirFd, NewPath, Hex]),
    host("sendfile", libc::SYS_sendfile, &[Fd, Fd, Native(8), Size]),
    host("setxattr", libc::SYS_setxattr, &[NewPath, Text, Source(3), Size, Hex]),
    host("splice", libc::SYS_splice, &[Fd, InOut(8), Fd, InOut(8), Size, Hex]),
    own("statfs", file::statfs, &[Path, Pointer]),
    host("statx", libc::SYS_statx, &[DirFd, Path, AT, Hex, Out(256)]),
    host("symlinkat", libc::SYS_symlinkat, &[NewPath, DirFd, NewPath]),
    host("sync", libc::SYS_sync, &[]),
    host("sync_file_range", libc::SYS_sync_file_range, &[Fd, Offset, Offset, Hex]),
    host("syncfs", libc::SYS_syncfs, &[Fd]),
    host("tee", libc::SYS_tee, &[Fd, Fd, Size, Hex]),
    host("truncate", libc::SYS_truncate, &[NewPath, Offset]),
    host("umount2", libc::SYS_umount2, &[NewPath, Hex]),
    host("unlinkat", libc::SYS_unlinkat, &[DirFd, NewPath, AT]),
    host("utimensat", libc::SYS_utimensat, &[DirFd, Path, In(32), AT]),
    host("vhangup", libc::SYS_vhangup, &[]),
    host("write", libc::SYS_write, &[Fd, Source(2), Size]),
    own("writev", vector::writev, &[Fd, Pointer, Int]),

    // Memory
    own("brk", memory::brk, &[Pointer]),
    own("madvise", memory::madvise, &[Pointer, Size, Int]),
    own("mincore", memory::mincore, &[Pointer, Size, Pointer]),
    own("mlock", memory::mlock, &[Pointer, Size]),
    own("mlock2", memory::mlock2, &[Pointer, Size, Hex]),
    own("mlockall", memory::lock_nothing, &[Hex]),
    own("mmap", memory::mmap, &[Pointer, Size, PROTECTION, MAP, Fd, Hex]),
    own("mmap2", memory::mmap2, &[Pointer, Size, PROTECTION, MAP, Fd, Hex]),
    own("mprotect", memory::mprotect, &[Pointer, Size, PROTECTION]),
    own("mremap", memory::mremap, &[Pointer, Size, Size, Hex, Pointer]),
    own("msync", memory::msync, &[Pointer, Size, Hex]),
    own("munlock", memory::munlock, &[Pointer, Size]),
    own("munlockall", memory::lock_nothing, &[]),
    own("munmap", memory::munmap, &[Pointer, Size]),

    // Processes and threads
    own("clone", process::clone, &[CLONE, Pointer, Pointer, Pointer, Pointer]),
    own("clone3", process::clone3, &[Pointer, Size]),
    own("execve", exec::execve, &[Path, Pointer, Pointer]),
    own("execveat", exec::execveat, &[DirFd, Path, Pointer, Pointer, AT]),
    own("exit", process::exit, &[Int]),
    own("exit_group", process::exit_group, &[Int]),
    own("futex", futex::futex, &[Pointer, Hex, Uint, Hex, Pointer, Hex]),
    own("get_robust_list", futex::get_robust_list, &[Int, Pointer, Pointer]),
    host("getpgid", libc::SYS_getpgid, &[Int]),
    host("getpid", libc::SYS_getpid, &[]),
    host("getppid", libc::SYS_getppid, &[]),
    host("getpriority", libc::SYS_getpriority, &[Int, Int]),
    own("getrlimit", process::getrlimit, &[Int, Pointer]),
    own("getrusage", process::getrusage, &[Int, Pointer]),
    host("getsid", libc::SYS_getsid, &[Int]),
    host("gettid", libc::SYS_gettid, &[]),
    own("io_uring_enter", system::refused, &[Fd, Uint, Uint, Hex, Pointer, Size]),
    own("io_uring_register", system::refused, &[Fd, Uint, Pointer, Uint]),
    own("io_uring_setup", system::refused, &[Uint, Pointer]),
    host("ioprio_get", libc::SYS_ioprio_get, &[Int, Int]),
    host("ioprio_set", libc::SYS_ioprio_set, &[Int, Int, Int]),
    host("membarrier", libc::SYS_membarrier, &[Int, Hex, Int]),
    host("personality", libc::SYS_personality, &[Hex]),
    host("pidfd_open", libc::SYS_pidfd_open, &[Int, Hex]),
    own("prctl", process::prctl, &[Int, Hex, Hex, Hex, Hex]),
    own("prlimit64", process::prlimit64, &[Int, Int, Pointer, Pointer]),
    host("sched_get_priority_max", libc::SYS_sched_get_priority_max, &[Int]),
    host("sched_get_priority_min", libc::SYS_sched_get_priority_min, &[Int]),
    host("sched_getaffinity", libc::SYS_sched_getaffinity, &[Int, Size, Sink(1)]),
    host("sched_getattr", libc::SYS_sched_getattr, &[Int, Sink(2), Size, Hex]),
    host("sched_getparam", libc::SYS_sched_getparam, &[Int, Out(4)]),
    host("sched_getscheduler", libc::SYS_sched_getscheduler, &[Int]),
    host("sched_rr_get_interval", libc::SYS_sched_rr_get_interval, &[Int, Out(16)]),
    host("sched_setaffinity", libc::SYS_sched_setaffinity, &[Int, Size, Source(1)]),
    host("sched_setattr", libc::SYS_sched_setattr, &[Int, InOut(48), Hex]),
    host("sched_setparam", libc::SYS_sched_setparam, &[Int, In(4)]),
    host("sched_setscheduler", libc::SYS_sched_setscheduler, &[Int, Int, In(4)]),
    host("sched_yield", libc::SYS_sched_yield, &[]),
    own("set_robust_list", futex::set_robust_list, &[Pointer, Size]),
    own("set_tid_address", process::set_tid_address, &[Pointer]),
    host("setns", libc::SYS_setns, &[Fd, Hex]),
    host("setpgid", libc::SYS_setpgid, &[Int, Int]),
    host("setpriority", libc::SYS_setpriority, &[Int, Int, Int]),
    own("setrlimit", process::setrlimit, &[Int, Pointer]),
    host("setsid", libc::SYS_setsid, &[]),
    host("umask", libc::SYS_umask, &[Octal]),
    own("unshare", process::unshare, &[CLONE]),
    own("wait4", process::wait4, &[Int, Out(4), Hex, Pointer]),
    own("waitid", process::waitid, &[Int, Int, Pointer, Hex, Pointer]),

    // Users
    host("capget", libc::SYS_capget, &[InOut(8), InOut(24)]),
    host("capset", libc::SYS_capset, &[InOut(8), In(24)]),
    host("getegid", libc::SYS_getegid, &[]),
    host("geteuid", libc::SYS_geteuid, &[]),
    host("getgid", libc::SYS_getgid, &[]),
    own("getgroups", process::getgroups, &[Int, Pointer]),
    host("getresgid", libc::SYS_getresgid, &[Out(4), Out(4), Out(4)]),
    host("getresuid", libc::SYS_getresuid, &[Out(4), Out(4), Out(4)]),
    host("getuid", libc::SYS_getuid, &[]),
    host("setfsgid", libc::SYS_setfsgid, &[Int]),
    host("setfsuid", libc::SYS_setfsuid, &[Int]),
    host("setgid", libc::SYS_setgid, &[Int]),
    own("setgroups", process::setgroups, &[Int, Pointer]),
    host("setregid", libc::SYS_setregid, &[Int, Int]),
    host("setresgid", libc::SYS_setresgid, &[Int, Int, Int]),
    host("setresuid", libc::SYS_setresuid, &[Int, Int, Int]),
    host("setreuid", libc::SYS_setreuid, &[Int, Int]),
    host("setuid", libc::SYS_setuid, &[Int]),

    // Signals
    host("kill", libc::SYS_kill, &[Int, Signal]),
    host("pidfd_send_signal", libc::SYS_pidfd_send_signal, &[Fd, Signal, Native(128), Hex]),
    own("rt_sigaction", signal::rt_sigaction, &[Signal, Pointer, Pointer, Size]),
    own("rt_sigpending", signal::rt_sigpending, &[Pointer, Size]),
    own("rt_sigprocmask", signal::rt_sigprocmask, &[Int, Pointer, Pointer, Size]),
    host("rt_sigqueueinfo", libc::SYS_rt_sigqueueinfo, &[Int, Signal, Native(128)]),
    own("rt_sigreturn", signal::rt_sigreturn, &[]),
    own("rt_sigsuspend", signal::rt_sigsuspend, &[Pointer, Size]).waits(),
    own("rt_sigtimedwait", signal::rt_sigtimedwait, &[Pointer, Pointer, Pointer, Size]).waits(),
    host("rt_tgsigqueueinfo", libc::SYS_rt_tgsigqueueinfo, &[Int, Int, Signal, Native(128)]),
    own("sigaltstack", signal::sigaltstack, &[Pointer, Pointer]),
    host("signalfd4", libc::SYS_signalfd4, &[Fd, Source(2), Size, OPEN]),
    host("tgkill", libc::SYS_tgkill, &[Int, Int, Signal]),
    host("tkill", libc::SYS_tkill, &[Int, Signal]),

    // Waiting for files
    host("epoll_create1", libc::SYS_epoll_create1, &[OPEN]),
    own("epoll_ctl", poll::epoll_ctl, &[Fd, Int, Fd, Pointer]),
    own("epoll_pwait", poll::epoll_pwait, &[Fd, Pointer, Int, Int, Pointer, Size]).waits(),
    own("epoll_pwait2", poll::epoll_pwait2, &[Fd, Pointer, Int, TIME, Pointer, Size]).waits(),
    host("eventfd2", libc::SYS_eventfd2, &[Uint, OPEN]),
    own("ppoll", poll::ppoll, &[Pointer, Uint, TIME, Pointer, Size]).waits(),
    own("pselect6", poll::pselect6, &[Int, Pointer, Pointer, Pointer, TIME, Pointer]).waits(),

    // Sockets
    host("bind", libc::SYS_bind, &[Fd, Source(2), Uint]),
    host("connect", libc::SYS_connect, &[Fd, Source(2), Uint]),
    host("getpeername", libc::SYS_getpeername, &[Fd, SinkAt(2), InOut(4)]),
    host("getsockname", libc::SYS_getsockname, &[Fd, SinkAt(2), InOut(4)]),
    host("getsockopt", libc::SYS_getsockopt, &[Fd, Int, Int, SinkAt(4), InOut(4)]),
    host("listen", libc::SYS_listen, &[Fd, Int]),
    host("recvfrom", libc::SYS_recvfrom, &[Fd, Sink(2), Size, Hex, SinkAt(5), InOut(4)]),
    own("recvmmsg", socket::recvmmsg, &[Fd, Pointer, Uint, Hex, TIME]),
    own("recvmsg", socket::recvmsg, &[Fd, Pointer, Hex]),
    own("sendmmsg", socket::sendmmsg, &[Fd, Pointer, Uint, Hex]),
    own("sendmsg", socket::sendmsg, &[Fd, Pointer, Hex]),
    host("sendto", libc::SYS_sendto, &[Fd, Source(2), Size, Hex, Source(5), Uint]),
    own("setsockopt", socket::setsockopt, &[Fd, Int, Int, Pointer, Uint]),
    host("shutdown", libc::SYS_shutdown, &[Fd, Int]),
    host("socket", libc::SYS_socket, &[Int, Hex, Int]),
    host("socketpair", libc::SYS_socketpair, &[Int, Hex, Int, Out(8)]),

    // Time
    host("clock_getres", libc::SYS_clock_getres, &[Int, Out(16)]),
    host("clock_gettime", libc::SYS_clock_gettime, &[Int, Out(16)]),
    host("clock_nanosleep", libc::SYS_clock_nanosleep, &[Int, Int, TIME, Out(16)]).waits(),
    host("clock_settime", libc::SYS_clock_settime, &[Int, TIME]),
    host("getitimer", libc::SYS_getitimer, &[Int, Native(32)]),
    host("gettimeofday", libc::SYS_gettimeofday, &[Native(16), Native(8)]),
    host("nanosleep", libc::SYS_nanosleep, &[TIME, Out(16)]).waits(),
    host("setitimer", libc::SYS_setitimer, &[Int, Native(32), Native(32)]),
    host("timer_create", libc::SYS_timer_create, &[Int, Native(64), Out(4)]),
    host("timer_delete", libc::SYS_timer_delete, &[Int]),
    host("timer_getoverrun", libc::SYS_timer_getoverrun, &[Int]),
    host("timer_gettime", libc::SYS_timer_gettime, &[Int, Out(32)]),
    host("timer_settime", libc::SYS_timer_settime, &[Int, Hex, TIMER, Out(32)]),
    host("timerfd_create", libc::SYS_timerfd_create, &[Int, OPEN]),
    host("timerfd_gettime", libc::SYS_timerfd_gettime, &[Fd, Out(32)]),
    host("timerfd_settime", libc::SYS_timerfd_settime, &[Fd, Hex, TIMER, Out(32)]),
    own("times", process::times, &[Pointer]),

    // The system
    host("getcpu", libc::SYS_getcpu, &[Out(4), Out(4)]),
    host("getrandom", libc::SYS_getrandom, &[Sink(1), Size, Hex]),
    own("riscv_flush_icache", system::riscv_flush_icache, &[Pointer, Pointer, Hex]),
    own("riscv_hwprobe", system::riscv_hwprobe, &[Pointer, Size, Size, Pointer, Hex]),
    host("setdomainname", libc::SYS_setdomainname, &[Source(1), Size]),
    host("sethostname", libc::SYS_sethostname, &[Source(1), Size]),
    own("sysinfo", system::sysinfo, &[Pointer]),
    host("syslog", libc::SYS_syslog, &[Int, Sink(2), Int]),
    own("uname", system::uname, &[Pointer]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Width;

    #[test]
    fn arguments_fit_the_registers_and_lengths_are_arguments() {
        for syscall in TABLE {
            for width in [Width::W32, Width::W64] {
                let registers: usize = syscall.args.iter().map(|kind| kind.registers(width)).sum();
                assert!(registers <= 6, "{}", syscall.name);
            }
            for kind in syscall.args {
                if let Source(index) | Sink(index) | SinkAt(index) = kind {
                    assert!(usize::from(*index) < syscall.args.len(), "{}", syscall.name);
                }
            }
        }
    }
}
