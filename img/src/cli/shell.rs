//! Texts for packagers: completion scripts and manual pages, made from the command line itself.

use std::io::{self, Write as _};

use super::{Program, parse};
use crate::error::Error;

/// Prints a completion script for `shell`.
pub(super) fn print_completions(
    program: Program,
    shell: clap_complete::Shell,
) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut parse::command(program), program.name(), &mut script);
    print(&script)
}

/// Prints the manual page of `command`, or with an empty name that of the program, as roff.
pub(super) fn print_man(program: Program, command: &str) -> Result<(), Error> {
    let mut whole = parse::command(program);
    whole.build();
    let page = if command.is_empty() {
        whole
    } else {
        let known = whole.get_subcommands().find(|sub| sub.get_name() == command);
        let name = format!("{}-{command}", program.name());
        known
            .cloned()
            .ok_or_else(|| Error::Usage(format!("there is no command '{command}'")))?
            .name(name)
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff).map_err(Error::Stdout)?;
    print(&roff)
}

fn print(text: &[u8]) -> Result<(), Error> {
    io::stdout().write_all(text).map_err(Error::Stdout)
}
