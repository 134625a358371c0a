//! `convert`: copy an image into another format.

use cairn_block::graph::Policy;
use cairn_block::options::{CacheMode, join_lists, wants_help};
use clap::Args;

use super::Program;
use super::args::{
    DryRunArgs, ObjectArgs, ProgressArgs, QuietArgs, cache_or, number_or, size, size_or,
    snapshot_key,
};
use crate::error::{Error, Result};
use crate::ops::convert::{Bitmaps, ConvertRequest, Notice, SECTOR, Target, convert, rehearse};
use crate::ops::create::CreateRequest;
use crate::ops::image::ImageSpec;
use crate::progress::Progress;
use crate::runtime;

const EXAMPLES: &str = "\
A new target file gets its name when it is complete: a run that fails or is interrupted leaves
none behind.

Examples:
  cairn-img convert -p -O qcow2 disk.raw disk.qcow2
  cairn-img convert -c -O qcow2 -o compression_type=zstd disk.qcow2 small.qcow2
  cairn-img convert -n -O raw disk.qcow2 /dev/vg0/disk";

/// Copy an image, changing its format
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Convert {
    /// Format of the sources (default: found out by probing)
    #[arg(short = 'f', long, value_name = "FMT", allow_hyphen_values = true)]
    source_format: Option<String>,
    /// Take source names as image options (driver=…,file.filename=…)
    #[arg(long, alias = "image-opts", conflicts_with = "source_format")]
    source_image_opts: bool,
    /// Copy an internal snapshot: its ID or name, or snapshot.id=…,snapshot.name=…
    #[arg(short = 'l', long, value_name = "SNAPSHOT", allow_hyphen_values = true)]
    source_snapshot: Option<String>,
    /// Cache mode of the sources (default: writeback)
    #[arg(short = 'T', long, value_name = "MODE")]
    source_cache: Option<String>,
    /// Format of the target (default: raw)
    #[arg(short = 'O', long, value_name = "FMT", allow_hyphen_values = true)]
    target_format: Option<String>,
    /// Take the target name as image options; needs -n
    #[arg(long, conflicts_with = "target_format")]
    target_image_opts: bool,
    /// Options of the new image; may be repeated; `-o help` lists them
    #[arg(short = 'o', long, value_name = "KEY=VALUE,…", allow_hyphen_values = true)]
    target_options: Vec<String>,
    /// Compress the data of the target
    #[arg(short, long)]
    compress: bool,
    /// Cache mode of the target (default: unsafe)
    #[arg(short = 't', long, value_name = "MODE")]
    target_cache: Option<String>,
    /// Store only what differs from this backing file
    #[arg(short = 'B', long, value_name = "FILE", allow_hyphen_values = true)]
    backing: Option<String>,
    /// Format of the backing file
    #[arg(short = 'F', long, value_name = "FMT", allow_hyphen_values = true)]
    backing_format: Option<String>,
    /// Write into an existing target
    #[arg(short, long)]
    no_create: bool,
    /// The existing target reads as zeroes already; needs -n
    #[arg(long, requires = "no_create")]
    target_is_zero: bool,
    /// Shortest run of zeroes to leave out (default: 4k); 0 stores every byte
    #[arg(short = 'S', long, value_name = "SIZE", allow_hyphen_values = true)]
    sparse_size: Option<String>,
    /// Copy persistent bitmaps as well
    #[arg(long)]
    bitmaps: bool,
    /// Leave out bitmaps that are inconsistent; needs --bitmaps
    #[arg(long, requires = "bitmaps")]
    skip_broken_bitmaps: bool,
    /// Open the sources even if another program is writing to them
    #[arg(short = 'U', long)]
    force_share: bool,
    /// Highest rate of writing, in bytes per second
    #[arg(short, long, value_name = "RATE", allow_hyphen_values = true)]
    rate: Option<String>,
    /// Requests in flight, 1 to 16 (default: 8)
    #[arg(short = 'm', long, value_name = "N", allow_hyphen_values = true)]
    parallel: Option<String>,
    /// Write in any order
    #[arg(short = 'W', long)]
    oob_writes: bool,
    /// Let the kernel or the storage copy the data, where possible
    #[arg(short = 'C', long)]
    copy_range_offloading: bool,
    /// Go on after read errors; unreadable sectors become zeroes
    #[arg(long)]
    salvage: bool,
    /// Read the target again when it is written, and compare it with the sources
    #[arg(long, conflicts_with = "salvage")]
    verify: bool,
    /// Go on where an earlier run with this option was cut off; keep a journal to allow that
    #[arg(long, conflicts_with_all = ["no_create", "backing"])]
    resume: bool,
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    quiet: QuietArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    /// Source images, which are joined if there are several, and the target
    #[arg(value_name = "FILE")]
    files: Vec<String>,
}

/// Least difference between two reports of progress, in percent.
const PROGRESS_STEP: f32 = 1.0;
/// Most requests in flight that can be asked for.
const MAX_PARALLEL: u32 = 16;
/// Shortest run of zeroes that is left out by default, and the longest that can be asked for.
const SPARSE: u64 = 4096;
const MAX_SPARSE: u64 = 16 << 20;

