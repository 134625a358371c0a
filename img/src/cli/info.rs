//! `info`: what an image is.

use cairn_block::engine::EngineConfig;
use cairn_block::graph::{Bounds, Policy};
use cairn_block::options::CacheMode;
use clap::Args;

use super::args::{
    FormatArgs, ObjectArgs, OutputArgs, OutputForm, ShareArgs, cache_or, print_with,
};
use crate::error::Result;
use crate::ops::info::{InfoRequest, info};
use crate::output::info::{human, json};
use crate::runtime;

const EXAMPLES: &str = "\
Examples:
  cairn-img info disk.qcow2
  cairn-img info --output=json --backing-chain overlay.qcow2
  cairn-img info -U running-guest.qcow2
  cairn-img info --untrusted --output=json upload.qcow2
  cairn-img info --limits -t none disk.qcow2";

/// Show format, sizes and backing file of an image (-U: of one in use)
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Info {
    #[command(flatten)]
    image: FormatArgs,
    /// Show the backing files as well, down to the base
    #[arg(short, long)]
    backing_chain: bool,
    /// Show the limits and alignments of requests, which depend on the cache mode
    #[arg(long)]
    limits: bool,
    /// Say whether the image is safe to use, although it may come from a stranger; --untrusted
    /// implies this
    #[arg(long)]
    safety: bool,
    /// Cache mode (default: writeback)
    #[arg(short = 't', long, value_name = "MODE")]
    cache: Option<String>,
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
    /// `strict` is what images are judged by.
    pub(super) fn run(self, policy: &Policy, strict: Policy) -> Result<u8> {
        let judge = (self.safety || policy.explicit_format).then_some(strict);
        let mut policy = policy.clone();
        if judge.is_some() {
            // What goes beyond the bounds is told, not refused. The chain costs, so it stays bounded.
            let chain_depth = policy.bounds.chain_depth;
            policy.bounds = Bounds { chain_depth, ..Bounds::default() };
        }
        let graph = self.objects.graph(&policy)?;
        let request = InfoRequest {
            image: self.image.image(self.file),
            force_share: self.share.force_share,
            backing_chain: self.backing_chain,
            cache: cache_or(self.cache.as_deref(), CacheMode::Writeback)?,
            limits: self.limits,
            judge,
        };
        let images = runtime::run(&EngineConfig::default(), info(&graph, &request))?;
        print_with(|out| match self.output.output {
            OutputForm::Human => human(&images, out),
            OutputForm::Json => json(&images, self.backing_chain, out),
        })?;
        Ok(0)
    }
}
