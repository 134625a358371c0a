//! `siginfo_t`: what a handler is told about a signal.

use cairn_tcg::{Fault, FaultKind};

use crate::abi::Width;
use crate::abi::layout::Writer;

/// Bytes of a `siginfo_t`, on all architectures.
pub(crate) const INFO_SIZE: usize = 128;

/// A `siginfo_t` as 64-bit architectures have it (`include/uapi/asm-generic/siginfo.h`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Info(pub(crate) [u8; INFO_SIZE]);

/// Codes of synchronous signals.
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRALN: i32 = 1;

impl Info {
    /// The signal of an instruction at `address` that did something wrong.
    pub(crate) fn of_instruction(number: i32, code: i32, address: u64) -> Info {
        let mut info = Info([0; INFO_SIZE]);
        info.0[0..4].copy_from_slice(&number.to_le_bytes());
        info.0[8..12].copy_from_slice(&code.to_le_bytes());
        info.0[16..24].copy_from_slice(&address.to_le_bytes());
        info
    }

    /// A signal that the process has sent to itself (`SI_USER`).
    pub(crate) fn sent_by_self(number: i32) -> Info {
        let mut info = Info([0; INFO_SIZE]);
        info.0[0..4].copy_from_slice(&number.to_le_bytes());
        info.0[16..20].copy_from_slice(&std::process::id().to_le_bytes());
        info
    }

    /// The signal that tells of a failed access.
    pub(crate) fn of_fault(fault: Fault) -> Info {
        let (number, code) = match fault.kind {
            FaultKind::Unmapped => (libc::SIGSEGV, SEGV_MAPERR),
            FaultKind::Protected => (libc::SIGSEGV, SEGV_ACCERR),
            FaultKind::Misaligned => (libc::SIGBUS, BUS_ADRALN),
        };
        Info::of_instruction(number, code, fault.address)
    }

    fn int(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.0[at..at + 4].try_into().unwrap_or_default())
    }

    fn long(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap_or_default())
    }

    pub(crate) fn number(&self) -> i32 {
        self.int(0)
    }

    pub(crate) fn code(&self) -> i32 {
        self.int(8)
    }

    /// The bytes as a guest of `width` reads them.
    pub(crate) fn encode(&self, width: Width) -> Vec<u8> {
        if width == Width::W64 {
            return self.0.to_vec();
        }
        let mut out = Writer::new(width);
        out.int(self.int(0)).int(self.int(4)).int(self.int(8));
        let code = self.code();
        match self.number() {
            libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP
                if code > 0 =>
            {
                out.long(self.long(16));
            }
            libc::SIGCHLD if code > 0 => {
                out.int(self.int(16)).int(self.int(20)).int(self.int(24));
                out.long(self.long(32)).long(self.long(40));
            }
            libc::SIGIO if code > 0 => {
                out.long(self.long(16)).int(self.int(24));
            }
            // Number and user of the sender, and a value.
            _ => {
                out.int(self.int(16)).int(self.int(20)).long(self.long(24));
            }
        }
        out.pad_to(INFO_SIZE);
        out.finish()
    }
}
