//! Compaction: clusters move from the end of the file into holes, and the file becomes shorter.
//!
//! Nothing else uses the image meanwhile, and tables are read and written past the caches. Each step
//! leaves an image that is valid, with leaks at worst, whenever the power fails:
//!
//! 1. the new place of a cluster gets as many references as the old one has, and the same content;
//! 2. barrier; then the tables name the new place, entry by entry;
//! 3. barrier; then the old place loses its references. One that several tables share keeps them all
//!    until each of these was changed, since the flags in entries tell from the refcount whether a
//!    cluster is shared.
//!
//! Tables move when what they lead to has moved, and so on up to the header; refcount structures come
//! last, while no refcount changes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::alloc::HostRun;
use super::bitmap::BitmapFlags;
use super::crypt::Crypt;
use super::entry::{Cluster, Compressed, L1Entry, RawEntry, Standard};
use super::header::{L1_FIELDS, REFTABLE_FIELDS};
use super::image::Image;
use super::overlap::Structure;
use super::snapshot::SnapshotTable;
use super::table_io;
use crate::buf::IoBufMut;
use crate::driver::{CompactWatch, Compaction, WriteFlags};
use crate::error::Result;
use crate::num::AsUsize;
use crate::parallel;

/// Shared clusters whose new place is remembered at most; what exceeds that stays where it is.
const MAX_SHARED: usize = 4 << 20;

/// Longest run of clusters that is copied at once, in bytes.
const MAX_RUN: u64 = 1 << 20;
/// Passes at most: what one pass frees or writes anew can make room for the next one.
const PASSES: usize = 3;
/// Runs under way at once.
const PARALLEL_RUNS: usize = 8;

/// An L1 table: host offset and number of entries.
type L1Place = (u64, u32);

impl Image {
    /// Moves clusters to the front of the file as far as there is room, and cuts the file.
    pub(super) async fn compact(self: &Arc<Image>, watch: &dyn CompactWatch) -> Result<Compaction> {
        if matches!(self.crypt, Crypt::Locked) {
            return Err(self.unsupported(
                "the place of encrypted data is part of its encryption; give the key to move it",
            ));
        }
        let before = self.file.size();
        self.store_tracked().await?;
        self.unclaim();
        let mut moved = 0;
        let mut stopped = false;
        for _ in 0..PASSES {
            let (more, end) = {
                let _bitmaps = self.bitmap_changes.lock().await;
                let pass = async |image: &Arc<Image>| Mover::new(image, watch).run().await.map(Ok);
                self.change_alone_soundly(pass).await?
            };
            moved += more;
            stopped = end;
            if more == 0 || stopped {
                break;
            }
        }
        let _alone = self.size_changes.lock().await;
        self.cut_file().await?;
        Ok(Compaction { moved, before, after: self.file.size(), stopped })
    }

    /// Clusters of the file that are in use.
    async fn used_clusters(&self) -> Result<u64> {
        let total = self.geometry().clusters(self.file.size());
        let (mut index, mut used) = (0, 0);
        self.with_allocator(|alloc| {
            let entries = alloc.refs.block_entries();
            while index * entries < total {
                used += alloc.refs.used(index, entries.as_usize())?;
                index += 1;
            }
            Ok(used)
        })
        .await
    }

    /// The highest cluster in use, plus one.
    async fn used_end(&self) -> Result<u64> {
        let mut end = self.geometry().clusters(self.file.size());
        self.with_allocator(|alloc| {
            while end > 0 && alloc.refs.get(end - 1)? == 0 {
                end -= 1;
            }
            Ok(end)
        })
        .await
    }

    fn active_l1(&self) -> L1Place {
        let header = self.header.lock();
        (header.l1_offset, header.l1_size)
    }
}

/// What changes with a table whose entries name new places.
#[derive(Default)]
struct Vacated {
    /// Runs that lose one reference: host offset and clusters.
    released: Vec<(u64, u64)>,
    /// Clusters whose content is to be copied, in the order of the table.
    copies: Vec<Copy>,
    /// Entries that changed.
    changed: bool,
}

/// Content that gets a new place: a run of clusters.
#[derive(Clone, Copy, Debug)]
struct Copy {
    from: u64,
    to: u64,
    len: u64,
}

struct Mover<'i> {
    image: &'i Arc<Image>,
    watch: &'i dyn CompactWatch,
    /// Host offset behind which nothing needs to stay.
    end: u64,
    /// There is no room before `end` any more.
    full: bool,
    /// Where shared clusters went.
    shared: HashMap<u64, u64>,
    /// Their old places, and the references that these still count.
    postponed: Vec<(u64, u64)>,
    /// Where compressed data went that several tables may refer to.
    packed: HashMap<u64, Compressed>,
    has_snapshots: bool,
    /// Bytes that were moved.
    moved: u64,
}

