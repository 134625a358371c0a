//! Changing the header of an open image, and what is in memory after a repair.

use std::sync::Arc;

use super::check;
use super::header::Header;
use super::image::Image;
use crate::buf::IoBufMut;
use crate::driver::{CheckReport, Repair, WriteFlags};
use crate::error::{Error, Result};
use crate::num::AsUsize;

/// The part of the header cluster that reaches the disk whole, in bytes.
const SECTOR: usize = 512;

impl Image {
    /// Changes anything in the header cluster, durably. Header extensions and
    /// fields that are not known here stay as they are.
    pub(super) async fn change_header(&self, change: impl FnOnce(&mut Header)) -> Result<()> {
        let _changes = self.header_changes.lock().await;
        let mut header = self.header.lock().clone();
        change(&mut header);
        let bytes =
            header.serialise().map_err(|e| Error::unsupported(&*self.label, e.to_string()))?;
        let mut cluster = IoBufMut::zeroed(self.geometry().cluster_size().as_usize());
        cluster
            .get_mut(..bytes.len())
            .ok_or_else(|| self.unsupported("the header does not fit into one cluster"))?
            .copy_from_slice(&bytes);
        let cluster = cluster.freeze();
        // What the header is about to refer to must be there.
        self.barrier().await?;
        // The first sector says where in the cluster other things are.
        let tail = cluster.slice(SECTOR..);
        if !tail.is_empty() {
            self.file.write(SECTOR as u64, tail, WriteFlags::empty()).await?;
            self.file.flush().await?;
        }
        self.file.write(0, cluster.slice(..SECTOR), WriteFlags::empty()).await?;
        self.file.flush().await?;
        *self.header.lock() = header;
        Ok(())
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
}
