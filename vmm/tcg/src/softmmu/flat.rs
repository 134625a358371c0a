//! The address space of a user-mode guest: one reservation of host addresses, guest address = offset.
//!
//! A table holds a byte of flags for each page. Every access looks there first, so faults are
//! found before memory is touched, and a store to a page with translated code invalidates that.
//!
//! `unsafe` here rests on these facts, to which the SAFETY comments refer:
//! 1. `base .. base + size` is reserved for this object from its creation to its end. Parts of it are mapped over
//!    ([`map`](super::map)), but never given back to the host.
//! 2. A page whose flags allow an access is mapped by the host with at least that right. Flags are cleared before
//!    the host's mapping changes and set after.
//! 3. Guest memory is only accessed by atomic operations, or by the kernel on the guest's behalf. No reference
//!    into it exists.
//!
//! If one guest thread unmaps what another one uses at that moment, or a mapped file is cut short, the host may fault
//! where hardware would have faulted the guest; it then ends the process by the same signal.

// Offsets are of 64 bits, as the module above asserts.
#![allow(clippy::cast_possible_truncation)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex};

use super::map::{MapError, Protection, reserve};
use crate::code::Cache;
use crate::emit::Direct;
use crate::ir::{MemOp, Order, PAGE_SIZE, Rmw, Size, page_of};
use crate::memory::{Access, Fault, FaultKind, Memory};

/// Bits of a page's flags. The lower ones are those of [`Protection`].
const MAPPED: u8 = 1 << 3;
const CODE: u8 = 1 << 4;
/// The page can be written to, and has no translated code: what generated code looks at.
pub(crate) const FAST_WRITE: u8 = 1 << 5;

/// The flags, with [`FAST_WRITE`] as the others say.
fn with_fast(flags: u8) -> u8 {
    let fast = flags & (Protection::WRITE.bits() | CODE) == Protection::WRITE.bits();
    flags & !FAST_WRITE | if fast { FAST_WRITE } else { 0 }
}

/// Changes some of the flags of a page, and the others that follow from them.
fn change(flags: &AtomicU8, change: impl Fn(u8) -> u8) {
    let change = |flags| Some(with_fast(change(flags)));
    // The function always has a result.
    let _ = flags.fetch_update(Ordering::SeqCst, Ordering::Relaxed, change);
}

/// Guest memory of a process.
pub struct Flat {
    pub(super) base: NonNull<u8>,
    pub(super) size: u64,
    flags: NonNull<AtomicU8>,
    code: Arc<Cache>,
    /// Held while mappings change.
    pub(super) changing: Mutex<()>,
}

// SAFETY: guest memory and flags are accessed atomically only (fact 3); the pointers never change.
unsafe impl Send for Flat {}
// SAFETY: as above.
unsafe impl Sync for Flat {}

impl Flat {
    /// Reserves `size` bytes of guest addresses, at `base` of the host if that is given.
    ///
    /// `size` is rounded up to pages.
    pub fn new(size: u64, base: Option<u64>, code: Arc<Cache>) -> Result<Flat, MapError> {
        let size = size.next_multiple_of(PAGE_SIZE);
        let pages = size / PAGE_SIZE;
        let memory = reserve(size, base)?;
        let flags = match super::map::zeroed(pages) {
            Ok(flags) => flags.cast(),
            Err(error) => {
                super::map::release(memory, size);
                return Err(error);
            }
        };
        Ok(Flat { base: memory, size, flags, code, changing: Mutex::new(()) })
    }

