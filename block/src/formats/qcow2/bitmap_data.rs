//! The content of persistent bitmaps (qcow2 specification, "Bitmap table" and "Bitmap data").

use std::sync::Arc;

use super::bitmap::BitmapEntry;
use super::entry::OFFSET;
use super::image::Image;
use super::table_io;
use crate::dirty_bitmap::DirtyBitmap;
use crate::error::{Error, Result};
use crate::num::AsUsize;

/// Bit of a bitmap table entry without a cluster: all bits that the cluster would hold are set.
const ALL_ONES: u64 = 1;
/// Bytes of a table that are read at once.
const PIECE: u64 = 64 << 10;

/// Clusters in a row: host offset, and how many.
pub(super) type Run = (u64, u64);

impl Image {
    fn broken_bitmap(&self, entry: &BitmapEntry, problem: &str) -> Error {
        let detail = format!("the table of bitmap '{}' {problem}", entry.name.escape_debug());
        Error::corrupt(&*self.label, detail)
    }

    /// The entries of a bitmap's table, which is as long as the size of the disk says.
    async fn bitmap_table(&self, entry: &BitmapEntry, entries: u64) -> Result<Vec<u64>> {
        let offset = entry.table_offset;
        if u64::from(entry.table_entries) != entries {
            return Err(self.broken_bitmap(entry, "has the wrong length"));
        }
        if offset == 0 || self.geometry().in_cluster(offset) != 0 {
            return Err(self.broken_bitmap(entry, "is not at a cluster"));
        }
        let mut table = Vec::new();
        let len = entries * 8;
        while (table.len() as u64) < entries {
            let at = table.len() as u64 * 8;
            let bytes = table_io::read(&self.file, offset + at, (len - at).min(PIECE)).await?;
            table.extend(table_io::words(&bytes));
        }
        let valid = |raw: u64| {
            let allowed = if raw & OFFSET == 0 { ALL_ONES } else { OFFSET };
            raw & !allowed == 0 && self.geometry().in_cluster(raw & OFFSET) == 0
        };
        match table.iter().find(|&&raw| !valid(raw)) {
            Some(raw) => Err(self.broken_bitmap(entry, &format!("has the invalid entry {raw:#x}"))),
            None => Ok(table),
        }
    }

    /// Reads a bitmap.
    pub(super) async fn read_bitmap(&self, entry: &BitmapEntry) -> Result<DirtyBitmap> {
        let bitmap = DirtyBitmap::new(self.size(), u32::from(entry.granularity_bits))?;
        let len = bitmap.stored_len();
        let cluster_size = self.geometry().cluster_size();
        let table = self.bitmap_table(entry, self.geometry().clusters(len)).await?;
        for (at, raw) in (0..len).step_by(cluster_size.as_usize()).zip(table) {
            let end = len.min(at + cluster_size);
            if raw & OFFSET != 0 {
                bitmap.load(at, &table_io::read(&self.file, raw & OFFSET, end - at).await?);
            } else if raw & ALL_ONES != 0 {
                bitmap.load_ones(at..end);
            }
        }
        Ok(bitmap)
    }

    /// Writes a bitmap to newly allocated clusters, and lets `entry` lead there.
    pub(super) async fn write_bitmap(
        &self,
        bitmap: &DirtyBitmap,
        entry: &mut BitmapEntry,
    ) -> Result<()> {
        let cluster_size = self.geometry().cluster_size();
        let len = bitmap.stored_len();
        let mut table = Vec::new();
        for at in (0..len).step_by(cluster_size.as_usize()) {
            let mut bytes = vec![0; cluster_size.as_usize()];
            let used = (len - at).min(cluster_size).as_usize();
            let (content, _) = bytes.split_at_mut(used);
            let mut place = 0;
            if bitmap.store(at, content) {
                place = self.allocate(1, "bitmap data").await?.offset;
                table_io::write(&self.file, place, &bytes).await?;
            }
            table.push(place);
        }
        // At most 512 MiB of content divided by the cluster size.
        entry.table_entries = u32::try_from(table.len()).unwrap_or(u32::MAX);
        let clusters = self.geometry().clusters(table.len() as u64 * 8);
        table.resize((clusters * cluster_size / 8).as_usize(), 0);
        entry.table_offset = self.allocate_contiguous(clusters, "bitmap table").await?.offset;
        let bytes: Vec<u8> = table.iter().flat_map(|raw| raw.to_be_bytes()).collect();
        table_io::write(&self.file, entry.table_offset, &bytes).await
    }

    /// The clusters that a bitmap takes. Nothing, if its table is damaged: a check finds what it took.
    pub(super) async fn bitmap_clusters(&self, entry: &BitmapEntry) -> Result<Vec<Run>> {
        // As long as the longest bitmap that could have been written.
        let most = self.geometry().clusters(crate::dirty_bitmap::MAX_BYTES);
        let entries = u64::from(entry.table_entries);
        if entries > most {
            return Ok(Vec::new());
        }
        let table = match self.bitmap_table(entry, entries).await {
            Ok(table) => table,
            Err(Error::Corrupt { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let data = table.iter().map(|raw| raw & OFFSET).filter(|&offset| offset != 0);
        let mut runs: Vec<Run> = data.map(|offset| (offset, 1)).collect();
        runs.push((entry.table_offset, self.geometry().clusters(entries * 8)));
        Ok(runs)
    }

    /// Gives up clusters that no directory on disk leads to any more.
    pub(super) async fn release_runs(self: &Arc<Image>, runs: Vec<Run>) -> Result<()> {
        for (offset, clusters) in runs {
            self.release_now(offset, clusters).await?;
            self.balance().await?;
        }
        Ok(())
    }
}
