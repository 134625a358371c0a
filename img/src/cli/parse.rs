//! From arguments to a [`Cli`], with one line for each mistake.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;

use cairn_block::driver::drivers;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use super::{Cli, Program};

/// Columns of the list of formats in the help text.
const HELP_COLUMNS: usize = 78;

/// Why there is nothing to run.
pub enum Stop {
    /// Help or version was asked for, and printed.
    Shown,
    /// A mistake in the arguments.
    Usage(String),
}

/// Parses the arguments of the process, the first of which is the program's name.
pub(super) fn parse(program: Program, argv: Vec<OsString>) -> Result<Cli, Stop> {
    if argv.len() < 2 {
        return Err(Stop::Usage(format!("no command given; see '{} --help'", program.name())));
    }
    let command = command(program);
    // Commands come before their arguments, so the first word that names one is it.
    let page = argv
        .iter()
        .skip(1)
        .filter_map(|arg| arg.to_str())
        .find(|arg| command.find_subcommand(arg).is_some())
        .map_or(program.name().to_owned(), |name| format!("{} {name}", program.name()));
    let known: Vec<String> =
        command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    command
        .try_get_matches_from(argv)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| stop(&known, &page, &error))
}

/// The command line's description, under the name of `program`.
pub(super) fn command(program: Program) -> clap::Command {
    let name = program.name();
    let mut command = Cli::command()
        .name(name)
        .bin_name(name)
        .version(program.version())
        .after_help(format_list());
    let names: Vec<String> =
        command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for sub in names {
        command = command.mut_subcommand(sub, |sub| match sub.get_after_help() {
            Some(text) => {
                let text = text.to_string().replace(Program::CairnImg.name(), name);
                sub.after_help(text)
            }
            None => sub,
        });
    }
    command
}

/// `Supported image formats:` and the names, in lines, as programs look for them.
fn format_list() -> String {
    let mut names: Vec<&str> = drivers().map(|driver| driver.name).collect();
    names.sort_unstable();
    let mut text = String::from("Supported image formats:\n\n ");
    let mut column = 1;
    for name in names {
        if column + 1 + name.len() > HELP_COLUMNS {
            text.push_str("\n ");
            column = 1;
        }
        let _ = write!(text, " {name}");
        column += 1 + name.len();
    }
    text
}

/// Prints what was asked for, or describes the mistake in one line that leads to the help `page`.
/// `commands` are the names of the subcommands.
pub fn stop(commands: &[String], page: &str, error: &clap::Error) -> Stop {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that closes the pipe early has seen enough.
        let _ = write!(std::io::stdout(), "{}", error.render());
        return Stop::Shown;
    }
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let arg = context(ContextKind::InvalidArg).unwrap_or_default();
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    let mut text = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let name = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            return Stop::Usage(format!(
                "unknown command '{name}'; the commands are {}",
                commands.join(", ")
            ));
        }
        ErrorKind::UnknownArgument if arg.starts_with('-') => format!("unknown option '{arg}'"),
        ErrorKind::UnknownArgument => format!("unexpected argument '{arg}'"),
        ErrorKind::MissingRequiredArgument => format!("missing argument {arg}"),
        ErrorKind::ArgumentConflict => {
            let prior = context(ContextKind::PriorArg).unwrap_or_default();
            format!("'{arg}' and '{prior}' cannot be used together")
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("option '{arg}' needs a value"),
        ErrorKind::InvalidValue => {
            let valid = context(ContextKind::ValidValue).unwrap_or_default();
            format!("'{value}' is no value for '{arg}'; it takes one of: {valid}")
        }
        ErrorKind::ValueValidation => match std::error::Error::source(error) {
            Some(source) => format!("option '{arg}': {source}"),
            None => format!("'{value}' is no value for '{arg}'"),
        },
        ErrorKind::TooManyValues => format!("option '{arg}' takes no value '{value}'"),
        ErrorKind::InvalidUtf8 => "an argument is not valid UTF-8".to_owned(),
        kind => kind.to_string(),
    };
    if let Some(suggestion) = context(ContextKind::SuggestedArg) {
        let _ = write!(text, " (did you mean '{suggestion}'?)");
    }
    let _ = write!(text, "; see '{page} --help'");
    Stop::Usage(text)
}
