//! Compare-and-swap of sixteen bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Compares two words with `expected`, replaces them by `new` if they are equal, and returns the old ones.
///
/// Hosts without such an instruction make the exchange atomic with others of its kind only.
///
/// # Safety
///
/// `place` must be aligned to 16 bytes, readable and writable, and accessed by atomic operations only.
pub(super) unsafe fn compare_exchange(
    place: *mut u64,
    expected: [u64; 2],
    new: [u64; 2],
) -> [u64; 2] {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("cmpxchg16b") {
        let [mut low, mut high] = expected;
        // SAFETY: the instruction exists, and `place` is as the caller promises. RBX, which the compiler keeps for
        // itself, has its value back afterwards; all other registers are declared.
        unsafe {
            std::arch::asm!(
                "xchg rsi, rbx",
                "lock cmpxchg16b [rdi]",
                "mov rbx, rsi",
                in("rdi") place,
                inout("rsi") new[0] => _,
                in("rcx") new[1],
                inout("rax") low,
                inout("rdx") high,
                options(nostack),
            );
        }
        return [low, high];
    }
    static LOCK: Mutex<()> = Mutex::new(());
    let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the caller's promise.
    let halves = unsafe { [AtomicU64::from_ptr(place), AtomicU64::from_ptr(place.add(1))] };
    let old = halves.map(|half| half.load(Ordering::SeqCst));
    if old == expected {
        halves.iter().zip(new).for_each(|(half, new)| half.store(new, Ordering::SeqCst));
    }
    old
}
