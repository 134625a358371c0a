//! Core files: the memory and the registers of a process that a signal has ended, as the kernel writes them (core(5), `fs/binfmt_elf.c`).
//!
//! A file has the thread that got the signal, and no other.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use cairn_tcg::softmmu::Protection;

use crate::abi::layout::Writer;
use crate::abi::{UserCpu, Width};
use crate::host;
use crate::mm::PAGE;
use crate::mm::vmas::Content;
use crate::process::Task;
use crate::signal::Info;

/// Kinds of notes (`include/uapi/linux/elf.h`).
const PRSTATUS: u32 = 1;
const FPREGSET: u32 = 2;
const PRPSINFO: u32 = 3;
const AUXV: u32 = 6;
const SIGINFO: u32 = 0x5349_4749;

/// A part of memory: where, its rights as ELF has them, and how much of it is in the file.
struct Segment {
    start: u64,
    len: u64,
    flags: u32,
    stored: u64,
}

/// Whether a signal leaves a core file (signal(7)).
pub(crate) fn leaves_core(number: i32) -> bool {
    matches!(
        number,
        libc::SIGQUIT
            | libc::SIGILL
            | libc::SIGTRAP
            | libc::SIGABRT
            | libc::SIGBUS
            | libc::SIGFPE
            | libc::SIGSEGV
            | libc::SIGXCPU
            | libc::SIGXFSZ
            | libc::SIGSYS
    )
}

/// Writes the core file of a process that `info` ends, if its limit allows one, and returns the file's name.
pub(crate) fn write(task: &Task, cpu: &dyn UserCpu, info: Info) -> io::Result<Option<PathBuf>> {
    let limit = host::core_limit();
    if limit == 0 {
        return Ok(None);
    }
    let name = task.process.image.path.file_name().unwrap_or_default();
    let path = PathBuf::from(format!(
        "qemu_{}_{}_{}.core",
        name.to_string_lossy(),
        host::local_time("%Y%m%d-%H%M%S"),
        std::process::id()
    ));
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    let notes = notes(task, cpu, info);
    let segments = segments(task);
    let width = task.process.machine.width;
    let head = head(width, &segments, notes.len() as u64);
    file.write_all(&head)?;
    file.write_all(&notes)?;
    let mut at = first_page(width, segments.len(), notes.len() as u64);
    for segment in &segments {
        for page in (segment.start..segment.start + segment.stored).step_by(PAGE as usize) {
            let mut bytes = [0; PAGE as usize];
            task.process.space.memory.peek(page, &mut bytes);
            if at + PAGE > limit {
                return Ok(Some(path));
            }
            // Zeros are left out of the file.
            if bytes.iter().any(|byte| *byte != 0) {
                file.seek(SeekFrom::Start(at))?;
                file.write_all(&bytes)?;
            }
            at += PAGE;
        }
    }
    file.set_len(at)?;
    Ok(Some(path))
}

/// What is mapped. Files that cannot have changed are not stored, but for their first page, by which debuggers know them.
fn segments(task: &Task) -> Vec<Segment> {
    let state = task.process.space.lock();
    let part = |(start, vma): (u64, &crate::mm::vmas::Vma)| {
        let len = vma.end - start;
        let has = |right| vma.protection.contains(right);
        let changes = match &vma.content {
            Content::Anonymous(_) => true,
            Content::File { .. } => has(Protection::WRITE) && !vma.shared,
        };
        let first = matches!(&vma.content, Content::File { offset: 0, .. });
        let stored = match (has(Protection::READ), changes, first) {
            (true, true, _) => len,
            (true, false, true) => PAGE,
            _ => 0,
        };
        let flag = |right, bit| if has(right) { bit } else { 0 };
        let flags =
            flag(Protection::READ, 4) | flag(Protection::WRITE, 2) | flag(Protection::EXECUTE, 1);
        Segment { start, len, flags, stored }
    };
    state.vmas.iter().map(part).collect()
}

/// Sizes of the ELF header and of a program header.
const fn sizes(width: Width) -> (u64, u64) {
    match width {
        Width::W64 => (64, 56),
        Width::W32 => (52, 32),
    }
}

/// Where the first segment is in the file.
fn first_page(width: Width, segments: usize, notes: u64) -> u64 {
    let (header, entry) = sizes(width);
    (header + entry * (segments as u64 + 1) + notes).next_multiple_of(PAGE)
}

