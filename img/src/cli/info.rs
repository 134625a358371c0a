//! `info`: what an image is.

use cairn_block::engine::EngineConfig;
use clap::Args;

use super::args::{FormatArgs, ObjectArgs, OutputArgs, OutputForm, ShareArgs, print};
use crate::error::Result;
use crate::output::info::{human, json};
use crate::{ops, runtime};

const EXAMPLES: &str = "\
Examples:
  cairn-img info disk.qcow2
  cairn-img info --output=json --backing-chain overlay.qcow2
  cairn-img info -U running-guest.qcow2";

/// Show format, sizes and backing file of an image (-U: of one in use)
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Info {
    #[command(flatten)]
    image: FormatArgs,
    /// Show the backing files as well, down to the base
    #[arg(short, long)]
    backing_chain: bool,
    #[command(flatten)]
    share: ShareArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    /// The image
    #[arg(value_name = "FILE")]
    file: String,
}

impl Info {
    pub(super) fn run(self) -> Result<u8> {
        let graph = self.objects.graph()?;
        let spec = self.image.image(self.file);
        let images = runtime::run(
            &EngineConfig::default(),
            ops::info::info(&graph, spec, self.share.force_share, self.backing_chain),
        )?;
        print(&match self.output.output {
            OutputForm::Human => human(&images),
            OutputForm::Json => json(&images, self.backing_chain),
        })?;
        Ok(0)
    }
}
