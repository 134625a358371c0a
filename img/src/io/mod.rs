//! The I/O exerciser: single requests to an image, from `-c` arguments, a script or by hand.
//!
//! [`command`] is the table of commands, [`commands`] what they do; [`session`] holds the open image
//! and the requests in flight. Results, and the errors that scripts look for, keep the form of the
//! reference's tool, because test suites parse them; the other words are our own.

mod args;
mod command;
mod commands;
mod flags;
pub mod image;
mod input;
mod number;
mod output;
mod report;
mod session;

use std::ffi::OsString;
use std::process::ExitCode;

use cairn_block::engine::EngineConfig;
use cairn_block::graph::Graph;

use crate::cli::args::print;
use crate::cli::{Program, objects, parse, report, shell};
use crate::error::Result;
use crate::runtime;
use args::Cli;
use image::Opening;
use input::Input;
use output::Output;
use session::Session;

/// Exit status if any command failed, or nothing could be started.
const EXIT_FAILURE: u8 = 1;

/// Runs the program with the arguments of the process, the first of which is its name.
pub fn run(argv: Vec<OsString>) -> ExitCode {
    let program = Program::from_argv0(Program::CairnIo, argv.first().map(OsString::as_os_str));
    if let Some(help) = objects::asked_help(&argv) {
        return ExitCode::from(print(&help).map_or(EXIT_FAILURE, |()| 0));
    }
    let code = match args::parse(program, argv) {
        Ok(cli) => execute(program, cli).unwrap_or_else(|error| report(program, &error)),
        Err(parse::Stop::Shown) => 0,
        Err(parse::Stop::Usage(message)) => {
            eprintln!("{}: {message}", program.name());
            EXIT_FAILURE
        }
    };
    ExitCode::from(code)
}

/// Runs the commands and returns the exit status.
fn execute(program: Program, cli: Cli) -> Result<u8> {
    if let Some(shell) = cli.completions {
        return shell::print_completions(args::command(program), shell).map(|()| 0);
    }
    if cli.man {
        return shell::print_man(args::command(program), "").map(|()| 0);
    }
    let graph = runtime::graph(cli.policy.policy()?);
    objects::create(&graph, &cli.objects)?;
    let opening = cli.opening()?;
    runtime::run(&EngineConfig::default(), async {
        let mut session =
            Session::new(graph, program, cli.image_opts, cli.misalign, Output::standard());
        if let Some(file) = &cli.file {
            session.open(&opening.of(file)).await?;
        }
        let mut input = Input::new(program, cli.commands);
        let mut failed = false;
        while !session.is_over()
            && let Some(line) = input.next(&session.out).await
        {
            failed |= !command::execute(&mut session, &line).await;
        }
        session.close().await?;
        session.out.finish()?;
        Ok(if failed { EXIT_FAILURE } else { 0 })
    })
}

/// Runs command `lines` on the image that the image options `image` describe, without a word to
/// anybody. Returns whether all of them succeeded. For programs that test the commands; the caller is on
/// an I/O thread.
pub async fn exercise(image: &str, lines: &[&str]) -> Result<bool> {
    // Under the reference's name a failed request has no second line on standard error.
    let program = Program::QemuIo;
    let mut session = Session::new(Graph::new(), program, true, false, Output::silent());
    let name = Some(image.to_owned());
    session.open(&Opening { name, image_opts: true, ..Opening::default() }).await?;
    let mut succeeded = true;
    for line in lines {
        succeeded &= command::execute(&mut session, line).await;
        if session.is_over() {
            break;
        }
    }
    session.close().await?;
    Ok(succeeded)
}
