//! The command line.

mod help;
mod options;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_jit::Cranelift;
use cairn_riscv::Riscv;
use cairn_tcg::region::RegionChoices;
use cairn_tcg::{Jit, LiftOptions};

use crate::abi::{Cpu, Machine, UserCpu};
use crate::host::signal::set_mask;
use crate::log::{Log, LogItems};
use crate::process::Choices;
use crate::run;
use crate::signal::SignalSet;
use crate::start::{Program, Ready, StartError, prepare};
use options::{Command, Options, Problem};

/// Exit codes: of a wrong command line, and of a program that cannot be run.
const USAGE: i32 = 1;
const NOT_RUN: i32 = 255;

/// Runs the program that the command line names. It returns an exit code if that does not begin; a program that
/// begins ends this process.
#[must_use]
pub fn main() -> i32 {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let command = options::parse(arguments, &environment);
    match command {
        Ok(Command::Show(text)) => {
            // A reader that has gone away does not need the rest.
            let _ = std::io::stdout().write_all(text.as_bytes());
            0
        }
        Ok(Command::Run(options)) => run(*options),
        Err(problem) => {
            tell(&problem.to_string());
            USAGE
        }
    }
}

fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "cairn-user: {text}");
}

fn run(options: Options) -> i32 {
    let log = match open_log(options.log, options.log_file.as_deref()) {
        Ok(log) => Arc::new(log),
        Err(problem) => {
            tell(&problem.to_string());
            return USAGE;
        }
    };
    let missing = |error: &StartError| match error {
        StartError::Open { .. } => USAGE,
        _ => NOT_RUN,
    };
    match start(options, log) {
        Ok(never) => match never {},
        Err(error) => {
            tell(&error.to_string());
            missing(&error)
        }
    }
}

fn open_log(items: LogItems, file: Option<&Path>) -> Result<Log, Problem> {
    let Some(path) = file else { return Ok(Log::new(items, None)) };
    // `%d` stands for the process.
    let name = path.to_string_lossy().replace("%d", &std::process::id().to_string());
    let path = PathBuf::from(name);
    // Programs that are executed go on with it.
    let file = File::options().create(true).append(true).open(&path);
    let file = file.map_err(|error| Problem::LogFile { path: path.clone(), error })?;
    let moved = crate::host::process::move_up(file).map_err(|errno| Problem::LogFile {
        path,
        error: std::io::Error::from_raw_os_error(errno.0),
    })?;
    Ok(Log::new(items, Some(moved)))
}

enum Never {}

fn start(options: Options, log: Arc<Log>) -> Result<Never, StartError> {
    let instructions = if options.single { 1 } else { LiftOptions::default().instructions };
    let lift = LiftOptions { instructions, ..LiftOptions::default() };
    let choices =
        Choices { arguments: options.own, release: options.release, lift, jit: options.jit };
    let program = Program {
        path: options.program,
        arguments: options.arguments,
        environment: options.environment,
        machine: options.machine.and_then(Machine::named),
        cpu: options.cpu,
        sysroot: options.sysroot,
        stack_size: options.stack_size,
        base: options.base,
        address_space: options.address_space,
        seed: options.seed,
    };
    // Signals wait until there is somebody to note them.
    let mask = set_mask(SignalSet::ALL);
    let ready = prepare(program, choices, log.clone());
    let Ready { process, cpu, entry, stack } = ready.inspect_err(|_| {
        set_mask(mask);
    })?;
    if matches!(options.jit, Jit::Regions(_) | Jit::Lockstep)
        && let Some(compiler) = Cranelift::new()
    {
        process.space.memory.code().set_compiler(Arc::new(compiler), RegionChoices::default());
    }
    if log.has(LogItems::PAGE) {
        let maps = crate::fs::View::Maps.content(&process).unwrap_or_default();
        log.write(&format!("{}entry {entry:#x}\n", String::from_utf8_lossy(&maps)));
    }
    match cpu {
        Cpu::Riscv(mut cpu) => {
            UserCpu::start(&mut cpu, entry, stack);
            run::main_thread::<Riscv>(process, cpu, mask, options.debugger)
        }
    }
}
