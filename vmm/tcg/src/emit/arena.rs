//! Memory for code.
//!
//! A chunk is a file in memory that is mapped twice: code runs in one view and is written through the other, so nothing
//! is writable and executable. Data, which code reaches relative to itself, is behind the first view. A forked process
//! shares the code of its parent, which never changes, and writes its own into new chunks.

// Offsets are of 64 bits, as `softmmu` asserts.
#![allow(clippy::cast_possible_truncation)]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::asm::Datum;
use super::context::{Cell, Entry};
use super::lower::Draft;

/// Bytes of code of a chunk, and of data.
const CODE: usize = 4 << 20;
const DATA: usize = 2 << 20;
/// Chunks of an arena. Blocks that do not fit any more stay with the interpreter.
const CHUNKS: usize = 64;

#[derive(Debug)]
struct Chunk {
    /// The view that code runs in, with the data behind it.
    run: NonNull<u8>,
    /// The view that code is written through.
    write: NonNull<u8>,
    code_used: usize,
    data_used: usize,
}

#[derive(Debug, Default)]
struct State {
    chunks: usize,
    /// The chunk that is filled. Chunks are never given back.
    open: Option<Chunk>,
    /// The host has refused, or there are as many chunks as there may be.
    full: bool,
}

// SAFETY: the pointers are of mappings that stay for good, and are used under the lock.
unsafe impl Send for State {}

/// Memory for the code of a cache.
#[derive(Debug, Default)]
pub(crate) struct Arena(Mutex<State>);

/// An arena in which nothing changes, until this is dropped.
pub(crate) struct Frozen<'a> {
    _state: MutexGuard<'a, State>,
}

/// A word that keeps a unit from running while it is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gate(NonNull<AtomicU32>);

// SAFETY: the word is atomic and stays for good.
unsafe impl Send for Gate {}
// SAFETY: as above.
unsafe impl Sync for Gate {}

impl Gate {
    /// The guest's code has changed.
    pub(crate) const STALE: u32 = 1;
    /// The guest's code has to be compared.
    pub(crate) const UNCHECKED: u32 = 2;
    /// A region is entered in place of the unit.
    pub(crate) const REPLACED: u32 = 4;

    fn word(&self) -> &AtomicU32 {
        // SAFETY: it points into the data of a chunk, aligned, and stays for good.
        unsafe { self.0.as_ref() }
    }

    /// Closes the gate for this reason.
    pub(crate) fn close(self, reason: u32) {
        self.word().fetch_or(reason, Ordering::SeqCst);
    }

    /// Takes a reason back.
    pub(crate) fn open(self, reason: u32) {
        self.word().fetch_and(!reason, Ordering::SeqCst);
    }

    /// Whether it is closed for this reason.
    pub(crate) fn is_closed(self, reason: u32) -> bool {
        self.word().load(Ordering::SeqCst) & reason != 0
    }
}

/// Counts the entries of a unit, down to less than zero, without care for those that CPUs make at the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heat {
    left: NonNull<AtomicI32>,
    start: u32,
}

// SAFETY: the word is atomic and stays for good.
unsafe impl Send for Heat {}
// SAFETY: as above.
unsafe impl Sync for Heat {}

impl Heat {
    /// Entries after which a unit asks for attention again.
    const AGAIN: i32 = 1 << 22;

    fn word(&self) -> &AtomicI32 {
        // SAFETY: it points into the data of a chunk, aligned, and stays for good.
        unsafe { self.left.as_ref() }
    }

    /// Entries that were counted, at most as many as the unit asks for attention after.
    pub(crate) fn entries(self) -> u32 {
        let left = self.word().load(Ordering::Relaxed);
        // More than there were at the start if it has asked already.
        self.start.checked_sub(u32::try_from(left).unwrap_or(0)).unwrap_or(self.start)
    }

    /// Whether the unit has asked for attention, and should not do so again soon.
    pub(crate) fn take(self) -> bool {
        let spent = self.word().load(Ordering::Relaxed) < 0;
        if spent {
            self.word().store(Heat::AGAIN, Ordering::Relaxed);
        }
        spent
    }
}

/// Where a unit has gone to by a computed address: some of the addresses, by their low bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen(NonNull<[AtomicU64; Seen::LEN]>);

// SAFETY: the words are atomic and stay for good.
unsafe impl Send for Seen {}
// SAFETY: as above.
unsafe impl Sync for Seen {}

impl Seen {
    pub(super) const LEN: usize = 32;
    /// What is left of an address as an index, times two.
    pub(super) const MASK: i32 = 62;

    fn words(&self) -> &[AtomicU64; Seen::LEN] {
        // SAFETY: it points into the data of a chunk, aligned, and stays for good.
        unsafe { self.0.as_ref() }
    }

    /// Notes an address, as the unit does.
    pub(crate) fn note(self, pc: u64) {
        self.words()[(pc >> 1) as usize % Seen::LEN].store(pc, Ordering::Relaxed);
    }

    /// The addresses.
    pub(crate) fn addresses(self) -> Vec<u64> {
        let all = self.words().iter().map(|word| word.load(Ordering::Relaxed));
        all.filter(|pc| *pc != 0).collect()
    }
}

