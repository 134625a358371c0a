//! Arguments that several commands share, and how their values are read.

use std::fmt;
use std::io::{BufWriter, Write as _};
use std::sync::Arc;

use cairn_block::graph::{Graph, Policy};
use cairn_block::options::{CacheMode, parse_i64, parse_list, parse_size, parse_u64};
use cairn_block::snapshot::SnapshotKey;
use clap::Args;

use crate::error::{Error, Result};
use crate::ops::image::ImageSpec;
use crate::progress::Style;
use crate::runtime;

/// How an existing image is named: by file name and format, or by options.
#[derive(Args, Debug)]
pub(super) struct FormatArgs {
    /// Format of the image (default: found out by probing)
    #[arg(short, long, value_name = "FMT", allow_hyphen_values = true)]
    format: Option<String>,
    /// Take the file name as image options (driver=…,file.filename=…)
    #[arg(long, conflicts_with = "format")]
    image_opts: bool,
}

impl FormatArgs {
    /// The image called `name`.
    pub(super) fn image(self, name: String) -> ImageSpec {
        ImageSpec::new(name, self.format, self.image_opts)
    }
}

/// Objects that image options refer to.
#[derive(Args, Debug)]
pub(super) struct ObjectArgs {
    /// Define an object, such as a secret
    #[arg(long = "object", value_name = "TYPE,id=ID,…", allow_hyphen_values = true)]
    texts: Vec<String>,
}

impl ObjectArgs {
    /// A graph with the objects in it, whose images may ask for what `policy` allows.
    pub(super) fn graph(&self, policy: &Policy) -> Result<Arc<Graph>> {
        let graph = runtime::graph(policy.clone());
        super::objects::create(&graph, &self.texts)?;
        Ok(graph)
    }
}

/// Opening an image that others may be writing.
#[derive(Args, Debug)]
pub(super) struct ShareArgs {
    /// Open the image even if another program is writing to it
    #[arg(short = 'U', long)]
    pub(super) force_share: bool,
}

/// Form of the result.
#[derive(Args, Debug)]
pub(super) struct OutputArgs {
    /// Form of the result
    #[arg(long, value_name = "human|json", default_value = "human", hide_default_value = true)]
    pub(super) output: OutputForm,
}

/// Who reads the result.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputForm {
    /// A person.
    Human,
    /// A program.
    Json,
}

/// Silence.
#[derive(Args, Debug)]
pub(super) struct QuietArgs {
    /// Print errors only
    #[arg(short, long)]
    pub(super) quiet: bool,
}

impl QuietArgs {
    /// Prints `text` unless the user wants silence.
    pub(super) fn print(&self, text: &str) -> Result<()> {
        if self.quiet { Ok(()) } else { print(text) }
    }
}

/// Looking instead of doing.
#[derive(Args, Debug)]
pub(super) struct DryRunArgs {
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Showing progress.
#[derive(Args, Debug)]
pub(super) struct ProgressArgs {
    /// Show progress; --progress=json writes JSON lines to stderr, json:FD to a file descriptor
    #[arg(
        short,
        long,
        value_name = "json[:FD]",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text"
    )]
    progress: Option<String>,
}

impl ProgressArgs {
    /// How progress is to be shown.
    pub(super) fn style(&self, quiet: &QuietArgs) -> Result<Style> {
        Style::parse(self.progress.as_deref(), quiet.quiet)
    }
}

/// Prints to standard output.
pub fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Error::Stdout)
}

/// Prints what `write` writes to standard output, without having all of it in memory.
pub(super) fn print_with(write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) -> Result<()> {
    let mut out = Output { out: BufWriter::new(std::io::stdout().lock()), failure: None };
    // `Output` knows why, if that fails.
    let _ = write(&mut out);
    let flushed = out.out.flush();
    out.failure.map_or(flushed, Err).map_err(Error::Stdout)
}

/// Takes text for a stream of bytes.
struct Output<W> {
    out: W,
    failure: Option<std::io::Error>,
}

