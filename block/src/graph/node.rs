//! A node: one driver instance with its name, flags, children and parents, and the requests to it.
//!
//! The node does for every driver what is the same for all: it counts requests under way, fills reads
//! beyond the end, pads unaligned requests (see [`super::align`]), splits long ones, emulates what the
//! driver does not offer and skips needless flushes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use tokio::sync::Notify;

use super::edge::{Edge, Parents};
use super::flags::NodeFlags;
use super::tracker::Tracker;
use crate::buf::{IoBuf, IoBufMut, is_zero};
use crate::driver::{Driver, DriverKind, Resize, Role, WriteFlags};
use crate::error::{Error, Op, Result};
use crate::event::Event;
use crate::num::AsUsize;
use crate::options::DetectZeroes;
use crate::options::filename::NodeIdentity;

/// Longest read or write, in bytes: below 2 GiB and a multiple of any alignment.
pub const MAX_REQUEST: u64 = (1 << 31) - (1 << 16);
/// Largest size of a node in bytes: what a signed 64-bit offset addresses, less room for alignment.
pub const MAX_SIZE: u64 = (i64::MAX as u64) & !((1 << 30) - 1);
/// Largest buffer used to emulate a zero write, in bytes.
const ZERO_BOUNCE: u64 = 1 << 20;

/// One driver instance in the graph.
pub struct Node {
    name: String,
    identity: NodeIdentity,
    /// Read by every write, hence not behind a lock.
    flags: ArcSwap<NodeFlags>,
    pub(super) driver: Box<dyn Driver>,
    children: RwLock<Vec<Arc<Edge>>>,
    parents: Parents,
    pub(super) tracker: Tracker,
    in_flight: AtomicUsize,
    idle: Notify,
    /// Counts completed writes. A flush is needed while it differs from `flushed`.
    written: AtomicU64,
    /// The driver wants to hear of events; asked once, since requests pass many of them.
    watches_events: bool,
    flushed: AtomicU64,
    closed: AtomicBool,
}

/// A request under way on a node.
pub(super) struct Busy<'n>(&'n Node);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Node {
    pub(super) fn new(
        name: String,
        identity: NodeIdentity,
        flags: NodeFlags,
        driver: Box<dyn Driver>,
        children: Vec<Arc<Edge>>,
    ) -> Arc<Node> {
        Arc::new(Node {
            watches_events: driver.watches_events(),
            name,
            identity,
            flags: ArcSwap::from_pointee(flags),
            driver,
            children: RwLock::new(children),
            parents: Parents::default(),
            tracker: Tracker::default(),
            in_flight: AtomicUsize::new(0),
            idle: Notify::new(),
            written: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// Node name; generated (`#block…`) if the user gave none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What opens this node again.
    pub fn identity(&self) -> &NodeIdentity {
        &self.identity
    }

    /// The file name, or the `json:` form of the options, that opens this node again.
    pub fn filename(&self) -> String {
        self.identity.filename()
    }

    /// The plain name of the file that this node is about: its own, else that of its primary child.
    /// Relative names in an image are relative to it.
    pub fn base_filename(&self) -> Option<String> {
        match &self.identity.exact {
            Some(exact) => Some(exact.clone()),
            None => self.primary()?.node().base_filename(),
        }
    }

    /// What messages call this node: the plain name of the file that it is about, else its node name.
    pub fn label(&self) -> String {
        self.base_filename().unwrap_or_else(|| self.name.clone())
    }

    /// The driver instance.
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// Format or protocol name.
    pub fn format(&self) -> &'static str {
        self.driver.info().name
    }

    /// Flags in force.
    pub fn flags(&self) -> NodeFlags {
        **self.flags.load()
    }

    pub(super) fn store_flags(&self, flags: NodeFlags) {
        self.flags.store(Arc::new(flags));
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.flags.load().read_only
    }

    /// Whether the node turns writable by itself when a writer appears.
    pub(super) fn can_become_writable(&self) -> bool {
        let flags = self.flags.load();
        flags.auto_read_only && self.driver.info().kind == DriverKind::Protocol
    }

    /// Child edges in the order in which they were opened.
    pub fn children(&self) -> Vec<Arc<Edge>> {
        self.children.read().clone()
    }

    /// The child edge called `name`.
    pub fn child(&self, name: &str) -> Option<Arc<Edge>> {
        self.children.read().iter().find(|e| e.name() == name).cloned()
    }

    fn child_with(&self, role: Role) -> Option<Arc<Edge>> {
        self.children.read().iter().find(|e| e.role().intersects(role)).cloned()
    }

    /// The backing file, of formats that have one.
    pub fn backing(&self) -> Option<Arc<Edge>> {
        self.child_with(Role::COW)
    }

    /// The node that a filter filters.
    pub fn filtered(&self) -> Option<Arc<Edge>> {
        self.child_with(Role::FILTERED)
    }

    /// The child that decides names and sizes.
    pub fn primary(&self) -> Option<Arc<Edge>> {
        self.child_with(Role::PRIMARY)
    }

    /// Edges that use this node.
    pub(super) fn parents(&self) -> Vec<Arc<Edge>> {
        self.parents.list()
    }

    pub(super) fn add_parent(&self, edge: &Arc<Edge>) {
        self.parents.add(edge);
    }

    pub(super) fn remove_parent(&self, edge: &Arc<Edge>) {
        self.parents.remove(edge);
    }

    pub(super) fn take_children(&self) -> Vec<Arc<Edge>> {
        std::mem::take(&mut *self.children.write())
    }

    /// Whether this call is the one that closes the node.
    pub(super) fn begin_close(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    /// Present size in bytes.
    pub fn size(&self) -> u64 {
        self.driver.size()
    }

    /// Whether requests to this node, or to one below it, go over a network.
    pub fn is_remote(&self) -> bool {
        self.driver.is_remote() || self.children.read().iter().any(|edge| edge.node().is_remote())
    }

    pub(super) fn enter(&self) -> Busy<'_> {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Busy(self)
    }

    /// Waits until no request is under way.
    pub(super) async fn wait_idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.in_flight.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }

    fn check_length(&self, op: Op, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= MAX_SIZE => Ok(()),
            _ => Err(Error::OutOfRange { op, node: self.label(), offset, len, size: self.size() }),
        }
    }

