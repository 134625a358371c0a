//! `bench`: a simple I/O benchmark.

use cairn_block::engine::{EngineConfig, Mode};
use cairn_block::graph::Policy;
use cairn_block::options::CacheMode;
use clap::{Args, ValueEnum};

use super::args::{FormatArgs, QuietArgs, ShareArgs, cache_or, number_or, size_or};
use crate::error::{Error, Result};
use crate::ops::bench::{BenchRequest, BenchWrite, bench};
use crate::ops::image::Access;
use crate::output::bench::{end, start};
use crate::runtime;

const EXAMPLES: &str = "\
Example:
  cairn-img bench -t none -d 32 -s 4k -S 1M disk.qcow2";

/// Measure how fast an image can be read or written
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Bench {
    #[command(flatten)]
    image: FormatArgs,
    /// Cache mode (default: writeback)
    #[arg(short = 't', long, value_name = "MODE")]
    cache: Option<String>,
    /// Number of requests (default: 75000)
    #[arg(short, long, value_name = "N", allow_hyphen_values = true)]
    count: Option<String>,
    /// Requests in flight (default: 64)
    #[arg(short, long, value_name = "N", allow_hyphen_values = true)]
    depth: Option<String>,
    /// Offset of the first request (default: 0)
    #[arg(short, long, value_name = "OFFSET", allow_hyphen_values = true)]
    offset: Option<String>,
    /// Length of a request (default: 4096)
    #[arg(short = 's', long, value_name = "SIZE", allow_hyphen_values = true)]
    buffer_size: Option<String>,
    /// Distance from one request to the next (default: the length of a request)
    #[arg(short = 'S', long, value_name = "SIZE", allow_hyphen_values = true)]
    step_size: Option<String>,
    /// How requests reach the kernel
    #[arg(short = 'i', long, value_name = "MODE")]
    aio: Option<AioArg>,
    /// The same as --aio=native
    #[arg(short = 'n', long, conflicts_with = "aio")]
    native: bool,
    /// Write instead of reading: the data of the image is lost
    #[arg(short, long)]
    write: bool,
    /// Byte to write (default: 0)
    #[arg(long, value_name = "BYTE", requires = "write", allow_hyphen_values = true)]
    pattern: Option<String>,
    /// Flush after every so many writes
    #[arg(long, value_name = "N", requires = "write", allow_hyphen_values = true)]
    flush_interval: Option<String>,
    /// Do not wait for requests in flight before a flush
    #[arg(long, requires = "flush_interval")]
    no_drain: bool,
    #[command(flatten)]
    share: ShareArgs,
    #[command(flatten)]
    quiet: QuietArgs,
    /// The image
    #[arg(value_name = "FILE")]
    file: String,
}

/// How requests reach the kernel.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum AioArg {
    Threads,
    Native,
    #[value(name = "io_uring")]
    IoUring,
}

const DEFAULT_COUNT: u32 = 75_000;
const DEFAULT_DEPTH: u32 = 64;
const DEFAULT_LENGTH: u64 = 4096;
/// Largest value that the reference takes for counts and lengths.
const INT_MAX: u32 = i32::MAX.unsigned_abs();

impl Bench {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        let request = self.request()?;
        let access = Access {
            write: self.write,
            force_share: self.share.force_share,
            cache: cache_or(self.cache.as_deref(), CacheMode::Writeback)?,
            ..Access::default()
        };
        let mode = match self.aio {
            Some(AioArg::Threads) => Mode::Threads,
            Some(AioArg::IoUring) => Mode::Uring,
            Some(AioArg::Native) | None => Mode::Auto,
        };
        let spec = self.image.image(self.file);
        let graph = runtime::graph(policy.clone());
        let quiet = &self.quiet;
        let elapsed = runtime::run(&EngineConfig { mode, ..EngineConfig::default() }, async {
            let image = spec.open(&graph, &access).await?;
            quiet.print(&start(&request))?;
            let elapsed = bench(&image, &request).await;
            let closed = image.close().await;
            let elapsed = elapsed?;
            closed?;
            Ok(elapsed)
        })?;
        quiet.print(&end(elapsed))?;
        Ok(0)
    }

    fn request(&self) -> Result<BenchRequest> {
        let depth = number_or("the depth", self.depth.as_deref(), DEFAULT_DEPTH, 1, INT_MAX)?;
        let count = number_or("the count", self.count.as_deref(), DEFAULT_COUNT, 1, INT_MAX)?;
        let size = |what, text: &Option<String>, default| size_or(what, text.as_deref(), default);
        let length = size("the request length", &self.buffer_size, DEFAULT_LENGTH)?;
        let step = size("the step", &self.step_size, length)?;
        if length == 0 || length > u64::from(INT_MAX) || step > u64::from(INT_MAX) {
            return Err(Error::Usage(format!(
                "request length and step must be below 2 GiB, and the length above 0; they are \
                 {length} and {step}"
            )));
        }
        let interval = self.flush_interval.as_deref();
        let interval = number_or("the flush interval", interval, 0, 0, INT_MAX)?;
        if interval != 0 && interval < depth {
            return Err(Error::Usage(format!(
                "the flush interval {interval} must not be below the depth {depth}"
            )));
        }
        let pattern = number_or("the pattern", self.pattern.as_deref(), 0, 0, u8::MAX.into())?;
        let (Ok(pattern), Ok(length)) = (u8::try_from(pattern), usize::try_from(length)) else {
            return Err(Error::Usage("the request is too large for this machine".to_owned()));
        };
        Ok(BenchRequest {
            count: count.into(),
            depth: depth.into(),
            length,
            offset: size("the offset", &self.offset, 0)?,
            step,
            write: self.write.then(|| BenchWrite {
                pattern,
                flush_interval: (interval != 0).then(|| interval.into()),
                drain: !self.no_drain,
            }),
        })
    }
}
