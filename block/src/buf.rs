//! I/O buffers: owned, page-aligned, reference-counted segments.
//!
//! [`IoBufMut`] is the unique owner of a byte range, [`IoBuf`] a shared, read-only one. Both can be
//! cut into pieces without copying, so that one request becomes several requests to a child node,
//! and adjacent pieces can be joined again. An operation takes its buffer by value and hands it back
//! when the kernel is done with it, so dropping a future never frees memory under a running I/O.

use std::alloc::{self, Layout};
use std::cell::RefCell;
use std::fmt;
use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;

/// Alignment of every buffer in bytes: enough for `O_DIRECT` on any device.
pub const ALIGNMENT: usize = 4096;

/// Largest segment that is kept for reuse, in bytes.
const POOL_MAX_SEGMENT: usize = 2 << 20;
/// Segments up to this many bytes are kept by the thread that drops them. Longer ones wait in a pool
/// of the process: often another thread drops them than the one that needs the next, and taking a
/// lock costs nothing beside filling them.
const LOCAL_MAX_SEGMENT: usize = 64 << 10;
/// Bytes that one thread keeps for reuse at most.
const LOCAL_MAX_BYTES: usize = 1 << 20;
/// Bytes that the process keeps for reuse at most.
const SHARED_MAX_BYTES: usize = 12 << 20;
/// Size classes: powers of two from [`ALIGNMENT`] to [`POOL_MAX_SEGMENT`].
const POOL_CLASSES: usize = (POOL_MAX_SEGMENT / ALIGNMENT).trailing_zeros() as usize + 1;

/// Memory that waits to be used again.
struct Pool {
    classes: [Vec<Memory>; POOL_CLASSES],
    bytes: usize,
}

impl Pool {
    const fn new() -> Pool {
        Pool { classes: [const { Vec::new() }; POOL_CLASSES], bytes: 0 }
    }

    fn take(&mut self, class: usize) -> Option<Memory> {
        let memory = self.classes.get_mut(class)?.pop()?;
        self.bytes -= memory.capacity;
        Some(memory)
    }

    /// Keeps `memory` if that leaves the pool within `limit` bytes; else gives it back.
    fn put(&mut self, class: usize, memory: Memory, limit: usize) -> Option<Memory> {
        match self.classes.get_mut(class) {
            Some(list) if self.bytes + memory.capacity <= limit => {
                self.bytes += memory.capacity;
                list.push(memory);
                None
            }
            _ => Some(memory),
        }
    }
}

static SHARED_POOL: Mutex<Pool> = Mutex::new(Pool::new());

thread_local! {
    static LOCAL_POOL: RefCell<Pool> = const { RefCell::new(Pool::new()) };
}

/// One heap allocation of `capacity` initialised bytes.
struct Memory {
    ptr: NonNull<u8>,
    capacity: usize,
}

// SAFETY: `Memory` owns its allocation and has no thread affinity.
unsafe impl Send for Memory {}

impl Memory {
    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, ALIGNMENT)
            .unwrap_or_else(|_| alloc::handle_alloc_error(Layout::new::<[u8; ALIGNMENT]>()))
    }

    /// A zeroed allocation; `capacity` is not 0.
    fn new(capacity: usize) -> Memory {
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is not zero (`round_up` returns at least `ALIGNMENT`).
        let ptr = unsafe { alloc::alloc_zeroed(layout) };
        match NonNull::new(ptr) {
            Some(ptr) => Memory { ptr, capacity },
            None => alloc::handle_alloc_error(layout),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `Memory::new` with the same layout, and freed only here.
        unsafe { alloc::dealloc(self.ptr.as_ptr(), Self::layout(self.capacity)) }
    }
}

fn class_of(capacity: usize) -> Option<usize> {
    (capacity.is_power_of_two() && capacity <= POOL_MAX_SEGMENT)
        .then(|| (capacity / ALIGNMENT).trailing_zeros() as usize)
}

fn round_up(len: usize) -> usize {
    let len = len.max(ALIGNMENT);
    if len <= POOL_MAX_SEGMENT {
        len.next_power_of_two()
    } else {
        len.checked_next_multiple_of(ALIGNMENT).unwrap_or(len)
    }
}

/// The allocation behind a set of buffers. Goes back to a pool when the last of them is dropped.
struct Region(Option<Memory>);

