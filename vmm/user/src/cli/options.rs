//! Options, from the command line and from the environment.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cairn_gdbstub::Address;
use cairn_tcg::Jit;
use thiserror::Error;

use super::help;
use crate::abi::Machine;
use crate::fs::Sysroot;
use crate::log::{ITEMS, LogItems};

/// What is asked for.
#[derive(Debug)]
pub(super) enum Command {
    /// Print this.
    Show(String),
    Run(Box<Options>),
}

/// How a program is run.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) program: PathBuf,
    /// The program's arguments, its name first.
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<OsString>,
    /// The name of the machine, if the emulator's name says one.
    pub(super) machine: Option<&'static str>,
    pub(super) cpu: Option<String>,
    pub(super) sysroot: Sysroot,
    pub(super) stack_size: u64,
    pub(super) release: Option<String>,
    pub(super) base: Option<u64>,
    pub(super) address_space: Option<u64>,
    pub(super) seed: Option<u64>,
    pub(super) log: LogItems,
    pub(super) log_file: Option<PathBuf>,
    pub(super) single: bool,
    pub(super) jit: Jit,
    /// Where a debugger connects to.
    pub(super) debugger: Option<Address>,
    /// What is passed on to programs that are executed.
    pub(super) own: Vec<OsString>,
}

/// A wrong command line.
#[derive(Debug, Error)]
pub(super) enum Problem {
    #[error("there is no option '-{0}'; -h lists what there is")]
    Unknown(String),
    #[error("the option -{0} needs a value")]
    NoValue(&'static str),
    #[error("the option -{option} takes {takes}, not '{value}'")]
    Value { option: &'static str, takes: &'static str, value: String },
    #[error("no program is named; -h shows how")]
    NoProgram,
    #[error("the option -{0} is not supported: {1}")]
    Unsupported(&'static str, &'static str),
    #[error("the log '{}' cannot be opened: {error}", path.display())]
    LogFile { path: PathBuf, error: std::io::Error },
}

/// Default size of the stack.
const STACK: u64 = 8 << 20;

/// An option: its names, the variable of the environment that does the same, whether it takes a value, whether
/// it is passed on, and what it is.
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) variable: &'static str,
    /// What the value is called, or nothing if there is none.
    pub(super) value: &'static str,
    inherited: bool,
    pub(super) about: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Help,
    Version,
    Sysroot,
    Stack,
    Cpu,
    Set,
    Unset,
    Name,
    Release,
    Base,
    Reserve,
    Log,
    LogFile,
    Single,
    Strace,
    Seed,
    Accel,
    Debugger,
    /// Has no effect here.
    Ignored,
    Unsupported(&'static str),
}

const fn spec(
    name: &'static str,
    variable: &'static str,
    value: &'static str,
    kind: Kind,
    inherited: bool,
    about: &'static str,
) -> Spec {
    Spec { name, variable, value, inherited, about, kind }
}

const NOT_YET: &str = "there is no such thing here yet";

