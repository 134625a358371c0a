//! `raw`: the bytes of the file are the bytes of the disk, or a window of them.
//!
//! Everything is passed to the file, shifted by the window's offset. The size counts in whole
//! sectors, so that a file of odd length shows zeroes at its end.

use std::any::Any;
use std::sync::Arc;

use crate::buf::{IoBuf, IoBufMut};
use crate::driver::{
    Driver, DriverFuture, DriverInfo, DriverKind, Extent, Limits, Measure, Resize, Role, Status,
    WriteFlags, unsupported,
};
use crate::error::{Error, Op, Result};
use crate::event::Event;
use crate::graph::{Backend, Edge, Graph, OpenContext, probe};
use crate::num::AsUsize;
use crate::options::filename::{Location, locate};
use crate::options::{Dict, OptionError, Size};

/// The driver's entry in the registry.
pub(crate) static RAW: DriverInfo = DriverInfo {
    name: "raw",
    kind: DriverKind::Format,
    open: |context| Box::pin(open(context)),
    // Anything may be raw, but any other format is surer of its images.
    probe: Some(|_, _| 1),
    prefixes: &[],
    parse_filename: None,
    probe_device: None,
    options: RawOptions::TABLE,
    create_options: CreateOptions::TABLE,
    create: Some(|graph, filename, options| Box::pin(create(graph, filename, options))),
    measure: Some(|options, source| Box::pin(async move { measure(options, source) })),
    supports_backing: false,
};

/// Unit of the size of a disk in bytes.
const SECTOR: u64 = 512;
/// Bytes at the start of an image that probing looks at.
const PROBED_BYTES: u32 = 512;

crate::options! {
    /// Options for opening.
    struct RawOptions {
        /// First byte of the disk in the file.
        "offset" => offset: Size = "0" [strong],
        /// Size of the disk, a multiple of 512; by default all of the file behind the offset.
        "size" => size: Option<Size> [strong],
    }
}

crate::options! {
    /// Options for creating.
    struct CreateOptions {
        /// Size of the virtual disk.
        "size" => size: Size = "0",
    }
}

struct Raw {
    file: Arc<Edge>,
    offset: u64,
    /// Size of the window; `None` if it ends where the file ends.
    size: Option<u64>,
    /// The format was guessed, so the guest must not write what a later guess takes for another one.
    guarded: bool,
}

async fn open(context: &mut OpenContext<'_>) -> Result<Box<dyn Driver>> {
    let options = RawOptions::take(&mut context.options)?;
    let windowed = options.offset.0 != 0 || options.size.is_some();
    // Without a window the node is no more than a filter, and leaves its file to others as one.
    let role = if windowed { Role::DATA } else { Role::FILTERED };
    let file = context.child("file", role | Role::PRIMARY).await?;
    check_window(options.offset.0, options.size, file.size())?;
    if context.is_probed() && !context.flags().read_only {
        context.warn(&guess_warning(&file.node().label()));
    }
    Ok(Box::new(Raw {
        file,
        offset: options.offset.0,
        size: options.size.map(|size| size.0),
        guarded: context.is_probed(),
    }))
}

/// What users should know who let the format of a raw image be guessed and then write to it.
fn guess_warning(file: &str) -> String {
    format!(
        "no format was given for '{file}', and nothing in it tells of another one than 'raw'.\n\
         What is written to it could make it look like another format the next time.\n\
         Writes to its first sector that would are refused; name the format 'raw' to allow them."
    )
}

fn check_window(offset: u64, size: Option<Size>, file_size: u64) -> Result<()> {
    let refuse = |name: &str, value: u64, expected| {
        Err(Error::Option(OptionError::invalid(name, &value.into(), expected)))
    };
    let file_size = filled_up(file_size);
    let Some(behind) = file_size.checked_sub(offset) else {
        let expected = format!("inside the file, which has {file_size} bytes");
        return refuse("offset", offset, expected);
    };
    match size {
        Some(Size(size)) if !size.is_multiple_of(SECTOR) => {
            refuse("size", size, format!("a multiple of {SECTOR}"))
        }
        Some(Size(size)) if size > behind => {
            let expected = format!("within the {behind} bytes of the file behind the offset");
            refuse("size", size, expected)
        }
        _ => Ok(()),
    }
}

impl Raw {
    /// The place in the file of a place on the disk.
    fn place(&self, op: Op, offset: u64, len: u64) -> Result<u64> {
        let place = offset.checked_add(self.offset);
        place.filter(|place| place.checked_add(len).is_some()).ok_or_else(|| Error::OutOfRange {
            op,
            node: self.file.node().label(),
            offset,
            len,
            size: self.size(),
        })
    }

    /// Refuses a write that would make the start of a guessed raw image look like another format.
    fn check_guess(&self, offset: u64, buf: &[u8]) -> Result<()> {
        // Guarded nodes ask for whole sectors, so a write that touches the first one begins there.
        if !self.guarded || offset != 0 {
            return Ok(());
        }
        let head = buf.get(..PROBED_BYTES.as_usize()).unwrap_or(buf);
        let file = self.file.node().label();
        match probe(head, &file) {
            Some(found) if found.name != RAW.name => Err(Error::Permission {
                message: format!(
                    "this write would make '{file}' look like a '{}' image, and the format 'raw' was \
                     only guessed; name the format raw when opening to allow it",
                    found.name
                ),
            }),
            _ => Ok(()),
        }
    }
}

impl Driver for Raw {
    fn info(&self) -> &'static DriverInfo {
        &RAW
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn size(&self) -> u64 {
        self.size.unwrap_or_else(|| filled_up(self.file.size().saturating_sub(self.offset)))
    }