impl Convert {
    pub(super) fn run(self, program: Program, policy: &Policy) -> Result<u8> {
        let graph = self.objects.graph(policy)?;
        let options = join_lists(&self.target_options)?;
        if wants_help(&options) {
            let format = self.target_format.as_deref().unwrap_or("raw");
            return super::create::print_option_help(format, self.files.last().map(String::as_str));
        }
        let style = self.progress.style(&self.quiet)?;
        let request = self.request(options)?;
        let report = Report {
            progress: Progress::start(style, PROGRESS_STEP),
            program,
            quiet: self.quiet.quiet,
        };
        if self.dry_run.dry_run {
            let told = runtime::run_watched(rehearse(&graph, &request, &report), || {})?;
            report.progress.finish();
            self.quiet.print(&format!("{told}\n"))?;
            return Ok(0);
        }
        let operation = convert(&graph, request, &report);
        let result = runtime::run_watched(operation, || report.progress.request_report());
        if result.is_ok() {
            report.progress.complete();
        }
        report.progress.finish();
        result?;
        Ok(0)
    }

    fn request(&self, options: String) -> Result<ConvertRequest> {
        self.refuse_conflicts(&options)?;
        let Some((target, sources)) = self.files.split_last().filter(|(_, s)| !s.is_empty()) else {
            return Err(Error::Usage("give at least one source and the target".to_owned()));
        };
        let sparse = size_or("the sparse size", self.sparse_size.as_deref(), SPARSE)?;
        if !sparse.is_multiple_of(SECTOR) || sparse > MAX_SPARSE {
            return Err(Error::Usage(format!(
                "the sparse size must be a multiple of {SECTOR} up to {MAX_SPARSE}, or 0 to store \
                 every byte; it is {sparse}"
            )));
        }
        let parallel = self.parallel.as_deref();
        let parallel = parallel
            .map(|text| number_or("the number of requests", Some(text), 1, 1, MAX_PARALLEL))
            .transpose()?;
        let spec = |name: &String| {
            ImageSpec::new(name.clone(), self.source_format.clone(), self.source_image_opts)
        };
        Ok(ConvertRequest {
            sources: sources.iter().map(spec).collect(),
            source_cache: cache_or(self.source_cache.as_deref(), CacheMode::Writeback)?,
            force_share: self.force_share,
            snapshot: self.source_snapshot.as_deref().map(snapshot_key).transpose()?,
            bitmaps: match (self.bitmaps, self.skip_broken_bitmaps) {
                (false, _) => Bitmaps::None,
                (true, false) => Bitmaps::All,
                (true, true) => Bitmaps::Sound,
            },
            target: self.target(target, options),
            target_cache: self.target_cache()?,
            compress: self.compress,
            sparse,
            parallel: parallel.map(|number| number as usize),
            any_order: self.oob_writes,
            copy_range: self.copy_range_offloading,
            rate: self.rate.as_deref().map(|text| size("the rate", text)).transpose()?,
            salvage: self.salvage,
            verify: self.verify,
            resume: self.resume,
        })
    }

    fn target_cache(&self) -> Result<CacheMode> {
        // What is recorded as done must be durable.
        let default = if self.resume { CacheMode::Writeback } else { CacheMode::Unsafe };
        let cache = cache_or(self.target_cache.as_deref(), default)?;
        if self.resume && cache.no_flush() {
            return Err(Error::Usage(
                "--resume needs a cache mode that flushes; leave -t unsafe out".to_owned(),
            ));
        }
        Ok(cache)
    }

    fn target(&self, name: &str, options: String) -> Target {
        let format = || self.target_format.clone().unwrap_or_else(|| "raw".to_owned());
        if self.no_create {
            let image = if self.target_image_opts {
                ImageSpec::Options(name.to_owned())
            } else {
                ImageSpec::File { name: name.to_owned(), format: Some(format()) }
            };
            let (is_zero, has_backing) = (self.target_is_zero, self.backing.is_some());
            return Target::Existing { image, is_zero, has_backing };
        }
        Target::New(CreateRequest {
            filename: name.to_owned(),
            format: format(),
            options,
            size: None,
            backing: self.backing.clone(),
            backing_format: self.backing_format.clone(),
            backing_unsafe: false,
        })
    }

    /// Refuses combinations that make no sense, and what this version does not do.
    fn refuse_conflicts(&self, options: &str) -> Result<()> {
        let refusals = [
            (self.target_image_opts && !self.no_create, "--target-image-opts needs -n"),
            (self.no_create && !options.is_empty(), "-o has no effect with -n"),
            (
                self.copy_range_offloading && self.sparse_size.is_some(),
                "-C copies without looking at the data, so -S cannot be used with it",
            ),
            (
                self.copy_range_offloading && self.compress,
                "-C copies without looking at the data, so -c cannot be used with it",
            ),
            (
                self.copy_range_offloading && self.salvage,
                "-C does not see which sectors fail, so --salvage cannot be used with it",
            ),
            (
                self.target_is_zero && self.backing.is_some(),
                "a target with a backing file does not read as zeroes: --target-is-zero and -B \
                 exclude each other",
            ),
            (
                self.source_snapshot.is_some() && self.files.len() > 2,
                "-l copies a snapshot of one image, so there can be only one source",
            ),
            (
                self.bitmaps && self.files.len() > 2,
                "--bitmaps copies the bitmaps of one image, so there can be only one source",
            ),
        ];
        if let Some((_, problem)) = refusals.into_iter().find(|(wrong, _)| *wrong) {
            return Err(Error::Usage(problem.to_owned()));
        }
        Ok(())
    }
}

/// Tells the user how far the copy is.
struct Report {
    progress: Progress,
    program: Program,
    quiet: bool,
}

impl Notice for Report {
    fn total(&self, bytes: u64) {
        self.progress.set_total(bytes);
    }

    fn copied(&self, bytes: u64) {
        self.progress.add(bytes);
    }

    fn salvaged(&self, message: &str) {
        if !self.quiet {
            eprintln!("{}: warning: {message}", self.program.name());
        }
    }
}
