//! `bitmap`: change persistent dirty bitmaps.

use cairn_block::engine::EngineConfig;
use cairn_block::graph::Policy;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::args::{DryRunArgs, FormatArgs, ObjectArgs, print, size};
use crate::error::{Error, Result};
use crate::ops::bitmap::{Action, BitmapRequest, change, rehearse};
use crate::ops::image::ImageSpec;
use crate::runtime;

const EXAMPLES: &str = "\
Actions are done in the order given.

Examples:
  cairn-img bitmap --add disk.qcow2 backup
  cairn-img bitmap --add --disable -g 1M disk.qcow2 weekly
  cairn-img bitmap --merge backup --clear disk.qcow2 weekly
  cairn-img bitmap --merge backup -b other.qcow2 -F qcow2 disk.qcow2 weekly
  cairn-img bitmap --remove disk.qcow2 backup";

/// Change persistent dirty bitmaps
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Bitmap {
    #[command(flatten)]
    actions: Actions,
    #[command(flatten)]
    image: FormatArgs,
    /// Bytes that one bit stands for, with --add: a power of two from 512 to 2G (default: 64k)
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true)]
    granularity: Option<String>,
    /// The image that holds the bitmaps to be merged
    #[arg(short = 'b', long, value_name = "FILE", allow_hyphen_values = true)]
    source_file: Option<String>,
    /// Format of that image
    #[arg(short = 'F', long, value_name = "FMT", allow_hyphen_values = true)]
    source_format: Option<String>,
    #[command(flatten)]
    dry_run: DryRunArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    /// The image
    #[arg(value_name = "FILE")]
    file: String,
    /// The bitmap; --remove-all needs none
    #[arg(value_name = "BITMAP")]
    bitmap: Option<String>,
}

/// The actions in the order of the command line.
#[derive(Debug)]
struct Actions(Vec<Action>);

/// Actions without a value: long option, help, and what it means.
const PLAIN: [(&str, &str, Action); 6] = [
    ("add", "Create the bitmap; it records changes", Action::Add),
    ("remove", "Delete the bitmap", Action::Remove),
    ("clear", "Forget all changes", Action::Clear),
    ("enable", "Record changes", Action::Enable),
    ("disable", "Record changes no longer", Action::Disable),
    ("remove-all", "Delete all bitmaps of the image", Action::RemoveAll),
];
const MERGE: &str = "merge";

impl FromArgMatches for Actions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Actions, clap::Error> {
        let mut actions = Vec::new();
        for (name, _, action) in PLAIN {
            for index in matches.indices_of(name).into_iter().flatten() {
                actions.push((index, action.clone()));
            }
        }
        let sources = matches.get_many::<String>(MERGE).into_iter().flatten();
        for (index, source) in matches.indices_of(MERGE).into_iter().flatten().zip(sources) {
            actions.push((index, Action::Merge(source.clone())));
        }
        actions.sort_by_key(|(index, _)| *index);
        Ok(Actions(actions.into_iter().map(|(_, action)| action).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Actions::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Actions {
    fn augment_args(command: Command) -> Command {
        let command = PLAIN.iter().fold(command, |command, (name, help, _)| {
            let arg = Arg::new(*name).long(*name).help(*help).num_args(0);
            command.arg(arg.action(ArgAction::Append).default_missing_value("on"))
        });
        command.arg(
            Arg::new(MERGE)
                .long(MERGE)
                .value_name("SOURCE")
                .help("Mark what is dirty in the bitmap SOURCE")
                .allow_hyphen_values(true)
                .action(ArgAction::Append),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Actions::augment_args(command)
    }
}

impl Bitmap {
    pub(super) fn run(self, policy: &Policy) -> Result<u8> {
        let graph = self.objects.graph(policy)?;
        let Actions(actions) = self.actions;
        let has = |wanted: &Action| actions.contains(wanted);
        let merges = actions.iter().any(|action| matches!(action, Action::Merge(_)));
        let needs_name = actions.iter().any(|action| *action != Action::RemoveAll);
        let refusals = [
            (
                actions.is_empty(),
                "give at least one of --add, --remove, --clear, --enable, --disable, --merge and \
                 --remove-all",
            ),
            (self.granularity.is_some() && !has(&Action::Add), "-g needs --add"),
            (self.source_file.is_some() && !merges, "-b needs --merge"),
            (self.source_format.is_some() && self.source_file.is_none(), "-F needs -b"),
            (needs_name && self.bitmap.is_none(), "give the image and the bitmap"),
            (!needs_name && self.bitmap.is_some(), "--remove-all takes no bitmap"),
        ];
        if let Some((_, problem)) = refusals.into_iter().find(|(wrong, _)| *wrong) {
            return Err(Error::Usage(problem.to_owned()));
        }
        let request = BitmapRequest {
            image: self.image.image(self.file),
            name: self.bitmap.unwrap_or_default(),
            granularity_bits: self.granularity.as_deref().map(granularity_bits).transpose()?,
            source: self
                .source_file
                .map(|name| ImageSpec::File { name, format: self.source_format }),
            actions,
        };
        let config = EngineConfig::default();
        if self.dry_run.dry_run {
            for line in runtime::run(&config, rehearse(&graph, &request))? {
                print(&format!("{line}\n"))?;
            }
            return Ok(0);
        }
        runtime::run(&config, change(&graph, &request))?;
        Ok(0)
    }
}

fn granularity_bits(text: &str) -> Result<u32> {
    let granularity = size("the granularity", text)?;
    if granularity.is_power_of_two() && (512..=2 << 30).contains(&granularity) {
        return Ok(granularity.trailing_zeros());
    }
    Err(Error::Usage(format!(
        "the granularity must be a power of two from 512 to 2G; it is {granularity}"
    )))
}