    fn limits(&self) -> Limits {
        let file = self.file.node().driver().limits();
        let kept = |align: u32| {
            if align != 0 && self.offset.is_multiple_of(u64::from(align)) { align } else { 0 }
        };
        Limits {
            // The file's node aligns requests itself.
            request_alignment: if self.guarded { PROBED_BYTES } else { 1 },
            write_zeroes_alignment: kept(file.write_zeroes_alignment),
            discard_alignment: kept(file.discard_alignment),
            ..file
        }
    }

    fn write_flags(&self) -> WriteFlags {
        WriteFlags::FUA
    }

    fn read(&self, offset: u64, buf: IoBufMut) -> DriverFuture<'_, IoBufMut> {
        Box::pin(async move {
            let place = self.place(Op::Read, offset, buf.len() as u64)?;
            self.file.event(Event::ReadAio).await;
            self.file.read(place, buf).await
        })
    }

    fn write(&self, offset: u64, buf: IoBuf, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let place = self.place(Op::Write, offset, buf.len() as u64)?;
            self.check_guess(offset, &buf)?;
            self.file.event(Event::WriteAio).await;
            self.file.write(place, buf, flags).await
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64, flags: WriteFlags) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let place = self.place(Op::WriteZeroes, offset, len)?;
            self.file.write_zeroes(place, len, flags).await
        })
    }

    fn discard(&self, offset: u64, len: u64) -> DriverFuture<'_, ()> {
        Box::pin(async move {
            let place = self.place(Op::Discard, offset, len)?;
            self.file.discard(place, len).await
        })
    }

    fn block_status(&self, offset: u64, len: u64, precise: bool) -> DriverFuture<'_, Extent> {
        Box::pin(async move {
            let place = self.place(Op::BlockStatus, offset, len)?;
            let map = Some((Arc::clone(&self.file), place));
            let size = self.file.size();
            let Some(present) = size.checked_sub(place).filter(|&present| present > 0) else {
                // The sector that the file ends in is filled up with zeroes.
                return Ok(Extent { len, status: Status::ZERO | Status::OFFSET_VALID, map });
            };
            let passed = Extent {
                len: len.min(present),
                status: Status::RAW | Status::OFFSET_VALID,
                map: map.clone(),
            };
            // With direct I/O the block that the file ends in is read and written whole.
            let block = u64::from(self.file.node().driver().limits().request_alignment.max(1));
            let whole = size.next_multiple_of(block) - place;
            if len <= present || whole <= present {
                return Ok(passed);
            }
            let last = self.file.block_status(place, present, precise).await?;
            if last.len < present {
                return Ok(passed);
            }
            let status = (last.status - Status::EOF) | Status::OFFSET_VALID;
            Ok(Extent { len: len.min(whole), status, map: last.map.or(map) })
        })
    }

    fn copy_range_from<'a>(
        &'a self,
        source: &'a dyn Driver,
        source_offset: u64,
        offset: u64,
        len: u64,
    ) -> DriverFuture<'a, ()> {
        let Some(source) = source.as_any().downcast_ref::<Raw>() else {
            return unsupported(RAW.name, "only raw images can be copied into raw images");
        };
        if self.guarded && offset < u64::from(PROBED_BYTES) {
            return unsupported(RAW.name, "the start of the image needs a look at what is written");
        }
        Box::pin(async move {
            let from = source.place(Op::CopyRange, source_offset, len)?;
            let to = self.place(Op::CopyRange, offset, len)?;
            self.file.node().copy_range_from(&source.file.node(), from, to, len).await
        })
    }

    fn resize(&self, size: u64, how: Resize) -> DriverFuture<'_, ()> {
        if self.size.is_some() {
            return unsupported(RAW.name, "the size is fixed by the option 'size'");
        }
        Box::pin(async move {
            let file_size = self.place(Op::Resize, size, 0)?;
            self.file.resize(file_size, how).await
        })
    }

    fn allocated_size(&self) -> DriverFuture<'_, Option<u64>> {
        Box::pin(async move { self.file.node().driver().allocated_size().await })
    }

    fn has_zero_init(&self) -> bool {
        self.file.node().driver().has_zero_init()
    }
}

/// The size of a disk whose last sector may be incomplete in the file.
fn filled_up(size: u64) -> u64 {
    size.checked_next_multiple_of(SECTOR).unwrap_or(size)
}

/// The size of a new image: what is asked for, in whole sectors.
fn whole_sectors(size: u64) -> Result<u64> {
    size.checked_next_multiple_of(SECTOR).ok_or_else(|| {
        Error::Option(OptionError::invalid("size", &size.into(), "a size that a file can have"))
    })
}

async fn create(graph: &Arc<Graph>, filename: &str, mut options: Dict) -> Result<()> {
    let ours = CreateOptions::take(&mut options)?;
    options.insert("size", whole_sectors(ours.size.0)?);
    let Location { driver, .. } = locate(filename, None)?;
    let Some(create) = driver.create else {
        let what = format!("the protocol '{}' cannot create images", driver.name);
        return Err(Error::unsupported(filename, what));
    };
    create(graph, filename, options).await
}

fn measure(options: Dict, source: Option<&Backend>) -> Result<Measure> {
    let ours = CreateOptions::parse(options, "format 'raw'")?;
    let size = whole_sectors(source.map_or(ours.size.0, Backend::size))?;
    Ok(Measure { required: size, fully_allocated: size, bitmaps: None })
}
