//! Putting a file into memory.

use std::fs::File;
use std::os::fd::AsFd;

use cairn_tcg::softmmu::{Flat, Protection};

use super::parse::{Elf, ElfError, Kind, Rights, Segment};
use crate::errno::Errno;
use crate::mm::{AddressSpace, PAGE, Place, Request};

/// Loads files into an address space of its own.
pub struct Loader {
    pub(crate) space: AddressSpace,
}

/// A file in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What was added to its addresses.
    pub bias: u64,
    /// Where it begins to run.
    pub entry: u64,
    /// Where the program headers are, or 0.
    pub headers: u64,
    /// First address behind it, a multiple of the page size.
    pub end: u64,
}

fn protection(rights: Rights) -> Protection {
    let mut protection = Protection::empty();
    protection.set(Protection::EXECUTE, rights.0 & 1 != 0);
    protection.set(Protection::WRITE, rights.0 & 2 != 0);
    protection.set(Protection::READ, rights.0 & 4 != 0);
    protection
}

impl Loader {
    /// An empty address space in `memory`.
    pub fn new(memory: Flat) -> Loader {
        Loader { space: AddressSpace::new(memory) }
    }

    /// Maps `elf`, the headers of `file`; near `near` if it can be moved.
    pub fn load(&self, file: &File, elf: &Elf, near: u64) -> Result<Loaded, ElfError> {
        load(&self.space, file, elf, near)
    }

    /// Unmaps everything.
    pub fn clear(&self) -> Result<(), ElfError> {
        let end = self.space.end();
        self.space.unmap(0, end).map_err(|errno| memory(0, end, errno))
    }
}

fn memory(address: u64, len: u64, errno: Errno) -> ElfError {
    ElfError::Memory { address, len, problem: errno.describe() }
}

/// Maps `elf`, the headers of `file`. What is there already stays: a file that would cover it is refused.
pub(crate) fn load(
    space: &AddressSpace,
    file: &File,
    elf: &Elf,
    near: u64,
) -> Result<Loaded, ElfError> {
    let (Some(first), Some(last)) = (elf.segments.first(), elf.segments.last()) else {
        return Err(ElfError::Empty);
    };
    let start = first.address & !(PAGE - 1);
    // Sums of addresses and sizes were found not to overflow, even when rounded up to pages.
    let end = elf.segments.iter().map(|segment| segment.address + segment.memory_size);
    let end = end.max().unwrap_or(last.address).next_multiple_of(PAGE);
    let len = end - start;
    // The whole place is taken first, so that its parts stay together and replace nothing else.
    let place = match elf.kind {
        Kind::Fixed => Place::IfFree(start),
        Kind::Anywhere => Place::Near(near),
    };
    let whole = Request {
        place,
        len,
        protection: Protection::empty(),
        shared: false,
        file: None,
        name: "",
    };
    let at = space.map(&whole).map_err(|errno| memory(start, len, errno))?;
    let bias = at.wrapping_sub(start);
    for segment in &elf.segments {
        map(space, file, segment, bias)?;
    }
    unmap_gaps(space, elf, bias)?;
    Ok(Loaded {
        bias,
        entry: elf.entry.wrapping_add(bias),
        headers: elf.headers.map_or(0, |headers| headers.wrapping_add(bias)),
        end: end.wrapping_add(bias),
    })
}

/// Maps a segment: pages of the file, the zeros behind the file's part in its last page, and pages of zeros.
fn map(space: &AddressSpace, file: &File, segment: &Segment, bias: u64) -> Result<(), ElfError> {
    let address = segment.address.wrapping_add(bias);
    let protection = protection(segment.rights);
    let start = address & !(PAGE - 1);
    let (file_end, end) = (address + segment.file_size, address + segment.memory_size);
    let mut zeros = start;
    if segment.file_size != 0 {
        zeros = file_end.next_multiple_of(PAGE);
        let offset = segment.offset - (address - start);
        let needs_zeros = end > file_end && file_end != zeros;
        let at_first = if needs_zeros { protection | Protection::WRITE } else { protection };
        let pages = Request {
            place: Place::At(start),
            len: zeros - start,
            protection: at_first,
            shared: false,
            file: Some((file.as_fd(), offset)),
            name: "",
        };
        let refused = |errno| memory(start, zeros - start, errno);
        space.map(&pages).map_err(refused)?;
        if needs_zeros {
            let tail = vec![0; (zeros - file_end) as usize];
            let written = space.memory.write(file_end, &tail);
            written.map_err(|fault| refused(fault.into()))?;
            if at_first != protection {
                space.protect(start, zeros - start, protection).map_err(refused)?;
            }
        }
    }
    if end > zeros {
        let pages = Request {
            place: Place::At(zeros),
            len: end - zeros,
            protection,
            shared: false,
            file: None,
            name: "",
        };
        space.map(&pages).map_err(|errno| memory(zeros, end - zeros, errno))?;
    }
    Ok(())
}

/// Gives back the pages between segments.
fn unmap_gaps(space: &AddressSpace, elf: &Elf, bias: u64) -> Result<(), ElfError> {
    let mut covered = None;
    for segment in &elf.segments {
        let address = segment.address.wrapping_add(bias);
        let start = address & !(PAGE - 1);
        if let Some(end) = covered.filter(|end| *end < start) {
            space.unmap(end, start - end).map_err(|errno| memory(end, start - end, errno))?;
        }
        let end = (address + segment.memory_size).next_multiple_of(PAGE);
        covered = covered.max(Some(end));
    }
    Ok(())
}