#[rustfmt::skip]
pub(super) const SPECS: &[Spec] = &[
    spec("h", "", "", Kind::Help, false, "print this help"),
    spec("help", "", "", Kind::Help, false, "the same"),
    spec("version", "QEMU_VERSION", "", Kind::Version, false, "print the version"),
    spec("L", "QEMU_LD_PREFIX", "DIR", Kind::Sysroot, true, "look for files in DIR first: interpreter, libraries, all"),
    spec("cpu", "QEMU_CPU", "MODEL", Kind::Cpu, true, "the CPU, with properties: max,zba=off; -cpu help lists them"),
    spec("E", "QEMU_SET_ENV", "VAR=VALUE,...", Kind::Set, false, "set variables of the program's environment"),
    spec("U", "QEMU_UNSET_ENV", "VAR,...", Kind::Unset, false, "remove variables from it"),
    spec("0", "QEMU_ARGV0", "NAME", Kind::Name, false, "the name that the program is told it has"),
    spec("s", "QEMU_STACK_SIZE", "BYTES", Kind::Stack, true, "size of the stack (8388608)"),
    spec("r", "QEMU_UNAME", "RELEASE", Kind::Release, true, "the release that uname shows"),
    spec("B", "QEMU_GUEST_BASE", "ADDRESS", Kind::Base, true, "where address 0 of the program is in the host"),
    spec("R", "QEMU_RESERVED_VA", "BYTES", Kind::Reserve, true, "size of the program's address space"),
    spec("strace", "QEMU_STRACE", "", Kind::Strace, true, "log system calls"),
    spec("d", "QEMU_LOG", "ITEM,...", Kind::Log, true, "log more; -d help lists what"),
    spec("D", "QEMU_LOG_FILENAME", "FILE", Kind::LogFile, true, "log to FILE, %d in it being the process"),
    spec("one-insn-per-tb", "QEMU_ONE_INSN_PER_TB", "", Kind::Single, true, "translate single instructions"),
    spec("singlestep", "QEMU_SINGLESTEP", "", Kind::Single, true, "the same"),
    spec("accel", "CAIRN_ACCEL", "tcg,PROPERTY,...", Kind::Accel, true, "jit=on|t1|off, check=lockstep: how code runs"),
    spec("seed", "QEMU_RAND_SEED", "NUMBER", Kind::Seed, true, "make the random bytes at the start repeatable"),
    spec("p", "QEMU_PAGESIZE", "BYTES", Kind::Ignored, false, "no effect: pages are the host's"),
    spec("tb-size", "QEMU_TB_SIZE", "BYTES", Kind::Ignored, false, "no effect: translations take what they need"),
    spec("g", "QEMU_GDB", "PORT|PATH", Kind::Debugger, false, "wait for GDB on a port, or on a socket in the file system"),
    spec("t", "QEMU_RTSIG_MAP", "MAP", Kind::Unsupported("real-time signals are the host's"), false, "not supported"),
    spec("dfilter", "QEMU_DFILTER", "RANGE", Kind::Unsupported(NOT_YET), false, "not supported yet"),
    spec("trace", "QEMU_TRACE", "EVENTS", Kind::Unsupported(NOT_YET), false, "not supported yet"),
    spec("plugin", "QEMU_PLUGIN", "FILE", Kind::Unsupported(NOT_YET), false, "not supported yet"),
    spec("perfmap", "QEMU_PERFMAP", "", Kind::Unsupported(NOT_YET), false, "not supported yet"),
    spec("jitdump", "QEMU_JITDUMP", "", Kind::Unsupported(NOT_YET), false, "not supported yet"),
];

fn find(name: &str) -> Option<&'static Spec> {
    SPECS.iter().find(|spec| spec.name == name)
}

/// What has been said so far.
#[derive(Default)]
struct Parser {
    options: Options,
    name: Option<OsString>,
    sysroot: Option<OsString>,
    show: Option<String>,
    /// Changes of the environment, in order: a value or its absence.
    environment: Vec<(OsString, Option<OsString>)>,
}

/// Reads the command line; variables of `environment` come before its options.
pub(super) fn parse(
    arguments: Vec<OsString>,
    environment: &[(OsString, OsString)],
) -> Result<Command, Problem> {
    let mut arguments = VecDeque::from(arguments);
    let called = arguments.pop_front().unwrap_or_default();
    let mut parser = Parser::default();
    parser.options.stack_size = STACK;
    parser.options.jit = Jit::ON;
    parser.options.machine = machine_of(&called);
    for spec in SPECS.iter().filter(|spec| !spec.variable.is_empty()) {
        let value = environment.iter().find(|(name, _)| name == spec.variable);
        if let Some((_, value)) = value {
            parser.apply(spec, value)?;
        }
    }
    while let Some(word) = arguments.front() {
        let Some(name) = word.as_bytes().strip_prefix(b"-") else { break };
        let name = String::from_utf8_lossy(name.strip_prefix(b"-").unwrap_or(name)).into_owned();
        arguments.pop_front();
        if name.is_empty() {
            break;
        }
        let spec = find(&name).ok_or(Problem::Unknown(name))?;
        let value = if spec.value.is_empty() {
            OsString::new()
        } else {
            arguments.pop_front().ok_or(Problem::NoValue(spec.name))?
        };
        parser.apply(spec, &value)?;
    }
    if let Some(text) = parser.show {
        return Ok(Command::Show(text));
    }
    parser.finish(arguments.into(), environment)
}

