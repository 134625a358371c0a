//! `blklogwrites`: every write goes to a log as well, in the format of the kernel's `log-writes`
//! device-mapper target (Documentation/admin-guide/device-mapper/log-writes.rst), from which its tools
//! replay them.
//!
//! The log is counted in sectors of its own: a super block in sector 0, then for each request one
//! sector with its description and the sectors of its data.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::{FILTERED, Filter, Filtered, INFO};
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::{Driver, DriverFuture, DriverInfo, Limits, Resize, Role, WriteFlags};
use crate::error::{Error, Result};
use crate::graph::{Edge, OpenContext};
use crate::num::AsUsize;
use crate::options::{OptionError, Size};

/// The driver's entry in the registry.
pub(crate) static BLKLOGWRITES: DriverInfo = DriverInfo {
    name: "blklogwrites",
    open: |context| Box::pin(open(context)),
    options: Options::TABLE,
    ..INFO
};

crate::options! {
    /// Options for opening.
    struct Options {
        /// Size of a sector of the log.
        "log-sector-size" => sector_size: Option<Size>,
        /// Go on with the log that is there, instead of beginning a new one.
        "log-append" => append: bool = "off",
        /// Entries after which the super block is written (0: only at flushes and at the end).
        "log-super-update-interval" => super_interval: u64 = "4096",
    }
}

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
/// Bytes of an entry's description: sector, number of sectors, flags, length of the data.
const ENTRY_BYTES: usize = 32;
const MIN_SECTOR: u64 = 512;
const MAX_SECTOR: u64 = 8 << 20;
/// Bytes of zeroes that are logged at once.
const ZEROES: u64 = 1 << 20;

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

struct BlkLogWrites {
    file: Arc<Edge>,
    log: Arc<Edge>,
    /// Size of a sector in bytes, a power of two.
    sector: u64,
    interval: u64,
    /// Held while an entry gets its place, so that the log has the order of the entries' numbers.
    position: Mutex<Position>,
    read_only: bool,
}

/// The end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    /// Next free sector of the log.
    next: u64,
    entries: u64,
}

/// What goes into one entry.
struct Entry {
    offset: u64,
    len: u64,
    flags: u64,
    /// Bytes of data behind the description.
    data_len: u64,
}

async fn open(context: &mut OpenContext<'_>) -> Result<Box<dyn Driver>> {
    let options = Options::take(&mut context.options)?;
    let file = context.child("file", FILTERED).await?;
    let log = context.child("log", Role::DATA).await?;
    let read_only = context.flags().read_only;
    let mut sector = options.sector_size.map_or(MIN_SECTOR, |size| size.0);
    let mut position = Position { next: 1, entries: 0 };
    if options.append {
        let (found, end) = read_log(&log).await?;
        if options.sector_size.is_some_and(|given| given.0 != found) {
            let expected = format!("{found}, as the log has it");
            return Err(OptionError::invalid("log-sector-size", &sector.into(), expected).into());
        }
        (sector, position) = (found, end);
    }
    if !is_sector_size(sector) {
        let expected = format!("a power of two from {MIN_SECTOR} to {MAX_SECTOR}");
        return Err(OptionError::invalid("log-sector-size", &sector.into(), expected).into());
    }
    let driver = BlkLogWrites {
        file,
        log,
        sector,
        interval: options.super_interval,
        position: Mutex::new(position),
        read_only,
    };
    if !read_only && !options.append {
        driver.write_super(position).await?;
    }
    Ok(Box::new(Filtered(driver)))
}

fn is_sector_size(size: u64) -> bool {
    size.is_power_of_two() && (MIN_SECTOR..=MAX_SECTOR).contains(&size)
}

/// The little-endian number at `at`, 0 beyond the end.
fn number(bytes: &[u8], at: usize) -> u64 {
    let raw = bytes.get(at..at.saturating_add(8)).and_then(|raw| raw.try_into().ok());
    raw.map_or(0, u64::from_le_bytes)
}

/// Sector size and end of an existing log.
async fn read_log(log: &Edge) -> Result<(u64, Position)> {
    let damaged = |what: &str| Error::corrupt(log.node().label(), what);
    let head = log.read(0, IoBufMut::new(MIN_SECTOR.as_usize())).await?;
    if (number(&head, 0), number(&head, 8)) != (MAGIC, VERSION) {
        return Err(damaged("this is no log of writes, or one of another version"));
    }
    let entries = number(&head, 16);
    let sector = number(&head, 24) & u64::from(u32::MAX);
    if !is_sector_size(sector) {
        return Err(damaged("the sector size of the log makes no sense"));
    }
    let mut next: u64 = 1;
    for _ in 0..entries {
        let at = next.checked_mul(sector).filter(|at| *at < log.size());
        let at = at.ok_or_else(|| damaged("the log ends before its last entry"))?;
        let entry = log.read(at, IoBufMut::new(ENTRY_BYTES)).await?;
        let flags = number(&entry, 16);
        let data = if flags & DISCARD == 0 { number(&entry, 8) } else { 0 };
        next = data
            .checked_add(1)
            .and_then(|sectors| next.checked_add(sectors))
            .ok_or_else(|| damaged("an entry of the log is longer than any file"))?;
    }
    Ok((sector, Position { next, entries }))
}

