//! Signals as the guest sees them.

pub(crate) mod deliver;
mod info;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::host::signal::{Disposition, set_disposition};

pub(crate) use info::{INFO_SIZE, Info};

/// Signals are numbered from 1 to this.
pub(crate) const LAST: i32 = 64;

/// A set of signals: bit `n - 1` for signal `n`, as the kernel has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SignalSet(pub(crate) u64);

impl SignalSet {
    pub(crate) const ALL: SignalSet = SignalSet(u64::MAX);

    /// The set of one signal, or of none if there is no such number.
    pub(crate) fn of(number: i32) -> SignalSet {
        SignalSet(if is_signal(number) { 1 << (number - 1) } else { 0 })
    }

    pub(crate) fn contains(self, number: i32) -> bool {
        self.0 & SignalSet::of(number).0 != 0
    }

    pub(crate) fn union(self, other: SignalSet) -> SignalSet {
        SignalSet(self.0 | other.0)
    }

    pub(crate) fn without(self, other: SignalSet) -> SignalSet {
        SignalSet(self.0 & !other.0)
    }

    /// The lowest number in it.
    pub(crate) fn first(self) -> Option<i32> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as i32 + 1)
    }

    /// What a program may block: all but the two that nothing stops.
    pub(crate) fn blockable(self) -> SignalSet {
        self.without(SignalSet::of(libc::SIGKILL).union(SignalSet::of(libc::SIGSTOP)))
    }
}

/// Whether there is a signal `number`.
pub(crate) fn is_signal(number: i32) -> bool {
    (1..=LAST).contains(&number)
}

/// What the guest wants a signal to do: its `struct sigaction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Action {
    /// Address of the handler, [`Action::DEFAULT`] or [`Action::IGNORE`].
    pub(crate) handler: u64,
    /// `SA_*`, which have the same values for all guests.
    pub(crate) flags: u64,
    /// Signals that are blocked while the handler runs.
    pub(crate) mask: SignalSet,
}

impl Action {
    pub(crate) const DEFAULT: u64 = 0;
    pub(crate) const IGNORE: u64 = 1;

    /// Whether the flag of the C library's name is set.
    pub(crate) fn has(&self, flag: i32) -> bool {
        self.flags & u64::from(flag.cast_unsigned()) != 0
    }
}

/// The actions of a process, by number - 1.
#[derive(Debug)]
pub(crate) struct Actions(Mutex<[Action; LAST as usize]>);

impl Actions {
    pub(crate) fn new() -> Actions {
        Actions(Mutex::new([Action::default(); LAST as usize]))
    }

    /// The table. It is whole at all times, so a panic elsewhere does no harm.
    pub(crate) fn lock(&self) -> MutexGuard<'_, [Action; LAST as usize]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets signals that are handled do what they do by default.
    pub(crate) fn forget_handlers(&self) {
        for (number, action) in (1..).zip(self.lock().iter_mut()) {
            if action.handler > Action::IGNORE {
                *action = Action::default();
                // SIGSEGV and SIGBUS stay with us; others exist, as they were handled.
                if !matches!(number, libc::SIGSEGV | libc::SIGBUS) {
                    let _ = set_disposition(number, Disposition::Default);
                }
            }
        }
    }

    /// The action of signal `number`, which exists.
    pub(crate) fn of(&self, number: i32) -> Action {
        self.lock()[number as usize - 1]
    }
}

/// The stack that handlers run on if they ask for it (`sigaltstack`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AltStack {
    pub(crate) start: u64,
    pub(crate) size: u64,
    /// `SS_AUTODISARM` or nothing.
    pub(crate) flags: u32,
}

impl AltStack {
    pub(crate) const ON_STACK: u32 = 1;
    pub(crate) const DISABLE: u32 = 2;
    pub(crate) const AUTODISARM: u32 = 1 << 31;

    /// Whether `sp` is on it.
    pub(crate) fn holds(&self, sp: u64) -> bool {
        self.flags & AltStack::AUTODISARM == 0 && sp > self.start && sp - self.start <= self.size
    }

    /// `ss_flags` as the guest reads it.
    pub(crate) fn status(&self, sp: u64) -> u32 {
        if self.size == 0 {
            AltStack::DISABLE
        } else {
            self.flags | if self.holds(sp) { AltStack::ON_STACK } else { 0 }
        }
    }
}

/// The state of signals of a thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct ThreadSignals {
    /// What is blocked.
    pub(crate) mask: SignalSet,
    /// What is blocked in place of that until the call that waits with it is over (`ppoll`, `sigsuspend` …).
    pub(crate) waiting_mask: Option<SignalSet>,
    pub(crate) stack: AltStack,
}

/// What a signal does if the program has not said anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DefaultAction {
    Terminate,
    Ignore,
    Stop,
}

/// The default action of signal `number` (signal(7)).
pub(crate) fn default_action(number: i32) -> DefaultAction {
    match number {
        libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT => DefaultAction::Ignore,
        libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => DefaultAction::Stop,
        _ => DefaultAction::Terminate,
    }
}

/// The name of signal `number`, as programs write it.
pub(crate) fn name(number: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    match usize::try_from(number - 1).ok().and_then(|index| NAMES.get(index)) {
        Some(name) => format!("SIG{name}"),
        None if number >= 34 => format!("SIGRT{}", number - 32),
        None => number.to_string(),
    }
}
