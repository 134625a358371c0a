//! Files of `/proc` that show the guest's process, not that of the emulator.

use std::fmt::Write;

use crate::mm::vmas::Content;
use crate::process::Process;
use cairn_tcg::softmmu::Protection;

/// A file that is made when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The program.
    Exe,
    Maps,
    CommandLine,
    AuxiliaryVector,
    Stat,
    CpuInfo,
}

/// The view that `path` names, if it is that of this process or of a thread of it.
pub(crate) fn view(path: &[u8]) -> Option<View> {
    let path = std::str::from_utf8(path).ok()?;
    if path == "/proc/cpuinfo" {
        return Some(View::CpuInfo);
    }
    let (process, name) = path.strip_prefix("/proc/")?.split_once('/')?;
    let own = match process {
        "self" | "thread-self" => true,
        number => number.parse() == Ok(std::process::id()),
    };
    match name {
        _ if !own => None,
        "exe" => Some(View::Exe),
        "maps" => Some(View::Maps),
        "cmdline" => Some(View::CommandLine),
        "auxv" => Some(View::AuxiliaryVector),
        "stat" => Some(View::Stat),
        _ => None,
    }
}

impl View {
    /// What is in the file; `None` for [`View::Exe`], which is a file of its own.
    pub(crate) fn content(self, process: &Process) -> Option<Vec<u8>> {
        Some(match self {
            View::Exe => return None,
            View::Maps => maps(process).into_bytes(),
            View::CommandLine => process.image.command_line.clone(),
            View::AuxiliaryVector => process.image.auxiliary.clone(),
            View::Stat => stat(process).into_bytes(),
            View::CpuInfo => process.traits.cpu_info.clone().into_bytes(),
        })
    }
}

/// `/proc/self/maps` (proc_pid_maps(5)).
fn maps(process: &Process) -> String {
    let mut text = String::new();
    for (start, vma) in process.space.lock().vmas.iter() {
        let right = |right, letter| if vma.protection.contains(right) { letter } else { '-' };
        let rights = [
            right(Protection::READ, 'r'),
            right(Protection::WRITE, 'w'),
            right(Protection::EXECUTE, 'x'),
            if vma.shared { 's' } else { 'p' },
        ];
        let rights: String = rights.into_iter().collect();
        let (name, (device, inode), offset) = match &vma.content {
            Content::Anonymous(name) => (*name, (0, 0), 0),
            Content::File { path, identity, offset } => (&**path, *identity, *offset),
        };
        let (major, minor) = (libc::major(device), libc::minor(device));
        let line = format!(
            "{start:08x}-{:08x} {rights} {offset:08x} {major:02x}:{minor:02x} {inode}",
            vma.end
        );
        // Names begin at a column of their own.
        let padded = if name.is_empty() { line } else { format!("{line:<73}{name}") };
        let _ = writeln!(text, "{padded}");
    }
    text
}

/// `/proc/self/stat`: that of the host, with the guest's name and stack (proc_pid_stat(5), fields 2 and 28).
fn stat(process: &Process) -> String {
    let host = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let image = &process.image;
    let name = image.path.file_name().unwrap_or_default().to_string_lossy();
    // The name may have spaces and brackets; the last bracket ends it.
    let (head, tail) = host.rsplit_once(')').unwrap_or_default();
    let number = head.split(' ').next().unwrap_or_default();
    let fields = tail.split_whitespace().enumerate().map(|(index, field)| match index + 3 {
        28 => image.stack.to_string(),
        _ => field.to_owned(),
    });
    let name: String = name.chars().take(15).collect();
    format!("{number} ({name}) {}\n", fields.collect::<Vec<_>>().join(" "))
}