/// Where code and data of a unit are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    code: u64,
    data: NonNull<u8>,
}

impl Placed {
    /// The instruction at an offset.
    pub(super) fn entry(&self, offset: usize) -> Entry {
        Entry(self.code + offset as u64)
    }

    /// The target at an offset of the data.
    pub(super) fn cell(&self, datum: Datum) -> Cell {
        Cell(self.data.as_ptr() as u64 + u64::from(datum.0))
    }

    /// The word at an offset of the data.
    pub(super) fn gate(&self, datum: Datum) -> Gate {
        Gate(self.at(datum))
    }

    /// The word at an offset of the data.
    pub(super) fn heat(&self, datum: Datum, start: u32) -> Heat {
        Heat { left: self.at(datum), start }
    }

    /// The words from an offset of the data on.
    pub(super) fn seen(&self, datum: Datum) -> Seen {
        Seen(self.at(datum))
    }

    /// `datum` is a multiple of the alignment of what is there.
    fn at<T>(&self, datum: Datum) -> NonNull<T> {
        // SAFETY: it is an offset into the data of the unit.
        unsafe { self.data.add(datum.0 as usize) }.cast()
    }
}

impl Arena {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds off all changes, so that the process can be forked.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        Frozen { _state: self.lock() }
    }

    /// Lets the child of a fork write its code elsewhere.
    pub(crate) fn forked(&self) {
        self.lock().open = None;
    }

    /// Puts a unit into memory; `None` if there is none left.
    pub(super) fn install(&self, draft: Draft) -> Option<Placed> {
        let mut state = self.lock();
        let (code_len, data_len) = (draft.code.len(), draft.data.len());
        if state.full || code_len > CODE || data_len > DATA {
            return None;
        }
        let fits = |chunk: &Chunk| {
            chunk.code_used + code_len <= CODE && chunk.data_used + data_len <= DATA
        };
        if !state.open.as_ref().is_some_and(fits) {
            let chunk = if state.chunks < CHUNKS { chunk().ok() } else { None };
            state.full = chunk.is_none();
            state.chunks += 1;
            state.open = chunk;
        }
        let chunk = state.open.as_mut()?;
        let (code_at, data_at) = (chunk.code_used, chunk.data_used);
        let run = chunk.run.as_ptr() as u64 + code_at as u64;
        let data = chunk.run.as_ptr() as u64 + (CODE + data_at) as u64;
        let mut bytes = draft.data;
        for (cell, label) in &draft.cells {
            let target = run + draft.code.offset(*label) as u64;
            let at = cell.0 as usize;
            bytes[at..at + 8].copy_from_slice(&target.to_ne_bytes());
        }
        let code = draft.code.place(run, data);
        // SAFETY: both ranges fit their chunk, are mapped writable, and are not used yet; only the holder of the lock
        // writes to chunks, and a unit's data is aligned to 16 bytes.
        unsafe {
            let write = chunk.write.as_ptr().add(code_at);
            write.copy_from_nonoverlapping(code.as_ptr(), code.len());
            let place = chunk.run.as_ptr().add(CODE + data_at);
            place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            chunk.code_used = (code_at + code_len).next_multiple_of(16);
            chunk.data_used = (data_at + data_len).next_multiple_of(16);
            Some(Placed { code: run, data: NonNull::new_unchecked(place) })
        }
    }
}

/// Maps a chunk.
fn chunk() -> io::Result<Chunk> {
    // SAFETY: a new file; the name is a C string.
    let file = unsafe { libc::memfd_create(c"cairn-code".as_ptr(), libc::MFD_CLOEXEC) };
    if file < 0 {
        return Err(io::Error::last_os_error());
    }
    let mapped = map(file);
    // SAFETY: `file` was made above and is not used any more; mappings keep what is behind it.
    unsafe { libc::close(file) };
    mapped
}

fn map(file: libc::c_int) -> io::Result<Chunk> {
    let none = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let rx = libc::PROT_READ | libc::PROT_EXEC;
    let fixed = libc::MAP_SHARED | libc::MAP_FIXED;
    // SAFETY: new mappings at places that the host chooses, and one over the first part of the first of them.
    // Nothing is behind them yet.
    unsafe {
        if libc::ftruncate(file, CODE.cast_signed() as libc::off_t) != 0 {
            return Err(io::Error::last_os_error());
        }
        let run = libc::mmap(std::ptr::null_mut(), CODE + DATA, rw, none, -1, 0);
        if run == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let write = libc::mmap(std::ptr::null_mut(), CODE, rw, libc::MAP_SHARED, file, 0);
        if write == libc::MAP_FAILED || libc::mmap(run, CODE, rx, fixed, file, 0) != run {
            return Err(io::Error::last_os_error());
        }
        let (run, write) = (NonNull::new(run.cast()), NonNull::new(write.cast()));
        let (Some(run), Some(write)) = (run, write) else {
            return Err(io::ErrorKind::AddrInUse.into());
        };
        Ok(Chunk { run, write, code_used: 0, data_used: 0 })
    }
}
