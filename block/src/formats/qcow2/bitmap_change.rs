//! Changing persistent bitmaps: what users do with them by name.
//!
//! Each change writes new tables and a new directory, makes them durable, and then lets the header
//! name that directory.

use std::sync::Arc;

use super::bitmap::{self, BitmapEntry, BitmapFlags, MAX_DIRECTORY, MAX_NAME};
use super::bitmap_data::Run;
use super::extension::{BitmapsExtension, MAX_BITMAPS};
use super::feature::Autoclear;
use super::image::Image;
use super::overlap::Structure;
use super::table_io;
use crate::dirty_bitmap::{BitmapChange, BitmapInfo, DirtyBitmap, GRANULARITY_BITS};
use crate::error::{Error, Result};
use crate::num::AsUsize;

/// Base 2 logarithms of the smallest and largest granularity that is chosen by default.
const DEFAULT_GRANULARITY: (u32, u32) = (12, 16);

pub(super) fn bad_name(name: String, problem: &'static str) -> Error {
    Error::Name { what: "bitmap", name, problem }
}

impl Image {
    /// The directory, if the image has valid bitmaps.
    pub(super) async fn bitmap_directory(&self) -> Result<Vec<BitmapEntry>> {
        let extension = {
            let header = self.header.lock();
            header.extensions.bitmaps.filter(|_| header.has_valid_bitmaps())
        };
        match extension {
            Some(extension) => bitmap::read_directory(&self.file, &extension, &self.label).await,
            None => Ok(Vec::new()),
        }
    }

    /// The persistent bitmaps.
    pub(super) async fn bitmaps(&self) -> Result<Vec<BitmapInfo>> {
        let tracked = self.tracked.load_full();
        let describe = |entry: BitmapEntry| BitmapInfo {
            granularity_bits: u32::from(entry.granularity_bits),
            enabled: entry.flags.contains(BitmapFlags::AUTO),
            inconsistent: entry.flags.contains(BitmapFlags::IN_USE)
                && tracked.iter().all(|t| t.name != entry.name),
            name: entry.name,
        };
        Ok(self.bitmap_directory().await?.into_iter().map(describe).collect())
    }

    /// Content of a bitmap.
    pub(super) async fn load_bitmap(self: &Arc<Image>, name: String) -> Result<DirtyBitmap> {
        let _changes = self.bitmap_changes.lock().await;
        self.store_tracked_locked().await?;
        let directory = self.bitmap_directory().await?;
        let Some(entry) = directory.iter().find(|entry| entry.name == name) else {
            return Err(bad_name(name, "does not exist"));
        };
        refuse_inconsistent(entry)?;
        self.read_bitmap(entry).await
    }

    /// Changes a bitmap, durably.
    pub(super) async fn change_bitmap(
        self: &Arc<Image>,
        name: String,
        change: BitmapChange,
    ) -> Result<()> {
        let _alone = self.size_changes.lock().await;
        let _changes = self.bitmap_changes.lock().await;
        self.check_sound()?;
        self.store_tracked_locked().await?;
        let mut directory = self.bitmap_directory().await?;
        let position = directory.iter().position(|entry| entry.name == name);
        let mut freed = Vec::new();
        match (change, position) {
            (BitmapChange::Add { granularity_bits, enabled }, None) => {
                let entry = self.new_bitmap(&directory, name, granularity_bits, enabled).await?;
                directory.push(entry);
            }
            (BitmapChange::Add { .. }, Some(_)) => return Err(bad_name(name, "exists already")),
            (_, None) => return Err(bad_name(name, "does not exist")),
            (BitmapChange::Remove, Some(position)) => {
                let entry = directory.remove(position);
                freed = self.bitmap_clusters(&entry).await?;
            }
            (change, Some(position)) => {
                let Some(entry) = directory.get_mut(position) else {
                    return Err(bad_name(name, "does not exist"));
                };
                refuse_inconsistent(entry)?;
                freed = self.change_entry(entry, change).await?;
            }
        }
        // Bitmaps that record changes from now on are to be loaded before the next one.
        self.unclaim();
        self.store_directory(&directory, freed).await
    }

