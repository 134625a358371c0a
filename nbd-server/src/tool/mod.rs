//! The program `cairn-nbd`: serves one image, lists the exports of other servers, attaches devices of
//! the kernel.
//!
//! Options keep the letters and names of the reference. [`args`] is the command line, [`plan`] what it
//! means, and the other modules do it.

mod activation;
mod args;
mod background;
mod device;
mod list;
mod netlink;
mod plan;
mod serve;

use std::ffi::OsString;
use std::process::ExitCode;

use cairn_img::cli::args::print;
use cairn_img::cli::parse::Stop;
use cairn_img::cli::{Program, objects, shell};

use crate::error::{Error, Result};
use plan::Plan;

/// Exit status of a failure.
const EXIT_FAILURE: u8 = 1;

/// Runs the program with the arguments of the process, the first of which is its name.
pub fn run(argv: Vec<OsString>) -> ExitCode {
    let program = Program::from_argv0(Program::CairnNbd, argv.first().map(OsString::as_os_str));
    let result = if let Some(help) = objects::asked_help(&argv) {
        print(&help).map_err(Error::from)
    } else {
        match args::parse(program, argv.clone()) {
            Ok(cli) => execute(program, cli, &argv),
            Err(Stop::Shown) => Ok(()),
            Err(Stop::Usage(message)) => Err(Error::Usage(message)),
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Told) => ExitCode::from(EXIT_FAILURE),
        Err(error) => {
            eprintln!("{}: {error}", program.name());
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn execute(program: Program, cli: args::Cli, argv: &[OsString]) -> Result<()> {
    if let Some(shell) = cli.completions {
        return Ok(shell::print_completions(args::command(program), shell)?);
    }
    if cli.man {
        return Ok(shell::print_man(args::command(program), "")?);
    }
    match Plan::new(program, cli)? {
        Plan::Disconnect { device } => {
            device::detach(&device)?;
            Ok(print(&format!("{device} disconnected\n"))?)
        }
        Plan::List(plan) => list::list(&plan),
        Plan::Serve(plan) if plan.is_background && !background::is_child() => {
            if background::start(argv)? { Ok(()) } else { Err(Error::Told) }
        }
        Plan::Serve(plan) => serve::serve(program, *plan),
    }
}
