//! `create`: a new image.

use cairn_block::graph::Policy;
use cairn_block::options::help::creation_help;
use cairn_block::options::{join_lists, wants_help};
use clap::Args;

use super::args::{DryRunArgs, ObjectArgs, QuietArgs, print, size};
use crate::error::{Error, Result};
use crate::ops::create::{CreateRequest, create, creating_driver, protocol_options, rehearse};
use crate::runtime;

const EXAMPLES: &str = "\
Sizes are in bytes; the suffixes k, M, G, T, P and E multiply by powers of 1024.

Examples:
  cairn-img create -f qcow2 disk.qcow2 20G
  cairn-img create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2
  cairn-img create -f qcow2 -o help";

/// Create a new image
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Create {
    /// Format of the new image (default: raw)
    #[arg(short, long, value_name = "FMT", allow_hyphen_values = true)]
    format: Option<String>,
    /// Options of the format; may be repeated; `-o help` lists them
    #[arg(short, long, value_name = "KEY=VALUE,…", allow_hyphen_values = true)]
    options: Vec<String>,
    /// Base of the new image: what it does not store itself is read from there
    #[arg(short, long, value_name = "FILE", allow_hyphen_values = true)]
    backing: Option<String>,
    /// Format of the backing file
    #[arg(short = 'F', long, value_name = "FMT", allow_hyphen_values = true)]
    backing_format: Option<String>,
    /// Do not open the backing file; it need not exist
    #[arg(short = 'u', long)]
    backing_unsafe: bool,
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(flatten)]
    quiet: QuietArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    /// The image to create; an existing file is overwritten
    #[arg(value_name = "FILE")]
    file: Option<String>,
    /// Size of the virtual disk (default: that of the backing file)
    #[arg(value_name = "SIZE", allow_hyphen_values = true)]
    size: Option<String>,
}

impl Create {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        let graph = self.objects.graph(policy)?;
        let format = self.format.unwrap_or_else(|| "raw".to_owned());
        let options = join_lists(&self.options)?;
        if wants_help(&options) {
            return print_option_help(&format, self.file.as_deref());
        }
        let filename =
            self.file.ok_or_else(|| Error::Usage("give the name of the new image".to_owned()))?;
        let request = CreateRequest {
            filename,
            format,
            options,
            size: self.size.map(|text| size("the size", &text)).transpose()?,
            backing: self.backing,
            backing_format: self.backing_format,
            backing_unsafe: self.backing_unsafe,
        };
        let say = |line: &str| self.quiet.print(&format!("{line}\n"));
        if self.dry_run.dry_run {
            say(&runtime::run_watched(rehearse(&graph, &request), || {})?)?;
        } else {
            runtime::run_watched(create(&graph, &request, say), || {})?;
        }
        Ok(0)
    }
}

/// Prints the creation options of `format`, with a file name also those of its protocol.
pub(super) fn print_option_help(format: &str, filename: Option<&str>) -> Result<u8> {
    let driver = creating_driver(format)?;
    let protocol = filename.map(|filename| protocol_options(driver, filename)).transpose()?;
    print(&creation_help(format, driver.create_options, protocol))?;
    Ok(0)
}
