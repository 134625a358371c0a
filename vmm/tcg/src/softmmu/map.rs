//! Mapping host memory into a guest's address space.
//!
//! All host mappings of guest memory are made here. The host's page size must be the guest's.

// Offsets are of 64 bits, as the module above asserts.
#![allow(clippy::cast_possible_truncation)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::{MutexGuard, PoisonError};
use std::{fmt, io};

use bitflags::bitflags;

use super::flat::Flat;
use crate::ir::PAGE_SIZE;

bitflags! {
    /// What a page allows the guest to do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Protection: u8 {
        /// Loads.
        const READ = 1 << 0;
        /// Stores.
        const WRITE = 1 << 1;
        /// Instruction fetches.
        const EXECUTE = 1 << 2;
    }
}

impl Protection {
    /// The host's rights. It never executes guest pages, but the translator reads what the guest may execute.
    fn host(self) -> libc::c_int {
        let read = if self.is_empty() { 0 } else { libc::PROT_READ };
        let write = if self.contains(Protection::WRITE) { libc::PROT_WRITE } else { 0 };
        read | write
    }
}

/// What is behind a mapping.
#[derive(Clone, Copy, Debug)]
pub enum Backing<'a> {
    /// Zeros; shared with child processes, or copied on write.
    Anonymous {
        /// Whether children see changes.
        shared: bool,
    },
    /// A file from `offset` on, which is a multiple of the page size.
    File {
        /// The file.
        file: BorrowedFd<'a>,
        /// Where the mapping begins.
        offset: u64,
        /// Whether changes go to the file.
        shared: bool,
    },
}

/// Guest memory could not be changed.
#[derive(Debug)]
pub enum MapError {
    /// The range is empty, not made of whole pages, or not in the guest's address space.
    Range {
        /// First address.
        start: u64,
        /// Bytes.
        len: u64,
        /// End of the address space.
        size: u64,
    },
    /// Nothing is mapped at this address.
    Unmapped(u64),
    /// The host's pages are of another size than the guest's; theirs is given.
    PageSize(u64),
    /// The host refused.
    Host(io::Error),
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MapError::Range { start, len, size } => {
                write!(f, "guest range {start:#x}+{len:#x} is not made of pages below {size:#x}")
            }
            MapError::Unmapped(address) => {
                write!(f, "nothing is mapped at guest address {address:#x}")
            }
            MapError::PageSize(size) => {
                write!(f, "the host has pages of {size} bytes; {PAGE_SIZE} are needed")
            }
            MapError::Host(error) => write!(f, "the host refused to map guest memory: {error}"),
        }
    }
}

impl std::error::Error for MapError {}

impl From<io::Error> for MapError {
    fn from(error: io::Error) -> MapError {
        MapError::Host(error)
    }
}

/// Guest memory in which nothing changes but its contents, until this is dropped.
pub struct Frozen<'a> {
    _mappings: MutexGuard<'a, ()>,
    _code: crate::code::Frozen<'a>,
}