/// The machine in the name `qemu-MACHINE`, with or without `-static` behind it.
fn machine_of(called: &OsStr) -> Option<&'static str> {
    let name = Path::new(called).file_name()?.to_str()?.strip_prefix("qemu-")?;
    let name = name.strip_suffix("-static").unwrap_or(name);
    Machine::named(name).map(|machine| machine.name)
}

/// A number as C has it: decimal, hexadecimal or octal.
fn number(spec: &Spec, value: &OsStr) -> Result<u64, Problem> {
    let text = value.to_string_lossy();
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (&*text, 10),
    };
    u64::from_str_radix(digits, radix).map_err(|_| Problem::Value {
        option: spec.name,
        takes: "a number",
        value: text.to_string(),
    })
}

impl Parser {
    fn apply(&mut self, spec: &'static Spec, value: &OsStr) -> Result<(), Problem> {
        let options = &mut self.options;
        match spec.kind {
            Kind::Help => self.show = Some(help::usage()),
            Kind::Version => self.show = Some(help::version()),
            Kind::Sysroot => self.sysroot = Some(value.to_owned()),
            Kind::Stack => options.stack_size = size(spec, value)?,
            Kind::Cpu if value == "help" || value == "?" => self.show = Some(help::cpus()),
            Kind::Cpu => options.cpu = Some(value.to_string_lossy().into_owned()),
            Kind::Set => {
                for word in value.as_bytes().split(|byte| *byte == b',') {
                    let word = OsStr::from_bytes(word);
                    let (name, value) = assignment(word).ok_or_else(|| Problem::Value {
                        option: spec.name,
                        takes: "assignments with commas between them",
                        value: word.to_string_lossy().into_owned(),
                    })?;
                    self.environment.push((name, Some(value)));
                }
            }
            Kind::Unset => {
                for word in value.as_bytes().split(|byte| *byte == b',') {
                    self.environment.push((OsStr::from_bytes(word).to_owned(), None));
                }
            }
            Kind::Name => self.name = Some(value.to_owned()),
            Kind::Release => options.release = Some(value.to_string_lossy().into_owned()),
            Kind::Base => options.base = Some(number(spec, value)?).filter(|base| *base != 0),
            Kind::Reserve => {
                options.address_space = Some(size(spec, value)?).filter(|size| *size != 0);
            }
            Kind::Log if value == "help" => self.show = Some(help::log_items()),
            Kind::Log => options.log |= items(value)?,
            Kind::LogFile => options.log_file = Some(value.into()),
            Kind::Single => options.single = true,
            Kind::Strace => options.log |= LogItems::STRACE,
            Kind::Seed => options.seed = Some(number(spec, value)?),
            Kind::Accel => options.jit = accelerator(value)?,
            Kind::Debugger => options.debugger = Some(Address::parse(&value.to_string_lossy())),
            Kind::Ignored => {}
            Kind::Unsupported(reason) => return Err(Problem::Unsupported(spec.name, reason)),
        }
        if spec.inherited {
            self.options.own.push(format!("-{}", spec.name).into());
            if !spec.value.is_empty() {
                self.options.own.push(value.to_owned());
            }
        }
        Ok(())
    }

    fn finish(
        self,
        mut arguments: Vec<OsString>,
        environment: &[(OsString, OsString)],
    ) -> Result<Command, Problem> {
        let mut options = self.options;
        let first = arguments.first_mut().ok_or(Problem::NoProgram)?;
        options.program = PathBuf::from(&*first);
        if let Some(name) = self.name {
            *first = name;
        }
        options.arguments = arguments;
        let mut environment = environment.to_vec();
        for (name, value) in self.environment {
            environment.retain(|(other, _)| *other != name);
            environment.extend(value.map(|value| (name, value)));
        }
        options.environment = environment
            .into_iter()
            .map(|(mut name, value)| {
                name.push("=");
                name.push(value);
                name
            })
            .collect();
        let default = default_sysroot(options.machine);
        options.sysroot = Sysroot::new(Some(self.sysroot.as_deref().unwrap_or(&default)));
        Ok(Command::Run(Box::new(options)))
    }
}

