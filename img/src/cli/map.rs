//! `map`: where the data of an image is.

use std::io::{BufWriter, Write as _};

use cairn_block::engine::EngineConfig;
use cairn_block::graph::Policy;
use clap::Args;

use super::args::{FormatArgs, ObjectArgs, OutputArgs, OutputForm, ShareArgs, size_or};
use crate::error::{Error, Result};
use crate::ops::image::Access;
use crate::ops::map::{MapEntry, map};
use crate::output::map::{HUMAN_HEADER, human, json};
use crate::runtime;

const EXAMPLES: &str = "\
Examples:
  cairn-img map --output=json disk.qcow2
  cairn-img map --start-offset 1G --max-length 64M disk.qcow2";

/// Show which ranges of an image are allocated, and where
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Map {
    #[command(flatten)]
    image: FormatArgs,
    /// First byte to look at (default: 0)
    #[arg(short, long, value_name = "OFFSET", allow_hyphen_values = true)]
    start_offset: Option<String>,
    /// Bytes to look at (default: to the end)
    #[arg(short = 'l', long, value_name = "SIZE", allow_hyphen_values = true)]
    max_length: Option<String>,
    #[command(flatten)]
    share: ShareArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    /// The image
    #[arg(value_name = "FILE")]
    file: String,
}

impl Map {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        let graph = self.objects.graph(policy)?;
        let start = size_or("the start offset", self.start_offset.as_deref(), 0)?;
        let length = size_or("the length", self.max_length.as_deref(), u64::MAX)?;
        let access = Access { force_share: self.share.force_share, ..Access::default() };
        let spec = self.image.image(self.file);
        let mut out = BufWriter::new(std::io::stdout().lock());
        runtime::run(&EngineConfig::default(), async {
            let image = spec.open(&graph, &access).await?;
            match self.output.output {
                OutputForm::Human => {
                    out.write_all(HUMAN_HEADER.as_bytes()).map_err(Error::Stdout)?;
                    map(&image, start, length, |entry| {
                        let line = human_line(&entry)?;
                        out.write_all(line.as_bytes()).map_err(Error::Stdout)
                    })
                    .await?;
                }
                OutputForm::Json => {
                    let mut separator = "[";
                    map(&image, start, length, |entry| {
                        let line = json(&entry);
                        write!(out, "{separator}{line}").map_err(Error::Stdout)?;
                        separator = ",\n";
                        Ok(())
                    })
                    .await?;
                    out.write_all(b"]\n").map_err(Error::Stdout)?;
                }
            }
            image.close().await?;
            Ok(())
        })?;
        out.flush().map_err(Error::Stdout)?;
        Ok(0)
    }
}

/// The line of an entry; nothing for one without data.
fn human_line(entry: &MapEntry) -> Result<String> {
    if !entry.data || entry.zero {
        return Ok(String::new());
    }
    match (entry.offset, &entry.filename) {
        (Some(offset), Some(filename)) => Ok(human(entry, offset, filename)),
        _ => Err(Error::Usage(format!(
            "the data at offset {} has no place of its own in a file (it is compressed, encrypted \
             or stored elsewhere); --output=json can show it",
            entry.start
        ))),
    }
}