impl BlkLogWrites {
    async fn write_super(&self, position: Position) -> Result<()> {
        let mut block = IoBufMut::zeroed(self.sector.as_usize());
        let fields = [MAGIC, VERSION, position.entries, self.sector];
        for (place, field) in block.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        self.log.write(0, block.freeze(), WriteFlags::empty()).await
    }

    /// Writes an entry and, `data` giving it, what follows.
    async fn log_entry(&self, entry: Entry, data: Option<IoBuf>) -> Result<()> {
        let (place, now) = {
            let mut position = self.position.lock().await;
            let place = *position;
            position.next += 1 + entry.data_len.div_ceil(self.sector);
            position.entries += 1;
            (place, *position)
        };
        let mut block = IoBufMut::zeroed(self.sector.as_usize());
        let fields =
            [entry.offset / self.sector, entry.len / self.sector, entry.flags, entry.data_len];
        for (place, field) in block.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let at = place.next * self.sector;
        self.log.write(at, block.freeze(), WriteFlags::empty()).await?;
        match data {
            Some(data) => self.log.write(at + self.sector, data, WriteFlags::empty()).await?,
            None => self.log_zeroes(at + self.sector, entry.data_len).await?,
        }
        let is_due = self.interval != 0 && now.entries.is_multiple_of(self.interval);
        if is_due || entry.flags & (FLUSH | FUA) != 0 {
            self.write_super(*self.position.lock().await).await?;
            self.log.flush().await?;
        }
        Ok(())
    }

    async fn log_zeroes(&self, offset: u64, len: u64) -> Result<()> {
        let zeroes = IoBuf::zeroed(len.min(ZEROES).as_usize());
        let mut done = 0;
        while done < len {
            let now = (len - done).min(zeroes.len() as u64);
            let piece = zeroes.slice(..now.as_usize());
            self.log.write(offset + done, piece, WriteFlags::empty()).await?;
            done += now;
        }
        Ok(())
    }

    fn entry_flags(flags: WriteFlags) -> u64 {
        if flags.contains(WriteFlags::FUA) { FUA } else { 0 }
    }
}

impl Filter for BlkLogWrites {
    fn info(&self) -> &'static DriverInfo {
        &BLKLOGWRITES
    }

    fn child(&self) -> &Arc<Edge> {
        &self.file
    }

    fn limits(&self) -> Limits {
        Limits {
            // At most 8 MiB, see `is_sector_size`.
            request_alignment: u32::try_from(self.sector).unwrap_or(u32::MAX),
            ..self.file.node().driver().limits()
        }
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let len = buf.len() as u64;
            let entry =
                Entry { offset, len, flags: BlkLogWrites::entry_flags(flags), data_len: len };
            self.log_entry(entry, Some(buf.clone())).await?;
            self.file.write(offset, buf, flags).await
        })
    }

    fn write_compressed(&self, _: u64, _: IoBuf) -> DriverFuture<'_, ()> {
        crate::driver::unsupported(BLKLOGWRITES.name, "the log has no compressed writes")
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let entry =
                Entry { offset, len, flags: BlkLogWrites::entry_flags(flags), data_len: len };
            self.log_entry(entry, None).await?;
            self.file.write_zeroes(offset, len, flags).await
        })
    }

    fn discard(&self, offset: u64, len: u64) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let entry = Entry { offset, len, flags: DISCARD, data_len: 0 };
            self.log_entry(entry, None).await?;
            self.file.discard(offset, len).await
        })
    }

    fn flush(&self) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            // What the flush makes durable must be in the log before it.
            self.file.flush().await?;
            self.log_entry(Entry { offset: 0, len: 0, flags: FLUSH, data_len: 0 }, None).await
        })
    }

    fn resize(&self, size: u64, how: Resize) -> DriverFuture<'_, ()> {
        Box::pin(self.file.resize(size, how))
    }

    fn close(&self) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            if self.read_only {
                return Ok(());
            }
            let position = *self.position.lock().await;
            self.write_super(position).await?;
            self.log.flush().await
        })
    }
}
