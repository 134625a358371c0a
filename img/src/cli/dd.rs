//! `dd`: copy part of an image.

use cairn_block::graph::Policy;
use cairn_block::options::parse_size;
use clap::Args;

use super::args::{DryRunArgs, FormatArgs, ObjectArgs, ShareArgs, print};
use crate::error::{Error, Result};
use crate::ops::dd::{Copied, DdRequest, dd, rehearse};
use crate::runtime;

const EXAMPLES: &str = "\
Operands:
  if=FILE    source image
  of=FILE    image to create
  bs=SIZE    length of a block (default: 512)
  count=N    blocks of the source to use at most, counted from its beginning
  skip=N     blocks to leave out at the beginning of the source

Example:
  cairn-img dd -O qcow2 bs=1M skip=16 if=disk.raw of=part.qcow2";

/// Copy a part of an image
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Dd {
    #[command(flatten)]
    image: FormatArgs,
    /// Format of the new image (default: raw)
    #[arg(short = 'O', long, value_name = "FMT", allow_hyphen_values = true)]
    output_format: Option<String>,
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
        let (Some(source), Some(target)) = (operands.source, operands.target) else {
            return Err(Error::Usage(
                "give the source as if=FILE and the target as of=FILE".into(),
            ));
        };
        let request = DdRequest {
            source: self.image.image(source.clone()),
            force_share: self.share.force_share,
            target,
            target_format: self.output_format.unwrap_or_else(|| "raw".to_owned()),
            block: operands.block.unwrap_or(BLOCK),
            count: operands.count,
            skip: operands.skip.unwrap_or(0),
        };
        if self.dry_run.dry_run {
            let told = runtime::run_watched(rehearse(&graph, request), || {})?;
            print(&format!("{told}\n"))?;
            return Ok(0);
        }
        let copied = runtime::run_watched(dd(&graph, request), || {})?;
        if copied == Copied::SkippedBeyondEnd {
            eprintln!("'{source}' ends before the blocks to skip; the new image is empty");
        }
        Ok(0)
    }
}

/// The operands by their keys; later ones override earlier ones.
#[derive(Debug, Default, PartialEq, Eq)]
struct Operands {
    source: Option<String>,
    target: Option<String>,
    block: Option<u64>,
    count: Option<u64>,
    skip: Option<u64>,
}

impl Operands {
    fn parse(texts: &[String]) -> Result<Operands> {
        let mut operands = Operands::default();
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
                _ => {
                    return Err(Error::Usage(format!(
                        "unknown operand '{text}'; there are if=, of=, bs=, count= and skip="
                    )));
                }
            }
        }
        Ok(operands)
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
        let operands =
            parse(&["if=a=b", "of=c", "bs=1M", "count=0", "skip=2", "bs=4k"]).expect("operands");
        assert_eq!(
            operands,
            Operands {
                source: Some("a=b".into()),
                target: Some("c".into()),
                block: Some(4096),
                count: Some(0),
                skip: Some(2),
            }
        );
    }

    #[test]
    fn wrong_operands_are_named() {
        for text in ["seek=1", "a.raw", "bs=0", "bs=2G", "bs=x", "count=-1", "skip="] {
            let error = parse(&[text]).expect_err(text).to_string();
            let value = text.split('=').next_back().unwrap_or(text);
            assert!(error.contains(text) || error.contains(value), "{error}");
        }
    }
}
