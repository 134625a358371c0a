//! `checksum`: a digest of what an image shows.

use std::sync::Arc;

use cairn_block::graph::Policy;
use cairn_block::options::CacheMode;
use clap::Args;

use super::args::{
    FormatArgs, ObjectArgs, OutputArgs, OutputForm, ProgressArgs, QuietArgs, ShareArgs, cache_or,
    print,
};
use super::transfer::Transfer;
use crate::error::{Error, Result};
use crate::ops::checksum::{Algorithm, tree_checksum, whole_checksum};
use crate::ops::image::Access;
use crate::output::checksum::{human, json};

const NOTES: &str = "\
The digest depends on the content alone: images of different format, cluster size or allocation
have the same one if they show the same. It is that of a tree of blocks, computed on all processors
and without reading ranges that are known to be zero. With --whole it is the plain digest of the
whole content, as sha256sum and the like print it for a raw image.

Examples:
  cairn-img checksum disk.qcow2
  cairn-img checksum --algorithm sha256 --output=json disk.qcow2
  cairn-img checksum --whole --algorithm sha256 disk.qcow2";

/// Compute a digest of an image's content
#[derive(Args, Debug)]
#[command(after_help = NOTES)]
pub(super) struct Checksum {
    #[command(flatten)]
    image: FormatArgs,
    /// Hash function: blake3, sha256 or sha512 (default: blake3)
    #[arg(short, long, value_name = "NAME")]
    algorithm: Option<String>,
    /// Digest of the whole content as one instead of that of a tree
    #[arg(long)]
    whole: bool,
    /// Cache mode (default: writeback)
    #[arg(short = 'T', long, value_name = "MODE")]
    cache: Option<String>,
    #[command(flatten)]
    share: ShareArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    /// The image
    #[arg(value_name = "FILE")]
    file: String,
}

impl Checksum {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        let graph = self.objects.graph(policy)?;
        let algorithm = match self.algorithm.as_deref() {
            None => Algorithm::Blake3,
            Some(word) => Algorithm::from_word(word).ok_or_else(|| {
                Error::Usage(format!(
                    "there is no algorithm '{word}'; there are {}",
                    Algorithm::WORDS.join(", ")
                ))
            })?,
        };
        let cache = cache_or(self.cache.as_deref(), CacheMode::Writeback)?;
        let access = Access::read(cache, self.share.force_share);
        let spec = self.image.image(self.file.clone());
        let transfer = Transfer::start(&self.progress, &QuietArgs { quiet: false })?;
        let result = transfer.run(async |notice| {
            let image = Arc::new(spec.open(&graph, &access).await?);
            let checksum = if self.whole {
                whole_checksum(&image, algorithm, notice).await
            } else {
                tree_checksum(&image, algorithm, notice).await
            };
            if let Some(image) = Arc::into_inner(image) {
                image.close().await?;
            }
            checksum
        });
        transfer.finish();
        let checksum = result?;
        print(&match self.output.output {
            OutputForm::Human => human(&self.file, &checksum),
            OutputForm::Json => json(&self.file, &checksum),
        })?;
        Ok(0)
    }
}
