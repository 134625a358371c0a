//! Whole trees of tables, from an L1 table down to the data: counting what they refer to once more or
//! once less, and setting the flags that follow from the refcounts.
//!
//! Used while nothing else uses the image, and with the caches for L1 and L2 tables empty: tables are
//! read and written past them. Only refcounts are kept in memory, and written back with everything
//! else.
//!
//! In a sound image each table of a tree is there once and lies inside the file. Anything else is
//! refused, so that a hostile image costs no more time than its file is long.

use std::sync::Arc;

use super::entry::{COPIED, Cluster, EntryError, L1Entry, RawEntry, Standard};
use super::header::MAX_L1_BYTES;
use super::image::Image;
use super::table_io;
use crate::error::{Error, Result};
use crate::num::AsUsize;

/// Bytes of an L1 table that are read or written at once.
const PIECE: u64 = 1 << 20;

/// Host clusters that entries refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    offset: u64,
    clusters: u64,
}

/// An L2 table, and the number of the L1 entry that leads to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) index: usize,
    /// Host offset.
    pub(super) offset: u64,
}

impl Image {
    /// The entries of an L1 table.
    pub(super) async fn read_l1_table(&self, offset: u64, entries: u32) -> Result<Vec<u64>> {
        let len = u64::from(entries) * 8;
        if len > MAX_L1_BYTES || self.geometry().in_cluster(offset) != 0 {
            let detail = format!("the L1 table at {offset:#x} with {entries} entries is not valid");
            return Err(Error::corrupt(&*self.label, detail));
        }
        let mut l1 = Vec::with_capacity(entries.as_usize());
        let mut at = 0;
        while at < len {
            let bytes = table_io::read(&self.file, offset + at, (len - at).min(PIECE)).await?;
            l1.extend(table_io::words(&bytes));
            at += bytes.len() as u64;
        }
        Ok(l1)
    }

    /// Writes an L1 table.
    pub(super) async fn write_l1_table(&self, offset: u64, l1: &[u64]) -> Result<()> {
        let mut at = offset;
        for piece in l1.chunks((PIECE / 8).as_usize()) {
            let bytes: Vec<u8> = piece.iter().flat_map(|entry| entry.to_be_bytes()).collect();
            table_io::write(&self.file, at, &bytes).await?;
            at += bytes.len() as u64;
        }
        Ok(())
    }

    /// The L2 tables that `l1` leads to.
    pub(super) fn tables(&self, l1: &[u64]) -> Result<Vec<Table>> {
        let file_end = self.file.size().next_multiple_of(self.geometry().cluster_size());
        let broken = |index: usize, problem: &str| {
            let detail = format!("entry {index} of an L1 table {problem}");
            Error::corrupt(&*self.label, detail)
        };
        let mut tables = Vec::new();
        for (index, &raw) in l1.iter().enumerate() {
            let entry = L1Entry::decode(raw, &self.geometry())
                .map_err(|error| broken(index, &format!("is not valid: {error}")))?;
            let Some(offset) = entry.table else { continue };
            if offset >= file_end {
                return Err(broken(index, "leads beyond the end of the file"));
            }
            tables.push(Table { index, offset });
        }
        let mut offsets: Vec<u64> = tables.iter().map(|table| table.offset).collect();
        offsets.sort_unstable();
        if offsets.windows(2).any(|pair| pair.first() == pair.get(1)) {
            let detail = "two entries of an L1 table lead to the same L2 table";
            return Err(Error::corrupt(&*self.label, detail));
        }
        Ok(tables)
    }

    pub(super) async fn read_l2_table(&self, offset: u64) -> Result<Vec<RawEntry>> {
        let bytes = table_io::read(&self.file, offset, self.geometry().cluster_size()).await?;
        Ok(table_io::raw_entries(&bytes, self.geometry().extended_l2).collect())
    }

    pub(super) async fn write_l2_table(&self, offset: u64, entries: &[RawEntry]) -> Result<()> {
        let mut bytes = Vec::with_capacity(self.geometry().cluster_size().as_usize());
        for entry in entries {
            bytes.extend(entry.descriptor.to_be_bytes());
            if self.geometry().extended_l2 {
                bytes.extend(entry.bitmap.to_be_bytes());
            }
        }
        table_io::write(&self.file, offset, &bytes).await
    }

    pub(super) fn decode_entry(&self, table: u64, raw: RawEntry) -> Result<Cluster> {
        Cluster::decode(raw, &self.geometry()).map_err(|error: EntryError| {
            Error::corrupt(&*self.label, format!("in the L2 table at {table:#x}, {error}"))
        })
    }

    /// What an L2 table and its entries refer to, the table first. A cluster is in the list as often as
    /// there are references to it.
    fn runs(&self, table: u64, entries: &[RawEntry]) -> Result<Vec<Run>> {
        let mut runs = vec![Run { offset: table, clusters: 1 }];
        for &raw in entries.iter().filter(|raw| raw.descriptor != 0) {
            let (offset, clusters) = match self.decode_entry(table, raw)? {
                Cluster::Compressed(data) => data.host_clusters(&self.geometry()),
                Cluster::Standard(Standard { host: Some(host), .. }) => (host, 1),
                Cluster::Standard(_) => continue,
            };
            match runs.last_mut() {
                Some(last)
                    if last.offset + (last.clusters << self.geometry().cluster_bits) == offset =>
                {
                    last.clusters += clusters;
                }
                _ => runs.push(Run { offset, clusters }),
            }
        }
        Ok(runs)
    }

