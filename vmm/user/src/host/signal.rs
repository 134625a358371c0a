//! Signals of the host: they are noted for the thread that gets them, and the guest's are made of them later.
//!
//! While guest code runs or a call waits, the host's signal mask is the guest's, so the kernel chooses the thread and
//! the moment. The handler notes the signal, stops the CPU, and leaves with everything blocked until the note has
//! been taken. `SIGSEGV` and `SIGBUS` are never blocked.
//!
//! `unsafe` rests on this: a thread's [`Inbox`] is registered by the thread itself, which takes that back before the inbox
//! is freed. Its notes are written by the handler on that thread only while the note's bit is clear, and read on
//! that thread only while it is set.

use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use cairn_tcg::Kick;

use super::call::{self, NEVER, Word};
use crate::errno::Errno;
use crate::signal::{INFO_SIZE, SignalSet};

/// Bytes of a signal set as the kernel has it.
const SET_SIZE: u64 = 8;
/// `SA_RESTORER` of x86-64 (`arch/x86/include/uapi/asm/signal.h`).
const SA_RESTORER: u64 = 0x0400_0000;

std::arch::global_asm!(
    ".global cairn_user_sigreturn",
    ".p2align 4",
    "cairn_user_sigreturn:",
    "mov eax, 15", // rt_sigreturn
    "syscall",
    "ud2",
);

unsafe extern "C" {
    fn cairn_user_sigreturn();
}

/// Signals that have come to a thread and that the guest has not been given yet.
pub(crate) struct Inbox {
    /// Not zero if something new is in it.
    pub(crate) news: AtomicU32,
    /// Bit `n - 1` for signal `n`.
    noted: AtomicU64,
    notes: UnsafeCell<[[u8; INFO_SIZE]; 64]>,
    kick: Kick,
}

thread_local! {
    static INBOX: Cell<*const Inbox> = const { Cell::new(ptr::null()) };
}

/// The inbox of this thread, registered as long as this lives.
pub(crate) struct Registered(NonNull<Inbox>);

impl Registered {
    /// Makes the inbox of this thread, which must not have one yet.
    pub(crate) fn new(kick: Kick) -> Registered {
        assert!(INBOX.get().is_null(), "one inbox a thread");
        let inbox = Box::new(Inbox {
            news: AtomicU32::new(0),
            noted: AtomicU64::new(0),
            notes: UnsafeCell::new([[0; INFO_SIZE]; 64]),
            kick,
        });
        let inbox = NonNull::from(Box::leak(inbox));
        INBOX.set(inbox.as_ptr());
        Registered(inbox)
    }
}

impl std::ops::Deref for Registered {
    type Target = Inbox;

    fn deref(&self) -> &Inbox {
        // SAFETY: the inbox lives as long as `self`.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        assert!(ptr::eq(INBOX.get(), self.0.as_ptr()), "the inbox of this thread");
        INBOX.set(ptr::null());
        // SAFETY: it was made by `new` from a box. The handler, which runs on this thread, does not know it any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl Inbox {
    /// The signals that are noted.
    pub(crate) fn noted(&self) -> SignalSet {
        SignalSet(self.noted.load(Ordering::Acquire))
    }

    /// Forgets everything, as a new process does.
    pub(crate) fn clear(&self) {
        self.noted.store(0, Ordering::Release);
        self.news.store(0, Ordering::Release);
    }

    /// Takes the note of signal `number`, which must be one of this thread's own.
    pub(crate) fn take(&self, number: i32) -> Option<[u8; INFO_SIZE]> {
        assert!(ptr::eq(INBOX.get(), self), "the inbox of this thread");
        let bit = SignalSet::of(number).0;
        if self.noted.load(Ordering::Acquire) & bit == 0 {
            return None;
        }
        // SAFETY: the bit is set, so the handler, which runs on this thread only, does not write (see above).
        let note = unsafe { (&(*self.notes.get()))[number as usize - 1] };
        self.noted.fetch_and(!bit, Ordering::AcqRel);
        Some(note)
    }
}

// SAFETY: the notes are accessed by one thread, as the module says and `take` asserts; the rest is atomic.
unsafe impl Sync for Inbox {}

/// What a signal does in the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// The default action.
    Default,
    /// Nothing.
    Ignore,
    /// It is noted. Calls that it interrupts are made again where the kernel can do that.
    Note {
        /// Whether they are.
        restart: bool,
    },
}

