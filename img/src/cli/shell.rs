//! Texts for packagers: completion scripts and manual pages, made from the command line itself.

use std::io::{self, Write as _};

use crate::error::Error;

/// Prints a completion script of the program `command` for `shell`.
pub fn print_completions(
    mut command: clap::Command,
    shell: clap_complete::Shell,
) -> Result<(), Error> {
    let mut script = Vec::new();
    let name = command.get_name().to_owned();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(&script)
}

/// Prints the manual page of the subcommand `command`, or with an empty name that of the program, as
/// roff.
pub fn print_man(mut whole: clap::Command, command: &str) -> Result<(), Error> {
    whole.build();
    let page = if command.is_empty() {
        whole
    } else {
        let known = whole.get_subcommands().find(|sub| sub.get_name() == command);
        let name = format!("{}-{command}", whole.get_name());
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
