//! From a file to a process that is about to run: what `execve` does.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use cairn_tcg::code::Cache;
use cairn_tcg::softmmu::{Flat, MapError, Protection};
use thiserror::Error;

use crate::abi::layout::Writer;
use crate::abi::{Cpu, Machine};
use crate::debug::Debugger;
use crate::elf::{Elf, ElfError, Loaded, load};
use crate::errno::Errno;
use crate::fs::Sysroot;
use crate::host::signal::{Disposition, is_ignored, set_disposition};
use crate::log::Log;
use crate::mm::{AddressSpace, PAGE, Place, Request};
use crate::process::{Choices, Image, Process};
use crate::signal::{Action, Actions};

/// A program is not started.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error("'{}' cannot be opened: {error}", path.display())]
    Open { path: PathBuf, error: std::io::Error },
    #[error("'{}' is not run: {error}", path.display())]
    Elf { path: PathBuf, error: ElfError },
    #[error("'{}' is for {machine}, which is not supported", path.display())]
    Machine { path: PathBuf, machine: String },
    #[error("'{}' is for {found}, and {wanted} programs were asked for", path.display())]
    OtherMachine { path: PathBuf, found: &'static str, wanted: &'static str },
    #[error("'{}' needs the interpreter '{}': {error}; -L says where the libraries are", path.display(), interpreter.display())]
    Interpreter { path: PathBuf, interpreter: PathBuf, error: Box<StartError> },
    #[error("guest memory: {0}")]
    Memory(#[from] MapError),
    #[error("guest memory for {what}: {errno:?}")]
    Map { what: &'static str, errno: Errno },
    #[error("arguments and environment do not fit on a stack of {0} bytes")]
    Stack(u64),
    #[error("random numbers: {0}")]
    Random(std::io::Error),
    #[error(transparent)]
    Cpu(#[from] crate::abi::CpuError),
}

/// What is to be run, and how.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// All arguments, the name first.
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<OsString>,
    /// The machine that the program must be for.
    pub(crate) machine: Option<&'static Machine>,
    pub(crate) cpu: Option<String>,
    pub(crate) sysroot: Sysroot,
    pub(crate) stack_size: u64,
    pub(crate) base: Option<u64>,
    pub(crate) address_space: Option<u64>,
    /// Makes random numbers that the program gets at its start repeatable.
    pub(crate) seed: Option<u64>,
}

/// A process before its first instruction.
pub(crate) struct Ready {
    pub(crate) process: Arc<Process>,
    pub(crate) cpu: Cpu,
    pub(crate) entry: u64,
    pub(crate) stack: u64,
}

fn open(path: &Path) -> Result<(File, Elf), StartError> {
    let failed = |error| StartError::Open { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(std::io::Error::from_raw_os_error(libc::EACCES)));
    }
    let elf = Elf::read(&file).map_err(|error| StartError::Elf { path: path.to_owned(), error })?;
    Ok((file, elf))
}

/// Bytes between the stack and what is mapped below it.
const STACK_GUARD: u64 = 1 << 20;

