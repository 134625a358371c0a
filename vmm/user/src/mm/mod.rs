//! The address space of a program: what `mmap`, `brk` and their relatives do.

pub(crate) mod vmas;

use std::fs::File;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cairn_tcg::softmmu::{Backing, Flat, Protection};

use crate::errno::Errno;
use vmas::{Content, Vma, Vmas};

/// Bytes of a page, of the guest and of the host.
pub(crate) const PAGE: u64 = 4096;
/// Nothing is mapped below this unless the program insists, so that null pointers fault (`vm.mmap_min_addr`).
const LOWEST: u64 = 0x10000;

/// Where a mapping shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Here if that is free, else where there is room.
    Near(u64),
    /// Here, over what is there.
    At(u64),
    /// Here if that is free, else nowhere.
    IfFree(u64),
}

/// A mapping to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) place: Place,
    pub(crate) len: u64,
    pub(crate) protection: Protection,
    pub(crate) shared: bool,
    /// A file, and where in it the mapping begins.
    pub(crate) file: Option<(BorrowedFd<'a>, u64)>,
    /// What an anonymous mapping is called in `/proc/self/maps`.
    pub(crate) name: &'static str,
}

/// The address space.
pub(crate) struct AddressSpace {
    pub(crate) memory: Flat,
    state: Mutex<State>,
}

/// What changes. The list is complete at all times, so a panic elsewhere does no harm.
pub(crate) struct State {
    pub(crate) vmas: Vmas,
    /// Beginning and end of the heap.
    heap: Range<u64>,
    /// Mappings that may be anywhere are below this.
    top: u64,
}

/// `len` in whole pages, if it is neither zero nor too much.
fn pages(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE).filter(|len| *len != 0)
}

