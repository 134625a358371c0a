//! Running another program.
//!
//! Programs of the guest's architecture run in a new emulator with the same options; scripts do if their interpreter
//! is one. Everything else is the host's, and runs as such.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use super::Call;
use crate::abi::Width;
use crate::elf::{Class, Elf};
use crate::errno::Errno;
use crate::host::Word;

/// Bytes of arguments and environment (`ARG_MAX` of Linux with the default stack).
const MAX_BYTES: usize = 2 << 20;
/// Interpreters of interpreters that are followed.
const MAX_SCRIPTS: usize = 5;
/// Bytes of a script in which its interpreter is named (`BINPRM_BUF_SIZE`).
const SCRIPT_HEAD: u64 = 256;

pub(super) fn execve(call: &mut Call<'_>) -> Result<u64, Errno> {
    let path = call.read_path(call.long(0))?;
    let (arguments, environment) = (call.long(1), call.long(2));
    exec(call, path, arguments, environment)
}

pub(super) fn execveat(call: &mut Call<'_>) -> Result<u64, Errno> {
    let (folder, flags) = (call.int(0), call.int(4));
    let mut path = call.read_path(call.long(1))?;
    if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
        path = CString::new(format!("/proc/self/fd/{folder}")).map_err(|_| Errno::EINVAL)?;
    } else if !path.as_bytes().starts_with(b"/") && folder != libc::AT_FDCWD {
        let mut bytes = format!("/proc/self/fd/{folder}/").into_bytes();
        bytes.extend(path.as_bytes());
        path = CString::new(bytes).map_err(|_| Errno::EINVAL)?;
    }
    let (arguments, environment) = (call.long(2), call.long(3));
    exec(call, path, arguments, environment)
}

/// What a file is run by.
enum Runner {
    Guest,
    Host,
    Script { interpreter: CString, argument: Option<CString> },
}

fn exec(
    call: &mut Call<'_>,
    path: CString,
    arguments: u64,
    environment: u64,
) -> Result<u64, Errno> {
    let mut budget = MAX_BYTES;
    let mut arguments = strings(call, arguments, &mut budget)?;
    let environment = strings(call, environment, &mut budget)?;
    let mut path = path;
    for _ in 0..MAX_SCRIPTS {
        let place = call.task.resolve(&path);
        let words = [libc::AT_FDCWD.into(), Word::In(place.as_bytes_with_nul()), libc::X_OK.into()];
        call.host(libc::SYS_faccessat, words)?;
        match runner(call, &place)? {
            Runner::Host => return run(call, &place, &arguments, &environment),
            Runner::Guest => {
                let emulator = emulator(call, &place, arguments);
                return run(call, c"/proc/self/exe", &emulator, &environment);
            }
            Runner::Script { interpreter, argument } => {
                if !matches!(
                    runner(call, &call.task.resolve(&interpreter))?,
                    Runner::Guest | Runner::Script { .. }
                ) {
                    return run(call, &place, &arguments, &environment);
                }
                let rest = arguments.into_iter().skip(1);
                arguments = [interpreter.clone()]
                    .into_iter()
                    .chain(argument)
                    .chain([path])
                    .chain(rest)
                    .collect();
                path = interpreter;
            }
        }
    }
    Err(Errno::ELOOP)
}

/// The emulator's command line for the program at `place`.
fn emulator(call: &Call<'_>, place: &CString, arguments: Vec<CString>) -> Vec<CString> {
    let mut arguments = arguments.into_iter();
    let name = arguments.next().unwrap_or_default();
    let own = call.task.process.choices.arguments.iter();
    let own = own.filter_map(|argument| CString::new(argument.as_bytes()).ok());
    [c"cairn-user".to_owned()]
        .into_iter()
        .chain(own)
        .chain([c"-0".to_owned(), name, place.clone()])
        .chain(arguments)
        .collect()
}

/// Reads an array of strings that ends with a null pointer.
fn strings(call: &Call<'_>, address: u64, budget: &mut usize) -> Result<Vec<CString>, Errno> {
    let mut strings = Vec::new();
    let mut at = address;
    while at != 0 {
        let string = call.read_long(at)?;
        if string == 0 {
            break;
        }
        let too_long = |errno| if errno == Errno::ENAMETOOLONG { Errno::E2BIG } else { errno };
        let string = call.read_string(string, *budget).map_err(too_long)?;
        let size = string.as_bytes_with_nul().len() + call.width().bytes();
        *budget = budget.checked_sub(size).ok_or(Errno::E2BIG)?;
        strings.push(string);
        at += call.width().bytes() as u64;
    }
    Ok(strings)
}

fn runner(call: &Call<'_>, place: &CString) -> Result<Runner, Errno> {
    // Files that may be run but not read are the host's affair.
    let Ok(file) = File::open(OsStr::from_bytes(place.as_bytes())) else {
        return Ok(Runner::Host);
    };
    if !file.metadata()?.is_file() {
        return Err(Errno::EACCES);
    }
    let mut head = Vec::new();
    (&file).take(SCRIPT_HEAD).read_to_end(&mut head)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        return Ok(script(line).unwrap_or(Runner::Host));
    }
    let class = match call.width() {
        Width::W32 => Class::Elf32,
        Width::W64 => Class::Elf64,
    };
    let machine = call.task.process.machine.elf;
    let guest = Elf::read(&file).is_ok_and(|elf| elf.machine == machine && elf.class == class);
    Ok(if guest { Runner::Guest } else { Runner::Host })
}

/// The interpreter that the first line of a script names, and an argument for it.
fn script(line: &[u8]) -> Option<Runner> {
    let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (interpreter, argument) = line.split_at(end);
    let argument = argument.trim_ascii();
    let interpreter = CString::new(interpreter).ok().filter(|path| !path.is_empty())?;
    let argument = if argument.is_empty() { None } else { Some(CString::new(argument).ok()?) };
    Some(Runner::Script { interpreter, argument })
}

/// `execve` of the host.
fn run(
    call: &mut Call<'_>,
    path: &std::ffi::CStr,
    arguments: &[CString],
    environment: &[CString],
) -> Result<u64, Errno> {
    fn pointers(strings: &[CString]) -> Vec<u8> {
        let addresses = strings.iter().map(|string| string.as_ptr() as u64).chain([0]);
        addresses.flat_map(u64::to_ne_bytes).collect()
    }
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // The new program begins with the signals blocked that are now.
    let words = [Word::In(path.to_bytes_with_nul()), Word::In(&arguments), Word::In(&environment)];
    call.host(libc::SYS_execve, words)
}
