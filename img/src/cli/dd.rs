//! `dd`: copy part of an image.

use std::io::{self, IsTerminal as _};

use cairn_block::graph::Policy;
use cairn_block::options::parse_size;
use clap::Args;

use super::args::{DryRunArgs, FormatArgs, ObjectArgs, ShareArgs, print, snapshot_key};
use super::transfer::Transfer;
use crate::error::{Error, Result};
use crate::ops::dd::{DdRequest, Existing, Input, Output, dd, rehearse};
use crate::progress::Style;
use crate::runtime;

const EXAMPLES: &str = "\
Operands:
  if=FILE      source image (default: standard input, as raw data)
  of=FILE      image to create (default: standard output, as raw data)
  bs=SIZE      length of a block (default: 512)
  count=N      blocks of the source to use at most, counted from its beginning
  skip=N       blocks to leave out at the beginning of the source
  seek=N       blocks to leave out at the beginning of the target
  isize=SIZE   bytes of the source; fewer are an error
  osize=SIZE   size of the new image; what does not fit is left out
  conv=LIST    notrunc: write into the target if it exists; nocreat: it must exist;
               sparse: do not store zeroes; noerror: zeroes for what cannot be read;
               fsync, fdatasync: have all on the disk at the end
  status=WORD  none, noxfer: print nothing (default); progress: show it

Examples:
  cairn-img dd -O qcow2 bs=1M skip=16 if=disk.raw of=part.qcow2
  cairn-img dd bs=1M osize=10G of=disk.raw < stream";

/// Copy a part of an image
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Dd {
    #[command(flatten)]
    image: FormatArgs,
    /// Format of the target (default: raw)
    #[arg(short = 'O', long, value_name = "FMT", allow_hyphen_values = true)]
    output_format: Option<String>,
    /// Write into an existing image
    #[arg(short = 'n', long = "no-create")]
    no_create: bool,
    /// Copy an internal snapshot: its ID or name, or snapshot.id=…,snapshot.name=…
    #[arg(short = 'l', long = "snapshot", value_name = "SNAPSHOT")]
    snapshot: Option<String>,
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(flatten)]
    share: ShareArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    /// What to copy; see below
    #[arg(value_name = "OPERAND=VALUE", required = true)]
    operands: Vec<String>,
}

/// Default length of a block in bytes.
const BLOCK: u64 = 512;

impl Dd {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        let graph = self.objects.graph(policy)?;
        let operands = Operands::parse(&self.operands)?;
        let (progress, dry_run) = (operands.progress, self.dry_run.dry_run);
        let request = self.request(operands)?;
        if dry_run {
            let told = runtime::run_watched(rehearse(&graph, request), || {})?;
            print(&format!("{told}\n"))?;
            return Ok(0);
        }
        let style = if progress && io::stderr().is_terminal() { Style::Bar } else { Style::Silent };
        let transfer = Transfer::with_style(style);
        let copied = transfer.run(|notice| dd(&graph, request, notice));
        transfer.finish();
        if copied?.skipped_beyond_end {
            eprintln!("the source ends before the blocks to skip; nothing was copied");
        }
        Ok(0)
    }

    fn request(self, operands: Operands) -> Result<DdRequest> {
        let input = match operands.source {
            Some(source) => Input::Image {
                image: self.image.image(source),
                snapshot: self.snapshot.as_deref().map(snapshot_key).transpose()?,
                force_share: self.share.force_share,
            },
            None if operands.target.is_none() => {
                return Err(Error::Usage(
                    "give the source as if=FILE, the target as of=FILE, or both".to_owned(),
                ));
            }
            None if self.snapshot.is_some() => {
                return Err(Error::Usage(
                    "standard input has no snapshots: give if=FILE".to_owned(),
                ));
            }
            None => Input::Stdin,
        };
        let format = self.output_format.as_deref().unwrap_or("raw");
        let output = match operands.target {
            Some(name) => Output::Image {
                name,
                format: format.to_owned(),
                existing: match operands.existing {
                    Existing::Replaced if self.no_create => Existing::Required,
                    existing => existing,
                },
            },
            None if io::stdout().is_terminal() => {
                return Err(Error::Usage("give the target as of=FILE".to_owned()));
            }
            None if format != "raw" => {
                return Err(Error::Usage(format!(
                    "standard output can only be raw: give the '{format}' image as of=FILE"
                )));
            }
            None => Output::Stdout,
        };
        Ok(DdRequest {
            input,
            output,
            block: operands.block.unwrap_or(BLOCK),
            count: operands.count,
            skip: operands.skip.unwrap_or(0),
            seek: operands.seek.unwrap_or(0),
            input_size: operands.input_size,
            output_size: operands.output_size,
            sparse: operands.sparse,
            salvage: operands.salvage,
            flush: operands.flush,
        })
    }
}

