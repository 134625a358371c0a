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
//! last, while no refcount changes. What is free, and what is shared, the refcounts tell: they are
//! checked first.

mod tables;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::alloc::HostRun;
use super::crypt::Crypt;
use super::entry::{Cluster, Compressed, RawEntry, Standard};
use super::image::Image;
use super::table_io;
use crate::buf::IoBufMut;
use crate::driver::{CompactWatch, Compaction, Repair, WriteFlags};
use crate::error::{Error, Result};
use crate::num::AsUsize;
use crate::parallel;

/// Shared clusters whose new place is remembered at most; what exceeds that stays where it is.
const MAX_SHARED: usize = 4 << 20;
/// References to a cluster that is moved, at most: more than all snapshots have together.
const MAX_REFERENCES: u64 = 1 << 17;
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
        self.require_true_refcounts().await?;
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

    /// Fails if the image is damaged: with refcounts that are too low, data would be overwritten and cut
    /// off. Leaks are repaired, so that each refcount is the number of references.
    async fn require_true_refcounts(self: &Arc<Image>) -> Result<()> {
        let mut report = self.check(Repair::empty()).await?;
        if report.corruptions == 0 && report.check_errors == 0 && report.leaks > 0 {
            report = self.check(Repair::LEAKS).await?;
        }
        match report.corruptions + report.check_errors {
            0 => Ok(()),
            errors => {
                let detail = format!("a check finds {errors} errors; repair it first");
                Err(Error::corrupt(&*self.label, detail))
            }
        }
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
        let is_bearable = count <= MAX_REFERENCES && self.shared.len() < MAX_SHARED;
        if count > 1 && !is_bearable {
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
        if trees > MAX_REFERENCES {
            return Ok(None);
        }
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
}
