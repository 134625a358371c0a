//! Disks with a volatile write cache: what was not flushed may be lost, in any part, in a power cut.
//!
//! A [`Recorder`] is the machine that loses power. Its disks behave like memory while it runs and log
//! every change and flush in one common order; [`crate::CrashLog`] makes crash states from the log.
//! Requests yield to other tasks a few times before and after they take effect, as the seed says, so
//! that concurrent requests of a driver interleave in other ways with other seeds.

use std::any::Any;
use std::sync::Arc;

use cairn_block::driver::{Driver, DriverFuture, DriverInfo, Extent, Resize, WriteFlags};
use cairn_block::{IoBuf, IoBufMut};
use parking_lot::Mutex;

use crate::memory::{extent, protocol};
use crate::{CrashLog, Disk, Rng};

static INFO: DriverInfo = protocol("test-volatile");

/// Largest number of turns that a request waits before and after its effect.
const MAX_YIELDS: u64 = 3;

/// A change of a disk, or a flush.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Bytes written at an offset.
    Write {
        /// First byte.
        offset: u64,
        /// Content.
        data: Arc<[u8]>,
    },
    /// Bytes zeroed; the disk grows if needed.
    Zero {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// Bytes discarded, which zeroes them.
    Discard {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// A new size.
    Resize(u64),
    /// What was complete at this time of the clock is durable.
    Flush {
        /// Time at which the flush began.
        begun: u64,
    },
}

/// An event of one disk.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Number of the disk.
    pub(crate) disk: usize,
    /// What happened.
    pub(crate) event: Event,
    /// Time at which the request completed; `u64::MAX` while it has not.
    pub(crate) done: u64,
}

#[derive(Debug)]
struct State {
    initial: Vec<Disk>,
    live: Vec<Disk>,
    records: Vec<Record>,
    clock: u64,
    rng: Rng,
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

/// A set of disks that lose power together.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Mutex<State>>);

impl Recorder {
    /// A machine without disks. `seed` decides how concurrent requests interleave.
    pub fn new(seed: u64) -> Recorder {
        Recorder(Arc::new(Mutex::new(State {
            initial: Vec::new(),
            live: Vec::new(),
            records: Vec::new(),
            clock: 0,
            rng: Rng::new(seed),
        })))
    }

    /// Adds a disk whose content, `disk`, is durable. Disks are numbered in this order.
    pub fn add(&self, disk: Disk) -> Volatile {
        let mut state = self.0.lock();
        state.initial.push(disk.clone());
        state.live.push(disk);
        Volatile { machine: self.clone(), disk: state.live.len() - 1 }
    }

    /// Number of events logged so far.
    pub fn position(&self) -> usize {
        self.0.lock().records.len()
    }

    /// The present content of each disk, cached data included.
    pub fn disks(&self) -> Vec<Disk> {
        self.0.lock().live.clone()
    }

    /// The log so far.
    pub fn log(&self) -> CrashLog {
        let state = self.0.lock();
        CrashLog::new(state.initial.clone(), state.records.clone())
    }

    async fn wait(&self) {
        let turns = self.0.lock().rng.below(MAX_YIELDS + 1);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
}

/// One disk of a [`Recorder`]. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct Volatile {
    machine: Recorder,
    disk: usize,
}

impl Volatile {
    async fn change(&self, event: Event) {
        self.machine.wait().await;
        let index = {
            let mut state = self.machine.0.lock();
            if let Some(disk) = state.live.get_mut(self.disk) {
                event.apply(disk);
            }
            state.records.push(Record { disk: self.disk, event, done: u64::MAX });
            state.records.len() - 1
        };
        self.machine.wait().await;
        let mut state = self.machine.0.lock();
        let now = state.tick();
        if let Some(record) = state.records.get_mut(index) {
            record.done = now;
        }
    }

    fn look<T>(&self, at: impl FnOnce(&Disk) -> T) -> T {
        at(&self.machine.0.lock().live[self.disk])
    }
}

impl Event {
    /// Does to `disk` what the event says.
    pub(crate) fn apply(&self, disk: &mut Disk) {
        match self {
            Event::Write { offset, data } => disk.write(*offset, data),
            Event::Zero { offset, len } => {
                disk.resize(disk.size().max(offset + len));
                disk.punch(*offset, *len);
            }
            Event::Discard { offset, len } => disk.punch(*offset, *len),
            Event::Resize(size) => disk.resize(*size),
            Event::Flush { .. } => {}
        }
    }
}

impl Driver for Volatile {
    fn info(&self) -> &'static DriverInfo {
        &INFO
    }

    fn size(&self) -> u64 {
        self.look(Disk::size)
    }

    fn read(&self, offset: u64, mut buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(async move {
            self.machine.wait().await;
            self.look(|disk| disk.read(offset, &mut buf));
            Ok(buf)
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, _flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            self.change(Event::Write { offset, data: Arc::from(&buf[..]) }).await;
            Ok(())
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, _flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            self.change(Event::Zero { offset, len }).await;
            Ok(())
        })
    }

    fn discard(&self, offset: u64, len: u64) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            self.change(Event::Discard { offset, len }).await;
            Ok(())
        })
    }

    fn flush(&self) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let begun = self.machine.0.lock().tick();
            self.machine.wait().await;
            let mut state = self.machine.0.lock();
            let done = state.tick();
            state.records.push(Record { disk: self.disk, event: Event::Flush { begun }, done });
            Ok(())
        })
    }

    fn block_status(&self, offset: u64, len: u64, _precise: bool) -> DriverFuture<'_, Extent> {
        Box::pin(async move { Ok(self.look(|disk| extent(disk, offset, len))) })
    }

    fn resize(&self, size: u64, _how: Resize) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            self.change(Event::Resize(size)).await;
            Ok(())
        })
    }

    fn allocated_size(&self) -> DriverFuture<'_, Option<u64>> {
        Box::pin(async move { Ok(Some(self.look(Disk::allocated))) })
    }

    fn has_zero_init(&self) -> bool {
        true
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