// SAFETY: shared access to the bytes follows the rule that `IoBufMut` and `IoBuf` keep: every byte
// is either in at most one `IoBufMut`, or in any number of `IoBuf`s.
unsafe impl Sync for Region {}

impl Region {
    /// Returns the region and whether its bytes are known to be zero.
    fn new(len: usize) -> (Arc<Region>, bool) {
        let capacity = round_up(len);
        let pooled = class_of(capacity).and_then(|class| {
            if capacity > LOCAL_MAX_SEGMENT {
                return SHARED_POOL.lock().take(class);
            }
            LOCAL_POOL.try_with(|pool| pool.borrow_mut().take(class)).ok().flatten()
        });
        let zeroed = pooled.is_none();
        (Arc::new(Region(Some(pooled.unwrap_or_else(|| Memory::new(capacity))))), zeroed)
    }

    fn ptr(&self) -> NonNull<u8> {
        self.0.as_ref().map_or(NonNull::dangling(), |m| m.ptr)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let Some(memory) = self.0.take() else { return };
        let Some(class) = class_of(memory.capacity) else { return };
        let unwanted = if memory.capacity > LOCAL_MAX_SEGMENT {
            SHARED_POOL.lock().put(class, memory, SHARED_MAX_BYTES)
        } else {
            let mut memory = Some(memory);
            // When the thread is going away the memory is simply freed.
            let _ = LOCAL_POOL.try_with(|pool| {
                memory = memory
                    .take()
                    .and_then(|memory| pool.borrow_mut().put(class, memory, LOCAL_MAX_BYTES));
            });
            memory
        };
        drop(unwanted);
    }
}

/// The unique owner of a range of initialised, page-aligned memory.
pub struct IoBufMut {
    region: Arc<Region>,
    /// Invariant: `start + len` is within the region, and no other live buffer covers the range.
    start: usize,
    len: usize,
}

impl IoBufMut {
    /// `len` bytes of unspecified (but initialised) content, for reads that fill all of it.
    pub fn new(len: usize) -> IoBufMut {
        IoBufMut { region: Region::new(len).0, start: 0, len }
    }

    /// `len` bytes of zeroes.
    pub fn zeroed(len: usize) -> IoBufMut {
        let (region, zeroed) = Region::new(len);
        let mut buf = IoBufMut { region, start: 0, len };
        if !zeroed {
            buf.fill(0);
        }
        buf
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> IoBufMut {
        let mut buf = IoBufMut::new(bytes.len());
        buf.copy_from_slice(bytes);
        buf
    }

    /// Cuts the buffer: `self` keeps `[0, at)`, the result has `[at, len)`.
    ///
    /// # Panics
    /// If `at` is beyond the end.
    pub fn split_off(&mut self, at: usize) -> IoBufMut {
        assert!(at <= self.len, "split at {at} of {} bytes", self.len);
        let tail = IoBufMut {
            region: Arc::clone(&self.region),
            start: self.start + at,
            len: self.len - at,
        };
        self.len = at;
        tail
    }

    /// Cuts the buffer: the result has `[0, at)`, `self` keeps the rest.
    pub fn split_to(&mut self, at: usize) -> IoBufMut {
        let tail = self.split_off(at);
        std::mem::replace(self, tail)
    }

    /// Appends the piece that was cut off behind this one; gives it back if it was not.
    pub fn join(&mut self, next: IoBufMut) -> Result<(), IoBufMut> {
        if Arc::ptr_eq(&self.region, &next.region) && self.start + self.len == next.start {
            self.len += next.len;
            Ok(())
        } else {
            Err(next)
        }
    }

    /// Shortens the buffer to `len` bytes; does nothing if it is shorter already.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Gives up the exclusive access for one that can be shared.
    pub fn freeze(self) -> IoBuf {
        IoBuf { region: self.region, start: self.start, len: self.len }
    }

    /// Address of the first byte, for the kernel.
    pub(crate) fn as_raw_mut(&mut self) -> *mut u8 {
        // SAFETY: `start` is within the region by the invariant.
        unsafe { self.region.ptr().as_ptr().add(self.start) }
    }
}

impl Deref for IoBufMut {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the range is inside the region and initialised, and nobody else has access.
        unsafe { std::slice::from_raw_parts(self.region.ptr().as_ptr().add(self.start), self.len) }
    }
}

impl DerefMut for IoBufMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(self.region.ptr().as_ptr().add(self.start), self.len)
        }
    }
}

impl fmt::Debug for IoBufMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoBufMut({} bytes)", self.len)
    }
}