    /// Number of guest addresses.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Host address of guest address 0.
    pub fn base(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// Translations of code in this memory.
    pub fn code(&self) -> &Arc<Cache> {
        &self.code
    }

    /// The flags of the page that `address` is in.
    #[inline]
    fn flags(&self, address: u64) -> Option<&AtomicU8> {
        if address >= self.size {
            return None;
        }
        // SAFETY: the table has a byte for each page below `size`, lives as long as `self`, and a zero byte is
        // a valid AtomicU8.
        Some(unsafe { self.flags.add((address / PAGE_SIZE) as usize).as_ref() })
    }

    /// What a page allows; `None` if nothing is mapped.
    pub fn protection(&self, address: u64) -> Option<Protection> {
        let flags = self.flags(address)?.load(Ordering::Relaxed);
        (flags & MAPPED != 0).then(|| Protection::from_bits_truncate(flags))
    }

    /// Sets the flags of the pages in a range that lies below `size`. Code there is invalid.
    pub(super) fn set_flags(&self, start: u64, len: u64, protection: Option<Protection>) {
        let value = protection.map_or(0, |protection| with_fast(protection.bits() | MAPPED));
        for page in (start..start + len).step_by(PAGE_SIZE as usize) {
            if let Some(flags) = self.flags(page)
                && flags.swap(value, Ordering::SeqCst) & CODE != 0
            {
                self.code.invalidate(page);
            }
        }
    }

    fn fault(&self, address: u64, access: Access) -> Fault {
        let mapped = self.protection(address).is_some();
        let kind = if mapped { FaultKind::Protected } else { FaultKind::Unmapped };
        Fault { address, access, kind }
    }

    /// The host address of `len` bytes at `address`, if all of them allow `access`.
    ///
    /// Translations of code in them are invalidated for [`Access::Write`]. The pointer is good for accesses
    /// by the kernel, and for atomic ones, until the guest changes its mappings.
    pub fn host(&self, address: u64, len: u64, access: Access) -> Result<NonNull<u8>, Fault> {
        let need = match access {
            Access::Read => Protection::READ,
            Access::Write => Protection::WRITE,
            Access::Fetch => Protection::EXECUTE,
        };
        let end = address.checked_add(len).ok_or(self.fault(address, access))?;
        let mut page = page_of(address);
        while page < end {
            let at = page.max(address);
            let Some(flags) = self.flags(page) else { return Err(self.fault(at, access)) };
            let value = flags.load(Ordering::Relaxed);
            if value & need.bits() == 0 {
                return Err(self.fault(at, access));
            }
            if access == Access::Write && value & CODE != 0 {
                change(flags, |flags| flags & !CODE);
                self.code.invalidate(page);
            }
            page += PAGE_SIZE;
        }
        if address > self.size {
            return Err(self.fault(address, access));
        }
        // SAFETY: `address` is at most `size`, so the result is in the reservation or just behind (fact 1).
        Ok(unsafe { self.base.add(address as usize) })
    }

    /// The host address of an access, after a look at the flags.
    #[inline]
    fn access(&self, address: u64, op: MemOp, access: Access) -> Result<NonNull<u8>, Fault> {
        let len = op.size().bytes();
        if op.is_aligned() && !address.is_multiple_of(len) {
            return Err(Fault { address, access, kind: FaultKind::Misaligned });
        }
        let (mask, need) = match access {
            Access::Read => (Protection::READ.bits(), Protection::READ.bits()),
            _ => (Protection::WRITE.bits() | CODE, Protection::WRITE.bits()),
        };
        if let Some(flags) = self.flags(address)
            && flags.load(Ordering::Relaxed) & mask == need
            && address % PAGE_SIZE + len <= PAGE_SIZE
        {
            // SAFETY: `address` is below `size` (fact 1).
            return Ok(unsafe { self.base.add(address as usize) });
        }
        self.host(address, len, access)
    }

    /// Copies guest memory out.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let from = self.host(address, bytes.len() as u64, Access::Read)?;
        for (index, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: these bytes may be read (fact 2), and are accessed atomically (fact 3).
            *byte = unsafe { AtomicU8::from_ptr(from.add(index).as_ptr()) }.load(Ordering::Relaxed);
        }
        Ok(())
    }

