//! `commit`: write an overlay into its backing file.

use cairn_block::graph::Policy;
use clap::Args;

use super::args::{FormatArgs, size};
use super::transfer::RewriteArgs;
use crate::error::Result;
use crate::ops::commit::{CommitRequest, commit, rehearse};

const EXAMPLES: &str = "\
The overlay is emptied when its data is safely in the backing file, unless -d or -b is given.

Examples:
  cairn-img commit -p overlay.qcow2
  cairn-img commit -b base.qcow2 top.qcow2";

/// Write what an overlay holds into its backing file
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Commit {
    #[command(flatten)]
    image: FormatArgs,
    /// Image of the chain to write to (default: the next one); implies -d
    #[arg(short, long, value_name = "FILE", allow_hyphen_values = true)]
    base: Option<String>,
    /// Do not empty the overlay
    #[arg(short, long)]
    drop: bool,
    /// Highest rate of writing, in bytes per second
    #[arg(short, long, value_name = "RATE", allow_hyphen_values = true)]
    rate: Option<String>,
    #[command(flatten)]
    rewrite: RewriteArgs,
    /// The overlay
    #[arg(value_name = "FILE")]
    file: String,
}

impl Commit {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        let graph = self.rewrite.graph(policy)?;
        let request = CommitRequest {
            image: self.image.image(self.file),
            keep: self.drop || self.base.is_some(),
            base: self.base,
            rate: self.rate.as_deref().map(|text| size("the rate", text)).transpose()?,
            cache: self.rewrite.cache()?,
        };
        self.rewrite.run(async |notice| {
            if self.rewrite.is_rehearsal() {
                return Ok(rehearse(&graph, &request).await? + "\n");
            }
            commit(&graph, &request, notice).await?;
            Ok("Image committed.\n".to_owned())
        })
    }
}