impl<'i> Mover<'i> {
    fn new(image: &'i Arc<Image>, watch: &'i dyn CompactWatch) -> Mover<'i> {
        let has_snapshots = image.header.lock().snapshot_count > 0;
        Mover {
            image,
            watch,
            end: 0,
            full: false,
            shared: HashMap::new(),
            postponed: Vec::new(),
            packed: HashMap::new(),
            has_snapshots,
            moved: 0,
        }
    }

    /// Returns the number of bytes moved, and whether that was ended early.
    async fn run(mut self) -> Result<(u64, bool)> {
        let used = self.image.used_clusters().await?;
        let end = self.image.used_end().await?;
        self.watch.total((end - used) << self.image.geometry().cluster_bits);
        if used == end {
            return Ok((0, false));
        }
        self.end = used << self.image.geometry().cluster_bits;
        let snapshots = self.image.read_snapshots().await?;
        let mut trees = vec![self.image.active_l1()];
        trees.extend(snapshots.snapshots.iter().map(|s| (s.l1_offset, s.l1_entries)));
        if !self.image.geometry().external_data {
            self.move_data(&trees).await?;
        }
        self.move_l2_tables(&trees).await?;
        self.settle_postponed().await?;
        if !self.watch.should_stop() {
            self.move_active_l1().await?;
            self.move_snapshots(&snapshots).await?;
            self.move_bitmaps().await?;
            self.move_refcounts().await?;
        }
        Ok((self.moved, self.watch.should_stop()))
    }

    /// Whether the tables that are left need not be looked at. Those that name clusters that have moved
    /// already must be, even after a request to stop.
    fn is_over(&self) -> bool {
        self.watch.should_stop() && self.shared.is_empty()
    }

    /// Makes what was written to new places durable, with its references.
    async fn settle(&self) -> Result<()> {
        self.image.settle().await?;
        self.image.barrier().await
    }

    fn note_moved(&mut self, bytes: u64) {
        self.moved += bytes;
        self.watch.moved(bytes);
    }

    /// A cluster before the end, with one reference.
    async fn target(&mut self) -> Result<Option<u64>> {
        if self.full || self.watch.should_stop() {
            return Ok(None);
        }
        let run = self.image.allocate(1, "data cluster").await?;
        Ok(self.keep(run).await?.map(|run| run.offset))
    }

    /// `run`, if it lies before the end; otherwise it is given back.
    async fn keep(&mut self, run: HostRun) -> Result<Option<HostRun>> {
        let len = run.clusters << self.image.geometry().cluster_bits;
        if run.offset + len <= self.end {
            return Ok(Some(run));
        }
        self.image.release_now(run.offset, run.clusters).await?;
        self.full |= run.clusters == 1;
        Ok(None)
    }

    /// A new place for the shared or exclusive cluster at `host`, with as many references. Its content
    /// is not there yet. The second value says whether the cluster is shared.
    async fn place_for(&mut self, host: u64) -> Result<Option<(u64, bool)>> {
        let cluster = host >> self.image.geometry().cluster_bits;
        let count = self.image.with_allocator(|alloc| Ok(alloc.refs.get(cluster)?)).await?;
        if count > 1 && self.shared.len() >= MAX_SHARED {
            return Ok(None);
        }
        let Some(target) = self.target().await? else { return Ok(None) };
        if count <= 1 {
            return Ok(Some((target, false)));
        }
        for _ in 1..count {
            self.image.with_allocator(|alloc| alloc.share(target, 1)).await?;
        }
        self.shared.insert(host, target);
        self.postponed.push((host, count));
        Ok(Some((target, true)))
    }

    /// Moves what the L2 tables of `trees` map.
    async fn move_data(&mut self, trees: &[L1Place]) -> Result<()> {
        let mut seen = HashSet::new();
        for &(offset, entries) in trees {
            let l1 = self.image.read_l1_table(offset, entries).await?;
            for table in self.image.tables(&l1)? {
                if self.is_over() {
                    return Ok(());
                }
                if seen.insert(table.offset) {
                    self.move_entries(table.offset).await?;
                }
            }
        }
        Ok(())
    }

    /// Moves what one L2 table maps.
    async fn move_entries(&mut self, table: u64) -> Result<()> {
        let image = self.image;
        let mut entries = image.read_l2_table(table).await?;
        // Each tree that leads to the table counts for what the table maps.
        let cluster = table >> image.geometry().cluster_bits;
        let trees = image.with_allocator(|alloc| Ok(alloc.refs.get(cluster)?)).await?.max(1);
        let mut vacated = Vacated::default();
        for raw in &mut entries {
            if raw.descriptor == 0 {
                continue;
            }
            let moved = match image.decode_entry(table, *raw)? {
                Cluster::Standard(Standard { host: Some(host), .. }) if host >= self.end => self
                    .move_cluster(host, &mut vacated)
                    .await?
                    .map(|new| RawEntry { descriptor: raw.descriptor - host + new, ..*raw }),
                Cluster::Compressed(data) if data.offset + data.len > self.end => self
                    .move_compressed(data, trees, &mut vacated)
                    .await?
                    .map(|new| Cluster::Compressed(new).encode(&image.geometry())),
                _ => None,
            };
            if let Some(new) = moved {
                *raw = new;
                vacated.changed = true;
            }
        }
        if vacated.changed {
            let copies = std::mem::take(&mut vacated.copies);
            self.copy(copies).await?;
            self.settle().await?;
            image.write_l2_table(table, &entries).await?;
            self.release(vacated).await?;
        }
        Ok(())
    }

    /// Copies the content of data clusters, with neighbours joined and several runs at once.
    async fn copy(&mut self, copies: Vec<Copy>) -> Result<()> {
        let mut runs: Vec<Copy> = Vec::new();
        for next in copies {
            match runs.last_mut() {
                Some(run)
                    if run.from + run.len == next.from
                        && run.to + run.len == next.to
                        && run.len < MAX_RUN =>
                {
                    run.len += next.len;
                }
                _ => runs.push(next),
            }
        }
        let image = self.image;
        let copy = |Copy { from, to, len }| async move {
            // With LUKS the place is part of the encryption. With the old scheme the guest offset is:
            // any one will do that is the same both times.
            let data = image.read_data(0, from, IoBufMut::new(len.as_usize())).await?;
            image.write_data(0, to, data.freeze(), WriteFlags::empty()).await
        };
        parallel::all(PARALLEL_RUNS, runs.iter().copied().map(copy)).await?;
        self.note_moved(runs.iter().map(|run| run.len).sum());
        Ok(())
    }

    /// Takes the references from old places away, now that no table names them.
    async fn release(&self, vacated: Vacated) -> Result<()> {
        self.image.file.flush().await?;
        for (offset, clusters) in vacated.released {
            self.image.release_now(offset, clusters).await?;
        }
        Ok(())
    }

    /// The new place of the data cluster at `host`.
    async fn move_cluster(&mut self, host: u64, vacated: &mut Vacated) -> Result<Option<u64>> {
        if let Some(&known) = self.shared.get(&host) {
            return Ok(Some(known));
        }
        let Some((target, is_shared)) = self.place_for(host).await? else { return Ok(None) };
        let len = self.image.geometry().cluster_size();
        vacated.copies.push(Copy { from: host, to: target, len });
        if !is_shared {
            vacated.released.push((host, 1));
        }
        Ok(Some(target))
    }

    /// The new place of compressed data that `trees` trees refer to through one entry.
    async fn move_compressed(
        &mut self,
        data: Compressed,
        trees: u64,
        vacated: &mut Vacated,
    ) -> Result<Option<Compressed>> {
        let image = self.image;
        let geometry = &image.geometry();
        let mut missing = trees;
        let new = match self.packed.get(&data.offset) {
            Some(&known) => known,
            None if self.full || self.packed.len() >= MAX_SHARED || self.watch.should_stop() => {
                return Ok(None);
            }
            None => {
                let (offset, clusters) = image.allocate_bytes(data.len).await?;
                if geometry.cluster_start(offset) + (clusters << geometry.cluster_bits) > self.end {
                    image.release_now(geometry.cluster_start(offset), clusters).await?;
                    self.full = true;
                    return Ok(None);
                }
                let bytes = table_io::read(&image.file, data.offset, data.len).await?;
                image.file.write(offset, bytes.freeze(), WriteFlags::empty()).await?;
                let new = Compressed { offset, len: data.len };
                if self.has_snapshots {
                    self.packed.insert(data.offset, new);
                }
                self.note_moved(data.len);
                missing -= 1;
                new
            }
        };
        let (offset, clusters) = new.host_clusters(geometry);
        for _ in 0..missing {
            image.with_allocator(|alloc| alloc.share(offset, clusters)).await?;
        }
        for _ in 0..trees {
            vacated.released.push(data.host_clusters(geometry));
        }
        Ok(Some(new))
    }

    /// Moves the L2 tables of `trees`.
    async fn move_l2_tables(&mut self, trees: &[L1Place]) -> Result<()> {
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

    /// Takes all references from the old places of shared clusters, which no table names any more.
    async fn settle_postponed(&mut self) -> Result<()> {
        self.settle().await?;
        for (old, count) in std::mem::take(&mut self.postponed) {
            for _ in 0..count {
                self.image.release_now(old, 1).await?;
            }
        }
        self.settle().await
    }

    /// Moves the active L1 table.
    async fn move_active_l1(&mut self) -> Result<()> {
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
    async fn move_snapshots(&mut self, old: &SnapshotTable) -> Result<()> {
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
    async fn move_bitmaps(&mut self) -> Result<()> {
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
    async fn move_refcounts(&mut self) -> Result<()> {
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