/// Loads a program and prepares a process for it.
pub(crate) fn prepare(
    program: Program,
    choices: Choices,
    log: Arc<Log>,
) -> Result<Ready, StartError> {
    let path = &program.path;
    let (file, elf) = open(path)?;
    let machine = Machine::of_elf(&elf).ok_or_else(|| StartError::Machine {
        path: path.clone(),
        machine: elf.machine.to_string(),
    })?;
    if let Some(wanted) = program.machine.filter(|wanted| wanted.name != machine.name) {
        let (found, wanted) = (machine.name, wanted.name);
        return Err(StartError::OtherMachine { path: path.clone(), found, wanted });
    }
    let cpu = Cpu::new(machine, program.cpu.as_deref())?;
    let size = program
        .address_space
        .map_or(machine.address_space, |size| size.clamp(1 << 24, machine.address_space));
    let space = AddressSpace::new(Flat::new(size, program.base, Arc::new(Cache::new()))?);

    // The stack is at the top, programs that can be moved at two thirds, as Linux has them.
    let stack_size = program.stack_size.max(PAGE).next_multiple_of(PAGE).min(size / 4);
    let stack_end = space.end();
    let stack = Request {
        place: Place::At(stack_end - stack_size),
        len: stack_size,
        protection: Protection::READ
            | Protection::WRITE
            | if elf.executable_stack { Protection::EXECUTE } else { Protection::empty() },
        shared: false,
        file: None,
        name: "[stack]",
    };
    let mapped = |what| move |errno| StartError::Map { what, errno };
    space.map(&stack).map_err(mapped("the stack"))?;
    let refused = |error| StartError::Elf { path: path.clone(), error };
    let near = (size / 3 * 2) & !(PAGE - 1);
    let loaded = load(&space, &file, &elf, near).map_err(refused)?;
    space.set_layout(loaded.end, stack_end - stack_size - STACK_GUARD.min(size / 16));

    let mut base = 0;
    let mut entry = loaded.entry;
    if let Some(interpreter) = &elf.interpreter {
        let interpreter = interpret(&space, &program, path, interpreter, machine)?;
        (base, entry) = (interpreter.bias, interpreter.entry);
    }
    let trampoline = map_trampoline(&space, machine).map_err(mapped("signal handlers"))?;

    let mut random = [0; 16];
    match program.seed {
        Some(seed) => random[..8].copy_from_slice(&seed.to_le_bytes()),
        None => File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut random))
            .map_err(StartError::Random)?,
    }
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    let contents = Contents {
        program: &program,
        machine,
        cpu: &cpu,
        loaded: &loaded,
        headers: elf.header_count,
        interpreter: base,
        random,
    };
    let too_small = StartError::Stack(stack_size);
    let (sp, bytes, auxiliary) = contents.build(stack_end, stack_size).ok_or(too_small)?;
    space.memory.write(sp, &bytes).map_err(|fault| mapped("the stack")(fault.into()))?;

    let command_line = program
        .arguments
        .iter()
        .flat_map(|argument| argument.as_bytes().iter().copied().chain([0]));
    let image = Image {
        path,
        command_line: command_line.collect(),
        auxiliary,
        bias: loaded.bias,
        stack: sp,
    };
    let process = Process {
        machine,
        space,
        actions: actions(),
        sysroot: program.sysroot,
        traits: cpu.traits(),
        choices,
        image,
        log,
        trampoline,
        threads: AtomicUsize::new(1),
        debugger: Debugger::default(),
    };
    Ok(Ready { process: Arc::new(process), cpu, entry, stack: sp })
}

fn interpret(
    space: &AddressSpace,
    program: &Program,
    path: &Path,
    interpreter: &[u8],
    machine: &'static Machine,
) -> Result<Loaded, StartError> {
    let name = PathBuf::from(OsString::from_vec(interpreter.to_vec()));
    let needed = |error| StartError::Interpreter {
        path: path.to_owned(),
        interpreter: name.clone(),
        error: Box::new(error),
    };
    let place = CString::new(interpreter).unwrap_or_default();
    let place = program.sysroot.resolve(&place);
    let place = PathBuf::from(OsString::from_vec(place.into_bytes()));
    let (file, elf) = open(&place).map_err(needed)?;
    if Machine::of_elf(&elf).is_none_or(|found| found.name != machine.name) {
        let machine = elf.machine.to_string();
        return Err(needed(StartError::Machine { path: place, machine }));
    }
    load(space, &file, &elf, 0).map_err(|error| needed(StartError::Elf { path: place, error }))
}

fn map_trampoline(space: &AddressSpace, machine: &Machine) -> Result<u64, Errno> {
    let page = Request {
        place: Place::Near(0),
        len: PAGE,
        protection: Protection::READ | Protection::WRITE,
        shared: false,
        file: None,
        name: "[sigreturn]",
    };
    let at = space.map(&page)?;
    space.memory.write(at, machine.trampoline)?;
    space.protect(at, PAGE, Protection::READ | Protection::EXECUTE)?;
    Ok(at)
}

