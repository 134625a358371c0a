//! The commands a person runs: `cargo xtask demo`, `test`, `bench NAME`, `fuzz TARGET`, `soak`.

mod apt;
mod bench;
mod demo;
mod error;
mod fuzz;
mod python;
mod shell;
mod soak;
mod test;
mod tool;

use std::process::ExitCode;

use error::Error;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  demo                 install what it needs, build, and show a disk image going there and back
  test [ARGS]          install what the tests need and run all of them; ARGS go to the test runner
                         --full       real input at its full size of 6 GiB
                         --no-install take the machine as it is
  bench NAME [OPTIONS] compare speed and memory with stock; NAME is convert, create, random, start,
                       check, crypto, commit, rebase, memory or all
                         --size full|quick   sample disk of 6 GiB (default) or 512 MiB
                         --pairs N           runs of each tool (default 5)
                         --only TEXT         cases whose name contains TEXT
                         --dir DIR           where sample and outputs lie (default target/bench)
                         --ours FILE         take this binary instead of building one
                         --json FILE         write the figures there, too
  bench nbd [OPTIONS]  compare the NBD server with stock and nbdkit
                         --pairs N           runs of each server (default 3)
                         --seconds N         length of a run (default 4)
                         --only TEXT         cases whose name contains TEXT
                         --ours FILE         take this binary instead of building one
  bench user [OPTIONS] compare the speed of RISC-V programs with stock
                         --pairs N           runs of each tool (default 5)
                         --ours FILE         take this binary instead of building one
                         --sysroot DIR       run the python3 that is unpacked there, too
  fuzz TARGET [--seconds N]
                       fuzz the loader of programs, the commands of the I/O exerciser, the LUKS or qcow2 opener,
                       or the options parser (elf, io, luks, qcow2, options) for N seconds
  soak [OPTIONS]       many good, slow and silent clients of one NBD server
                         --seconds N         how long they are together (default 180)
                         --ours FILE         take this binary instead of building one
  tool NAME            install the cargo tool NAME (cargo-deny, cargo-nextest) if it is missing and
                       print where it is
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let result = match args.next().as_deref() {
        Some("demo") => demo::run(args.collect()),
        Some("test") => test::run(args.collect()),
        Some("bench") => bench::run(args.collect()),
        Some("fuzz") => fuzz::run(args.collect()),
        Some("soak") => soak::run(&args.collect::<Vec<_>>()),
        Some("tool") => tool::run(args.collect()),
        Some("help" | "--help" | "-h") | None => {
            print!("{USAGE}");
            Ok(())
        }
        Some(other) => Err(Error::Usage(format!("there is no command '{other}'"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            if matches!(error, Error::Usage(_)) {
                eprint!("\n{USAGE}");
            }
            ExitCode::FAILURE
        }
    }
}
