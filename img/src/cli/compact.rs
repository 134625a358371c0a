//! `compact`: make an image as small as its content.

use std::sync::atomic::AtomicBool;

use cairn_block::graph::Policy;
use clap::Args;

use super::args::{FormatArgs, OutputArgs, OutputForm};
use super::transfer::RewriteArgs;
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
    #[command(flatten)]
    rewrite: RewriteArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// The image
    #[arg(value_name = "FILE")]
    file: String,
}

impl Compact {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        let graph = self.rewrite.graph(policy)?;
        let cache = self.rewrite.cache()?;
        let spec = self.image.image(self.file.clone());
        if self.rewrite.is_rehearsal() {
            return self.rewrite.run(async |notice| {
                let zeroes = rehearse(&graph, &spec, notice).await?;
                Ok(format!(
                    "Would give up {zeroes} bytes of zeroes in '{}' and close the holes of the file.\n",
                    self.file
                ))
            });
        }
        let stop = AtomicBool::new(false);
        self.rewrite.run_to_stop(&stop, async |notice| {
            let compacted = compact(&graph, &spec, cache, notice, &stop).await?;
            Ok(match self.output.output {
                OutputForm::Human => human(&self.file, &compacted),
                OutputForm::Json => json(&self.file, &compacted),
            })
        })
    }
}