/// The operands by their keys; later ones override earlier ones.
#[derive(Debug, PartialEq, Eq)]
struct Operands {
    source: Option<String>,
    target: Option<String>,
    block: Option<u64>,
    count: Option<u64>,
    skip: Option<u64>,
    seek: Option<u64>,
    input_size: Option<u64>,
    output_size: Option<u64>,
    existing: Existing,
    sparse: bool,
    salvage: bool,
    flush: bool,
    progress: bool,
}

impl Operands {
    fn new() -> Operands {
        Operands {
            source: None,
            target: None,
            block: None,
            count: None,
            skip: None,
            seek: None,
            input_size: None,
            output_size: None,
            existing: Existing::Replaced,
            sparse: false,
            salvage: false,
            flush: false,
            progress: false,
        }
    }

    fn parse(texts: &[String]) -> Result<Operands> {
        let mut operands = Operands::new();
        for text in texts {
            let number = |value: &str, least: u64| {
                parse_size(value)
                    .ok()
                    .filter(|&number| number >= least && i64::try_from(number).is_ok())
                    .ok_or_else(|| Error::Usage(format!("operand '{text}' has no valid number")))
            };
            match text.split_once('=') {
                Some(("if", file)) => operands.source = Some(file.to_owned()),
                Some(("of", file)) => operands.target = Some(file.to_owned()),
                Some(("bs", value)) => {
                    let block = number(value, 1)?;
                    if i32::try_from(block).is_err() {
                        return Err(Error::Usage(format!("block size '{value}' is too large")));
                    }
                    operands.block = Some(block);
                }
                Some(("count", value)) => operands.count = Some(number(value, 0)?),
                Some(("skip", value)) => operands.skip = Some(number(value, 0)?),
                Some(("seek", value)) => operands.seek = Some(number(value, 0)?),
                Some(("isize", value)) => operands.input_size = Some(number(value, 0)?),
                Some(("osize", value)) => operands.output_size = Some(number(value, 0)?),
                Some(("conv", list)) => {
                    for word in list.split(',') {
                        operands.convert(word)?;
                    }
                }
                Some(("status", word)) => operands.set_status(word)?,
                _ => {
                    return Err(Error::Usage(format!(
                        "unknown operand '{text}'; there are if=, of=, bs=, count=, skip=, seek=, \
                         isize=, osize=, conv= and status="
                    )));
                }
            }
        }
        Ok(operands)
    }

    fn convert(&mut self, word: &str) -> Result<()> {
        match word {
            "notrunc" if self.existing == Existing::Replaced => self.existing = Existing::Kept,
            "notrunc" => {}
            "nocreat" => self.existing = Existing::Required,
            "sparse" => self.sparse = true,
            "noerror" => self.salvage = true,
            "fsync" | "fdatasync" => self.flush = true,
            _ => {
                return Err(Error::Usage(format!(
                    "conv= does not know '{word}'; there are notrunc, nocreat, sparse, noerror, fsync \
                     and fdatasync"
                )));
            }
        }
        Ok(())
    }

    fn set_status(&mut self, word: &str) -> Result<()> {
        self.progress = match word {
            "none" | "noxfer" => false,
            "progress" => true,
            _ => {
                return Err(Error::Usage(format!(
                    "status= does not know '{word}'; there are none, noxfer and progress"
                )));
            }
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<Operands> {
        Operands::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn operands_are_read_by_key() {
        let texts = ["if=a=b", "of=c", "bs=1M", "count=0", "skip=2", "bs=4k", "seek=1", "isize=1G"];
        let more = ["osize=2G", "conv=sparse,notrunc,fsync", "status=progress"];
        let operands = parse(&[&texts[..], &more].concat()).expect("operands");
        assert_eq!(
            operands,
            Operands {
                source: Some("a=b".into()),
                target: Some("c".into()),
                block: Some(4096),
                count: Some(0),
                skip: Some(2),
                seek: Some(1),
                input_size: Some(1 << 30),
                output_size: Some(2 << 30),
                existing: Existing::Kept,
                sparse: true,
                salvage: false,
                flush: true,
                progress: true,
            }
        );
    }

    #[test]
    fn wrong_operands_are_named() {
        for text in [
            "sync=1",
            "a.raw",
            "bs=0",
            "bs=2G",
            "bs=x",
            "count=-1",
            "skip=",
            "conv=swab",
            "conv=",
            "status=all",
            "osize=-1",
        ] {
            let error = parse(&[text]).expect_err(text).to_string();
            let value = text.split('=').next_back().unwrap_or(text);
            assert!(error.contains(text) || error.contains(value), "{error}");
        }
    }
}
