//! Tables on their way to the front: L2 and L1 tables, snapshots, bitmaps, refcounts.

use super::super::bitmap::BitmapFlags;
use super::super::entry::L1Entry;
use super::super::header::{L1_FIELDS, REFTABLE_FIELDS};
use super::super::overlap::Structure;
use super::super::snapshot::SnapshotTable;
use super::super::table_io;
use super::{L1Place, Mover, Vacated};
use crate::error::Result;
use crate::num::AsUsize;

impl Mover<'_> {
    /// Moves the L2 tables of `trees`.
    pub(super) async fn move_l2_tables(&mut self, trees: &[L1Place]) -> Result<()> {
        for &(place, count) in trees {
            if self.is_over() {
                return Ok(());
            }
            let image = self.image;
            let mut l1 = image.read_l1_table(place, count).await?;
            let mut vacated = Vacated::default();
            for table in image.tables(&l1)? {
                if table.offset < self.end {
                    continue;
                }
                let old = table.offset;
                let mut new = self.shared.get(&old).copied();
                if new.is_none() {
                    new = self.move_l2_table(old, &mut vacated).await?;
                }
                let Some(new) = new else { continue };
                if let Some(raw) = l1.get_mut(table.index)
                    && let Ok(entry) = L1Entry::decode(*raw, &image.geometry())
                {
                    *raw = L1Entry { table: Some(new), ..entry }.encode();
                    vacated.changed = true;
                }
            }
            if vacated.changed {
                self.settle().await?;
                image.write_l1_table(place, &l1).await?;
                self.release(vacated).await?;
            }
        }
        Ok(())
    }

    /// Copies the L2 table at `old` to a new place, if there is one.
    async fn move_l2_table(&mut self, old: u64, vacated: &mut Vacated) -> Result<Option<u64>> {
        let image = self.image;
        let Some((target, is_shared)) = self.place_for(old).await? else { return Ok(None) };
        let entries = image.read_l2_table(old).await?;
        image.write_l2_table(target, &entries).await?;
        image.metadata.remove(Structure::ACTIVE_L2, old);
        image.metadata.remove(Structure::INACTIVE_L2, old);
        if !is_shared {
            vacated.released.push((old, 1));
        }
        self.note_moved(image.geometry().cluster_size());
        Ok(Some(target))
    }

    /// Moves the active L1 table.
    pub(super) async fn move_active_l1(&mut self) -> Result<()> {
        let image = self.image;
        let (old, entries) = image.active_l1();
        let Some(new) = self.move_l1_table(old, entries).await? else { return Ok(()) };
        self.settle().await?;
        let (at, len) = L1_FIELDS;
        image.change_fields(at, len, |header| header.l1_offset = new).await?;
        image.file.flush().await?;
        image.metadata.remove(Structure::ACTIVE_L1, old);
        let clusters = image.geometry().clusters(u64::from(entries) * 8);
        image.release_now(old, clusters).await
    }

    /// Writes an L1 table to a place before the end. `None` if it need not or cannot move.
    async fn move_l1_table(&mut self, old: u64, entries: u32) -> Result<Option<u64>> {
        let image = self.image;
        let clusters = image.geometry().clusters(u64::from(entries) * 8);
        let len = clusters << image.geometry().cluster_bits;
        if clusters == 0 || old + len <= self.end {
            return Ok(None);
        }
        let run = image.allocate_contiguous(clusters, "L1 table").await?;
        let Some(run) = self.keep(run).await? else { return Ok(None) };
        let mut l1 = image.read_l1_table(old, entries).await?;
        l1.resize(len.as_usize() / 8, 0);
        image.write_l1_table(run.offset, &l1).await?;
        self.note_moved(len);
        Ok(Some(run.offset))
    }

    /// Moves the L1 tables of snapshots, and the table of snapshots.
    pub(super) async fn move_snapshots(&mut self, old: &SnapshotTable) -> Result<()> {
        let image = self.image;
        let mut new =
            SnapshotTable { snapshots: old.snapshots.clone(), ..SnapshotTable::default() };
        let mut released = Vec::new();
        for snapshot in &mut new.snapshots {
            let (place, entries) = (snapshot.l1_offset, snapshot.l1_entries);
            if let Some(offset) = self.move_l1_table(place, entries).await? {
                released.push((place, image.geometry().clusters(u64::from(entries) * 8)));
                snapshot.l1_offset = offset;
            }
        }
        let place = image.header.lock().snapshots_offset;
        if released.is_empty() && (old.bytes == 0 || place + old.bytes <= self.end) {
            return Ok(());
        }
        image.store_snapshots(old, &new).await?;
        self.release(Vacated { released, ..Vacated::default() }).await
    }

    /// Moves the persistent bitmaps, if any part of them is behind the end.
    pub(super) async fn move_bitmaps(&mut self) -> Result<()> {
        let image = self.image;
        let mut directory = image.bitmap_directory().await?;
        let place = image.header.lock().extensions.bitmaps;
        let mut is_behind = place.is_some_and(|p| p.directory_offset + p.directory_size > self.end);
        let mut freed = Vec::new();
        for entry in &mut directory {
            // What an inconsistent one holds is worthless, and only its removal is allowed.
            if entry.flags.contains(BitmapFlags::IN_USE) {
                continue;
            }
            let runs = image.bitmap_clusters(entry).await?;
            let ends = runs.iter().map(|(offset, n)| offset + (n << image.geometry().cluster_bits));
            if ends.max().is_some_and(|end| end > self.end) {
                let content = image.read_bitmap(entry).await?;
                image.write_bitmap(&content, entry).await?;
                freed.extend(runs);
                is_behind = true;
            }
        }
        if directory.is_empty() || !is_behind {
            return Ok(());
        }
        image.store_directory(&directory, freed).await
    }

    /// Moves the refcount blocks and the refcount table.
    pub(super) async fn move_refcounts(&mut self) -> Result<()> {
        self.settle().await?;
        self.move_refcount_blocks().await?;
        self.move_refcount_table().await
    }

    async fn move_refcount_blocks(&mut self) -> Result<()> {
        let image = self.image;
        let blocks = image
            .with_allocator(|alloc| {
                let mut blocks = Vec::new();
                for index in 0..alloc.refs.table_len() {
                    blocks.extend(alloc.refs.block_offset(index)?.map(|offset| (index, offset)));
                }
                Ok(blocks)
            })
            .await?;
        let mut moves = Vec::new();
        let end = self.end;
        for (index, old) in blocks.into_iter().filter(|(_, old)| *old >= end) {
            let Some(new) = self.target().await? else { break };
            moves.push((index, old, new));
        }
        if moves.is_empty() {
            return Ok(());
        }
        // From here on the blocks on disk do not change until the table names the copies.
        self.settle().await?;
        let len = image.geometry().cluster_size();
        for &(_, old, new) in &moves {
            let block = table_io::read(&image.file, old, len).await?;
            table_io::write(&image.file, new, &block).await?;
        }
        image.file.flush().await?;
        let header = image.header.lock().clone();
        for &(index, _, new) in &moves {
            let entry = header.reftable_offset + index * 8;
            table_io::write(&image.file, entry, &new.to_be_bytes()).await?;
        }
        image.file.flush().await?;
        image.reload(header);
        for &(_, old, _) in &moves {
            image.release_now(old, 1).await?;
        }
        self.note_moved(moves.len() as u64 * len);
        self.settle().await
    }

    async fn move_refcount_table(&mut self) -> Result<()> {
        let image = self.image;
        let mut header = image.header.lock().clone();
        let (old, clusters) = (header.reftable_offset, u64::from(header.reftable_clusters));
        let len = clusters << image.geometry().cluster_bits;
        if old + len <= self.end {
            return Ok(());
        }
        let run = image.allocate_contiguous(clusters, "refcount table").await?;
        let Some(run) = self.keep(run).await? else { return Ok(()) };
        self.settle().await?;
        if image.header.lock().reftable_offset != old {
            // Finding room has moved the table already.
            return image.release_now(run.offset, clusters).await;
        }
        let table = table_io::read(&image.file, old, len).await?;
        table_io::write(&image.file, run.offset, &table).await?;
        image.file.flush().await?;
        header.reftable_offset = run.offset;
        let (at, field) = REFTABLE_FIELDS;
        image.change_fields(at, field, |header| header.reftable_offset = run.offset).await?;
        image.file.flush().await?;
        image.reload(header);
        image.release_now(old, clusters).await?;
        self.note_moved(len);
        self.settle().await
    }
}
