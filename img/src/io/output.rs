//! Where results and complaints go. Standard output is buffered as C programs buffer it, so that merged
//! output has the order that test suites expect: lines appear at once on a terminal, else when a prompt
//! is shown or the program ends.

use std::io::{self, BufWriter, IsTerminal as _, Write};

use parking_lot::Mutex;

use crate::error::{Error, Result};

/// Bytes that a pipe or file gets at once.
const BUFFER: usize = 4096;

/// Where results and complaints go. Commands and requests in the background share it.
pub(super) struct Output {
    state: Mutex<State>,
    at_once: bool,
    /// Nothing is shown.
    silent: bool,
}

struct State {
    writer: BufWriter<Box<dyn Write + Send>>,
    /// The first failure, which is reported at the end.
    error: Option<io::Error>,
}

impl Output {
    /// Standard output and standard error.
    pub(super) fn standard() -> Output {
        let stdout = io::stdout();
        Output::new(stdout.is_terminal(), false, Box::new(stdout))
    }

    /// Nowhere.
    pub(super) fn silent() -> Output {
        Output::new(false, true, Box::new(io::sink()))
    }

    fn new(at_once: bool, silent: bool, writer: Box<dyn Write + Send>) -> Output {
        let writer = BufWriter::with_capacity(BUFFER, writer);
        Output { state: Mutex::new(State { writer, error: None }), at_once, silent }
    }

    /// Prints a line on standard error.
    pub(super) fn complain(&self, text: &str) {
        if !self.silent {
            eprintln!("{text}");
        }
    }

    /// Prints `text` as it is.
    pub(super) fn print(&self, text: &str) {
        self.attempt(|writer| writer.write_all(text.as_bytes()));
        if self.at_once {
            self.flush();
        }
    }

    /// Prints `text` and ends the line.
    pub(super) fn line(&self, text: &str) {
        self.print(&format!("{text}\n"));
    }

    /// Writes out what is buffered.
    pub(super) fn flush(&self) {
        self.attempt(|writer| {
            writer.flush()?;
            // The system's handle buffers lines on its own.
            writer.get_mut().flush()
        });
    }

    fn attempt(&self, write: impl FnOnce(&mut BufWriter<Box<dyn Write + Send>>) -> io::Result<()>) {
        let mut state = self.state.lock();
        if state.error.is_none()
            && let Err(error) = write(&mut state.writer)
        {
            state.error = Some(error);
        }
    }

    /// Writes everything out; reports what could not be written.
    pub(super) fn finish(&self) -> Result<()> {
        self.flush();
        self.state.lock().error.take().map_or(Ok(()), |error| Err(Error::Stdout(error)))
    }
}