    fn check_writable(&self, op: Op, offset: u64, len: u64) -> Result<()> {
        if self.is_read_only() && !self.can_become_writable() {
            return Err(Error::ReadOnly { node: self.label() });
        }
        self.check_length(op, offset, len)
    }

    /// Reads `buf.len()` bytes at `offset`. What lies beyond the end of the node reads as zeroes.
    pub async fn read(&self, offset: u64, mut buf: IoBufMut) -> Result<IoBufMut> {
        let _busy = self.enter();
        self.check_length(Op::Read, offset, buf.len() as u64)?;
        let present = self.size().saturating_sub(offset);
        if present >= buf.len() as u64 {
            return self.read_aligned_or_padded(offset, buf).await;
        }
        let mut beyond = buf.split_off(present.as_usize());
        beyond.fill(0);
        if !buf.is_empty() {
            buf = self.read_aligned_or_padded(offset, buf).await?;
        }
        Ok(rejoin(buf, beyond))
    }

    /// Writes `buf` at `offset`. Protocols grow when written beyond their end.
    pub async fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> Result<()> {
        let _busy = self.enter();
        self.check_writable(Op::Write, offset, buf.len() as u64)?;
        if buf.is_empty() {
            return Ok(());
        }
        let detect = self.flags.load().detect_zeroes;
        let result = if detect != DetectZeroes::Off && is_zero(&buf) {
            let unmap = match detect {
                DetectZeroes::Unmap => WriteFlags::MAY_UNMAP,
                _ => WriteFlags::empty(),
            };
            self.zero_range(offset, buf.len() as u64, flags | unmap).await
        } else {
            self.write_aligned_or_padded(offset, buf, flags & WriteFlags::FUA).await
        };
        self.note_write();
        result
    }

    /// Writes one compressed cluster; see [`Driver::write_compressed`].
    pub async fn write_compressed(&self, offset: u64, buf: IoBuf) -> Result<()> {
        let _busy = self.enter();
        self.check_writable(Op::Write, offset, buf.len() as u64)?;
        let result = self.driver.write_compressed(offset, buf).await;
        self.note_write();
        result
    }