impl AddressSpace {
    pub(crate) fn new(memory: Flat) -> AddressSpace {
        let top = memory.size() - PAGE;
        let state = State { vmas: Vmas::default(), heap: 0..0, top };
        AddressSpace { memory, state: Mutex::new(state) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of what programs can map. The last page stays free: nothing runs over into other memory of the host.
    pub(crate) fn end(&self) -> u64 {
        self.memory.size() - PAGE
    }

    /// Says where the heap begins, and below which address mappings are made that may be anywhere.
    pub(crate) fn set_layout(&self, heap: u64, top: u64) {
        let mut state = self.lock();
        state.heap = heap..heap;
        state.top = top;
    }

    /// Makes a mapping.
    pub(crate) fn map(&self, request: &Request<'_>) -> Result<u64, Errno> {
        let len = pages(request.len).ok_or(Errno::EINVAL)?;
        let mut state = self.lock();
        let start = self.place(&state, request.place, len)?;
        self.map_at(&mut state, start, Request { len, ..*request })
    }

    fn place(&self, state: &State, place: Place, len: u64) -> Result<u64, Errno> {
        let fits = |start: u64| start.checked_add(len).is_some_and(|end| end <= self.end());
        match place {
            Place::At(start) | Place::IfFree(start) if !start.is_multiple_of(PAGE) => {
                Err(Errno::EINVAL)
            }
            Place::At(start) | Place::IfFree(start) if !fits(start) => Err(Errno::ENOMEM),
            Place::IfFree(start) if !state.vmas.is_free(start..start + len) => Err(Errno::EEXIST),
            Place::At(start) | Place::IfFree(start) => Ok(start),
            Place::Near(hint) => {
                let hint = hint & !(PAGE - 1);
                let free = hint >= LOWEST && fits(hint) && state.vmas.is_free(hint..hint + len);
                if free {
                    return Ok(hint);
                }
                let below = state.vmas.highest_free(len, LOWEST..state.top);
                below
                    .or_else(|| state.vmas.highest_free(len, state.top..self.end()))
                    .ok_or(Errno::ENOMEM)
            }
        }
    }

    fn map_at(&self, state: &mut State, start: u64, request: Request<'_>) -> Result<u64, Errno> {
        let Request { len, protection, shared, .. } = request;
        let (backing, content) = match request.file {
            None => (Backing::Anonymous { shared }, Content::Anonymous(request.name)),
            Some((file, offset)) => {
                let metadata = File::from(file.try_clone_to_owned()?).metadata()?;
                let path = crate::fs::path_of(file);
                let identity = (metadata.dev(), metadata.ino());
                let content = Content::File { path: path.into(), identity, offset };
                (Backing::File { file, offset, shared }, content)
            }
        };
        if let Err(error) = self.memory.map(start, len, protection, backing) {
            // What was there may be gone.
            let gone = self.memory.protection(start).is_none();
            if gone {
                state.vmas.remove(start..start + len);
            }
            return Err(error.into());
        }
        state.vmas.insert(start, Vma { end: start + len, protection, shared, content });
        Ok(start)
    }

    /// Unmaps pages.
    pub(crate) fn unmap(&self, start: u64, len: u64) -> Result<(), Errno> {
        let range = self.range(start, len)?;
        let mut state = self.lock();
        self.unmap_range(&mut state, range)
    }

    /// Unmaps what is mapped in a range, and does not touch the rest of it, which may be large.
    fn unmap_range(&self, state: &mut State, range: Range<u64>) -> Result<(), Errno> {
        for (start, vma) in state.vmas.remove(range) {
            self.memory.unmap(start, vma.end - start)?;
        }
        Ok(())
    }

    fn range(&self, start: u64, len: u64) -> Result<Range<u64>, Errno> {
        let len = pages(len).ok_or(Errno::EINVAL)?;
        let end = start.checked_add(len).filter(|end| *end <= self.end());
        match end {
            Some(end) if start.is_multiple_of(PAGE) => Ok(start..end),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Changes what pages allow.
    pub(crate) fn protect(
        &self,
        start: u64,
        len: u64,
        protection: Protection,
    ) -> Result<(), Errno> {
        if len == 0 && start.is_multiple_of(PAGE) {
            return Ok(());
        }
        let range = self.range(start, len)?;
        let mut state = self.lock();
        if !state.vmas.is_mapped(range.clone()) {
            return Err(Errno::ENOMEM);
        }
        self.memory.protect(range.start, range.end - range.start, protection)?;
        state.vmas.protect(range, protection);
        Ok(())
    }

    /// Moves, grows or shrinks a mapping (`mremap`). `to` is where it may go, if it may move.
    pub(crate) fn remap(
        &self,
        start: u64,
        old_len: u64,
        new_len: u64,
        to: Option<Place>,
    ) -> Result<u64, Errno> {
        let old = self.range(start, old_len)?;
        let new_len = pages(new_len).ok_or(Errno::EINVAL)?;
        let old_len = old.end - old.start;
        let mut state = self.lock();
        let (first, vma) = state.vmas.at(start).ok_or(Errno::EFAULT)?;
        if vma.end < old.end {
            // The range is of several mappings.
            return Err(Errno::EFAULT);
        }
        let vma = vma.clone();
        let fixed = matches!(to, Some(Place::At(_)));
        if !fixed && new_len <= old_len {
            if new_len < old_len {
                self.unmap_range(&mut state, start + new_len..old.end)?;
            }
            return Ok(start);
        }
        let grown = start.checked_add(new_len).filter(|end| *end <= self.end());
        if !fixed
            && let Content::Anonymous(name) = vma.content
            && !vma.shared
            && let Some(end) = grown
            && state.vmas.is_free(old.end..end)
        {
            let (len, protection) = (end - old.end, vma.protection);
            let place = Place::At(old.end);
            let request = Request { place, len, protection, shared: false, file: None, name };
            self.map_at(&mut state, old.end, request)?;
            return Ok(start);
        }
        let place = to.ok_or(Errno::ENOMEM)?;
        let target = self.place(&state, place, new_len)?;
        if target < old.end && start < target + new_len {
            return Err(Errno::EINVAL);
        }
        self.unmap_range(&mut state, target..target + new_len)?;
        let kept = old_len.min(new_len);
        self.memory.relocate(start, kept, target, new_len, vma.protection, vma.shared)?;
        state.vmas.remove(start..start + kept);
        self.unmap_range(&mut state, start + kept..old.end.max(start + kept))?;
        let mut content = vma.content;
        if let Content::File { offset, .. } = &mut content {
            *offset += start - first;
        }
        let (end, protection, shared) = (target + new_len, vma.protection, vma.shared);
        state.vmas.insert(target, Vma { end, protection, shared, content });
        Ok(target)
    }

    /// Sets the end of the heap, if that can be, and returns it.
    pub(crate) fn set_break(&self, end: u64) -> u64 {
        let mut state = self.lock();
        let heap = state.heap.clone();
        if end < heap.start || end > self.end() {
            return heap.end;
        }
        let (old, new) = (heap.end.next_multiple_of(PAGE), end.next_multiple_of(PAGE));
        let done = if new > old {
            let request = Request {
                place: Place::IfFree(old),
                len: new - old,
                protection: Protection::READ | Protection::WRITE,
                shared: false,
                file: None,
                name: "[heap]",
            };
            self.place(&state, request.place, request.len)
                .and_then(|start| self.map_at(&mut state, start, request))
                .is_ok()
        } else {
            new == old || self.unmap_range(&mut state, new..old).is_ok()
        };
        if done {
            state.heap.end = end;
        }
        state.heap.end
    }
}