    /// Copies guest memory out, up to what cannot be read; returns how much that is.
    pub fn peek(&self, address: u64, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let at = address.wrapping_add(done as u64);
            let room = (PAGE_SIZE - at % PAGE_SIZE) as usize;
            let end = bytes.len().min(done + room);
            if self.read(at, &mut bytes[done..end]).is_err() {
                break;
            }
            done = end;
        }
        done
    }

    /// Copies into guest memory, and into pages that the guest cannot write to, too, as debuggers do.
    pub fn poke(&self, address: u64, bytes: &[u8]) -> Result<(), MapError> {
        let mut done = 0;
        while done < bytes.len() {
            let at = address.wrapping_add(done as u64);
            let end = bytes.len().min(done + (PAGE_SIZE - at % PAGE_SIZE) as usize);
            let old = self.protection(at).ok_or(MapError::Unmapped(at))?;
            let writable = old.contains(Protection::WRITE);
            if !writable {
                self.protect(page_of(at), PAGE_SIZE, old | Protection::WRITE)?;
            }
            let written = self.write(at, &bytes[done..end]);
            if !writable {
                self.protect(page_of(at), PAGE_SIZE, old)?;
            }
            written.map_err(|fault| MapError::Unmapped(fault.address))?;
            done = end;
        }
        Ok(())
    }

    /// Copies into guest memory.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        let to = self.host(address, bytes.len() as u64, Access::Write)?;
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: these bytes may be written (fact 2), and are accessed atomically (fact 3).
            unsafe { AtomicU8::from_ptr(to.add(index).as_ptr()) }.store(*byte, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Drop for Flat {
    fn drop(&mut self) {
        super::map::release(self.base, self.size);
        super::map::release(self.flags.cast(), self.size / PAGE_SIZE);
    }
}

/// Orders of a load and of a store.
#[inline]
fn orders(order: Order) -> (Ordering, Ordering) {
    match order {
        Order::Relaxed => (Ordering::Relaxed, Ordering::Relaxed),
        Order::Acquire => (Ordering::Acquire, Ordering::Relaxed),
        Order::Release => (Ordering::Relaxed, Ordering::Release),
        Order::Sequential => (Ordering::SeqCst, Ordering::SeqCst),
    }
}

/// A value as the guest's byte order has it, and back.
#[inline]
fn swapped(value: u64, op: MemOp) -> u64 {
    if op.is_big_endian() == cfg!(target_endian = "big") {
        value
    } else {
        value.swap_bytes() >> (64 - 8 * op.size().bytes())
    }
}

impl Memory for Flat {
    #[inline]
    fn load(&self, address: u64, op: MemOp) -> Result<u64, Fault> {
        let place = self.access(address, op, Access::Read)?.as_ptr();
        let (order, _) = orders(op.order());
        let size = op.size();
        let value = if (place as u64).is_multiple_of(size.bytes()) {
            // SAFETY: the bytes may be read (fact 2), are accessed atomically (fact 3), and are aligned.
            unsafe {
                match size {
                    Size::B1 => AtomicU8::from_ptr(place).load(order).into(),
                    Size::B2 => AtomicU16::from_ptr(place.cast()).load(order).into(),
                    Size::B4 => AtomicU32::from_ptr(place.cast()).load(order).into(),
                    Size::B8 => AtomicU64::from_ptr(place.cast()).load(order),
                }
            }
        } else {
            let mut bytes = [0; 8];
            self.read(address, &mut bytes[..size.bytes() as usize])?;
            if order != Ordering::Relaxed {
                fence(Ordering::SeqCst);
            }
            let value = u64::from_ne_bytes(bytes);
            if cfg!(target_endian = "big") { value >> (64 - 8 * size.bytes()) } else { value }
        };
        Ok(op.extend(swapped(value, op)))
    }

    #[inline]
    fn store(&self, address: u64, value: u64, op: MemOp) -> Result<(), Fault> {
        let place = self.access(address, op, Access::Write)?.as_ptr();
        let (_, order) = orders(op.order());
        let size = op.size();
        let value = swapped(value & size.mask(), op);
        if (place as u64).is_multiple_of(size.bytes()) {
            // SAFETY: the bytes may be written (fact 2), are accessed atomically (fact 3), and are aligned.
            unsafe {
                match size {
                    Size::B1 => AtomicU8::from_ptr(place).store(value as u8, order),
                    Size::B2 => AtomicU16::from_ptr(place.cast()).store(value as u16, order),
                    Size::B4 => AtomicU32::from_ptr(place.cast()).store(value as u32, order),
                    Size::B8 => AtomicU64::from_ptr(place.cast()).store(value, order),
                }
            }
            return Ok(());
        }
        if order != Ordering::Relaxed {
            fence(Ordering::SeqCst);
        }
        let bytes = value.to_ne_bytes();
        let len = size.bytes() as usize;
        self.write(
            address,
            if cfg!(target_endian = "big") { &bytes[8 - len..] } else { &bytes[..len] },
        )
    }

    fn rmw(&self, address: u64, value: u64, rmw: Rmw, op: MemOp) -> Result<u64, Fault> {
        // A fault is one of a store, even if the load would fault as well.
        self.access(address, op.aligned(), Access::Write)?;
        let mut old = self.load(address, op)?;
        loop {
            let new = combine(rmw, old, value, op);
            let found = self.cas(address, old, new, op)?;
            if found == old {
                return Ok(old);
            }
            old = found;
        }
    }

    fn cas(&self, address: u64, expected: u64, new: u64, op: MemOp) -> Result<u64, Fault> {
        let op = op.aligned();
        let place = self.access(address, op, Access::Write)?.as_ptr();
        let mask = op.size().mask();
        let (expected, new) = (swapped(expected & mask, op), swapped(new & mask, op));
        macro_rules! exchange {
            ($atomic:ty, $int:ty) => {{
                // SAFETY: the bytes may be written (fact 2), are accessed atomically (fact 3), and are aligned.
                let place = unsafe { <$atomic>::from_ptr(place.cast()) };
                let (expected, new) = (expected as $int, new as $int);
                let both = (Ordering::SeqCst, Ordering::SeqCst);
                match place.compare_exchange(expected, new, both.0, both.1) {
                    Ok(old) | Err(old) => u64::from(old),
                }
            }};
        }
        let old = match op.size() {
            Size::B1 => exchange!(AtomicU8, u8),
            Size::B2 => exchange!(AtomicU16, u16),
            Size::B4 => exchange!(AtomicU32, u32),
            Size::B8 => exchange!(AtomicU64, u64),
        };
        Ok(op.extend(swapped(old, op)))
    }

    fn cas_pair(
        &self,
        address: u64,
        expected: [u64; 2],
        new: [u64; 2],
        _op: MemOp,
    ) -> Result<[u64; 2], Fault> {
        if !address.is_multiple_of(16) {
            return Err(Fault { address, access: Access::Write, kind: FaultKind::Misaligned });
        }
        let place = self.host(address, 16, Access::Write)?;
        // SAFETY: sixteen aligned bytes that may be read and written (fact 2; the host maps no page writable
        // that is not readable), accessed atomically (fact 3).
        Ok(unsafe { super::pair::compare_exchange(place.as_ptr().cast(), expected, new) })
    }

    fn fetch(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let from = self.host(address, bytes.len() as u64, Access::Fetch)?;
        for (index, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: the host maps what the guest may execute readable (fact 2); the access is atomic (fact 3).
            *byte = unsafe { AtomicU8::from_ptr(from.add(index).as_ptr()) }.load(Ordering::Relaxed);
        }
        Ok(())
    }

    fn watch_code(&self, address: u64) {
        if let Some(flags) = self.flags(address)
            && flags.load(Ordering::Relaxed) & CODE == 0
        {
            change(flags, |flags| flags | CODE);
        }
    }

    fn sync_code(&self) {
        fence(Ordering::SeqCst);
        self.code.sync();
    }

    fn direct(&self) -> Option<Direct> {
        let (base, flags) = (self.base(), self.flags.as_ptr() as u64);
        Some(Direct { base, flags, size: self.size })
    }
}

/// What a read-modify-write stores; `old` is extended as the operation says.
fn combine(rmw: Rmw, old: u64, value: u64, op: MemOp) -> u64 {
    let (old_signed, value_signed) = {
        let shift = 64 - 8 * op.size().bytes();
        let signed = |value: u64| (value << shift).cast_signed() >> shift;
        (signed(old), signed(value))
    };
    let mask = op.size().mask();
    let (old, value) = (old & mask, value & mask);
    match rmw {
        Rmw::Swap => value,
        Rmw::Add => old.wrapping_add(value),
        Rmw::And => old & value,
        Rmw::Or => old | value,
        Rmw::Xor => old ^ value,
        Rmw::MinS => old_signed.min(value_signed).cast_unsigned(),
        Rmw::MaxS => old_signed.max(value_signed).cast_unsigned(),
        Rmw::MinU => old.min(value),
        Rmw::MaxU => old.max(value),
    }
}
