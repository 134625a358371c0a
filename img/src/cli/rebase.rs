//! `rebase`: give an overlay another backing file.

use cairn_block::graph::Policy;
use cairn_block::options::CacheMode;
use clap::Args;

use super::args::{FormatArgs, ShareArgs, cache_or};
use super::transfer::RewriteArgs;
use crate::error::{Error, Result};
use crate::ops::rebase::{NewBacking, RebaseRequest, rebase, rehearse};

const EXAMPLES: &str = "\
An overlay shows the same before and after: what differs between the backing files is copied into
it. With -u only the name changes, for a backing file that was moved or renamed.

Examples:
  cairn-img rebase -p -b base.qcow2 -F qcow2 top.qcow2
  cairn-img rebase -b '' standalone.qcow2
  cairn-img rebase -u -b /new/place/base.qcow2 -F qcow2 top.qcow2";

/// Change the backing file of an image
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Rebase {
    #[command(flatten)]
    image: FormatArgs,
    /// The new backing file; '' for none
    #[arg(short = 'b', long, value_name = "FILE", allow_hyphen_values = true)]
    backing: Option<String>,
    /// Format of the new backing file
    #[arg(short = 'F', long, value_name = "FMT", allow_hyphen_values = true)]
    backing_format: Option<String>,
    /// Change only the name in the image; the backing files are not opened
    #[arg(short = 'u', long)]
    backing_unsafe: bool,
    /// Compress what is copied
    #[arg(short, long)]
    compress: bool,
    /// Cache mode of the new backing file (default: writeback)
    #[arg(short = 'T', long, value_name = "MODE")]
    backing_cache: Option<String>,
    #[command(flatten)]
    share: ShareArgs,
    #[command(flatten)]
    rewrite: RewriteArgs,
    /// The overlay
    #[arg(value_name = "FILE")]
    file: String,
}

impl Rebase {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        let graph = self.rewrite.graph(policy)?;
        if self.backing.is_none() && !self.backing_unsafe {
            return Err(Error::Usage(
                "give the new backing file with -b, or -u to change the name only".to_owned(),
            ));
        }
        let format = self.backing_format;
        let request = RebaseRequest {
            image: self.image.image(self.file),
            cache: self.rewrite.cache()?,
            backing: self
                .backing
                .filter(|file| !file.is_empty())
                .map(|file| NewBacking { file, format }),
            backing_cache: cache_or(self.backing_cache.as_deref(), CacheMode::Writeback)?,
            force_share: self.share.force_share,
            header_only: self.backing_unsafe,
            compress: self.compress,
        };
        self.rewrite.run(async |notice| {
            if self.rewrite.is_rehearsal() {
                return Ok(rehearse(&graph, &request, notice).await? + "\n");
            }
            rebase(&graph, &request, notice).await?;
            Ok(String::new())
        })
    }
}