/// `struct sigaction` of the kernel on x86-64.
#[repr(C)]
#[derive(Default)]
struct KernelAction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// Sets what signal `number` does.
pub(crate) fn set_disposition(number: i32, disposition: Disposition) -> Result<(), Errno> {
    let action = match disposition {
        Disposition::Default => KernelAction::default(),
        Disposition::Ignore => KernelAction { handler: 1, ..KernelAction::default() },
        Disposition::Note { restart } => KernelAction {
            handler: on_signal as *const () as u64,
            flags: (libc::SA_SIGINFO | if restart { libc::SA_RESTART } else { 0 }) as u64
                | SA_RESTORER,
            restorer: cairn_user_sigreturn as *const () as u64,
            mask: !never_blocked(),
        },
    };
    // SAFETY: the action is valid, and its handler keeps to what a signal handler may do.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            number,
            &raw const action,
            ptr::null_mut::<KernelAction>(),
            SET_SIZE,
        )
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

/// Whether signal `number` is ignored.
pub(crate) fn is_ignored(number: i32) -> bool {
    let mut action = MaybeUninit::<KernelAction>::zeroed();
    // SAFETY: the kernel writes a whole action, or nothing; zeros are one.
    let action = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            number,
            ptr::null::<KernelAction>(),
            action.as_mut_ptr(),
            SET_SIZE,
        );
        action.assume_init()
    };
    action.handler == 1
}

/// Bits of the signals that the host never blocks.
fn never_blocked() -> u64 {
    SignalSet::of(libc::SIGSEGV).0 | SignalSet::of(libc::SIGBUS).0
}

/// Sets the signals that are blocked in this thread, and returns those that were.
pub(crate) fn set_mask(set: SignalSet) -> SignalSet {
    let set = (set.0 & !never_blocked()).to_ne_bytes();
    let mut old = [0; 8];
    let words = [
        Word::from(libc::SIG_SETMASK),
        Word::In(&set),
        Word::Out(&mut old),
        Word::Number(SET_SIZE),
    ];
    // It fails for invalid arguments only.
    let _ = call::call(&NEVER, libc::SYS_rt_sigprocmask, words);
    SignalSet(u64::from_ne_bytes(old))
}

/// Notes a signal for the guest.
extern "C" fn on_signal(
    number: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the pointer is null or that of an inbox that is registered.
    let inbox = unsafe { INBOX.get().as_ref() };
    // SAFETY: the kernel passes a valid siginfo_t.
    let synchronous = unsafe { (*info).si_code } > 0 && SignalSet(never_blocked()).contains(number);
    let Some(inbox) = inbox.filter(|_| !synchronous) else {
        // A fault of this program, or of an access that raced with a change of what is mapped: it happens again
        // with the default action, which ends the process.
        if synchronous {
            let _ = set_disposition(number, Disposition::Default);
        }
        return;
    };
    let bit = SignalSet::of(number).0;
    if inbox.noted.load(Ordering::Relaxed) & bit == 0 {
        // SAFETY: the bit is clear and this thread is in this handler, so nobody else uses the note. The kernel's
        // siginfo_t has INFO_SIZE bytes.
        unsafe {
            let note = &raw mut (*inbox.notes.get())[number as usize - 1];
            ptr::copy_nonoverlapping(info.cast::<u8>(), note.cast::<u8>(), INFO_SIZE);
        }
        inbox.noted.fetch_or(bit, Ordering::Release);
    }
    inbox.news.store(1, Ordering::Release);
    inbox.kick.kick();
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes the context that it resumes, whose signal mask has SET_SIZE bytes.
    unsafe {
        let mask = (&raw mut (*context).uc_sigmask).cast::<u64>();
        mask.write_unaligned(!never_blocked());
        let at = &mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize];
        if let Some(to) = call::interrupted(at.cast_unsigned()) {
            *at = to.cast_signed();
        }
    }
}
