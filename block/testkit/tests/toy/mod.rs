//! A format for testing the tests: redirect-on-write with one table of block numbers, and with mistakes
//! on demand.

use std::any::Any;
use std::sync::Arc;

use cairn_block::buf::{IoBuf, IoBufMut};
use cairn_block::driver::{
    Driver, DriverFuture, DriverInfo, DriverKind, Limits, WriteFlags, unsupported,
};
use cairn_block::graph::Node;
use cairn_block::{Error, Result};
use tokio::sync::Mutex;

const BLOCK: u64 = 4096;
/// Blocks of the virtual disk; the table of their places fills one sector.
const BLOCKS: usize = 64;

/// What the driver does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    None,
    /// Writes the table before the data that it leads to.
    TableFirst,
    /// Writes the data first, but does not wait until it is durable.
    NoBarrier,
    /// Completes a flush without flushing.
    NoFlush,
    /// Reuses a block while the durable table may still lead to it.
    EarlyReuse,
}

/// Place of each block, in blocks from the start of the file; 0 if it was never written.
struct Table {
    places: [u64; BLOCKS],
    next: u64,
    free: Vec<u64>,
}

pub(crate) struct Toy {
    file: Arc<Node>,
    mistake: Mistake,
    table: Mutex<Table>,
}

static INFO: DriverInfo = DriverInfo {
    name: "toy",
    kind: DriverKind::Format,
    open: |_| unsupported("toy", "it is made by the test, not opened"),
    probe: None,
    prefixes: &[],
    parse_filename: None,
    probe_device: None,
    options: &[],
    create_options: &[],
    create: None,
    measure: None,
    supports_backing: false,
};

impl Toy {
    pub(crate) const SIZE: u64 = BLOCK * BLOCKS as u64;

    /// Opens the image in `file`; an empty file is an empty image.
    pub(crate) async fn open(file: Arc<Node>, mistake: Mistake) -> Result<Toy> {
        let sector = file.read(0, IoBufMut::zeroed(BLOCKS * 8)).await?;
        let mut places = [0; BLOCKS];
        for (place, bytes) in places.iter_mut().zip(sector.as_chunks().0) {
            *place = u64::from_le_bytes(*bytes);
        }
        let next = places.iter().max().map_or(1, |last| last + 1);
        let table = Mutex::new(Table { places, next, free: Vec::new() });
        Ok(Toy { file, mistake, table })
    }

    async fn write_block(&self, table: &mut Table, index: usize, data: IoBuf) -> Result<()> {
        let place = table.free.pop().unwrap_or(table.next);
        table.next = table.next.max(place + 1);
        let old = std::mem::replace(&mut table.places[index], place);
        if old != 0 && self.mistake == Mistake::EarlyReuse {
            table.free.push(old);
        }
        let mut sector = Vec::with_capacity(BLOCKS * 8);
        table.places.iter().for_each(|place| sector.extend(place.to_le_bytes()));
        let sector = IoBuf::copy_of(&sector);
        let none = WriteFlags::empty();
        if self.mistake == Mistake::TableFirst {
            self.file.write(0, sector, none).await?;
            return self.file.write(place * BLOCK, data, none).await;
        }
        self.file.write(place * BLOCK, data, none).await?;
        if self.mistake != Mistake::NoBarrier {
            self.file.flush().await?;
        }
        self.file.write(0, sector, none).await
    }
}

impl Driver for Toy {
    fn info(&self) -> &'static DriverInfo {
        &INFO
    }

    fn size(&self) -> u64 {
        Toy::SIZE
    }

    fn limits(&self) -> Limits {
        Limits { request_alignment: 4096, ..Limits::default() }
    }

    fn read(&self, offset: u64, mut buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(async move {
            let table = self.table.lock().await;
            let first = usize::try_from(offset / BLOCK).map_err(|_| out_of_range())?;
            for (block, piece) in table.places[first..].iter().zip(buf.chunks_mut(4096)) {
                if *block == 0 {
                    piece.fill(0);
                } else {
                    let data = self.file.read(block * BLOCK, IoBufMut::new(piece.len())).await?;
                    piece.copy_from_slice(&data);
                }
            }
            Ok(buf)
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, _flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let mut table = self.table.lock().await;
            let first = usize::try_from(offset / BLOCK).map_err(|_| out_of_range())?;
            for at in 0..buf.len() / 4096 {
                let block = buf.slice(at * 4096..(at + 1) * 4096);
                self.write_block(&mut table, first + at, block).await?;
            }
            Ok(())
        })
    }

    fn flush(&self) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            if self.mistake == Mistake::NoFlush { Ok(()) } else { self.file.flush().await }
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn out_of_range() -> Error {
    Error::unsupported("toy", "the offset is too large")
}
