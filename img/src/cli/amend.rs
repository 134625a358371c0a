//! `amend`: change properties of an existing image.

use cairn_block::engine::EngineConfig;
use cairn_block::graph::Policy;
use cairn_block::options::{join_lists, wants_help};
use clap::Args;

use super::args::print;
use super::transfer::RewriteArgs;
use crate::error::{Error, Result};
use crate::ops::amend::{amend, format_of, option_help, rehearse};
use crate::ops::image::ImageSpec;
use crate::runtime;

const EXAMPLES: &str = "\
Examples:
  cairn-img amend -f qcow2 -o help
  cairn-img amend -o compat=1.1,lazy_refcounts=on disk.qcow2
  cairn-img amend -o refcount_bits=32 disk.qcow2";

/// Change properties of an image that were chosen when it was created
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Amend {
    /// Format of the image (default: found out by probing)
    #[arg(short, long, value_name = "FMT", allow_hyphen_values = true)]
    format: Option<String>,
    /// Take the file name as image options (driver=…,file.filename=…)
    #[arg(long, conflicts_with = "format")]
    image_opts: bool,
    /// What to change; may be repeated; `-o help` lists the options
    #[arg(short, long, value_name = "KEY=VALUE,…", allow_hyphen_values = true)]
    options: Vec<String>,
    /// Change the image even if that makes its data unreadable, as without the last passphrase
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    rewrite: RewriteArgs,
    /// The image
    #[arg(value_name = "FILE")]
    file: Option<String>,
}

impl Amend {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        let graph = self.rewrite.graph(policy)?;
        if self.options.is_empty() {
            return Err(Error::Usage("say what to change with -o".to_owned()));
        }
        let options = join_lists(&self.options)?;
        let spec = self.file.map(|file| ImageSpec::new(file, self.format.clone(), self.image_opts));
        if wants_help(&options) {
            let format = match (self.format, &spec) {
                (Some(format), _) => format,
                (None, Some(spec)) => {
                    runtime::run(&EngineConfig::default(), format_of(&graph, spec))?.to_owned()
                }
                (None, None) => {
                    return Err(Error::Usage("give the format with -f, or the image".to_owned()));
                }
            };
            print(&option_help(&format)?)?;
            return Ok(0);
        }
        let spec = spec.ok_or_else(|| Error::Usage("give the image".to_owned()))?;
        let cache = self.rewrite.cache()?;
        self.rewrite.run(async |notice| {
            if self.rewrite.is_rehearsal() {
                return Ok(rehearse(&graph, &spec, &options).await? + "\n");
            }
            amend(&graph, &spec, &options, cache, self.force, notice).await?;
            Ok(String::new())
        })
    }
}
