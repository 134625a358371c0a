//! `compact`: make an image as small as its content.

use std::sync::atomic::AtomicBool;

use cairn_block::graph::Policy;
use cairn_block::options::CacheMode;
use clap::Args;

use super::args::{
    DryRunArgs, FormatArgs, ObjectArgs, OutputArgs, OutputForm, ProgressArgs, QuietArgs, cache_or,
};
use super::transfer::Transfer;
use crate::error::Result;
use crate::ops::compact::{compact, rehearse};
use crate::output::compact::{human, json};

const NOTES: &str = "\
Zeroes that are stored are given up; then clusters move from the end of the file into holes, and the
file is cut. Snapshots, bitmaps and compressed clusters move, too. The image is valid at any moment:
a signal ends the work early, and a power cut leaves at worst clusters that `check -r leaks` frees.
In a raw image zeroes become holes.

Examples:
  cairn-img compact -p disk.qcow2
  cairn-img compact --dry-run disk.qcow2";

/// Make an image take as little storage as its content needs, in place
#[derive(Args, Debug)]
#[command(after_help = NOTES)]
pub(super) struct Compact {
    #[command(flatten)]
    image: FormatArgs,
    /// Cache mode (default: writeback)
    #[arg(short = 't', long, value_name = "MODE")]
    cache: Option<String>,
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    quiet: QuietArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    /// The image
    #[arg(value_name = "FILE")]
    file: String,
}

impl Compact {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        let graph = self.objects.graph(policy)?;
        let cache = cache_or(self.cache.as_deref(), CacheMode::Writeback)?;
        let spec = self.image.image(self.file.clone());
        let transfer = Transfer::start(&self.progress, &self.quiet)?;
        let told = if self.dry_run.dry_run {
            transfer.run(|notice| rehearse(&graph, &spec, notice)).map(|zeroes| {
                format!(
                    "Would give up {zeroes} bytes of zeroes in '{}' and close the holes of the file.\n",
                    self.file
                )
            })
        } else {
            let stop = AtomicBool::new(false);
            let compacted =
                transfer.run_to_stop(&stop, |notice| compact(&graph, &spec, cache, notice, &stop));
            compacted.map(|compacted| match self.output.output {
                OutputForm::Human => human(&self.file, &compacted),
                OutputForm::Json => json(&self.file, &compacted),
            })
        };
        transfer.finish();
        self.quiet.print(&told?)?;
        Ok(0)
    }
}
