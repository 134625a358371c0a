//! Messages, the trace of system calls, and the logs of `-d`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use bitflags::bitflags;
use cairn_tcg::{Block, Observer};

use crate::abi::{UserCpu, UserGuest};

bitflags! {
    /// What is logged.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct LogItems: u32 {
        /// Guest code of each block that is translated.
        const IN_ASM = 1 << 0;
        /// Its micro-operations.
        const OP = 1 << 1;
        /// Each block that is entered.
        const EXEC = 1 << 2;
        /// Registers before each block.
        const CPU = 1 << 3;
        /// Mappings of the program when it has been loaded.
        const PAGE = 1 << 4;
        /// System calls.
        const STRACE = 1 << 5;
        /// What is not supported.
        const UNIMP = 1 << 6;
    }
}

/// Names of items and what they are, for `-d help`.
pub(crate) const ITEMS: [(&str, LogItems, &str); 7] = [
    ("in_asm", LogItems::IN_ASM, "guest code of each block that is translated"),
    ("op", LogItems::OP, "its micro-operations"),
    ("exec", LogItems::EXEC, "each block that is entered"),
    ("cpu", LogItems::CPU, "registers before each block"),
    ("page", LogItems::PAGE, "mappings of the program once it is loaded"),
    ("strace", LogItems::STRACE, "system calls"),
    ("unimp", LogItems::UNIMP, "system calls and requests that are not supported"),
];

/// Where messages go.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) items: LogItems,
    /// Else standard error.
    file: Option<File>,
}

impl Log {
    pub(crate) fn new(items: LogItems, file: Option<File>) -> Log {
        Log { items, file }
    }

    pub(crate) fn has(&self, item: LogItems) -> bool {
        self.items.intersects(item)
    }

    /// The descriptor of the log's file.
    pub(crate) fn descriptor(&self) -> Option<u32> {
        self.file.as_ref().and_then(|file| u32::try_from(file.as_raw_fd()).ok())
    }

    /// Whether this is the descriptor of the log's file.
    pub(crate) fn owns(&self, descriptor: i32) -> bool {
        self.descriptor().is_some_and(|own| i32::try_from(own) == Ok(descriptor))
    }

    /// Writes `text` at once, so that lines of several processes do not mix. Nobody can be told if that fails.
    pub(crate) fn write(&self, text: &str) {
        let _ = match &self.file {
            Some(file) => (&*file).write_all(text.as_bytes()),
            None => io::stderr().write_all(text.as_bytes()),
        };
    }

    /// Tells the user something, on standard error.
    #[allow(clippy::unused_self)]
    pub(crate) fn message(&self, text: &str) {
        let _ = io::stderr().write_all(format!("cairn-user: {text}\n").as_bytes());
    }
}

/// Writes the logs of `-d` that are about code.
pub(crate) struct LogObserver(Arc<Log>);

impl LogObserver {
    /// An observer, if something is to be logged.
    pub(crate) fn of<G: UserGuest>(log: &Arc<Log>) -> Option<Box<dyn Observer<G>>> {
        let items = LogItems::IN_ASM | LogItems::OP | LogItems::EXEC | LogItems::CPU;
        log.has(items).then(|| Box::new(LogObserver(log.clone())) as Box<dyn Observer<G>>)
    }
}

impl<G: UserGuest> Observer<G> for LogObserver {
    fn translated(&mut self, block: &Block) {
        if self.0.has(LogItems::IN_ASM) {
            let mut text = String::from("----------------\nIN:\n");
            let mut at = 0;
            while at < block.bytes.len() {
                let pc = block.key.pc + at as u64;
                let (insn, len) = G::disassemble(&block.bytes[at..], pc, block.key.mode);
                let _ = writeln!(text, "{pc:#010x}:  {insn}");
                at += len.max(1);
            }
            self.0.write(&text);
        }
        if self.0.has(LogItems::OP) {
            self.0.write(&format!("OP:\n{}\n", cairn_tcg::ir::listing::<G>(block)));
        }
    }

    fn entering(&mut self, block: &Block, cpu: &G::Cpu) {
        if self.0.has(LogItems::EXEC) {
            self.0.write(&format!("Trace: {:#018x}\n", block.key.pc));
        }
        if self.0.has(LogItems::CPU) {
            self.0.write(&cpu.describe());
        }
    }
}