    /// Changes a bitmap other than by its coming or going. Returns the clusters it no longer needs.
    async fn change_entry(
        &self,
        entry: &mut BitmapEntry,
        change: BitmapChange,
    ) -> Result<Vec<Run>> {
        let content = match change {
            BitmapChange::Enable => {
                entry.flags |= BitmapFlags::AUTO;
                return Ok(Vec::new());
            }
            BitmapChange::Disable => {
                entry.flags -= BitmapFlags::AUTO;
                return Ok(Vec::new());
            }
            BitmapChange::Merge(source) => {
                let content = self.read_bitmap(entry).await?;
                content.merge(&source)?;
                content
            }
            BitmapChange::Clear | BitmapChange::Add { .. } | BitmapChange::Remove => {
                DirtyBitmap::new(self.size(), u32::from(entry.granularity_bits))?
            }
        };
        let freed = self.bitmap_clusters(entry).await?;
        self.write_bitmap(&content, entry).await?;
        Ok(freed)
    }

    async fn new_bitmap(
        &self,
        directory: &[BitmapEntry],
        name: String,
        granularity_bits: Option<u32>,
        enabled: bool,
    ) -> Result<BitmapEntry> {
        if self.header.lock().version < 3 {
            return Err(self.unsupported("persistent bitmaps need version 3 (compat=1.1)"));
        }
        if self.size() == 0 {
            return Err(self.unsupported("a disk without content cannot have bitmaps"));
        }
        if directory.len() >= MAX_BITMAPS.as_usize() {
            return Err(self.unsupported("the image has as many bitmaps as it can"));
        }
        if name.is_empty() {
            return Err(bad_name(name, "is empty"));
        }
        if name.len() > MAX_NAME {
            return Err(bad_name(name, "is longer than 1023 bytes"));
        }
        let (least, most) = DEFAULT_GRANULARITY;
        let bits = granularity_bits.unwrap_or(self.geometry().cluster_bits.clamp(least, most));
        let granularity_bits = u8::try_from(bits)
            .ok()
            .filter(|_| GRANULARITY_BITS.contains(&bits))
            .ok_or_else(|| {
                self.unsupported("the granularity must be a power of two from 512 bytes to 2 GiB")
            })?;
        let mut entry = BitmapEntry {
            table_offset: 0,
            table_entries: 0,
            flags: if enabled { BitmapFlags::AUTO } else { BitmapFlags::empty() },
            granularity_bits,
            name,
            extra: Vec::new(),
        };
        self.write_bitmap(&DirtyBitmap::new(self.size(), bits)?, &mut entry).await?;
        Ok(entry)
    }

    /// Makes `directory` that of the image, durably with what it leads to, and gives up `freed` and the
    /// old directory.
    pub(super) async fn store_directory(
        self: &Arc<Image>,
        directory: &[BitmapEntry],
        mut freed: Vec<Run>,
    ) -> Result<()> {
        let bytes = bitmap::serialise(directory);
        let directory_size = bytes.len() as u64;
        if directory_size > MAX_DIRECTORY {
            return Err(self.unsupported("the bitmap directory would exceed 64 MiB"));
        }
        let mut extension = None;
        if !directory.is_empty() {
            let clusters = self.geometry().clusters(directory_size);
            let directory_offset =
                self.allocate_contiguous(clusters, "bitmap directory").await?.offset;
            table_io::write(&self.file, directory_offset, &bytes).await?;
            let count = u32::try_from(directory.len()).unwrap_or(MAX_BITMAPS);
            extension = Some(BitmapsExtension { count, directory_size, directory_offset });
        }
        self.settle().await?;
        let old = {
            let header = self.header.lock();
            header.extensions.bitmaps.filter(|_| header.has_valid_bitmaps())
        };
        // Where the extension comes or goes, others move with it, maybe across sectors: meanwhile the
        // bitmaps count for nothing.
        if old.is_none() || extension.is_none() {
            self.change_features(|header| header.autoclear -= Autoclear::BITMAPS).await?;
        }
        self.change_header(|header| header.extensions.bitmaps = extension).await?;
        if let Some(new) = extension {
            self.change_features(|header| header.autoclear |= Autoclear::BITMAPS).await?;
            let (start, len) = (new.directory_offset, new.directory_size);
            self.metadata.add(Structure::BITMAP_DIRECTORY, start, len);
        }
        if let Some(old) = old {
            self.metadata.remove(Structure::BITMAP_DIRECTORY, old.directory_offset);
            freed.push((old.directory_offset, self.geometry().clusters(old.directory_size)));
        }
        self.release_runs(freed).await?;
        self.settle().await
    }
}

pub(super) fn refuse_inconsistent(entry: &BitmapEntry) -> Result<()> {
    if entry.flags.contains(BitmapFlags::IN_USE) {
        let problem = "is inconsistent: it was not stored after its last change; remove it";
        return Err(bad_name(entry.name.clone(), problem));
    }
    Ok(())
}
