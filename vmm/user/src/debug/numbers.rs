//! Signals by GDB's numbers (`include/gdb/signals.def` of GDB) and by those of Linux.

/// Signals from 1 on, in the order of Linux.
const NUMBERS: [u8; 31] = [
    1, 2, 3, 4, 5, 6, 10, 8, 9, 30, 11, 31, 13, 14, 15, 77, 20, 19, 17, 18, 21, 22, 16, 24, 25, 26,
    27, 28, 23, 32, 12,
];
/// A signal that GDB has no number for.
const UNKNOWN: u8 = 143;
/// Real-time signals 33 to 63 begin here; 32 and 64 have come later.
const REALTIME_33: u8 = 45;
const REALTIME_32: u8 = 77;
const REALTIME_64: u8 = 78;

/// GDB's number of a signal of Linux.
pub(crate) fn to_gdb(number: i32) -> u8 {
    match u8::try_from(number).unwrap_or(0) {
        // `SIGSTKFLT` has none.
        16 => UNKNOWN,
        number @ 1..=31 => NUMBERS[usize::from(number) - 1],
        32 => REALTIME_32,
        number @ 33..=63 => REALTIME_33 + (number - 33),
        64 => REALTIME_64,
        _ => UNKNOWN,
    }
}

/// The signal of Linux with GDB's number.
pub(crate) fn of_gdb(number: u8) -> Option<i32> {
    (1..=64).find(|signal| to_gdb(*signal) == number && number != UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_gdbs_and_come_back() {
        let known = [
            (libc::SIGSEGV, 11),
            (libc::SIGBUS, 10),
            (libc::SIGCHLD, 20),
            (libc::SIGUSR1, 30),
            (libc::SIGSYS, 12),
            (34, 46),
            (64, 78),
        ];
        for (linux, gdb) in known {
            assert_eq!(to_gdb(linux), gdb);
        }
        for signal in (1..=64).filter(|signal| *signal != libc::SIGSTKFLT) {
            assert_eq!(of_gdb(to_gdb(signal)), Some(signal));
        }
        assert_eq!(of_gdb(UNKNOWN), None);
    }
}
