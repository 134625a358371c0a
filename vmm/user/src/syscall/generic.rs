//! The numbers of the generic system call table (`include/uapi/asm-generic/unistd.h`), and RISC-V's own.

use std::sync::LazyLock;

use super::Numbers;

/// The calls of 64-bit guests.
pub(crate) fn numbers64() -> &'static Numbers {
    static NUMBERS: LazyLock<Numbers> =
        LazyLock::new(|| Numbers::new(COMMON.iter().chain(ONLY_64)));
    &NUMBERS
}

/// The calls of 32-bit guests with 64-bit times.
pub(crate) fn numbers32() -> &'static Numbers {
    static NUMBERS: LazyLock<Numbers> =
        LazyLock::new(|| Numbers::new(COMMON.iter().chain(ONLY_32)));
    &NUMBERS
}

#[rustfmt::skip]
const COMMON: &[(u16, &str)] = &[
    (5, "setxattr"), (6, "lsetxattr"), (7, "fsetxattr"), (8, "getxattr"), (9, "lgetxattr"), (10, "fgetxattr"),
    (11, "listxattr"), (12, "llistxattr"), (13, "flistxattr"), (14, "removexattr"), (15, "lremovexattr"),
    (16, "fremovexattr"), (17, "getcwd"), (19, "eventfd2"), (20, "epoll_create1"), (21, "epoll_ctl"),
    (22, "epoll_pwait"), (23, "dup"), (24, "dup3"), (25, "fcntl"), (26, "inotify_init1"),
    (27, "inotify_add_watch"), (28, "inotify_rm_watch"), (29, "ioctl"), (30, "ioprio_set"), (31, "ioprio_get"),
    (32, "flock"), (33, "mknodat"), (34, "mkdirat"), (35, "unlinkat"), (36, "symlinkat"), (37, "linkat"),
    (39, "umount2"), (40, "mount"), (41, "pivot_root"), (43, "statfs"), (44, "fstatfs"), (45, "truncate"),
    (46, "ftruncate"), (47, "fallocate"), (48, "faccessat"), (49, "chdir"), (50, "fchdir"), (51, "chroot"),
    (52, "fchmod"), (53, "fchmodat"), (54, "fchownat"), (55, "fchown"), (56, "openat"), (57, "close"),
    (58, "vhangup"), (59, "pipe2"), (61, "getdents64"), (63, "read"), (64, "write"), (65, "readv"),
    (66, "writev"), (67, "pread64"), (68, "pwrite64"), (69, "preadv"), (70, "pwritev"), (71, "sendfile"),
    (74, "signalfd4"), (76, "splice"), (77, "tee"), (78, "readlinkat"), (81, "sync"), (82, "fsync"),
    (83, "fdatasync"), (84, "sync_file_range"), (85, "timerfd_create"), (89, "acct"), (90, "capget"),
    (91, "capset"), (92, "personality"), (93, "exit"), (94, "exit_group"), (95, "waitid"),
    (96, "set_tid_address"), (97, "unshare"), (99, "set_robust_list"), (100, "get_robust_list"),
    (102, "getitimer"), (103, "setitimer"), (107, "timer_create"), (109, "timer_getoverrun"),
    (111, "timer_delete"), (116, "syslog"), (118, "sched_setparam"), (119, "sched_setscheduler"),
    (120, "sched_getscheduler"), (121, "sched_getparam"), (122, "sched_setaffinity"),
    (123, "sched_getaffinity"), (124, "sched_yield"), (125, "sched_get_priority_max"),
    (126, "sched_get_priority_min"), (129, "kill"), (130, "tkill"), (131, "tgkill"), (132, "sigaltstack"),
    (133, "rt_sigsuspend"), (134, "rt_sigaction"), (135, "rt_sigprocmask"), (136, "rt_sigpending"),
    (138, "rt_sigqueueinfo"), (139, "rt_sigreturn"), (140, "setpriority"), (141, "getpriority"),
    (143, "setregid"), (144, "setgid"), (145, "setreuid"), (146, "setuid"), (147, "setresuid"),
    (148, "getresuid"), (149, "setresgid"), (150, "getresgid"), (151, "setfsuid"), (152, "setfsgid"),
    (153, "times"), (154, "setpgid"), (155, "getpgid"), (156, "getsid"), (157, "setsid"), (158, "getgroups"),
    (159, "setgroups"), (160, "uname"), (161, "sethostname"), (162, "setdomainname"), (165, "getrusage"),
    (166, "umask"), (167, "prctl"), (168, "getcpu"), (169, "gettimeofday"), (172, "getpid"), (173, "getppid"),
    (174, "getuid"), (175, "geteuid"), (176, "getgid"), (177, "getegid"), (178, "gettid"), (179, "sysinfo"),
    (198, "socket"), (199, "socketpair"), (200, "bind"), (201, "listen"), (202, "accept"), (203, "connect"),
    (204, "getsockname"), (205, "getpeername"), (206, "sendto"), (207, "recvfrom"), (208, "setsockopt"),
    (209, "getsockopt"), (210, "shutdown"), (211, "sendmsg"), (212, "recvmsg"), (213, "readahead"),
    (214, "brk"), (215, "munmap"), (216, "mremap"), (220, "clone"), (221, "execve"), (223, "fadvise64"),
    (226, "mprotect"), (227, "msync"), (228, "mlock"), (229, "munlock"), (230, "mlockall"),
    (231, "munlockall"), (232, "mincore"), (233, "madvise"), (240, "rt_tgsigqueueinfo"), (242, "accept4"),
    (258, "riscv_hwprobe"), (259, "riscv_flush_icache"), (261, "prlimit64"), (267, "syncfs"), (268, "setns"),
    (269, "sendmmsg"), (274, "sched_setattr"), (275, "sched_getattr"), (276, "renameat2"), (278, "getrandom"),
    (279, "memfd_create"), (281, "execveat"), (283, "membarrier"), (284, "mlock2"),
    (285, "copy_file_range"), (286, "preadv2"), (287, "pwritev2"), (291, "statx"), (424, "pidfd_send_signal"),
    (425, "io_uring_setup"), (426, "io_uring_enter"), (427, "io_uring_register"),
    (434, "pidfd_open"), (435, "clone3"), (436, "close_range"), (437, "openat2"), (438, "pidfd_getfd"), (439, "faccessat2"),
    (441, "epoll_pwait2"), (452, "fchmodat2"),
];

