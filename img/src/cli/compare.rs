//! `compare`: whether two images have the same content.

use std::sync::Arc;

use cairn_block::graph::Policy;
use cairn_block::options::CacheMode;
use clap::Args;

use super::args::{
    ObjectArgs, OutputArgs, OutputForm, ProgressArgs, QuietArgs, ShareArgs, cache_or,
};
use crate::error::{Error, Result};
use crate::ops::compare::{EXIT_OPEN, Notice, Statistics, Verdict, compare, statistics};
use crate::ops::image::{Access, ImageSpec};
use crate::output::compare::{SIZE_WARNING, human, json, verdict};
use crate::progress::Progress;
use crate::runtime;

const NOTES: &str = "\
Images of different size are the same if the rest of the longer one reads as zeroes.

Exit status: 0 same, 1 different, 2 an image cannot be opened, 3 its allocation cannot be
examined, 4 it cannot be read.

Examples:
  cairn-img compare disk.raw disk.qcow2
  cairn-img compare -s -f qcow2 -F qcow2 a.qcow2 b.qcow2
  cairn-img compare --stat --output=json before.qcow2 after.qcow2";

/// Find out whether two images have the same content
#[derive(Args, Debug)]
#[command(after_help = NOTES)]
pub(super) struct Compare {
    /// Format of the first image (default: found out by probing)
    #[arg(short = 'f', long, value_name = "FMT", allow_hyphen_values = true)]
    a_format: Option<String>,
    /// Format of the second image (default: found out by probing)
    #[arg(short = 'F', long, value_name = "FMT", allow_hyphen_values = true)]
    b_format: Option<String>,
    /// Take both names as image options (driver=…,file.filename=…)
    #[arg(long, conflicts_with_all = ["a_format", "b_format"])]
    image_opts: bool,
    /// Sizes and allocation must be the same, too
    #[arg(short, long)]
    strict: bool,
    /// Compare to the end, and say how much is the same, differs, or is in one image only, and where
    #[arg(long, conflicts_with = "strict")]
    stat: bool,
    #[command(flatten)]
    output: OutputArgs,
    /// Cache mode (default: writeback)
    #[arg(short = 'T', long, value_name = "MODE")]
    cache: Option<String>,
    #[command(flatten)]
    share: ShareArgs,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    quiet: QuietArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    /// First image
    #[arg(value_name = "FILE1")]
    a: String,
    /// Second image
    #[arg(value_name = "FILE2")]
    b: String,
}

/// Least difference between two reports of progress, in percent.
const PROGRESS_STEP: f32 = 2.0;
/// Exit status when the images differ.
const EXIT_DIFFERENT: u8 = 1;

impl Compare {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        if self.output.output == OutputForm::Json && !self.stat {
            return Err(Error::Usage("--output=json needs --stat".to_owned()));
        }
        let graph = self.objects.graph(policy)?;
        let cache = cache_or(self.cache.as_deref(), CacheMode::Writeback)?;
        let access = Access::read(cache, self.share.force_share);
        let style = self.progress.style(&self.quiet)?;
        let names = [self.a.as_str(), self.b.as_str()];
        let first = ImageSpec::new(self.a.clone(), self.a_format, self.image_opts);
        let second = ImageSpec::new(self.b.clone(), self.b_format, self.image_opts);
        let report = Report { progress: Progress::start(style, PROGRESS_STEP), quiet: &self.quiet };
        let operation = async {
            let open = async |spec: &ImageSpec| {
                spec.open(&graph, &access).await.map_err(|error| error.with_status(EXIT_OPEN))
            };
            let first = Arc::new(open(&first).await?);
            let second = Arc::new(open(&second).await?);
            let found = if self.stat {
                statistics(&first, &second, &report).await.map(Found::Statistics)
            } else {
                compare(&first, &second, self.strict, &report).await.map(Found::Verdict)
            };
            for image in [first, second] {
                if let Some(image) = Arc::into_inner(image) {
                    image.close().await?;
                }
            }
            found
        };
        let result = runtime::run_watched(operation, || report.progress.request_report());
        let printed = match &result {
            Ok(found) => self.quiet.print(&match (found, self.output.output) {
                (Found::Verdict(found), _) => verdict(*found),
                (Found::Statistics(found), OutputForm::Human) => human(names, found),
                (Found::Statistics(found), OutputForm::Json) => json(names, found),
            }),
            Err(_) => Ok(()),
        };
        report.progress.finish();
        let identical = match result? {
            Found::Verdict(verdict) => verdict == Verdict::Identical,
            Found::Statistics(found) => found.is_identical(),
        };
        printed?;
        Ok(if identical { 0 } else { EXIT_DIFFERENT })
    }
}

/// Result of either way to compare.
enum Found {
    Verdict(Verdict),
    Statistics(Statistics),
}

/// Tells the user how far the comparison is.
struct Report<'q> {
    progress: Progress,
    quiet: &'q QuietArgs,
}

impl Notice for Report<'_> {
    fn total(&self, bytes: u64) {
        self.progress.set_total(bytes);
    }

    fn compared(&self, bytes: u64) {
        self.progress.add(bytes);
    }

    fn sizes_differ(&self) {
        // The verdict, which follows, fails if standard output is gone.
        let _ = self.quiet.print(SIZE_WARNING);
    }
}
