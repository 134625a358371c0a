//! Creating files, and preparing devices for an image.

use std::io;

use rustix::fs::{IFlags, Mode, OFlags};

use super::lock::ImageLock;
use super::options::{CreateOptions, DeviceCreateOptions, Locking};
use super::resize::set_size;
use super::storage::{self, Access, Kind};
use super::{FILE, HOST_DEVICE, check_kind};
use crate::buf::IoBuf;
use crate::driver::{DriverInfo, Perm, Prealloc};
use crate::engine::{Aio, File, sys};
use crate::error::{Error, Op, Result};
use crate::num::AsUsize;
use crate::options::Dict;

/// Bytes at the start of a device that are zeroed, so that no old header is taken for the new
/// image's.
const HEADER: u64 = 512;
/// Sizes of new files are multiples of this many bytes.
const SECTOR: u64 = 512;
/// Extent size hint of new files in bytes, unless the user says otherwise.
const EXTENT_SIZE_HINT: u64 = 1 << 20;

fn fail(path: &str) -> impl Fn(io::Error) -> Error + '_ {
    move |e| Error::os(Op::Create, path, None, e)
}

/// Opens what is to become an image and locks it against others.
fn claim(
    info: &'static DriverInfo,
    path: &str,
    flags: OFlags,
) -> Result<(File, Kind, Option<ImageLock>)> {
    let flags = flags | OFlags::RDWR | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))
        .map_err(|e| fail(path)(e.into()))?;
    let kind = Kind::of(&fd).map_err(fail(path))?;
    check_kind(info, kind, path)?;
    let access = Access { direct: false, aio: Aio::Auto, max_batch: 0 };
    let options = access.file_options(&fd, kind);
    let file = File::new(fd, options);
    let mut lock = ImageLock::new(&file, path, Locking::Auto)?;
    if let Some(lock) = &mut lock {
        lock.set(Perm::WRITE | Perm::RESIZE, Perm::all() - Perm::RESIZE)?;
    }
    Ok((file, kind, lock))
}

/// Creates a regular file, or empties the one that is there.
pub(super) async fn file(filename: &str, options: Dict) -> Result<()> {
    let options = CreateOptions::parse(options, "driver 'file'")?;
    let path = filename.strip_prefix("file:").unwrap_or(filename);
    let size = options.size.0.checked_next_multiple_of(SECTOR).unwrap_or(u64::MAX);
    // Nothing is touched before the lock is held.
    let (file, _, _lock) = claim(&FILE, path, OFlags::CREATE)?;
    file.set_len(0).await.map_err(fail(path))?;
    let extent_size_hint = options.extent_size_hint.map_or(EXTENT_SIZE_HINT, |hint| hint.0);
    // Both are hints, and few file systems take them.
    if let Ok(hint @ 1..) = u32::try_from(extent_size_hint) {
        let _ = sys::set_extent_size_hint(&file, hint);
    }
    if options.nocow == Some(true)
        && let Ok(flags) = rustix::fs::ioctl_getflags(&file)
    {
        let _ = rustix::fs::ioctl_setflags(&file, flags | IFlags::NOCOW);
    }
    set_size(&file, 0, size, options.preallocation.map(Prealloc::from).unwrap_or_default())
        .await
        .map_err(fail(path))
}

/// Prepares a device for a new image.
pub(super) async fn device(filename: &str, options: Dict) -> Result<()> {
    let options = DeviceCreateOptions::parse(options, "driver 'host_device'")?;
    let path = filename.strip_prefix("host_device:").unwrap_or(filename);
    let (file, kind, _lock) = claim(&HOST_DEVICE, path, OFlags::empty())?;
    let present = storage::size(&file, kind).map_err(fail(path))?;
    if present < options.size.0 {
        let what = format!("the device has {present} bytes, {} are needed", options.size.0);
        return Err(Error::unsupported(path, what));
    }
    let header = IoBuf::zeroed(present.min(HEADER).as_usize());
    file.write_at(0, header, true).await.map_err(fail(path))
}