impl Flat {
    /// One change at a time. No state is behind the lock, so that a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn range(&self, start: u64, len: u64) -> Result<NonNull<u8>, MapError> {
        let pages = start.is_multiple_of(PAGE_SIZE) && len.is_multiple_of(PAGE_SIZE) && len != 0;
        let fits = start.checked_add(len).is_some_and(|end| end <= self.size);
        if !pages || !fits {
            return Err(MapError::Range { start, len, size: self.size });
        }
        // SAFETY: `start` is below `size`, so the result lies in the reservation (flat, fact 1).
        Ok(unsafe { self.base.add(start as usize) })
    }

    /// Maps pages over what was there.
    pub fn map(
        &self,
        start: u64,
        len: u64,
        protection: Protection,
        backing: Backing<'_>,
    ) -> Result<(), MapError> {
        let place = self.range(start, len)?;
        let (file, offset, shared) = match backing {
            Backing::Anonymous { shared } => (None, 0, shared),
            Backing::File { file, offset, shared } => (Some(file), offset, shared),
        };
        let sharing = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        let anonymous = if file.is_none() { libc::MAP_ANONYMOUS | libc::MAP_NORESERVE } else { 0 };
        let fd = file.map_or(-1, |file| file.as_raw_fd());
        let offset = offset.cast_signed();
        let _guard = self.lock();
        self.set_flags(start, len, None);
        // SAFETY: the range lies in the reservation, which is ours to map over (flat, fact 1); no page of it
        // is in use, as its flags are clear (fact 2).
        let mapped = unsafe {
            libc::mmap(
                place.as_ptr().cast(),
                len as usize,
                protection.host(),
                sharing | anonymous | libc::MAP_FIXED,
                fd,
                offset,
            )
        };
        if mapped == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            // The host may have unmapped what was there before it failed. What is still there stays: its flags are
            // clear, so nothing reaches it.
            let base = place.as_ptr() as u64;
            let _ = new_mapping(len, base, libc::PROT_NONE, libc::MAP_FIXED_NOREPLACE);
            return Err(error.into());
        }
        self.set_flags(start, len, Some(protection));
        Ok(())
    }

    /// Unmaps pages. Those that are not mapped stay so.
    pub fn unmap(&self, start: u64, len: u64) -> Result<(), MapError> {
        let place = self.range(start, len)?;
        let _guard = self.lock();
        self.set_flags(start, len, None);
        reserve_at(place, len)?;
        Ok(())
    }

    /// Moves the pages at `start`, which are of one mapping, to `target`, and lets them grow to `new_len` bytes.
    ///
    /// New pages are what is behind the mapping. The ranges do not overlap. At no time is a part of the reservation given
    /// up.
    pub fn relocate(
        &self,
        start: u64,
        len: u64,
        target: u64,
        new_len: u64,
        protection: Protection,
        shared: bool,
    ) -> Result<(), MapError> {
        let from = self.range(start, len)?.as_ptr();
        let to = self.range(target, new_len)?.as_ptr();
        let invalid = MapError::Range { start: target, len: new_len, size: self.size };
        if new_len < len || (start < target + new_len && target < start + len) {
            return Err(invalid);
        }
        let _guard = self.lock();
        self.set_flags(start, len, None);
        self.set_flags(target, new_len, None);
        let (len_here, new_len_here) = (len as usize, new_len as usize);
        // SAFETY: both ranges lie in the reservation, which is ours to map over (flat, fact 1); no page of them is
        // in use, as their flags are clear (fact 2). What the host puts elsewhere is moved on or back.
        let moved = unsafe {
            if shared {
                // Pages of a shared mapping are mapped once more: an old length of zero asks for that (mremap(2)).
                remap(from, 0, new_len_here, 0, Some(to)).map(|_| ())
            } else if new_len == len {
                remap(from, len_here, len_here, libc::MREMAP_DONTUNMAP, Some(to)).map(|_| ())
            } else {
                grow(from, len_here, new_len_here, to)
            }
        };
        if let Err(error) = moved {
            self.set_flags(start, len, Some(protection));
            return Err(error.into());
        }
        if let Some(place) = NonNull::new(from) {
            reserve_at(place, len)?;
        }
        self.set_flags(target, new_len, Some(protection));
        Ok(())
    }

    /// Holds off all changes of mappings and of translated code, so that the process can be forked meanwhile.
    pub fn freeze(&self) -> Frozen<'_> {
        Frozen { _mappings: self.lock(), _code: self.code().freeze() }
    }

    /// Changes what pages allow, all of which must be mapped.
    pub fn protect(&self, start: u64, len: u64, protection: Protection) -> Result<(), MapError> {
        let place = self.range(start, len)?;
        let _guard = self.lock();
        let pages = || (start..start + len).step_by(PAGE_SIZE as usize);
        let mut old = Vec::new();
        for page in pages() {
            old.push(self.protection(page).ok_or(MapError::Unmapped(page))?);
        }
        self.set_flags(start, len, None);
        // SAFETY: the range lies in the reservation (flat, fact 1); its flags are clear, so none of it is in
        // use while its rights change (fact 2).
        let done =
            unsafe { libc::mprotect(place.as_ptr().cast(), len as usize, protection.host()) };
        if done == 0 {
            self.set_flags(start, len, Some(protection));
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // The host may have changed the first pages: what both the old and the new rights allow is safe.
        for (page, old) in pages().zip(old) {
            self.set_flags(page, PAGE_SIZE, Some(old & protection));
        }
        Err(error.into())
    }
}

/// Where guest memory and the flags of its pages are put if nothing is there: code reaches both by constants of 32 bits.
const LOW_MEMORY: u64 = 0x2000_0000;
const LOW_FLAGS: u64 = 0x1000_0000;

