//! Reading of headers.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use thiserror::Error;

/// Width of a file's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 32 bits.
    Elf32,
    /// 64 bits.
    Elf64,
}

/// An architecture, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine(pub u16);

impl Machine {
    /// `EM_RISCV`
    pub const RISCV: Machine = Machine(243);
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            2 => "SPARC",
            3 => "i386",
            4 => "m68k",
            8 => "MIPS",
            15 => "PA-RISC",
            20 => "PowerPC",
            21 => "PowerPC 64",
            22 => "S390",
            40 => "Arm",
            42 => "SuperH",
            43 => "SPARC V9",
            62 => "x86-64",
            94 => "Xtensa",
            164 => "Hexagon",
            183 => "AArch64",
            243 => "RISC-V",
            258 => "LoongArch",
            0x9026 => "Alpha",
            other => return write!(f, "architecture number {other}"),
        };
        f.write_str(name)
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A program at fixed addresses.
    Fixed,
    /// A program or library at any address.
    Anywhere,
}

/// Rights of a segment: bit 0 execute, bit 1 write, bit 2 read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(pub u32);

/// A part of the file that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Where it goes, before it is moved.
    pub address: u64,
    /// Bytes in memory; those that are not in the file are zero. At least [`Segment::file_size`].
    pub memory_size: u64,
    /// What it allows.
    pub rights: Rights,
}

