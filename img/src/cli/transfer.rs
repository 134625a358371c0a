//! Running an operation that copies data, with its progress shown.

use std::sync::atomic::AtomicBool;

use super::args::{ProgressArgs, QuietArgs};
use crate::error::Result;
use crate::ops::convert::Notice;
use crate::progress::{Progress, Style};
use crate::runtime;

/// Least difference between two reports of progress, in percent.
const PROGRESS_STEP: f32 = 1.0;

/// Tells the user how far an operation is.
pub(super) struct Transfer {
    progress: Progress,
}

impl Transfer {
    /// Begins to show progress.
    pub(super) fn start(progress: &ProgressArgs, quiet: &QuietArgs) -> Result<Transfer> {
        Ok(Transfer::with_style(progress.style(quiet)?))
    }

    /// Begins to show progress in this style.
    pub(super) fn with_style(style: Style) -> Transfer {
        Transfer { progress: Progress::start(style, PROGRESS_STEP) }
    }

    /// Runs the operation to its end.
    pub(super) fn run<'a, T, F: Future<Output = Result<T>>>(
        &'a self,
        operation: impl FnOnce(&'a dyn Notice) -> F,
    ) -> Result<T> {
        let result = runtime::run_watched(operation(self), || self.progress.request_report())?;
        self.progress.complete();
        Ok(result)
    }

    /// Runs an operation that looks at `stop` to its end. A signal sets `stop`; a second one drops the
    /// operation.
    pub(super) fn run_to_stop<'a, T, F: Future<Output = Result<T>>>(
        &'a self,
        stop: &AtomicBool,
        operation: impl FnOnce(&'a dyn Notice) -> F,
    ) -> Result<T> {
        let report = || self.progress.request_report();
        let result = runtime::run_to_stop(operation(self), stop, report)?;
        self.progress.complete();
        Ok(result)
    }

    /// Ends the display.
    pub(super) fn finish(self) {
        self.progress.finish();
    }
}

impl Notice for Transfer {
    fn total(&self, bytes: u64) {
        self.progress.set_total(bytes);
    }

    fn copied(&self, bytes: u64) {
        self.progress.add(bytes);
    }

    fn salvaged(&self, message: &str) {
        eprintln!("warning: {message}");
    }
}