/// Where the reference looks for libraries if it is not told.
fn default_sysroot(machine: Option<&str>) -> OsString {
    format!("/usr/gnemul/qemu-{}", machine.unwrap_or("riscv64")).into()
}

/// A number of bytes, which may end with a unit.
fn size(spec: &Spec, value: &OsStr) -> Result<u64, Problem> {
    let text = value.to_string_lossy();
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (&*text, 0),
    };
    let number = number(spec, OsStr::new(digits))?;
    number.checked_mul(1 << shift).ok_or_else(|| Problem::Value {
        option: spec.name,
        takes: "a number of bytes",
        value: text.to_string(),
    })
}

fn assignment(word: &OsStr) -> Option<(OsString, OsString)> {
    let bytes = word.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    let part = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    Some((part(&bytes[..at]), part(&bytes[at + 1..])))
}

/// `tcg`, with properties.
fn accelerator(value: &OsStr) -> Result<Jit, Problem> {
    let text = value.to_string_lossy();
    let wrong = |word: &str| Problem::Value {
        option: "accel",
        takes: "tcg, jit=on, jit=t1, jit=off and check=lockstep",
        value: word.to_owned(),
    };
    let mut words = text.split(',');
    if words.next() != Some("tcg") {
        return Err(wrong(&text));
    }
    let mut jit = Jit::ON;
    for word in words {
        jit = match word {
            "jit=on" => Jit::ON,
            "jit=t1" => Jit::UNITS,
            "jit=off" => Jit::Off,
            "check=lockstep" => Jit::Lockstep,
            _ => return Err(wrong(word)),
        };
    }
    Ok(jit)
}

fn items(value: &OsStr) -> Result<LogItems, Problem> {
    let mut items = LogItems::empty();
    for word in value.to_string_lossy().split(',') {
        // Blocks are always logged one by one, which others have to ask for.
        if word == "nochain" {
            continue;
        }
        let known = ITEMS.iter().find(|(name, _, _)| *name == word);
        let (_, item, _) = known.ok_or_else(|| Problem::Value {
            option: "d",
            takes: "items that -d help lists",
            value: word.to_owned(),
        })?;
        items |= *item;
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    fn options(text: &str, environment: &[(&str, &str)]) -> Options {
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        match parse(words(text), &environment).unwrap() {
            Command::Run(options) => *options,
            Command::Show(text) => panic!("{text}"),
        }
    }

    #[test]
    fn options_end_at_the_program() {
        let options = options("x/qemu-riscv32 -s 16k -0 name --strace prog -s 1", &[]);
        assert_eq!(options.machine, Some("riscv32"));
        assert_eq!(options.stack_size, 16 << 10);
        assert_eq!(options.program, Path::new("prog"));
        assert_eq!(options.arguments, words("name -s 1"));
        assert_eq!(options.log, LogItems::STRACE);
        assert_eq!(options.own, words("-s 16k -strace"));
    }

    #[test]
    fn the_last_change_of_a_variable_counts() {
        let environment = [("A", "1"), ("B", "2"), ("QEMU_SET_ENV", "C=3,B=9"), ("D", "4")];
        let options = options("cairn-user -U A,D -E D=5 -E E=x=y -U C prog", &environment);
        let mut found = options.environment;
        found.sort();
        assert_eq!(found, words("B=9 D=5 E=x=y QEMU_SET_ENV=C=3,B=9"));
    }

    #[test]
    fn wrong_options_are_told() {
        let problem = |text: &str| parse(words(text), &[]).unwrap_err().to_string();
        assert!(problem("cairn-user -what").contains("'-what'"));
        assert!(problem("cairn-user -s").contains("-s needs a value"));
        assert!(problem("cairn-user -s many prog").contains("'many'"));
        assert!(problem("cairn-user -d cpu,nothing prog").contains("'nothing'"));
        assert!(problem("cairn-user -plugin x prog").contains("not supported"));
        assert!(problem("cairn-user").contains("no program"));
    }
}
