//! A driver around another one that fails chosen requests.

use std::any::Any;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bitflags::bitflags;
use cairn_block::driver::{
    CheckReport, Driver, DriverFuture, DriverInfo, Extent, FormatInfo, Limits, Perm, Repair,
    Resize, WriteFlags,
};
use cairn_block::{Error, IoBuf, IoBufMut, Op, Result};
use parking_lot::Mutex;

use crate::value::SECTOR;

/// Error number of reads of what is unreadable.
const EIO: i32 = 5;

/// Kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoKind {
    /// Reads.
    Read,
    /// Writes of data.
    Write,
    /// Zero writes.
    WriteZeroes,
    /// Discards.
    Discard,
    /// Flushes.
    Flush,
    /// Changes of the size.
    Resize,
    /// Queries of the block status.
    Status,
}

bitflags! {
    /// A set of [`IoKind`]s.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct IoKinds: u8 {
        /// Reads.
        const READ = 1;
        /// Writes of data.
        const WRITE = 2;
        /// Zero writes.
        const WRITE_ZEROES = 4;
        /// Discards.
        const DISCARD = 8;
        /// Flushes.
        const FLUSH = 16;
        /// Changes of the size.
        const RESIZE = 32;
        /// Queries of the block status.
        const STATUS = 64;
        /// Whatever changes the disk.
        const CHANGE = Self::WRITE.bits() | Self::WRITE_ZEROES.bits() | Self::DISCARD.bits()
            | Self::RESIZE.bits();
    }
}

impl IoKinds {
    /// Whether an error of one of these must reach the user. Discards are advice, and what is known of
    /// holes is, too.
    pub fn must_be_reported(self) -> bool {
        self.intersects(!(IoKinds::DISCARD | IoKinds::STATUS))
    }
}

impl From<IoKind> for IoKinds {
    fn from(kind: IoKind) -> IoKinds {
        match kind {
            IoKind::Read => IoKinds::READ,
            IoKind::Write => IoKinds::WRITE,
            IoKind::WriteZeroes => IoKinds::WRITE_ZEROES,
            IoKind::Discard => IoKinds::DISCARD,
            IoKind::Flush => IoKinds::FLUSH,
            IoKind::Resize => IoKinds::RESIZE,
            IoKind::Status => IoKinds::STATUS,
        }
    }
}

/// Which requests fail, and how.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Kinds of requests that are counted and may fail.
    pub kinds: IoKinds,
    /// The first that fails, counted from 0 since the rule was armed.
    pub index: u64,
    /// The error number.
    pub errno: i32,
    /// All later ones fail, too.
    pub sticky: bool,
    /// A failing change is done in its first half, to whole sectors.
    pub torn: bool,
}

#[derive(Debug, Default)]
struct State {
    rule: Option<Rule>,
    /// Requests that the rule counted.
    counted: u64,
    fired: u64,
    fired_kinds: IoKinds,
    delay: u32,
    total: u64,
    unreadable: Range<u64>,
}

/// The control of one or more [`Faulty`] drivers, which count and fail their requests together.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<State>>);

impl Faults {
    /// Puts `rule` in force in place of an earlier one; counting begins anew.
    pub fn arm(&self, rule: Rule) {
        let mut state = self.0.lock();
        state.rule = Some(rule);
        state.counted = 0;
        state.fired = 0;
        state.fired_kinds = IoKinds::empty();
    }

    /// Ends all faults. What fired is still known.
    pub fn disarm(&self) {
        self.0.lock().rule = None;
    }

    /// Requests failed by the present or last rule.
    pub fn fired(&self) -> u64 {
        self.0.lock().fired
    }

    /// Kinds of these requests.
    pub fn fired_kinds(&self) -> IoKinds {
        self.0.lock().fired_kinds
    }

    /// Requests of all kinds so far.
    pub fn total(&self) -> u64 {
        self.0.lock().total
    }

    /// Makes every request wait for `turns` turns of its thread's loop first.
    pub fn delay(&self, turns: u32) {
        self.0.lock().delay = turns;
    }

    /// Makes every read that touches `range` fail from now on.
    pub fn unreadable(&self, range: Range<u64>) {
        self.0.lock().unreadable = range;
    }

    fn can_read(&self, offset: u64, len: u64) -> bool {
        let bad = &self.0.lock().unreadable;
        bad.start.max(offset) >= bad.end.min(offset.saturating_add(len))
    }