/// The ELF header and the program headers: the notes, then the segments.
fn head(width: Width, segments: &[Segment], notes: u64) -> Vec<u8> {
    const CORE: u16 = 4;
    const RISCV: u16 = 243;
    const LOAD: u32 = 1;
    const NOTE: u32 = 4;
    let (header, entry) = sizes(width);
    let class = if width == Width::W64 { 2 } else { 1 };
    let mut out = Writer::new(width);
    // Magic number, class, little endian, version.
    out.uint(u32::from_le_bytes(*b"\x7fELF")).uint(class | 1 << 8 | 1 << 16).pad_to(16);
    out.short(CORE).short(RISCV).uint(1);
    out.long(0).long(header).long(0).uint(0);
    // More than 65534 program headers do not fit.
    let count = u16::try_from(segments.len() + 1).unwrap_or(u16::MAX - 1);
    out.short(header as u16).short(entry as u16).short(count).short(0).short(0).short(0);
    let mut program = |kind: u32, flags: u32, [offset, address, stored, len, align]: [u64; 5]| {
        out.uint(kind);
        if width == Width::W64 {
            out.uint(flags);
        }
        out.long(offset).long(address).long(0).long(stored).long(len);
        if width == Width::W32 {
            out.uint(flags);
        }
        out.long(align);
    };
    program(NOTE, 0, [header + entry * (segments.len() as u64 + 1), 0, notes, 0, 4]);
    let mut at = first_page(width, segments.len(), notes);
    for Segment { start, len, flags, stored } in segments.iter().take(usize::from(count) - 1) {
        program(LOAD, *flags, [at, *start, *stored, *len, PAGE]);
        at += stored;
    }
    out.finish()
}

/// The notes: registers, process, auxiliary vector.
fn notes(task: &Task, cpu: &dyn UserCpu, info: Info) -> Vec<u8> {
    let width = task.process.machine.width;
    let mut out = Vec::new();
    let mut note = |kind: u32, bytes: &[u8]| {
        const NAME: &[u8; 8] = b"CORE\0\0\0\0";
        out.extend(5_u32.to_le_bytes());
        out.extend((bytes.len() as u32).to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(NAME);
        out.extend(bytes);
        out.resize(out.len().next_multiple_of(4), 0);
    };
    note(PRSTATUS, &status(task, cpu, info));
    note(PRPSINFO, &process_info(task));
    note(SIGINFO, &info.encode(width));
    note(AUXV, &task.process.image.auxiliary);
    note(FPREGSET, &cpu.core_float());
    out
}

/// Numbers of the process: itself, its parent, its group, its session.
fn identity(task: &Task, first: u32) -> [u32; 4] {
    let number = |call: libc::c_long, of: i32| -> u32 {
        let result = if call == libc::SYS_getppid {
            task.host(call, [])
        } else {
            task.host(call, [of.into()])
        };
        result.unwrap_or_default() as u32
    };
    [first, number(libc::SYS_getppid, 0), number(libc::SYS_getpgid, 0), number(libc::SYS_getsid, 0)]
}

/// `struct elf_prstatus`
fn status(task: &Task, cpu: &dyn UserCpu, info: Info) -> Vec<u8> {
    let mut out = Writer::new(task.process.machine.width);
    out.int(info.number()).int(info.code()).int(0);
    out.short(info.number() as u16).long(0).long(task.signals.mask.0);
    for number in identity(task, task.tid()) {
        out.uint(number);
    }
    // Four times, which nobody has taken.
    for _ in 0..8 {
        out.long(0);
    }
    for register in cpu.core_registers() {
        out.long(register);
    }
    out.int(1).long(0);
    let end = out.finish();
    let long = task.process.machine.width.bytes();
    // The last field is an int, and the structure is padded to whole longs.
    end[..end.len() - long].to_vec()
}

/// `struct elf_prpsinfo`
fn process_info(task: &Task) -> Vec<u8> {
    let id = |call: libc::c_long| task.host(call, []).unwrap_or_default() as u32;
    let image = &task.process.image;
    let text = |bytes: &[u8], len: usize| -> Vec<u8> {
        let mut out: Vec<u8> = bytes.iter().copied().take(len - 1).collect();
        out.resize(len, 0);
        out
    };
    let name = image.path.file_name().unwrap_or_default().to_string_lossy();
    let words: Vec<u8> =
        image.command_line.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
    let mut out = Writer::new(task.process.machine.width);
    out.uint(u32::from_le_bytes([0, b'R', 0, 0])).long(0);
    out.uint(id(libc::SYS_getuid)).uint(id(libc::SYS_getgid));
    for number in identity(task, std::process::id()) {
        out.uint(number);
    }
    let mut bytes = out.finish();
    bytes.extend(text(name.as_bytes(), 16));
    bytes.extend(text(&words, 80));
    bytes
}
