//! System calls of the host.
//!
//! A signal that comes between the last look at what is pending and the `syscall` instruction must not leave a thread
//! waiting in the kernel. So the look and the instruction are one stretch of assembly, and the signal handler
//! ([`super::signal`]) moves a thread that it finds in there to its end, where the call reports that it was
//! interrupted. The kernel's own restart of a call puts the thread back to the instruction, and so is caught as well.

use std::sync::atomic::AtomicU32;

use crate::errno::Errno;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("cairn-user runs on x86-64 hosts");

std::arch::global_asm!(
    // rdi: a word that is not zero once a signal is pending; rsi: number and six arguments.
    ".global cairn_user_syscall",
    ".global cairn_user_syscall_begin",
    ".global cairn_user_syscall_end",
    ".global cairn_user_syscall_interrupted",
    ".p2align 4",
    "cairn_user_syscall:",
    ".cfi_startproc",
    "mov rcx, rdi",
    "mov r11, rsi",
    "mov rax, [r11]",
    "mov rdi, [r11 + 8]",
    "mov rsi, [r11 + 16]",
    "mov rdx, [r11 + 24]",
    "mov r10, [r11 + 32]",
    "mov r8, [r11 + 40]",
    "mov r9, [r11 + 48]",
    "cairn_user_syscall_begin:",
    "cmp dword ptr [rcx], 0",
    "jne cairn_user_syscall_interrupted",
    "syscall",
    "cairn_user_syscall_end:",
    "ret",
    "cairn_user_syscall_interrupted:",
    "mov rax, -512",
    "ret",
    ".cfi_endproc",
);

unsafe extern "C" {
    fn cairn_user_syscall(pending: *const AtomicU32, words: *const [u64; 7]) -> i64;
    static cairn_user_syscall_begin: u8;
    static cairn_user_syscall_end: u8;
    static cairn_user_syscall_interrupted: u8;
}

/// Where a thread goes on that a signal finds at the instruction `at`, if that is before a call.
pub(super) fn interrupted(at: u64) -> Option<u64> {
    let [begin, end, interrupted] = [
        &raw const cairn_user_syscall_begin as u64,
        &raw const cairn_user_syscall_end as u64,
        &raw const cairn_user_syscall_interrupted as u64,
    ];
    (begin..end).contains(&at).then_some(interrupted)
}

/// An argument of a call.
pub(crate) enum Word<'a> {
    /// A number.
    Number(u64),
    /// Address of guest memory in the host, or an address that the kernel refuses. The kernel may read and write as
    /// much there as the call says: guest memory is only accessed by atomic operations and by the kernel.
    Guest(u64),
    /// Bytes that the kernel reads.
    In(&'a [u8]),
    /// Bytes that the kernel writes, at most as many.
    Out(&'a mut [u8]),
}

impl From<u64> for Word<'_> {
    fn from(value: u64) -> Self {
        Word::Number(value)
    }
}

impl From<i32> for Word<'_> {
    fn from(value: i32) -> Self {
        Word::Number(i64::from(value).cast_unsigned())
    }
}

/// Makes the call with this number; `pending` is the word that signals of this thread set.
///
/// Callers pass as [`Word::Number`] only what the kernel takes for a number in that place, and lengths that
/// fit the memory that goes with them. Nothing else keeps the kernel from writing elsewhere, so this is called by the
/// functions of [`crate::syscall`] and of this folder only.
pub(crate) fn call<const N: usize>(
    pending: &AtomicU32,
    number: libc::c_long,
    words: [Word<'_>; N],
) -> Result<u64, Errno> {
    let mut raw = [0; 7];
    raw[0] = number.cast_unsigned();
    for (raw, word) in raw[1..].iter_mut().zip(words) {
        *raw = match word {
            Word::Number(value) | Word::Guest(value) => value,
            Word::In(bytes) => bytes.as_ptr() as u64,
            Word::Out(bytes) => bytes.as_mut_ptr() as u64,
        };
    }
    // SAFETY: `pending` and `raw` are valid for the time of the call, which keeps to the C calling convention:
    // `syscall` clobbers rcx, r11 and rax only. What the kernel does with memory is as the documentation says.
    let result = unsafe { cairn_user_syscall(pending, &raw const raw) };
    if (-4095..0).contains(&result) {
        // The range is that of error numbers.
        return Err(Errno((-result) as i32));
    }
    Ok(result.cast_unsigned())
}

/// A word that is never set, for calls that need not be interrupted.
pub(crate) static NEVER: AtomicU32 = AtomicU32::new(0);