    /// Waits, counts and decides: the rule, if this request is to fail.
    async fn begin(&self, kind: IoKind) -> Option<Rule> {
        let turns = self.0.lock().delay;
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        let mut state = self.0.lock();
        state.total += 1;
        let rule = state.rule.filter(|rule| rule.kinds.contains(kind.into()))?;
        let index = state.counted;
        state.counted += 1;
        let hit = if rule.sticky { index >= rule.index } else { index == rule.index };
        if !hit {
            return None;
        }
        state.fired += 1;
        state.fired_kinds |= kind.into();
        Some(rule)
    }
}

/// A driver that fails requests as its [`Faults`] say, and passes all others to the driver inside.
pub struct Faulty {
    inner: Box<dyn Driver>,
    faults: Faults,
}

impl Faulty {
    /// Wraps `inner`.
    pub fn new(inner: Box<dyn Driver>, faults: Faults) -> Faulty {
        Faulty { inner, faults }
    }

    fn failure<T>(op: Op, offset: Option<u64>, errno: i32) -> Result<T> {
        let source = io::Error::from_raw_os_error(errno);
        Err(Error::os(op, "faulty disk", offset, source))
    }
}

/// The part of a torn request of `len` bytes that is done, in bytes.
fn half(len: u64) -> u64 {
    len / 2 / SECTOR * SECTOR
}

impl Driver for Faulty {
    fn info(&self) -> &'static DriverInfo {
        self.inner.info()
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn write_flags(&self) -> WriteFlags {
        self.inner.write_flags()
    }

    fn read(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(async move {
            match self.faults.begin(IoKind::Read).await {
                Some(rule) => Self::failure(Op::Read, Some(offset), rule.errno),
                None if self.faults.can_read(offset, buf.len() as u64) => {
                    self.inner.read(offset, buf).await
                }
                None => Self::failure(Op::Read, Some(offset), EIO),
            }
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let Some(rule) = self.faults.begin(IoKind::Write).await else {
                return self.inner.write(offset, buf, flags).await;
            };
            let done = half(buf.len() as u64);
            if rule.torn && done > 0 {
                let part = buf.slice(..usize::try_from(done).unwrap_or(0));
                self.inner.write(offset, part, flags).await?;
            }
            Self::failure(Op::Write, Some(offset), rule.errno)
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let Some(rule) = self.faults.begin(IoKind::WriteZeroes).await else {
                return self.inner.write_zeroes(offset, len, flags).await;
            };
            if rule.torn && half(len) > 0 {
                self.inner.write_zeroes(offset, half(len), flags).await?;
            }
            Self::failure(Op::WriteZeroes, Some(offset), rule.errno)
        })
    }

    fn discard(&self, offset: u64, len: u64) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let Some(rule) = self.faults.begin(IoKind::Discard).await else {
                return self.inner.discard(offset, len).await;
            };
            if rule.torn && half(len) > 0 {
                self.inner.discard(offset, half(len)).await?;
            }
            Self::failure(Op::Discard, Some(offset), rule.errno)
        })
    }

    fn flush(&self) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            match self.faults.begin(IoKind::Flush).await {
                Some(rule) => Self::failure(Op::Flush, None, rule.errno),
                None => self.inner.flush().await,
            }
        })
    }

    fn block_status(&self, offset: u64, len: u64, precise: bool) -> DriverFuture<'_, Extent> {
        Box::pin(async move {
            match self.faults.begin(IoKind::Status).await {
                Some(rule) => Self::failure(Op::BlockStatus, Some(offset), rule.errno),
                None => self.inner.block_status(offset, len, precise).await,
            }
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn resize(&self, size: u64, how: Resize) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            match self.faults.begin(IoKind::Resize).await {
                Some(rule) => Self::failure(Op::Resize, None, rule.errno),
                None => self.inner.resize(size, how).await,
            }
        })
    }

    fn allocated_size(&self) -> DriverFuture<'_, Option<u64>> {
        self.inner.allocated_size()
    }

    fn has_zero_init(&self) -> bool {
        self.inner.has_zero_init()
    }

    fn format_info(&self) -> DriverFuture<'_, FormatInfo> {
        self.inner.format_info()
    }

    fn check(&self, repair: Repair) -> DriverFuture<'_, CheckReport> {
        self.inner.check(repair)
    }

    fn set_permissions(&self, perm: Perm, shared: Perm) -> Result<()> {
        self.inner.set_permissions(perm, shared)
    }

    fn close(&self) -> DriverFuture<'_, ()> {
        self.inner.close()
    }
}