/// Why a file is not loaded.
#[derive(Debug, Error)]
pub enum ElfError {
    /// It could not be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It does not begin with the magic number.
    #[error("it is not an ELF file")]
    Magic,
    /// The header ends too early.
    #[error("it ends within its headers")]
    Short,
    /// The header says something that no program for the guest says.
    #[error("its header has {what} {value}, which {problem}")]
    Header {
        /// A field.
        what: &'static str,
        /// Its value.
        value: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A program header is wrong.
    #[error("its program header {index} {problem}")]
    Segment {
        /// Which one, from 0.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// There is nothing to load.
    #[error("it has nothing to load")]
    Empty,
    /// Memory for it could not be had.
    #[error("{len:#x} bytes at {address:#x} cannot be mapped: {problem}")]
    Memory {
        /// Where.
        address: u64,
        /// How much.
        len: u64,
        /// Why.
        problem: String,
    },
}

/// The headers of a file, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    /// Width of addresses.
    pub class: Class,
    /// The architecture.
    pub machine: Machine,
    /// Whether it can be moved.
    pub kind: Kind,
    /// Flags of the architecture.
    pub flags: u32,
    /// Where it begins to run, before it is moved.
    pub entry: u64,
    /// Address of the program headers in memory, if they are loaded; before it is moved.
    pub headers: Option<u64>,
    /// Number of program headers.
    pub header_count: u64,
    /// What is loaded, by ascending addresses.
    pub segments: Vec<Segment>,
    /// Path of the interpreter.
    pub interpreter: Option<Vec<u8>>,
    /// Whether the stack is to be executable.
    pub executable_stack: bool,
}

/// Bytes of program headers that are accepted, as many as Linux does.
const MAX_HEADERS: usize = 65536;
/// Bytes of an interpreter's path.
const MAX_PATH: u64 = 4096;
const PAGE: u64 = 4096;

/// Reads as much as there is, up to the end of `bytes`.
fn read(file: &File, mut offset: u64, mut bytes: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while !bytes.is_empty() {
        match file.read_at(bytes, offset) {
            Ok(0) => break,
            Ok(count) => {
                done += count;
                offset += count as u64;
                bytes = &mut bytes[count..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Fields of a header, one after the other.
struct Fields<'a> {
    bytes: &'a [u8],
    class: Class,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], ElfError> {
        let (head, rest) = self.bytes.split_first_chunk().ok_or(ElfError::Short)?;
        self.bytes = rest;
        Ok(*head)
    }

    fn half(&mut self) -> Result<u16, ElfError> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    fn word(&mut self) -> Result<u32, ElfError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    /// An address or offset.
    fn long(&mut self) -> Result<u64, ElfError> {
        match self.class {
            Class::Elf32 => Ok(self.word()?.into()),
            Class::Elf64 => Ok(u64::from_le_bytes(self.take()?)),
        }
    }
}

fn header(what: &'static str, value: impl Into<u64>, problem: &'static str) -> ElfError {
    ElfError::Header { what, value: value.into(), problem }
}

impl Elf {
    /// Reads the headers of a file.
    pub fn read(file: &File) -> Result<Elf, ElfError> {
        let mut head = [0; 64];
        let len = read(file, 0, &mut head)?;
        let head = &head[..len];
        if !head.starts_with(b"\x7fELF") {
            return Err(ElfError::Magic);
        }
        let identity: &[u8; 16] = head.first_chunk().ok_or(ElfError::Short)?;
        let class = match identity[4] {
            1 => Class::Elf32,
            2 => Class::Elf64,
            other => return Err(header("class", other, "is neither 32 nor 64 bits")),
        };
        if identity[5] != 1 {
            return Err(header("byte order", identity[5], "is not little-endian"));
        }
        let mut fields = Fields { bytes: &head[16..], class };
        let kind = match fields.half()? {
            2 => Kind::Fixed,
            3 => Kind::Anywhere,
            other => return Err(header("type", other, "is not that of a program")),
        };
        let machine = Machine(fields.half()?);
        let version = fields.word()?;
        if version != 1 {
            return Err(header("version", version, "does not exist"));
        }
        let (entry, headers_at, _sections) = (fields.long()?, fields.long()?, fields.long()?);
        let flags = fields.word()?;
        let (_size, entry_size, count) = (fields.half()?, fields.half()?, fields.half()?);
        let wanted: u16 = if class == Class::Elf64 { 56 } else { 32 };
        if count == 0 {
            return Err(ElfError::Empty);
        }
        if entry_size != wanted {
            return Err(header("program header size", entry_size, "is not that of its class"));
        }
        let bytes = usize::from(count) * usize::from(entry_size);
        if bytes > MAX_HEADERS {
            return Err(header("program header count", count, "is too large"));
        }
        let mut table = vec![0; bytes];
        let size = file.metadata()?.len();
        if headers_at.checked_add(bytes as u64).is_none_or(|end| end > size)
            || read(file, headers_at, &mut table)? != bytes
        {
            return Err(ElfError::Short);
        }
        let mut elf = Elf {
            class,
            machine,
            kind,
            flags,
            entry,
            headers: None,
            header_count: count.into(),
            segments: Vec::new(),
            interpreter: None,
            executable_stack: false,
        };
        for (index, bytes) in table.chunks_exact(usize::from(entry_size)).enumerate() {
            elf.program_header(file, size, index, bytes)?;
        }
        if elf.segments.is_empty() {
            return Err(ElfError::Empty);
        }
        elf.headers = elf.segments.iter().find_map(|segment| {
            let at = headers_at.checked_sub(segment.offset)?;
            let end = at.checked_add(bytes as u64)?;
            (end <= segment.file_size).then(|| segment.address + at)
        });
        Ok(elf)
    }

    fn program_header(
        &mut self,
        file: &File,
        size: u64,
        index: usize,
        bytes: &[u8],
    ) -> Result<(), ElfError> {
        const LOAD: u32 = 1;
        const INTERPRETER: u32 = 3;
        const GNU_STACK: u32 = 0x6474_e551;
        let problem = |problem| ElfError::Segment { index, problem };
        let mut fields = Fields { bytes, class: self.class };
        let kind = fields.word()?;
        // The flags stand at different places.
        let early = if self.class == Class::Elf64 { Some(fields.word()?) } else { None };
        let (offset, address, _physical) = (fields.long()?, fields.long()?, fields.long()?);
        let (file_size, memory_size) = (fields.long()?, fields.long()?);
        let rights = Rights(match early {
            Some(flags) => flags,
            None => fields.word()?,
        });
        let in_file = offset.checked_add(file_size).is_some_and(|end| end <= size);
        match kind {
            LOAD => {
                if memory_size < file_size {
                    return Err(problem("is larger in the file than in memory"));
                }
                if !in_file {
                    return Err(problem("lies behind the end of the file"));
                }
                let end = address.checked_add(memory_size).and_then(|end| end.checked_add(PAGE));
                if end.is_none() {
                    return Err(problem("does not fit into the address space"));
                }
                if file_size != 0 && offset % PAGE != address % PAGE {
                    return Err(problem("has an address and an offset that no page fits"));
                }
                if memory_size == 0 {
                    return Ok(());
                }
                if self.segments.last().is_some_and(|last| last.address > address) {
                    return Err(problem("has a lower address than the one before"));
                }
                self.segments.push(Segment { offset, file_size, address, memory_size, rights });
            }
            INTERPRETER => {
                if self.interpreter.is_some() {
                    return Err(problem("names a second interpreter"));
                }
                if !(2..=MAX_PATH).contains(&file_size) || !in_file {
                    return Err(problem("names an interpreter in no possible way"));
                }
                let mut path = vec![0; file_size as usize];
                if read(file, offset, &mut path)? != path.len() || path.pop() != Some(0) {
                    return Err(problem("names an interpreter without an end"));
                }
                if path.contains(&0) {
                    return Err(problem("names an interpreter with a zero in its name"));
                }
                self.interpreter = Some(path);
            }
            GNU_STACK => self.executable_stack = rights.0 & 1 != 0,
            _ => {}
        }
        Ok(())
    }
}
