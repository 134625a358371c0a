//! What reading and writing commands share: memory, flags about the report, failures.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cairn_block::IoBufMut;

use crate::cli::Program;
use crate::io::command::Fault;
use crate::io::flags::Flags;
use crate::io::output::Output;
use crate::io::report;
use crate::io::session::Session;

/// Byte that memory for reads is filled with, so that what a driver leaves alone can be seen.
const UNREAD: u8 = 0xab;
/// Byte that is written unless the user gives another.
pub(super) const PATTERN: u8 = 0xcd;
/// Distance of unaligned memory from an aligned address in bytes.
const MISALIGNMENT: usize = 16;

/// Memory for a request.
pub(super) fn memory(session: &Session, length: u64, fill: u8) -> IoBufMut {
    // Lengths are below 2 GiB, see `number`.
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let mut buffer = if session.misalign {
        IoBufMut::new(length + MISALIGNMENT).split_off(MISALIGNMENT)
    } else {
        IoBufMut::new(length)
    };
    buffer.fill(fill);
    buffer
}

/// Memory for a read.
pub(super) fn unread(session: &Session, length: u64) -> IoBufMut {
    memory(session, length, UNREAD)
}

/// How the end of a request is told.
#[derive(Clone)]
pub(super) struct Teller {
    program: Program,
    out: Arc<Output>,
    quiet: bool,
    machine: bool,
    dump: bool,
}

impl Teller {
    /// As the flags `-q`, `-C` and `-v` say.
    pub(super) fn new(session: &Session, flags: &Flags<'_>) -> Teller {
        Teller {
            program: session.program,
            out: Arc::clone(&session.out),
            quiet: flags.has('q'),
            machine: flags.has('C'),
            dump: flags.has('v'),
        }
    }

    /// Prints the statistics of a request that succeeded.
    pub(super) fn done(&self, operation: &str, offset: u64, count: u64, elapsed: Duration) {
        if !self.quiet {
            let machine = self.machine;
            self.out.print(&report::statistics(operation, offset, count, count, elapsed, machine));
        }
    }

    /// Prints the bytes that were read, if the user wants to see them.
    pub(super) fn dump(&self, bytes: &[u8], offset: u64) {
        if self.dump && !self.quiet {
            self.out.print(&report::dump(bytes, offset));
        }
    }

    /// Compares the bytes of `range`, which were read at `offset`, with `expected`; says so if they
    /// differ.
    pub(super) fn verify(&self, bytes: &[u8], expected: u8, offset: u64) -> Result<(), Fault> {
        if bytes.iter().all(|byte| *byte == expected) {
            return Ok(());
        }
        let count = bytes.len();
        self.out.line(&format!("Pattern verification failed at offset {offset}, {count} bytes"));
        Err(Fault::Shown)
    }

    /// Prints a fault of a request in the background.
    pub(super) fn fault(&self, fault: Fault) {
        if let Fault::Result(line) = fault {
            self.out.line(&line);
        }
    }

    /// The failure of `what`.
    pub(super) fn failure(&self, what: &str, error: &cairn_block::Error) -> Fault {
        failure(self.program, what, error)
    }
}

/// The failure of `what`: the line that scripts look for. Under our own name the program also says
/// what happened where.
pub(super) fn failure(program: Program, what: &str, error: &cairn_block::Error) -> Fault {
    if program.is_own() {
        eprintln!("{}: {error}", program.name());
    }
    Fault::Result(format!("{what} failed: {}", system_text(error.errno())))
}

/// The system's words for an error number.
pub(super) fn system_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