    /// Makes a range read as zeroes, by writing zeroes if the driver has no better way.
    pub async fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> Result<()> {
        let _busy = self.enter();
        self.check_writable(Op::WriteZeroes, offset, len)?;
        let result = self.zero_range(offset, len, flags).await;
        self.note_write();
        result
    }

    async fn zero_range(&self, offset: u64, len: u64, mut flags: WriteFlags) -> Result<()> {
        if !self.flags.load().unmap {
            flags.remove(WriteFlags::MAY_UNMAP);
        }
        let native_fua = self.driver.write_flags().contains(WriteFlags::FUA);
        let fua = flags.contains(WriteFlags::FUA);
        if !native_fua {
            flags.remove(WriteFlags::FUA);
        }
        let limits = self.driver.limits();
        let align = u64::from(limits.write_zeroes_alignment.max(limits.request_alignment).max(1));
        let max = longest_piece(limits.max_write_zeroes, align);
        for (offset, len) in aligned_pieces(offset, len, align, max) {
            let padded = u64::from(limits.request_alignment.max(1));
            self.event(Event::PwritevZero).await;
            let result = if (offset | len).is_multiple_of(padded) {
                self.driver.write_zeroes(offset, len, flags).await
            } else {
                Err(Error::unsupported(self.format(), "the range is not aligned"))
            };
            match result {
                Err(error) if error.is_unsupported() => {
                    if flags.contains(WriteFlags::NO_FALLBACK) {
                        return Err(error);
                    }
                    self.write_zero_data(offset, len, flags & WriteFlags::FUA).await?;
                }
                other => other?,
            }
        }
        if fua && !native_fua { self.flush_now().await } else { Ok(()) }
    }

    /// Writes zeroes as data.
    async fn write_zero_data(
        &self,
        mut offset: u64,
        mut len: u64,
        flags: WriteFlags,
    ) -> Result<()> {
        let zeroes = IoBuf::zeroed(len.min(ZERO_BOUNCE).as_usize());
        while len > 0 {
            let now = len.min(zeroes.len() as u64);
            let piece = zeroes.slice(..now.as_usize());
            self.write_aligned_or_padded(offset, piece, flags).await?;
            offset += now;
            len -= now;
        }
        Ok(())
    }

    /// Gives storage back where the node's options allow it; what is not aligned is kept.
    pub async fn discard(&self, offset: u64, len: u64) -> Result<()> {
        let _busy = self.enter();
        self.check_writable(Op::Discard, offset, len)?;
        if !self.flags.load().unmap {
            return Ok(());
        }
        let limits = self.driver.limits();
        let unaligned = self.driver.discards_unaligned();
        let align = if unaligned { 1 } else { u64::from(limits.request_alignment.max(1)) };
        let Some(start) = offset.checked_next_multiple_of(align) else { return Ok(()) };
        let end =
            if offset + len == self.size() { offset + len } else { (offset + len) / align * align };
        let best = u64::from(limits.discard_alignment.max(1)).max(align);
        let max = longest_piece(limits.max_discard, best);
        for (offset, len) in aligned_pieces(start, end.saturating_sub(start), best, max) {
            match self.driver.discard(offset, len).await {
                // Discarding is advice.
                Err(error) if error.is_unsupported() => {}
                other => other?,
            }
        }
        self.note_write();
        Ok(())
    }

    /// Makes every write that completed before this call durable.
    pub async fn flush(&self) -> Result<()> {
        let _busy = self.enter();
        self.flush_now().await
    }

    pub(super) async fn flush_now(&self) -> Result<()> {
        let written = self.written.load(Ordering::Acquire);
        if self.flushed.load(Ordering::Acquire) == written {
            return Ok(());
        }
        if self.driver.info().kind == DriverKind::Protocol {
            if !self.flags.load().no_flush {
                self.driver.flush().await?;
            }
        } else {
            self.driver.flush().await?;
            for edge in self.children() {
                if !edge.role().contains(Role::COW) && !self.driver.flushes_children() {
                    Box::pin(edge.flush()).await?;
                }
            }
        }
        self.flushed.fetch_max(written, Ordering::AcqRel);
        Ok(())
    }

    /// Tells the driver that a request passes `event`, if it wants to know; see [`Driver::event`].
    pub async fn event(&self, event: Event) {
        if self.watches_events {
            self.driver.event(event).await;
        }
    }

