//! The program's own arguments.

use std::ffi::OsString;

use cairn_block::engine::Aio;
use cairn_block::options::CacheMode;
use clap::{CommandFactory, FromArgMatches, Parser};

use super::image::{Opening, aio, unmap};
use crate::cli::Program;
use crate::cli::args::cache_or;
use crate::cli::parse::{Stop, stop};
use crate::cli::policy::PolicyArgs;
use crate::error::Result;

const NOTES: &str = "\
Commands come from -c, else from standard input; 'help' lists them. The exit status is 0 if all
of them succeeded and 1 otherwise.

Examples:
  cairn-io -c 'write -P 0xab 1M 64k' -c 'read -P 0xab 1M 64k' disk.qcow2
  cairn-io -r -f raw disk.raw";

/// Exercise an image with single requests
#[derive(Debug, Parser)]
#[command(infer_long_args = true, args_override_self = true, max_term_width = 100)]
pub(super) struct Cli {
    /// Run a command instead of reading them from standard input; may be given several times
    #[arg(short, long = "cmd", value_name = "COMMAND", allow_hyphen_values = true)]
    pub(super) commands: Vec<String>,
    /// Format of the image (default: found out by probing)
    #[arg(short, long, value_name = "FMT", conflicts_with = "image_opts")]
    format: Option<String>,
    /// Take the file name as image options (driver=…,file.filename=…)
    #[arg(long)]
    pub(super) image_opts: bool,
    /// Define an object that image options refer to
    #[arg(long = "object", value_name = "TYPE,id=ID,…", allow_hyphen_values = true)]
    pub(super) objects: Vec<String>,
    /// Open the image read-only
    #[arg(short, long)]
    read_only: bool,
    /// Write to a temporary overlay, which is deleted at the end
    #[arg(short, long)]
    snapshot: bool,
    /// Bypass the page cache; the same as --cache=none
    #[arg(short, long)]
    nocache: bool,
    /// Cache mode (default: writethrough)
    #[arg(short = 't', long, value_name = "MODE", overrides_with = "nocache")]
    cache: Option<String>,
    /// Store in the image what reads find in its backing file
    #[arg(short = 'C', long)]
    copy_on_read: bool,
    /// Use memory for requests that is not aligned
    #[arg(short, long)]
    pub(super) misalign: bool,
    /// The same as --aio=native
    #[arg(short = 'k', long, conflicts_with = "aio")]
    native_aio: bool,
    /// How requests reach the kernel: threads, native or io_uring
    #[arg(short = 'i', long, value_name = "MODE")]
    aio: Option<String>,
    /// Whether discards reach the file: unmap (default) or ignore
    #[arg(short, long, value_name = "MODE")]
    discard: Option<String>,
    /// Open the image even if another program is writing to it
    #[arg(short = 'U', long)]
    force_share: bool,
    /// Accepted for compatibility; there are no trace events
    #[arg(short = 'T', long, value_name = "SPEC", allow_hyphen_values = true)]
    trace: Option<String>,
    #[command(flatten)]
    pub(super) policy: PolicyArgs,
    /// Print a completion script for bash, elvish, fish, powershell or zsh
    #[arg(long, value_name = "SHELL")]
    pub(super) completions: Option<clap_complete::Shell>,
    /// Print the manual page in roff
    #[arg(long)]
    pub(super) man: bool,
    /// The image; without it the command 'open' comes first
    #[arg(value_name = "FILE")]
    pub(super) file: Option<String>,
}

impl Cli {
    /// How the image is to be opened, but for its name.
    pub(super) fn opening(&self) -> Result<Opening> {
        let aio_word = if self.native_aio { Some("native") } else { self.aio.as_deref() };
        let cache = if self.nocache { Some("none") } else { self.cache.as_deref() };
        Ok(Opening {
            format: self.format.clone(),
            image_opts: self.image_opts,
            read_only: self.read_only,
            snapshot: self.snapshot,
            cache: cache_or(cache, CacheMode::Writethrough)?,
            copy_on_read: self.copy_on_read,
            aio: aio_word.map_or(Ok(Aio::Auto), aio)?,
            unmap: self.discard.as_deref().map_or(Ok(true), unmap)?,
            force_share: self.force_share,
            ..Opening::default()
        })
    }
}

/// Parses the arguments of the process, the first of which is the program's name.
pub(super) fn parse(program: Program, argv: Vec<OsString>) -> Result<Cli, Stop> {
    command(program)
        .try_get_matches_from(argv)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| stop(&[], program.name(), &error))
}

/// The command line's description, under the name of `program`.
pub(super) fn command(program: Program) -> clap::Command {
    let name = program.name();
    Cli::command()
        .name(name)
        .bin_name(name)
        .version(program.version())
        .after_help(NOTES.replace(Program::CairnIo.name(), name))
}
