//! `resize`: change the size of the virtual disk.

use cairn_block::driver::Prealloc;
use cairn_block::engine::EngineConfig;
use cairn_block::graph::Policy;
use clap::{Args, ValueEnum};

use super::args::{DryRunArgs, FormatArgs, ObjectArgs, QuietArgs, size};
use crate::error::Result;
use crate::ops::image::Access;
use crate::ops::resize::{NewSize, new_size, resize};
use crate::runtime;

const EXAMPLES: &str = "\
Examples:
  cairn-img resize disk.qcow2 +10G
  cairn-img resize -f raw --shrink disk.raw 5G";

/// Change the size of an image
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Resize {
    #[command(flatten)]
    image: FormatArgs,
    /// Allow the loss of the data behind the new end
    #[arg(long)]
    shrink: bool,
    /// Storage for the added part (default: off)
    #[arg(long, value_name = "MODE")]
    preallocation: Option<PreallocArg>,
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(flatten)]
    quiet: QuietArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    /// The image
    #[arg(value_name = "FILE")]
    file: String,
    /// New size, or with a sign the difference
    #[arg(value_name = "[+|-]SIZE", allow_hyphen_values = true)]
    size: String,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum PreallocArg {
    Off,
    Metadata,
    Falloc,
    Full,
}

impl Resize {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        let graph = self.objects.graph(policy)?;
        let wanted = parse_size(&self.size)?;
        let prealloc = match self.preallocation {
            None | Some(PreallocArg::Off) => Prealloc::Off,
            Some(PreallocArg::Metadata) => Prealloc::Metadata,
            Some(PreallocArg::Falloc) => Prealloc::Falloc,
            Some(PreallocArg::Full) => Prealloc::Full,
        };
        let change = !self.dry_run.dry_run;
        let access = Access { write: change, resize: change, ..Access::default() };
        let spec = self.image.image(self.file);
        let done = runtime::run(&EngineConfig::default(), async {
            let image = spec.open(&graph, &access).await?;
            let size = image.size();
            let resized = if change {
                resize(&image, wanted, prealloc, self.shrink)
                    .await
                    .map(|()| "Image resized.\n".into())
            } else {
                new_size(&image, wanted, prealloc, self.shrink).map(|new| {
                    format!("Would resize '{}' from {size} to {new} bytes.\n", spec.label())
                })
            };
            let closed = image.close().await;
            let done: String = resized?;
            closed?;
            Ok(done)
        })?;
        self.quiet.print(&done)?;
        Ok(0)
    }
}

/// Reads a size, or with a sign a difference.
fn parse_size(text: &str) -> Result<NewSize> {
    let parse = |digits| size("the size", digits);
    if let Some(digits) = text.strip_prefix('+') {
        parse(digits).map(NewSize::Grow)
    } else if let Some(digits) = text.strip_prefix('-') {
        parse(digits).map(NewSize::Shrink)
    } else {
        parse(text).map(NewSize::Exactly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_makes_a_difference() {
        assert_eq!(parse_size("10M").expect("size"), NewSize::Exactly(10 << 20));
        assert_eq!(parse_size("+1G").expect("size"), NewSize::Grow(1 << 30));
        assert_eq!(parse_size("-10M").expect("size"), NewSize::Shrink(10 << 20));
        for text in ["", "+", "-", "--1", "+foo"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