#[rustfmt::skip]
const ONLY_64: &[(u16, &str)] = &[
    (62, "lseek"), (72, "pselect6"), (73, "ppoll"), (79, "newfstatat"), (80, "fstat"), (86, "timerfd_settime"),
    (87, "timerfd_gettime"), (88, "utimensat"), (98, "futex"), (101, "nanosleep"), (108, "timer_gettime"),
    (110, "timer_settime"), (112, "clock_settime"), (113, "clock_gettime"), (114, "clock_getres"),
    (115, "clock_nanosleep"), (127, "sched_rr_get_interval"), (137, "rt_sigtimedwait"), (163, "getrlimit"),
    (164, "setrlimit"), (222, "mmap"), (243, "recvmmsg"), (260, "wait4"),
];

#[rustfmt::skip]
const ONLY_32: &[(u16, &str)] = &[
    (62, "_llseek"), (222, "mmap2"), (260, "wait4"), (403, "clock_gettime"), (404, "clock_settime"),
    (406, "clock_getres"), (407, "clock_nanosleep"), (408, "timer_gettime"), (409, "timer_settime"),
    (410, "timerfd_gettime"), (411, "timerfd_settime"), (412, "utimensat"), (413, "pselect6"), (414, "ppoll"),
    (417, "recvmmsg"), (421, "rt_sigtimedwait"), (422, "futex"), (423, "sched_rr_get_interval"),
];

#[cfg(test)]
mod tests {
    use super::super::table;
    use super::*;

    #[test]
    fn every_name_has_a_call_and_every_number_one_name() {
        for list in [ONLY_64, ONLY_32] {
            let mut numbers = std::collections::BTreeSet::new();
            for (number, name) in COMMON.iter().chain(list) {
                assert!(table::find(name).is_some(), "{name} is in no table");
                assert!(numbers.insert(number), "{number} is there twice");
            }
        }
    }
}
