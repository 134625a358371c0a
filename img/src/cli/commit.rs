//! `commit`: write an overlay into its backing file.

use cairn_block::graph::Policy;
use cairn_block::options::CacheMode;
use clap::Args;

use super::args::{DryRunArgs, FormatArgs, ObjectArgs, ProgressArgs, QuietArgs, cache_or, size};
use super::transfer::Transfer;
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
    /// Cache mode (default: writeback)
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
    /// The overlay
    #[arg(value_name = "FILE")]
    file: String,
}

impl Commit {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        let graph = self.objects.graph(policy)?;
        let request = CommitRequest {
            image: self.image.image(self.file),
            keep: self.drop || self.base.is_some(),
            base: self.base,
            rate: self.rate.as_deref().map(|text| size("the rate", text)).transpose()?,
            cache: cache_or(self.cache.as_deref(), CacheMode::Writeback)?,
        };
        let transfer = Transfer::start(&self.progress, &self.quiet)?;
        let result = transfer.run(|notice| async {
            if self.dry_run.dry_run {
                return rehearse(&graph, &request).await;
            }
            commit(&graph, &request, notice).await.map(|()| "Image committed.".to_owned())
        });
        transfer.finish();
        self.quiet.print(&format!("{}\n", result?))?;
        Ok(0)
    }
}