/// A shared, read-only range of page-aligned memory. Cloning and slicing copy nothing.
#[derive(Clone)]
pub struct IoBuf {
    region: Arc<Region>,
    /// Invariant: `start + len` is within the region, and no live `IoBufMut` covers the range.
    start: usize,
    len: usize,
}

impl IoBuf {
    /// `len` bytes of zeroes.
    pub fn zeroed(len: usize) -> IoBuf {
        IoBufMut::zeroed(len).freeze()
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> IoBuf {
        IoBufMut::copy_of(bytes).freeze()
    }

    /// The sub-range `range` of this buffer.
    ///
    /// # Panics
    /// If the range does not lie within the buffer.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> IoBuf {
        let from = match range.start_bound() {
            Bound::Included(&n) => n,
            Bound::Excluded(&n) => n + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(&n) => n + 1,
            Bound::Excluded(&n) => n,
            Bound::Unbounded => self.len,
        };
        assert!(from <= to && to <= self.len, "slice {from}..{to} of {} bytes", self.len);
        IoBuf { region: Arc::clone(&self.region), start: self.start + from, len: to - from }
    }

    /// Exclusive access again, if this is the only buffer left on its memory.
    pub fn into_mut(self) -> Result<IoBufMut, IoBuf> {
        let IoBuf { mut region, start, len } = self;
        if Arc::get_mut(&mut region).is_some() {
            Ok(IoBufMut { region, start, len })
        } else {
            Err(IoBuf { region, start, len })
        }
    }

    /// Address of the first byte, for the kernel.
    pub(crate) fn as_raw(&self) -> *const u8 {
        // SAFETY: `start` is within the region by the invariant.
        unsafe { self.region.ptr().as_ptr().add(self.start) }
    }
}

impl Deref for IoBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the range is inside the region and initialised, and nobody can write to it.
        unsafe { std::slice::from_raw_parts(self.region.ptr().as_ptr().add(self.start), self.len) }
    }
}

impl fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IoBuf({} bytes)", self.len)
    }
}

/// Whether all bytes are zero. Reads memory at full bandwidth.
pub fn is_zero(bytes: &[u8]) -> bool {
    // Look at a few places first: data is rarely zero there and the scan ends at once.
    let probe = [bytes.first(), bytes.get(bytes.len() / 2), bytes.last()];
    if probe.iter().flatten().any(|&&b| b != 0) {
        return false;
    }
    let mut chunks = bytes.chunks_exact(256);
    // OR-folding a fixed block lets the compiler use the widest vectors.
    chunks.by_ref().all(|c| c.iter().fold(0, |acc, b| acc | b) == 0)
        && chunks.remainder().iter().all(|&b| b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_again_only_in_order() {
        let mut buf = IoBufMut::zeroed(10_000);
        buf[9_999] = 7;
        let tail = buf.split_off(4_000);
        let mut head = buf.split_to(1_000);
        assert_eq!((head.len(), buf.len(), tail.len()), (1_000, 3_000, 6_000));
        let tail = head.join(tail).expect_err("not adjacent");
        head.join(buf).expect("adjacent");
        head.join(tail).expect("adjacent");
        assert_eq!(head.len(), 10_000);
        assert_eq!(head[9_999], 7);
    }

    #[test]
    fn reused_memory_is_zeroed_on_request() {
        let mut buf = IoBufMut::new(65_536);
        buf.fill(0xff);
        drop(buf);
        assert!(is_zero(&IoBufMut::zeroed(65_536)));
    }

    #[test]
    fn shared_memory_is_not_writable() {
        let buf = IoBuf::copy_of(b"hello world");
        let part = buf.slice(6..);
        assert_eq!(&part[..], b"world");
        let buf = buf.into_mut().expect_err("still shared");
        drop(part);
        assert!(buf.into_mut().is_ok());
    }

    #[test]
    fn zero_scan_sees_every_byte() {
        for len in [0, 1, 255, 256, 257, 4_096, 5_000] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            for i in 0..len {
                bytes[i] = 1;
                assert!(!is_zero(&bytes), "byte {i} of {len}");
                bytes[i] = 0;
            }
        }
    }

    #[test]
    fn buffers_are_page_aligned() {
        assert_eq!(IoBufMut::new(1).as_ptr() as usize % ALIGNMENT, 0);
        assert_eq!(IoBufMut::new(3 << 20).as_ptr() as usize % ALIGNMENT, 0);
    }
}