/// Reserves host addresses without memory behind them.
pub(super) fn reserve(size: u64, base: Option<u64>) -> Result<NonNull<u8>, MapError> {
    // SAFETY: sysconf has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    if u64::try_from(page).ok() != Some(PAGE_SIZE) {
        return Err(MapError::PageSize(page.cast_unsigned()));
    }
    let exact = libc::MAP_FIXED_NOREPLACE;
    match base {
        Some(base) => new_mapping(size, base, libc::PROT_NONE, exact),
        None => new_mapping(size, LOW_MEMORY, libc::PROT_NONE, exact)
            .or_else(|_| new_mapping(size, 0, libc::PROT_NONE, 0)),
    }
}

/// Host memory of zeros, which takes space as it is written.
pub(super) fn zeroed(size: u64) -> Result<NonNull<u8>, MapError> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    new_mapping(size, LOW_FLAGS, rights, libc::MAP_FIXED_NOREPLACE)
        .or_else(|_| new_mapping(size, 0, rights, 0))
}

fn new_mapping(
    size: u64,
    base: u64,
    protection: libc::c_int,
    flags: libc::c_int,
) -> Result<NonNull<u8>, MapError> {
    let len = usize::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping, which replaces none: MAP_FIXED is not given.
    let place = unsafe { libc::mmap(base as *mut _, len, protection, flags, -1, 0) };
    if place == libc::MAP_FAILED {
        return Err(io::Error::last_os_error().into());
    }
    if flags & libc::MAP_FIXED_NOREPLACE != 0 && place as u64 != base {
        // A host that does not know the flag takes the address for a wish.
        // SAFETY: the mapping was made above, and nobody knows of it.
        unsafe { libc::munmap(place, len) };
        return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
    }
    NonNull::new(place.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::AddrInUse).into())
}

/// Moves a mapping, to a place that is given or to one that the host chooses.
///
/// # Safety
///
/// Nothing uses the pages at `from` and `to` but the caller.
unsafe fn remap(
    from: *mut u8,
    len: usize,
    new_len: usize,
    flags: libc::c_int,
    to: Option<*mut u8>,
) -> io::Result<*mut u8> {
    let fixed = if to.is_some() { libc::MREMAP_FIXED } else { 0 };
    let flags = libc::MREMAP_MAYMOVE | fixed | flags;
    let target = to.unwrap_or(std::ptr::null_mut()).cast::<libc::c_void>();
    // SAFETY: the caller's promise.
    let moved = unsafe { libc::mremap(from.cast(), len, new_len, flags, target) };
    if moved == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(moved.cast()) }
}

/// Moves a private mapping and lets it grow, which the host does only where there is room: elsewhere, and not in the
/// reservation. What cannot be grown is where it was.
///
/// # Safety
///
/// As for [`remap`].
unsafe fn grow(from: *mut u8, len: usize, new_len: usize, to: *mut u8) -> io::Result<()> {
    // SAFETY: the caller's promise; nobody knows of the places in between.
    unsafe {
        let away = remap(from, len, len, libc::MREMAP_DONTUNMAP, None)?;
        let grown = remap(away, len, new_len, 0, None);
        let moved = match grown {
            Ok(grown) => {
                remap(grown, new_len, new_len, 0, Some(to)).map_err(|error| (grown, error))
            }
            Err(error) => Err((away, error)),
        };
        moved.map(|_| ()).map_err(|(place, error)| {
            // The empty mapping that was left there makes room, so this does not fail for want of it.
            let _ = remap(place, len, len, 0, Some(from));
            error
        })
    }
}

/// Puts the reservation back over a part of it.
fn reserve_at(place: NonNull<u8>, len: u64) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: callers pass a part of the reservation whose flags are clear (flat, facts 1 and 2).
    let mapped =
        unsafe { libc::mmap(place.as_ptr().cast(), len as usize, libc::PROT_NONE, flags, -1, 0) };
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives a mapping back to the host, at the end of its owner's life.
pub(super) fn release(place: NonNull<u8>, size: u64) {
    // SAFETY: `place` and `size` are of a mapping made by `new_mapping`, whose owner is being dropped. An error
    // would leave it mapped, which does no harm.
    let _ = unsafe { libc::munmap(place.as_ptr().cast(), size as usize) };
}
