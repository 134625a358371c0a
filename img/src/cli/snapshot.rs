//! `snapshot`: list, create, apply and delete internal snapshots.

use cairn_block::engine::EngineConfig;
use cairn_block::graph::Policy;
use clap::Args;

use super::args::{DryRunArgs, FormatArgs, ObjectArgs, QuietArgs, ShareArgs, print_with};
use crate::error::{Error, Result};
use crate::ops::snapshot::{self, Action};
use crate::output::snapshot::table;
use crate::runtime;

const EXAMPLES: &str = "\
Examples:
  cairn-img snapshot -c before-upgrade disk.qcow2
  cairn-img snapshot -l disk.qcow2
  cairn-img snapshot -a before-upgrade disk.qcow2
  cairn-img snapshot -d before-upgrade disk.qcow2";

/// List, create, apply or delete internal snapshots
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Snapshot {
    #[command(flatten)]
    image: FormatArgs,
    /// List all snapshots (default)
    #[arg(short, long)]
    list: bool,
    /// Keep the present content as a snapshot of this name
    #[arg(short, long, value_name = "NAME", allow_hyphen_values = true)]
    create: Option<String>,
    /// Go back to a snapshot
    #[arg(short, long, value_name = "ID|NAME", allow_hyphen_values = true)]
    apply: Option<String>,
    /// Delete a snapshot
    #[arg(short, long, value_name = "ID|NAME", allow_hyphen_values = true)]
    delete: Option<String>,
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(flatten)]
    share: ShareArgs,
    #[command(flatten)]
    quiet: QuietArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    /// The image
    #[arg(value_name = "FILE")]
    file: String,
}

impl Snapshot {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        let graph = self.objects.graph(policy)?;
        let mut actions: Vec<Action> = [
            self.create.map(Action::Create),
            self.apply.map(Action::Apply),
            self.delete.map(Action::Delete),
        ]
        .into_iter()
        .flatten()
        .collect();
        if actions.len() + usize::from(self.list) > 1 {
            return Err(Error::Usage("give one of -l, -c, -a and -d".to_owned()));
        }
        let spec = self.image.image(self.file);
        let config = EngineConfig::default();
        let Some(action) = actions.pop() else {
            let list = snapshot::list(&graph, &spec, self.share.force_share);
            let snapshots = runtime::run(&config, list)?;
            print_with(|out| table(&snapshots, "", out))?;
            return Ok(0);
        };
        if self.share.force_share {
            return Err(Error::Usage(
                "-U is for images that others write to; they must not be changed meanwhile"
                    .to_owned(),
            ));
        }
        if self.dry_run.dry_run {
            let told = runtime::run(&config, snapshot::rehearse(&graph, &spec, &action))?;
            self.quiet.print(&format!("{told}\n"))?;
            return Ok(0);
        }
        runtime::run(&config, snapshot::change(&graph, &spec, action))?;
        Ok(0)
    }
}
