//! Running an operation that copies data, with its progress shown.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cairn_block::graph::{Graph, Policy};
use cairn_block::options::CacheMode;
use clap::Args;

use super::args::{DryRunArgs, ObjectArgs, ProgressArgs, QuietArgs, cache_or};
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

/// Arguments of the commands that rewrite an image in place.
#[derive(Args, Debug)]
pub(super) struct RewriteArgs {
    /// Cache mode of the image (default: writeback)
    #[arg(short = 't', long, value_name = "MODE")]
    cache: Option<String>,
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    quiet: QuietArgs,
    #[command(flatten)]
    objects: ObjectArgs,
}

impl RewriteArgs {
    /// A graph with the objects that the image needs; see [`ObjectArgs::graph`].
    pub(super) fn graph(&self, policy: &Policy) -> Result<Arc<Graph>> {
        self.objects.graph(policy)
    }

    /// The cache mode of the image.
    pub(super) fn cache(&self) -> Result<CacheMode> {
        cache_or(self.cache.as_deref(), CacheMode::Writeback)
    }

    /// Nothing is to be changed.
    pub(super) fn is_rehearsal(&self) -> bool {
        self.dry_run.dry_run
    }

    /// Runs the command, and prints what that returns. Returns the exit code.
    pub(super) fn run(
        &self,
        operation: impl AsyncFnOnce(&dyn Notice) -> Result<String>,
    ) -> Result<u8> {
        self.show(|transfer| transfer.run(|notice| operation(notice)))
    }

    /// The same for an operation that looks at `stop`; see [`Transfer::run_to_stop`].
    pub(super) fn run_to_stop(
        &self,
        stop: &AtomicBool,
        operation: impl AsyncFnOnce(&dyn Notice) -> Result<String>,
    ) -> Result<u8> {
        self.show(|transfer| transfer.run_to_stop(stop, |notice| operation(notice)))
    }

    fn show(&self, run: impl FnOnce(&Transfer) -> Result<String>) -> Result<u8> {
        let transfer = Transfer::start(&self.progress, &self.quiet)?;
        let told = run(&transfer);
        transfer.finish();
        self.quiet.print(&told?)?;
        Ok(0)
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
