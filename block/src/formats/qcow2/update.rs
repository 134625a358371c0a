//! Changing the header of an open image, and what is in memory after a repair.

use std::sync::Arc;

use super::check;
use super::feature::Incompatible;
use super::header::Header;
use super::image::Image;
use crate::buf::{IoBuf, IoBufMut, is_zero};
use crate::driver::{CheckReport, Repair, WriteFlags};
use crate::error::{Error, Result};
use crate::num::AsUsize;

/// The part of the header cluster that reaches the disk whole, in bytes.
const SECTOR: usize = 512;
/// Bytes at the end of the header cluster that hold the old name of the backing file while the header
/// changes; names have at most 1023.
const SPARE: usize = 1024;

impl Image {
    /// Changes anything in the header cluster, durably. Header extensions and
    /// fields that are not known here stay as they are.
    ///
    /// At every moment the file has the old header or the new one: each write of the first sector goes
    /// from one complete header to the next, and what the header on the disk refers to is not touched.
    pub(super) async fn change_header(&self, change: impl FnOnce(&mut Header)) -> Result<()> {
        let _changes = self.header_changes.lock().await;
        let old = self.header.lock().clone();
        let mut header = old.clone();
        change(&mut header);
        let bytes =
            header.serialise().map_err(|e| Error::unsupported(&*self.label, e.to_string()))?;
        let size = self.geometry().cluster_size().as_usize();
        let mut cluster = IoBufMut::zeroed(size);
        cluster
            .get_mut(..bytes.len())
            .ok_or_else(|| self.unsupported("the header does not fit into one cluster"))?
            .copy_from_slice(&bytes);
        let cluster = cluster.freeze();
        // What the header is about to refer to must be there.
        self.barrier().await?;
        let stored = self.file.read(0, IoBufMut::new(size)).await?;
        if stored.get(SECTOR..) == cluster.get(SECTOR..) {
            self.write_first_sector(&cluster).await?;
        } else {
            // The end of the cluster is kept free for the old name.
            let spare = size.saturating_sub(SPARE);
            let fits = spare >= SECTOR && bytes.len() <= spare;
            let end =
                if fits && self.set_aside(&old, &stored, spare).await? { spare } else { size };
            self.write_durably(SECTOR, cluster.slice(SECTOR..end)).await?;
            self.write_first_sector(&cluster).await?;
            if end < size {
                // Nothing refers to that any more.
                self.file.write(end as u64, cluster.slice(end..), WriteFlags::empty()).await?;
            }
        }
        *self.header.lock() = header;
        Ok(())
    }

    /// Makes the header on the disk, which is `old`, refer to nothing between its first sector and the
    /// offset `spare`: the name of the backing file goes to `spare`, the names of features are left
    /// out. `stored` is the header cluster. Returns whether the bytes from `spare` on are in use now;
    /// there is nothing to do where the rest of the cluster is empty, and nothing can be done where the
    /// first sector is too small for the rest of the header.
    async fn set_aside(&self, old: &Header, stored: &[u8], spare: usize) -> Result<bool> {
        let apart = old.serialise_apart(spare as u64);
        let apart = apart.map_err(|e| Error::unsupported(&*self.label, e.to_string()))?;
        let is_empty = stored.get(SECTOR..).is_none_or(is_zero);
        if is_empty || apart.len() > SECTOR {
            return Ok(false);
        }
        let mut tail = IoBufMut::zeroed(SPARE);
        let name = old.backing_file.as_deref().unwrap_or_default().as_bytes();
        tail.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        self.write_durably(spare, tail.freeze()).await?;
        let mut sector = IoBufMut::zeroed(SECTOR);
        sector.iter_mut().zip(&apart).for_each(|(to, from)| *to = *from);
        self.write_first_sector(&sector.freeze()).await?;
        Ok(true)
    }

    async fn write_first_sector(&self, cluster: &IoBuf) -> Result<()> {
        self.write_durably(0, cluster.slice(..SECTOR)).await
    }

    async fn write_durably(&self, offset: usize, bytes: IoBuf) -> Result<()> {
        self.file.write(offset as u64, bytes, WriteFlags::empty()).await?;
        self.file.flush().await
    }

    /// Changes the backing file that the header names.
    pub(super) async fn change_backing(
        &self,
        file: Option<String>,
        format: Option<String>,
    ) -> Result<()> {
        let file = file.filter(|name| !name.is_empty());
        if file.is_some() && self.has_raw_data_file() {
            let what = "an image with a raw data file cannot have a backing file";
            return Err(self.unsupported(what));
        }
        self.change_header(|header| {
            header.extensions.backing_format =
                format.filter(|name| !name.is_empty() && file.is_some());
            header.backing_file = file;
        })
        .await
    }

    /// Checks the image, and repairs what `repair` allows.
    pub(super) async fn check(self: &Arc<Image>, repair: Repair) -> Result<CheckReport> {
        // Nothing changes the mapping meanwhile, and the file holds all that is known.
        let _alone = self.size_changes.lock().await;
        let _locked = self.ranges.begin(0..u64::MAX, true).await;
        self.settle().await?;
        let mut header = self.header.lock().clone();
        let result = check::check(&self.file, &mut header, &self.label, repair).await;
        if !repair.is_empty() {
            // Even a repair that failed may have changed something.
            self.reload(header);
        }
        result
    }

    /// Repairs an image that was not closed, so that it can be written to: its refcounts may lag
    /// behind.
    pub(super) async fn recover(self: &Arc<Image>) -> Result<()> {
        let report = self.check(Repair::all()).await?;
        report.details.iter().for_each(|line| self.notices.found(line));
        if report.corruptions + report.check_errors > 0 {
            let detail = format!(
                "it was not closed cleanly, and {} errors could not be repaired",
                report.corruptions + report.check_errors
            );
            return Err(Error::corrupt(&*self.label, detail));
        }
        Ok(())
    }

    /// Fails if an image that was opened read-only needs more before it may be written to than it gets
    /// while it is open.
    pub(super) fn require_clean(&self) -> Result<()> {
        self.check_sound()?;
        if self.header.lock().incompatible.contains(Incompatible::DIRTY) {
            return Err(self.unsupported(
                "it was not closed cleanly; open it anew for writing, which repairs it",
            ));
        }
        Ok(())
    }
}