    /// Adds a reference to all that `l1` leads to, which then is shared: the flags that say otherwise
    /// are taken away, in `l1` only in memory.
    ///
    /// When that is refused, for damage or since a refcount cannot grow, everything is as before; then
    /// the inner result is the reason.
    pub(super) async fn share_tree(self: &Arc<Image>, l1: &mut [u64]) -> Result<Result<()>> {
        let tables = match self.tables(l1) {
            Ok(tables) => tables,
            Err(refusal) => return Ok(Err(refusal)),
        };
        for (done, table) in tables.iter().enumerate() {
            let mut entries = self.read_l2_table(table.offset).await?;
            let shared = match self.runs(table.offset, &entries) {
                Ok(runs) => self.share_runs(&runs).await,
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = shared {
                let former = l1.get(..table.index).unwrap_or_default();
                self.drop_tables(tables.get(..done).unwrap_or_default(), false).await?;
                self.refresh_flags(&mut former.to_vec()).await?;
                return Ok(Err(refusal));
            }
            self.clear_flags(table.offset, &mut entries).await?;
            self.balance().await?;
        }
        for raw in l1.iter_mut() {
            // The entries were decoded before.
            *raw &= !COPIED;
        }
        Ok(Ok(()))
    }

    /// Adds a reference to all of `runs`, or to none if that fails.
    async fn share_runs(&self, runs: &[Run]) -> Result<()> {
        let file_end = self.file.size().next_multiple_of(self.geometry().cluster_size());
        if let Some(run) = runs.iter().find(|run| run.offset >= file_end) {
            let detail = format!("data at {:#x} lies beyond the end of the file", run.offset);
            return Err(Error::corrupt(&*self.label, detail));
        }
        let mut done = 0;
        let shared = self
            .with_allocator(|alloc| {
                while let Some(run) = runs.get(done) {
                    alloc.share(run.offset, run.clusters)?;
                    done += 1;
                }
                Ok(())
            })
            .await;
        if shared.is_err() {
            for run in runs.get(..done).unwrap_or_default() {
                self.release_now(run.offset, run.clusters).await?;
            }
        }
        shared
    }

    async fn clear_flags(&self, table: u64, entries: &mut [RawEntry]) -> Result<()> {
        let mut changed = false;
        for raw in entries.iter_mut().filter(|raw| raw.descriptor & COPIED != 0) {
            raw.descriptor &= !COPIED;
            changed = true;
        }
        if changed { self.write_l2_table(table, entries).await } else { Ok(()) }
    }

    /// Takes away the references from the tree of `l1`, which nothing on disk leads to any more. With
    /// `discard` the storage of clusters that become free is given back to the file.
    pub(super) async fn drop_tree(self: &Arc<Image>, l1: &[u64], discard: bool) -> Result<()> {
        self.drop_tables(&self.tables(l1)?, discard).await
    }

    async fn drop_tables(self: &Arc<Image>, tables: &[Table], discard: bool) -> Result<()> {
        let cluster_size = self.geometry().cluster_size();
        for table in tables {
            let entries = self.read_l2_table(table.offset).await?;
            let mut freed: Vec<Run> = Vec::new();
            for run in self.runs(table.offset, &entries)? {
                let note = |offset| match freed.last_mut() {
                    Some(last) if last.offset + last.clusters * cluster_size == offset => {
                        last.clusters += 1;
                    }
                    _ => freed.push(Run { offset, clusters: 1 }),
                };
                self.release_telling(run.offset, run.clusters, note).await?;
            }
            for run in freed.into_iter().filter(|_| discard) {
                // Advice: nothing refers to the clusters, and nothing is allocated meanwhile.
                let _ = self.file.discard(run.offset, run.clusters * cluster_size).await;
            }
            self.balance().await?;
        }
        Ok(())
    }

    /// Makes the flags of the active tree, whose L1 table is `l1`, agree with the refcounts. Returns
    /// whether entries of `l1` changed, which the caller is to write.
    pub(super) async fn refresh_flags(self: &Arc<Image>, l1: &mut [u64]) -> Result<bool> {
        let mut l1_changed = false;
        for table in self.tables(l1)? {
            let mut entries = self.read_l2_table(table.offset).await?;
            if self.refresh_entries(table.offset, &mut entries).await? {
                self.write_l2_table(table.offset, &entries).await?;
            }
            let cluster = table.offset >> self.geometry().cluster_bits;
            let copied = self.with_allocator(|alloc| Ok(alloc.refs.get(cluster)?)).await? == 1;
            let entry = L1Entry { table: Some(table.offset), copied }.encode();
            if let Some(raw) = l1.get_mut(table.index).filter(|raw| **raw != entry) {
                *raw = entry;
                l1_changed = true;
            }
        }
        Ok(l1_changed)
    }

    async fn refresh_entries(&self, table: u64, entries: &mut [RawEntry]) -> Result<bool> {
        let mut hosts = Vec::new();
        for (index, &raw) in entries.iter().enumerate().filter(|(_, raw)| raw.descriptor != 0) {
            if let Cluster::Standard(Standard { host: Some(host), copied, .. }) =
                self.decode_entry(table, raw)?
            {
                hosts.push((index, host >> self.geometry().cluster_bits, copied));
            }
        }
        let mut done = 0;
        let mut wrong = Vec::new();
        self.with_allocator(|alloc| {
            while let Some(&(index, cluster, copied)) = hosts.get(done) {
                if (alloc.refs.get(cluster)? == 1) != copied {
                    wrong.push(index);
                }
                done += 1;
            }
            Ok(())
        })
        .await?;
        for &index in &wrong {
            if let Some(raw) = entries.get_mut(index) {
                raw.descriptor ^= COPIED;
            }
        }
        Ok(!wrong.is_empty())
    }
}
