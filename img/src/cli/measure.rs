//! `measure`: how big a new image would be.

use cairn_block::engine::EngineConfig;
use cairn_block::graph::Policy;
use cairn_block::options::{CacheMode, join_lists, wants_help};
use clap::Args;

use super::args::{
    FormatArgs, ObjectArgs, OutputArgs, OutputForm, ShareArgs, print, size, snapshot_key,
};
use crate::error::{Error, Result};
use crate::ops::image::Access;
use crate::ops::measure::{Subject, measure};
use crate::output::measure::{human, json};
use crate::runtime;

const EXAMPLES: &str = "\
Examples:
  cairn-img measure -O qcow2 disk.raw
  cairn-img measure -O qcow2 --size 20G --output=json";

/// Compute the size that a new image would need
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Measure {
    /// Format of the new image (default: raw)
    #[arg(short = 'O', long, value_name = "FMT", allow_hyphen_values = true)]
    target_format: Option<String>,
    /// Options of the new image; may be repeated; `-o help` lists them
    #[arg(short, long, value_name = "KEY=VALUE,…", allow_hyphen_values = true)]
    options: Vec<String>,
    /// Measure an empty image with a virtual disk of this size
    #[arg(short, long, value_name = "SIZE", conflicts_with = "file", allow_hyphen_values = true)]
    size: Option<String>,
    #[command(flatten)]
    image: FormatArgs,
    /// Measure an internal snapshot: its ID or name, or snapshot.id=…,snapshot.name=…
    #[arg(short = 'l', long, value_name = "SNAPSHOT", allow_hyphen_values = true)]
    snapshot: Option<String>,
    #[command(flatten)]
    share: ShareArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    /// Image that would be converted
    #[arg(value_name = "FILE")]
    file: Option<String>,
}

impl Measure {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        let graph = self.objects.graph(policy)?;
        let format = self.target_format.as_deref().unwrap_or("raw");
        let options = join_lists(&self.options)?;
        if wants_help(&options) {
            return super::create::print_option_help(format, None);
        }
        let snapshot = self.snapshot.as_deref().map(snapshot_key).transpose()?;
        let access = Access::read(CacheMode::Writeback, self.share.force_share);
        let result = runtime::run(&EngineConfig::default(), async {
            match (self.size, self.file) {
                (Some(text), None) => {
                    let subject = Subject::Size(size("the size", &text)?);
                    measure(format, &options, subject).await
                }
                (None, Some(file)) => {
                    let image = self.image.image(file).open(&graph, &access).await?;
                    if let Some(snapshot) = snapshot {
                        let shown = graph.show_snapshot(&image.node(), snapshot.clone()).await;
                        shown.map_err(|error| {
                            error.context(format!("cannot read snapshot '{snapshot}'"))
                        })?;
                    }
                    let measured = measure(format, &options, Subject::Image(&image)).await;
                    image.close().await?;
                    measured
                }
                _ => Err(Error::Usage("give either an image or --size".to_owned())),
            }
        })?;
        print(&match self.output.output {
            OutputForm::Human => human(&result),
            OutputForm::Json => json(&result),
        })?;
        Ok(0)
    }
}
