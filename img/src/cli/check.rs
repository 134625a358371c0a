//! `check`: consistency of an image's metadata.

use cairn_block::driver::Repair;
use cairn_block::engine::EngineConfig;
use cairn_block::graph::Policy;
use cairn_block::options::CacheMode;
use clap::{Args, ValueEnum};

use super::args::{
    DryRunArgs, FormatArgs, ObjectArgs, OutputArgs, OutputForm, QuietArgs, ShareArgs, cache_or,
};
use super::{Program, report};
use crate::error::{Error, Result};
use crate::ops::check::check;
use crate::ops::image::Access;
use crate::output::check::{human, json, repaired, would_repair};
use crate::runtime;

const NOTES: &str = "\
Exit status: 0 clean, 1 the check could not be completed, 2 the image is damaged,
3 clusters are leaked (wasted space, no damage), 63 the format has no check.

Examples:
  cairn-img check disk.qcow2
  cairn-img check -r leaks disk.qcow2";

/// Check the metadata of an image for damage, and repair it
#[derive(Args, Debug)]
#[command(after_help = NOTES)]
pub(super) struct Check {
    #[command(flatten)]
    image: FormatArgs,
    /// Repair leaked clusters only, or all that is wrong
    #[arg(short, long, value_name = "leaks|all", conflicts_with = "force_share")]
    repair: Option<RepairArg>,
    /// Cache mode (default: writeback)
    #[arg(short = 'T', long, value_name = "MODE")]
    cache: Option<String>,
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(flatten)]
    share: ShareArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    quiet: QuietArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    /// The image
    #[arg(value_name = "FILE")]
    file: String,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum RepairArg {
    Leaks,
    All,
}

impl Check {
    pub(super) fn run(self, program: Program, policy: &Policy) -> Result<u8> {
        let graph = self.objects.graph(policy)?;
        let repair = match self.repair {
            None => Repair::empty(),
            Some(RepairArg::Leaks) => Repair::LEAKS,
            Some(RepairArg::All) => Repair::LEAKS | Repair::ERRORS,
        };
        let planned = if self.dry_run.dry_run { repair } else { Repair::empty() };
        let repair = repair - planned;
        let access = Access {
            write: !repair.is_empty(),
            check: true,
            force_share: self.share.force_share,
            cache: cache_or(self.cache.as_deref(), CacheMode::Writeback)?,
            ..Access::default()
        };
        let filename = self.file.clone();
        let spec = self.image.image(self.file);
        let form = self.output.output;
        let quiet = &self.quiet;
        runtime::run(&EngineConfig::default(), async {
            let image = spec.open(&graph, &access).await?;
            let format = image.node().format();
            let checked = check(
                &image,
                repair,
                |line| eprintln!("{line}"),
                |report| match form {
                    OutputForm::Human => quiet.print(&repaired(report)),
                    OutputForm::Json => Ok(()),
                },
            )
            .await;
            let closed = image.close().await;
            let checked = match checked {
                Err(error) if error.hint(program.name()).is_some() => {
                    let status = report(program, &error);
                    let unfinished = Error::Usage("the check could not be completed".to_owned());
                    return Err(unfinished.with_status(status));
                }
                other => other?,
            };
            quiet.print(&match form {
                OutputForm::Human => human(&checked.report),
                OutputForm::Json => json(&filename, format, &checked.report),
            })?;
            if form == OutputForm::Human && !planned.is_empty() {
                quiet.print(&would_repair(&checked.report, planned))?;
            }
            closed?;
            Ok(checked.exit_status())
        })
    }
}
