//! Persistent bitmaps that record changes while the image is open.
//!
//! Before guest data changes for the first time, the enabled bitmaps are read into memory and marked
//! as in use on disk, so that after a crash nobody trusts them. When the image is closed they are
//! stored, with the mark taken away.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::bitmap::{self, BitmapFlags};
use super::bitmap_change::{bad_name, refuse_inconsistent};
use super::feature::Autoclear;
use super::image::Image;
use super::table_io;
use crate::dirty_bitmap::{BitmapInfo, DirtyBitmap};
use crate::error::{Error, Result};

/// Memory that all bitmaps of an image may take together, in bytes.
const MAX_MEMORY: u64 = 1 << 30;

/// A bitmap in memory.
pub(crate) struct Tracked {
    pub(super) name: String,
    dirty: Arc<DirtyBitmap>,
    /// It records changes; otherwise it is here only since the disk's size changes.
    enabled: bool,
}

/// Which bitmaps are to be in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// All.
    All,
    /// Those that record changes.
    Enabled,
}

impl Image {
    /// Reads bitmaps into memory, and marks them on disk. Those that cannot be read are marked as well:
    /// they are lost.
    pub(super) async fn track_bitmaps(&self, which: Which) -> Result<()> {
        let _changes = self.bitmap_changes.lock().await;
        let extension = {
            let header = self.header.lock();
            header.extensions.bitmaps.filter(|_| header.has_valid_bitmaps())
        };
        let Some(extension) = extension else { return Ok(()) };
        let mut directory = match self.bitmap_directory().await {
            Ok(directory) => directory,
            Err(Error::Corrupt { .. }) => {
                // None of them can be kept up to date.
                return self.change_features(|header| header.autoclear -= Autoclear::BITMAPS).await;
            }
            Err(error) => return Err(error),
        };
        let before = self.tracked.load_full();
        let mut memory: u64 = before.iter().map(|t| t.dirty.stored_len()).sum();
        let mut added = Vec::new();
        let mut marked = false;
        for entry in &mut directory {
            let enabled = entry.flags.contains(BitmapFlags::AUTO);
            let wanted = enabled || which == Which::All;
            if entry.flags.contains(BitmapFlags::IN_USE) || !wanted {
                continue;
            }
            entry.flags |= BitmapFlags::IN_USE;
            marked = true;
            let dirty = match self.read_bitmap(entry).await {
                Ok(dirty) => dirty,
                Err(Error::Corrupt { .. } | Error::Unsupported { .. }) => continue,
                Err(error) => return Err(error),
            };
            memory += dirty.stored_len();
            if memory <= MAX_MEMORY {
                let dirty = Arc::new(dirty);
                added.push(Tracked { name: entry.name.clone(), dirty, enabled });
            }
        }
        if !marked {
            return Ok(());
        }
        // Only flags change, each of which reaches the disk whole.
        let bytes = bitmap::serialise(&directory);
        table_io::write(&self.file, extension.directory_offset, &bytes).await?;
        self.file.flush().await?;
        let kept = before.iter().cloned();
        self.tracked.store(Arc::new(kept.chain(added.into_iter().map(Arc::new)).collect()));
        Ok(())
    }

    /// Content of a bitmap, which follows the changes of the disk if the bitmap records them, until the
    /// bitmaps are stored.
    pub(super) async fn live_bitmap(self: &Arc<Image>, name: String) -> Result<Arc<DirtyBitmap>> {
        let is_recording = |info: &BitmapInfo| info.enabled && info.name == name;
        if !self.read_only.load(Ordering::Acquire) && self.bitmaps().await?.iter().any(is_recording)
        {
            self.begin_write().await?;
        }
        let _changes = self.bitmap_changes.lock().await;
        if let Some(tracked) = self.tracked.load().iter().find(|tracked| tracked.name == name) {
            return Ok(Arc::clone(&tracked.dirty));
        }
        let entry = self.bitmap_directory().await?.into_iter().find(|entry| entry.name == name);
        let entry = entry.ok_or_else(|| bad_name(name, "does not exist"))?;
        refuse_inconsistent(&entry)?;
        Ok(Arc::new(self.read_bitmap(&entry).await?))
    }

    /// Notes that guest data changes.
    pub(super) fn mark_dirty(&self, range: Range<u64>) {
        for tracked in self.tracked.load().iter().filter(|tracked| tracked.enabled) {
            tracked.dirty.mark(range.clone());
        }
    }

    /// Fails if the bitmaps cannot follow a change of the disk's size.
    pub(super) async fn check_bitmaps(&self, size: u64) -> Result<()> {
        let tracked = self.tracked.load_full();
        for entry in self.bitmap_directory().await? {
            let is_lost = entry.flags.contains(BitmapFlags::IN_USE)
                && tracked.iter().all(|t| t.name != entry.name);
            if is_lost {
                let problem = "is inconsistent and cannot follow the disk's size; remove it first";
                return Err(Error::Name { what: "bitmap", name: entry.name, problem });
            }
            if !DirtyBitmap::fits(size, u32::from(entry.granularity_bits)) {
                let problem = "would exceed 512 MiB; remove it first";
                return Err(Error::Name { what: "bitmap", name: entry.name, problem });
            }
        }
        Ok(())
    }

    /// Lets the bitmaps follow a change of the disk's size.
    pub(super) fn resize_tracked(&self, size: u64) -> Result<()> {
        for tracked in self.tracked.load().iter() {
            tracked.dirty.resize(size)?;
        }
        Ok(())
    }

    /// Stores the bitmaps in memory, which then leave it.
    pub(super) async fn store_tracked(self: &Arc<Image>) -> Result<()> {
        let _changes = self.bitmap_changes.lock().await;
        self.store_tracked_locked().await
    }

    /// Like [`Image::store_tracked`], for who holds the lock.
    pub(super) async fn store_tracked_locked(self: &Arc<Image>) -> Result<()> {
        let all = self.tracked.load_full();
        if all.is_empty() || self.check_sound().is_err() {
            return Ok(());
        }
        let mut directory = self.bitmap_directory().await?;
        let mut freed = Vec::new();
        for entry in &mut directory {
            if let Some(tracked) = all.iter().find(|tracked| tracked.name == entry.name) {
                freed.extend(self.bitmap_clusters(entry).await?);
                self.write_bitmap(&tracked.dirty, entry).await?;
                entry.flags -= BitmapFlags::IN_USE;
            }
        }
        self.store_directory(&directory, freed).await?;
        self.tracked.store(Arc::default());
        self.unclaim();
        Ok(())
    }
}