impl<W: std::io::Write> fmt::Write for Output<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.out.write_all(text.as_bytes()).map_err(|error| {
            self.failure = Some(error);
            fmt::Error
        })
    }
}

/// Reads a size in bytes. `what` says what the size is, for the message.
pub(super) fn size(what: &str, text: &str) -> Result<u64> {
    match parse_size(text) {
        Ok(size) if i64::try_from(size).is_ok() => Ok(size),
        Ok(_) => {
            Err(Error::Usage(format!("{what} '{text}' is too large: the most is 2^63-1 bytes")))
        }
        Err(error) => Err(Error::Usage(format!(
            "{what} '{text}' is {error}; write bytes such as 4096, 64k or 1.5G"
        ))),
    }
}

/// Reads a size in bytes, or gives the default.
pub(super) fn size_or(what: &str, text: Option<&str>, default: u64) -> Result<u64> {
    text.map_or(Ok(default), |text| size(what, text))
}

/// Reads a whole number from `least` to `most`, or gives the default.
pub(super) fn number_or(
    what: &str,
    text: Option<&str>,
    default: u32,
    least: u32,
    most: u32,
) -> Result<u32> {
    let Some(text) = text else { return Ok(default) };
    parse_i64(text)
        .ok()
        .and_then(|value| u32::try_from(value).ok())
        .filter(|value| (least..=most).contains(value))
        .ok_or_else(|| {
            Error::Usage(format!("{what} '{text}' is not a whole number from {least} to {most}"))
        })
}

/// Reads a whole number from `least` to `most`.
pub fn number(what: &str, text: &str, least: u64, most: u64) -> Result<u64> {
    parse_u64(text).ok().filter(|value| (least..=most).contains(value)).ok_or_else(|| {
        Error::Usage(format!("{what} '{text}' is not a whole number from {least} to {most}"))
    })
}

/// Reads a cache mode, or gives the default.
pub fn cache_or(text: Option<&str>, default: CacheMode) -> Result<CacheMode> {
    text.map_or(Ok(default), |text| {
        CacheMode::from_word(text).ok_or_else(|| {
            Error::Usage(format!(
                "there is no cache mode '{text}'; there are none, writeback, writethrough, \
                 directsync and unsafe"
            ))
        })
    })
}

/// Reads which internal snapshot is meant: an ID or name, or `snapshot.id=…,snapshot.name=…`.
pub fn snapshot_key(text: &str) -> Result<SnapshotKey> {
    if !text.starts_with("snapshot.") {
        return Ok(SnapshotKey::IdOrName(text.to_owned()));
    }
    let (mut id, mut name) = (None, None);
    for (key, value) in parse_list(text, None).iter() {
        let part = match key {
            "snapshot.id" => &mut id,
            "snapshot.name" => &mut name,
            _ => {
                return Err(Error::Usage(format!(
                    "'{key}' does not name a snapshot; there are snapshot.id and snapshot.name"
                )));
            }
        };
        *part = value.as_str().map(str::to_owned);
    }
    Ok(SnapshotKey::Exact { id, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        for (text, value) in [("16", 16), (" 2", 2), ("0x1f", 31), ("010", 8), ("+7", 7)] {
            assert_eq!(number_or("x", Some(text), 1, 1, 100).expect(text), value);
        }
        assert_eq!(number_or("x", None, 8, 1, 16).expect("default"), 8);
        for text in ["", "0", "101", "-3", "1k", "2 ", "99999999999999999999"] {
            let error = number_or("the depth", Some(text), 1, 1, 100).expect_err(text);
            assert!(error.to_string().ends_with("from 1 to 100"), "{error}");
        }
    }

    #[test]
    fn sizes_fit_signed_offsets() {
        assert_eq!(size("size", "1.5G").expect("size"), 3 << 29);
        for text in ["1e3", "-1", "", "8E", "1x"] {
            let error = size("the size", text).expect_err(text).to_string();
            assert!(error.starts_with("the size"), "{error}");
        }
    }
}
