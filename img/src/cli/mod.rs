//! The command line: one module for each command, and what is common to all of them.
//!
//! A command's module describes its arguments, turns them into a typed request for [`crate::ops`],
//! and prints the result through [`crate::output`]. Options keep the letters and names of the
//! reference, may come after operands, and may be abbreviated while they stay unambiguous.

mod amend;
pub mod args;
mod bench;
mod bitmap;
mod capabilities;
mod check;
mod checksum;
mod commit;
mod compact;
mod compare;
mod convert;
mod create;
mod dd;
mod info;
mod map;
mod measure;
pub mod objects;
pub mod parse;
pub mod policy;
mod program;
mod rebase;
mod resize;
pub mod shell;
mod snapshot;
mod transfer;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use program::Program;

use crate::error::Error;

/// Exit status of a failure that has none of its own.
const EXIT_FAILURE: u8 = 1;

/// Create, inspect, convert, check and compare disk images
#[derive(Debug, Parser)]
#[command(
    disable_help_subcommand = true,
    infer_long_args = true,
    args_override_self = true,
    max_term_width = 100
)]
struct Cli {
    /// Accepted for compatibility; there are no trace events
    #[arg(short = 'T', long, value_name = "SPEC", allow_hyphen_values = true)]
    trace: Option<String>,
    /// Print what this program can do, as JSON: commands, formats, protocols, filters and features
    #[arg(long)]
    capabilities: bool,
    /// Print a completion script for bash, elvish, fish, powershell or zsh
    #[arg(long, value_name = "SHELL")]
    completions: Option<clap_complete::Shell>,
    /// Print the manual page, or that of one command, in roff
    #[arg(long, value_name = "COMMAND", num_args = 0..=1, default_missing_value = "")]
    man: Option<String>,
    #[command(flatten)]
    policy: policy::PolicyArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Amend(amend::Amend),
    Bench(bench::Bench),
    Bitmap(bitmap::Bitmap),
    Check(check::Check),
    Checksum(checksum::Checksum),
    Commit(commit::Commit),
    Compact(compact::Compact),
    Compare(compare::Compare),
    Convert(convert::Convert),
    Create(create::Create),
    Dd(dd::Dd),
    Info(info::Info),
    Map(map::Map),
    Measure(measure::Measure),
    Rebase(rebase::Rebase),
    Resize(resize::Resize),
    Snapshot(snapshot::Snapshot),
}

/// Runs the program with the arguments of the process, the first of which is its name.
pub fn run(argv: Vec<OsString>) -> ExitCode {
    let program = Program::from_argv0(Program::CairnImg, argv.first().map(OsString::as_os_str));
    if let Some(help) = objects::asked_help(&argv) {
        return ExitCode::from(args::print(&help).map_or(EXIT_FAILURE, |()| 0));
    }
    let code = match parse::parse(program, argv) {
        Ok(cli) => execute(program, cli).unwrap_or_else(|error| report(program, &error)),
        Err(parse::Stop::Shown) => 0,
        Err(parse::Stop::Usage(message)) => {
            eprintln!("{}: {message}", program.name());
            EXIT_FAILURE
        }
    };
    ExitCode::from(code)
}

/// Tells the user what failed, and what can be done about it; returns the exit status.
pub(crate) fn report(program: Program, error: &Error) -> u8 {
    eprintln!("{}: {error}", program.name());
    if let Some(hint) = error.hint(program.name()) {
        eprintln!("{hint}");
    }
    error.exit_status().unwrap_or(EXIT_FAILURE)
}

/// Runs the command and returns its exit status.
fn execute(program: Program, cli: Cli) -> Result<u8, Error> {
    if let Some(shell) = cli.completions {
        return shell::print_completions(parse::command(program), shell).map(|()| 0);
    }
    if cli.capabilities {
        let document = capabilities::capabilities(program);
        return args::print(&crate::output::json_document(document)).map(|()| 0);
    }
    if let Some(command) = cli.man {
        return shell::print_man(parse::command(program), &command).map(|()| 0);
    }
    let policy = cli.policy.policy()?;
    match cli.command {
        Some(Command::Amend(args)) => args.run(&policy),
        Some(Command::Bench(args)) => args.run(&policy),
        Some(Command::Bitmap(args)) => args.run(&policy),
        Some(Command::Check(args)) => args.run(program, &policy),
        Some(Command::Checksum(args)) => args.run(&policy),
        Some(Command::Commit(args)) => args.run(&policy),
        Some(Command::Compact(args)) => args.run(&policy),
        Some(Command::Compare(args)) => args.run(&policy),
        Some(Command::Convert(args)) => args.run(program, &policy),
        Some(Command::Create(args)) => args.run(&policy),
        Some(Command::Dd(args)) => args.run(&policy),
        Some(Command::Info(args)) => args.run(&policy, cli.policy.strict_policy()?),
        Some(Command::Map(args)) => args.run(&policy),
        Some(Command::Measure(args)) => args.run(&policy),
        Some(Command::Rebase(args)) => args.run(&policy),
        Some(Command::Resize(args)) => args.run(&policy),
        Some(Command::Snapshot(args)) => args.run(&policy),
        // Global options alone are no error.
        None => Ok(0),
    }
}