    /// A write completed (or failed half-way): the next flush has work to do.
    pub(super) fn note_write(&self) {
        self.written.fetch_add(1, Ordering::AcqRel);
    }

    /// Reads saved machine state; see [`Driver::read_vm_state`]. Filters leave it to their child.
    pub async fn read_vm_state(&self, offset: u64, buf: IoBufMut) -> Result<IoBufMut> {
        let _busy = self.enter();
        match self.filtered() {
            Some(edge) => Box::pin(edge.node().read_vm_state(offset, buf)).await,
            None => self.driver.read_vm_state(offset, buf).await,
        }
    }

    /// Writes saved machine state; see [`Driver::write_vm_state`]. Filters leave it to their child.
    pub async fn write_vm_state(&self, offset: u64, buf: IoBuf) -> Result<()> {
        let _busy = self.enter();
        self.check_writable(Op::Write, offset, buf.len() as u64)?;
        let result = match self.filtered() {
            Some(edge) => Box::pin(edge.node().write_vm_state(offset, buf)).await,
            None => self.driver.write_vm_state(offset, buf).await,
        };
        self.note_write();
        result
    }

    /// Changes the size. Never beyond [`MAX_SIZE`].
    pub async fn resize(&self, size: u64, how: Resize) -> Result<()> {
        let _busy = self.enter();
        self.check_writable(Op::Resize, size, 0)?;
        let result = self.driver.resize(size, how).await;
        self.note_write();
        result
    }

    /// Copies from `source` inside the kernel where both ends are files that can do it.
    pub async fn copy_range_from(
        &self,
        source: &Node,
        source_offset: u64,
        offset: u64,
        len: u64,
    ) -> Result<()> {
        let _busy = (self.enter(), source.enter());
        self.check_writable(Op::CopyRange, offset, len)?;
        source.check_length(Op::CopyRange, source_offset, len)?;
        let result = self.driver.copy_range_from(source.driver(), source_offset, offset, len).await;
        self.note_write();
        result
    }
}

/// Joins two buffers that were one.
pub(crate) fn rejoin(mut head: IoBufMut, tail: IoBufMut) -> IoBufMut {
    match head.join(tail) {
        Ok(()) => head,
        // A driver handed back another buffer than it was given: put the bytes together again.
        Err(tail) => {
            let mut whole = IoBufMut::new(head.len() + tail.len());
            let (front, back) = whole.split_at_mut(head.len());
            front.copy_from_slice(&head);
            back.copy_from_slice(&tail);
            whole
        }
    }
}

/// The longest piece of at most `max` bytes (0: any length) that keeps `align`, at least one unit.
fn longest_piece(max: u64, align: u64) -> u64 {
    let max = if max == 0 { u64::MAX } else { max };
    (max / align * align).max(align)
}

/// Cuts a range into pieces that end at multiples of `align` and are at most `max` long: an unaligned
/// head, aligned pieces, an unaligned tail. `max` is a multiple of `align`.
fn aligned_pieces(offset: u64, len: u64, align: u64, max: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let misaligned = at % align;
        let piece = if misaligned != 0 {
            (align - misaligned).min(end - at)
        } else if end - at >= align {
            ((end - at) / align * align).min(max)
        } else {
            end - at
        };
        let start = at;
        at += piece;
        Some((start, piece))
    })
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({} {} {})", self.name, self.format(), self.filename())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_range_at_the_alignment() {
        let pieces: Vec<_> = aligned_pieces(100, 10_000, 4096, 4096).collect();
        assert_eq!(pieces, [(100, 3996), (4096, 4096), (8192, 1908)]);
        let pieces: Vec<_> = aligned_pieces(0, 16_384, 4096, 8192).collect();
        assert_eq!(pieces, [(0, 8192), (8192, 8192)]);
        assert_eq!(aligned_pieces(10, 20, 4096, 4096).collect::<Vec<_>>(), [(10, 20)]);
        assert_eq!(aligned_pieces(0, 0, 4096, 4096).count(), 0);
        let pieces: Vec<_> = aligned_pieces(1000, 2600, 1500, longest_piece(1600, 1500)).collect();
        assert_eq!(pieces, [(1000, 500), (1500, 1500), (3000, 600)]);
        assert_eq!(longest_piece(0, 4096), u64::MAX - 4095);
        assert_eq!(longest_piece(100, 4096), 4096);
    }
}