/// The actions of signals at the start: what was ignored stays ignored.
fn actions() -> Actions {
    let actions = Actions::new();
    let mut table = actions.lock();
    for (number, action) in (1..).zip(table.iter_mut()) {
        if is_ignored(number) {
            action.handler = Action::IGNORE;
        }
    }
    drop(table);
    for number in [libc::SIGSEGV, libc::SIGBUS] {
        // Both exist, and can be handled.
        let _ = set_disposition(number, Disposition::Note { restart: true });
    }
    actions
}

/// What is on the stack at the start (System V ABI, "Process Initialization").
struct Contents<'a> {
    program: &'a Program,
    machine: &'static Machine,
    cpu: &'a Cpu,
    loaded: &'a Loaded,
    headers: u64,
    /// What was added to the interpreter's addresses.
    interpreter: u64,
    random: [u8; 16],
}

impl Contents<'_> {
    /// The stack pointer, what is from there up to `end`, and the auxiliary vector; `None` if that is too much.
    fn build(&self, end: u64, limit: u64) -> Option<(u64, Vec<u8>, Vec<u8>)> {
        // Strings and random bytes come last; their addresses are counted from their beginning.
        let mut data: Vec<u8> = self.random.to_vec();
        let mut keep = |text: &[u8]| {
            let at = data.len() as u64;
            data.extend(text);
            data.push(0);
            at
        };
        let name = keep(self.program.path.as_os_str().as_bytes());
        let list = |texts: &[OsString], keep: &mut dyn FnMut(&[u8]) -> u64| -> Vec<u64> {
            texts.iter().map(|text| keep(text.as_bytes())).collect()
        };
        let arguments = list(&self.program.arguments, &mut keep);
        let environment = list(&self.program.environment, &mut keep);
        let data_at = end.checked_sub(data.len() as u64 + 8)? & !15;

        let width = self.machine.width;
        let mut auxiliary = Writer::new(width);
        for (kind, value) in self.auxiliary(data_at, data_at + name) {
            auxiliary.long(kind).long(value);
        }
        let auxiliary = auxiliary.finish();
        let mut head = Writer::new(width);
        head.long(arguments.len() as u64);
        for list in [arguments, environment] {
            for at in list {
                head.long(data_at + at);
            }
            head.long(0);
        }
        let mut head = head.finish();
        head.extend(&auxiliary);
        let sp = data_at.checked_sub(head.len() as u64)? & !15;
        if end - sp > limit / 2 {
            return None;
        }
        head.resize((data_at - sp) as usize, 0);
        head.extend(data);
        Some((sp, head, auxiliary))
    }

    /// The auxiliary vector (getauxval(3)).
    fn auxiliary(&self, random: u64, name: u64) -> Vec<(u64, u64)> {
        let id =
            |number| crate::host::call(&crate::host::call::NEVER, number, []).unwrap_or_default();
        let entry_size = match self.machine.width {
            crate::abi::Width::W32 => 32,
            crate::abi::Width::W64 => 56,
        };
        vec![
            (libc::AT_PHDR, self.loaded.headers),
            (libc::AT_PHENT, entry_size),
            (libc::AT_PHNUM, self.headers),
            (libc::AT_PAGESZ, PAGE),
            (libc::AT_BASE, self.interpreter),
            (libc::AT_FLAGS, 0),
            (libc::AT_ENTRY, self.loaded.entry),
            (libc::AT_UID, id(libc::SYS_getuid)),
            (libc::AT_EUID, id(libc::SYS_geteuid)),
            (libc::AT_GID, id(libc::SYS_getgid)),
            (libc::AT_EGID, id(libc::SYS_getegid)),
            (libc::AT_HWCAP, self.cpu.hwcap()),
            // Ticks a second of `times`, the same everywhere.
            (libc::AT_CLKTCK, 100),
            (libc::AT_RANDOM, random),
            (libc::AT_SECURE, 0),
            (libc::AT_EXECFN, name),
            (libc::AT_NULL, 0),
        ]
    }
}
