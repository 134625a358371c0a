//! Creating, applying, deleting and showing internal snapshots (qcow2 specification, "Snapshots").
//!
//! While such a change is made, refcounts and the flags that follow from them may disagree. That
//! endangers no data, since refcounts are only ever too high, and in version 3 the dirty bit tells
//! programs that open the image after a crash to correct them. What the image shows changes with a
//! single write of one sector of the header:
//!
//! * create: share the active tree, write its L1 table and the new snapshot table, then name the latter;
//! * apply: share the snapshot's tree, write a new active L1 table, name it, then drop the old tree;
//! * delete: write the new snapshot table, name it, then drop the snapshot's tree.
//!
//! After a failure the state in memory is loaded from the disk again.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::bitmap_track::Which;
use super::driver::read_header;
use super::feature::Incompatible;
use super::header::{MAX_L1_BYTES, MAX_SNAPSHOTS, SNAPSHOTS_FIELDS};
use super::image::Image;
use super::l1::L1Table;
use super::remap::Change;
use super::snapshot::{self, MAX_TABLE, Oversize, Snapshot, SnapshotTable};
use super::table_io;
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::{SnapshotInfo, WriteFlags};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::num::AsUsize;
use crate::snapshot::{NewSnapshot, SnapshotKey};

/// Place and length in bytes of the header fields that applying a snapshot changes: the size of the
/// disk, and the place and length of the active L1 table.
const ACTIVE_FIELDS: (usize, usize) = (24, 24);
/// Longest name, and longest ID, in bytes, that the reference can show.
const MAX_NAME: usize = 255;

/// How an image is marked while it is changed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// As dirty: refcounts and flags may disagree.
    Dirty,
    /// Not at all.
    None,
}

impl Image {
    /// Runs a change of the image as a whole, past the caches, with the image marked as dirty. The
    /// inner result of `change` is a refusal, which left everything as it was.
    pub(super) async fn change_alone<T>(
        self: &Arc<Image>,
        change: impl AsyncFnOnce(&Arc<Image>) -> Result<Result<T>>,
    ) -> Result<T> {
        self.run_alone(Mark::Dirty, change).await
    }

    /// The same for a change that leaves nothing but leaks when it is cut off: without the mark, unless
    /// refcounts are lazy.
    pub(super) async fn change_alone_soundly<T>(
        self: &Arc<Image>,
        change: impl AsyncFnOnce(&Arc<Image>) -> Result<Result<T>>,
    ) -> Result<T> {
        let mark = if self.has_lazy_refcounts() { Mark::Dirty } else { Mark::None };
        self.run_alone(mark, change).await
    }

    async fn run_alone<T>(
        self: &Arc<Image>,
        mark: Mark,
        change: impl AsyncFnOnce(&Arc<Image>) -> Result<Result<T>>,
    ) -> Result<T> {
        let _alone = self.size_changes.lock().await;
        let _locked = self.ranges.begin(0..u64::MAX, true).await;
        self.check_sound()?;
        self.pending.adopt_abandoned();
        self.settle().await?;
        self.barrier().await?;
        if mark == Mark::Dirty {
            self.change_features(|header| header.incompatible |= Incompatible::DIRTY).await?;
        }
        self.l2.clear();
        let outcome = change(self).await;
        let outcome = match outcome {
            Ok(result) => self.conclude(mark).await.and(result),
            Err(error) => Err(error),
        };
        // Memory follows the disk, whatever was done.
        let known = self.header.lock().clone();
        let Err(error) = outcome else {
            self.reload(known);
            return outcome;
        };
        if let Ok(header) = read_header(&self.file).await {
            self.reload(header);
        } else {
            self.reload(known);
            self.stop_writing();
        }
        Err(error)
    }

    /// Writes back what a change has left in memory; then the image is clean.
    async fn conclude(self: &Arc<Image>, mark: Mark) -> Result<()> {
        self.settle().await?;
        self.barrier().await?;
        if mark == Mark::None {
            return Ok(());
        }
        self.change_features(|header| header.incompatible -= Incompatible::DIRTY).await
    }

    pub(super) async fn read_snapshots(&self) -> Result<SnapshotTable> {
        let header = self.header.lock().clone();
        snapshot::read_table(&self.file, &header, &self.label, Oversize::Refuse).await
    }

    fn refuse_snapshots(&self) -> Result<()> {
        if self.geometry().external_data {
            return Err(self.unsupported(
                "an image with an external data file cannot have internal snapshots",
            ));
        }
        Ok(())
    }

    /// The snapshot that `key` means, and its position in the table.
    fn find_snapshot(table: &SnapshotTable, key: &SnapshotKey) -> Result<(usize, Snapshot)> {
        let list: Vec<SnapshotInfo> = table.snapshots.iter().map(Snapshot::describe).collect();
        let index = key.find(&list).ok_or_else(|| key.not_found())?;
        table.snapshots.get(index).map(|s| (index, s.clone())).ok_or_else(|| key.not_found())
    }

    /// Stores the table `new` in place of `old`, durably with everything before it.
    pub(super) async fn store_snapshots(
        self: &Arc<Image>,
        old: &SnapshotTable,
        new: &SnapshotTable,
    ) -> Result<()> {
        let bytes = new.serialise(self.size());
        let mut place = 0;
        if !bytes.is_empty() {
            let clusters = self.geometry().clusters(bytes.len() as u64);
            place = self.allocate_contiguous(clusters, "snapshot table").await?.offset;
            table_io::write(&self.file, place, &bytes).await?;
        }
        self.settle().await?;
        self.barrier().await?;
        // The table has at most as many entries as the format allows.
        let count = u32::try_from(new.snapshots.len()).unwrap_or(u32::MAX);
        let former = self.header.lock().snapshots_offset;
        let (at, len) = SNAPSHOTS_FIELDS;
        self.change_fields(at, len, |header| {
            (header.snapshot_count, header.snapshots_offset) = (count, place);
        })
        .await?;
        self.file.flush().await?;
        if old.bytes > 0 {
            self.release_now(former, self.geometry().clusters(old.bytes)).await?;
        }
        Ok(())
    }

    /// Gives the entries of all snapshots what version 3 requires of them.
    pub(super) async fn complete_snapshots(self: &Arc<Image>) -> Result<()> {
        let table = self.read_snapshots().await?;
        if table.snapshots.iter().all(|snapshot| snapshot.disk_size().is_some()) {
            return Ok(());
        }
        self.change_alone(async |image| image.store_snapshots(&table, &table).await.map(Ok)).await
    }

    /// Keeps the present content as a snapshot.
    pub(super) async fn create_snapshot(
        self: &Arc<Image>,
        new: NewSnapshot,
    ) -> Result<SnapshotInfo> {
        self.refuse_snapshots()?;
        if new.name.len() > MAX_NAME {
            return Err(Error::Name {
                what: "snapshot",
                name: new.name,
                problem: "is longer than 255 bytes",
            });
        }
        let vm_state_size = new.vm_state_size;
        let info = self
            .change_alone(async |image| {
                let old = image.read_snapshots().await?;
                if old.snapshots.len() >= MAX_SNAPSHOTS.as_usize() {
                    return Ok(Err(image.unsupported("the image has as many snapshots as it can")));
                }
                let (place, entries) = {
                    let header = image.header.lock();
                    (header.l1_offset, header.l1_size)
                };
                let mut l1 = image.read_l1_table(place, entries).await?;
                let mut snapshot = Snapshot::new(new, next_id(&old), image.size());
                let mut table =
                    SnapshotTable { snapshots: old.snapshots.clone(), ..SnapshotTable::default() };
                table.snapshots.push(snapshot.clone());
                if table.serialise(image.size()).len() as u64 > MAX_TABLE {
                    return Ok(Err(image.unsupported("the snapshot table would exceed 64 MiB")));
                }
                if let Err(refusal) = image.share_tree(&mut l1).await? {
                    return Ok(Err(refusal));
                }
                image.write_l1_table(place, &l1).await?;
                snapshot.l1_entries = entries;
                snapshot.l1_offset = image.store_l1_table(&l1).await?;
                let info = snapshot.describe();
                if let Some(last) = table.snapshots.last_mut() {
                    *last = snapshot;
                }
                image.store_snapshots(&old, &table).await?;
                Ok(Ok(info))
            })
            .await?;
        if vm_state_size > 0 {
            // Only the snapshot needs it; here it would be copied with the next one.
            let start = self.vm_state_start();
            self.remap(start, self.cluster_end(start + vm_state_size), Change::Forget).await?;
        }
        Ok(info)
    }

    /// Writes an L1 table to newly allocated clusters; an empty table has no place.
    async fn store_l1_table(&self, l1: &[u64]) -> Result<u64> {
        if l1.is_empty() {
            return Ok(0);
        }
        let clusters = self.geometry().clusters(l1.len() as u64 * 8);
        let run = self.allocate_contiguous(clusters, "L1 table").await?;
        let mut padded = l1.to_vec();
        padded.resize((clusters << self.geometry().cluster_bits).as_usize() / 8, 0);
        self.write_l1_table(run.offset, &padded).await?;
        Ok(run.offset)
    }

    async fn drop_l1_table(&self, offset: u64, entries: u32) -> Result<()> {
        match self.geometry().clusters(u64::from(entries) * 8) {
            0 => Ok(()),
            clusters => self.release_now(offset, clusters).await,
        }
    }

    /// Makes the content, and the size, those of a snapshot.
    pub(super) async fn apply_snapshot(self: &Arc<Image>, key: SnapshotKey) -> Result<()> {
        self.refuse_snapshots()?;
        let (_, snapshot) = Self::find_snapshot(&self.read_snapshots().await?, &key)?;
        let size = snapshot.disk_size().unwrap_or_else(|| self.size());
        self.check_snapshot_size(size)?;
        self.begin_write().await?;
        self.check_bitmaps(size).await?;
        self.track_bitmaps(Which::All).await?;
        // Any part of the disk may change.
        self.mark_dirty(0..u64::MAX);
        self.change_alone(async |image| {
            let read = image.read_l1_table(snapshot.l1_offset, snapshot.l1_entries).await;
            let mut l1 = match read {
                Ok(l1) => l1,
                Err(refusal) => return Ok(Err(refusal)),
            };
            if let Err(refusal) = image.share_tree(&mut l1).await? {
                return Ok(Err(refusal));
            }
            let entries = (l1.len() as u64).max(image.geometry().l1_entries(size));
            l1.resize(entries.as_usize(), 0);
            let place = image.store_l1_table(&l1).await?;
            image.settle().await?;
            image.barrier().await?;
            let (old_place, old_entries) = {
                let header = image.header.lock();
                (header.l1_offset, header.l1_size)
            };
            let old = image.read_l1_table(old_place, old_entries).await?;
            let (at, len) = ACTIVE_FIELDS;
            // The limit on L1 tables was checked.
            let entries = u32::try_from(entries).unwrap_or(u32::MAX);
            image
                .change_fields(at, len, |header| {
                    (header.size, header.l1_offset, header.l1_size) = (size, place, entries);
                })
                .await?;
            image.file.flush().await?;
            image.drop_tree(&old, image.tuning().pass_discard_snapshot).await?;
            image.drop_l1_table(old_place, old_entries).await?;
            if image.refresh_flags(&mut l1).await? {
                image.write_l1_table(place, &l1).await?;
            }
            Ok(Ok(()))
        })
        .await?;
        self.resize_tracked(size)?;
        self.mark_dirty(0..u64::MAX);
        Ok(())
    }

    fn check_snapshot_size(&self, size: u64) -> Result<()> {
        let fits =
            i64::try_from(size).is_ok() && self.geometry().l1_entries(size) * 8 <= MAX_L1_BYTES;
        if fits {
            return Ok(());
        }
        let detail = format!("the snapshot's disk size of {size} bytes is not valid");
        Err(Error::corrupt(&*self.label, detail))
    }

    /// Deletes a snapshot.
    pub(super) async fn delete_snapshot(self: &Arc<Image>, key: SnapshotKey) -> Result<()> {
        let old = self.read_snapshots().await?;
        let (index, snapshot) = Self::find_snapshot(&old, &key)?;
        self.refuse_snapshots()?;
        self.change_alone(async |image| {
            let read = image.read_l1_table(snapshot.l1_offset, snapshot.l1_entries).await;
            let l1 = match read.and_then(|l1| image.tables(&l1).map(|_| l1)) {
                Ok(l1) => l1,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let mut table =
                SnapshotTable { snapshots: old.snapshots.clone(), ..SnapshotTable::default() };
            table.snapshots.remove(index);
            image.store_snapshots(&old, &table).await?;
            image.drop_tree(&l1, image.tuning().pass_discard_snapshot).await?;
            image.drop_l1_table(snapshot.l1_offset, snapshot.l1_entries).await?;
            let (place, entries) = {
                let header = image.header.lock();
                (header.l1_offset, header.l1_size)
            };
            let mut active = image.read_l1_table(place, entries).await?;
            if image.refresh_flags(&mut active).await? {
                image.write_l1_table(place, &active).await?;
            }
            Ok(Ok(()))
        })
        .await
    }

    /// Shows a snapshot in place of the present content, in a disk of the present size.
    pub(super) async fn show_snapshot(&self, key: SnapshotKey) -> Result<()> {
        if !self.read_only.load(Ordering::Acquire) {
            return Err(self.unsupported("a snapshot can be shown only by a read-only image"));
        }
        self.refuse_snapshots()?;
        let (_, snapshot) = Self::find_snapshot(&self.read_snapshots().await?, &key)?;
        // Also finds a place or length that is not valid.
        self.read_l1_table(snapshot.l1_offset, snapshot.l1_entries).await?;
        self.l2.clear();
        self.l1.store(Arc::new(L1Table::new(snapshot.l1_offset, snapshot.l1_entries)));
        Ok(())
    }

    /// Guest offset, behind the end of the disk, at which machine state is stored.
    fn vm_state_start(&self) -> u64 {
        self.geometry().l1_entries(self.size()).saturating_mul(self.geometry().l2_coverage())
    }

    /// Reads machine state.
    pub(super) async fn read_vm_state(&self, offset: u64, buf: IoBufMut) -> Result<IoBufMut> {
        let start = self.vm_state_range(offset, buf.len())?;
        self.file.event(Event::VmstateLoad).await;
        self.read(start, buf).await
    }

    /// Writes machine state.
    pub(super) async fn write_vm_state(self: &Arc<Image>, offset: u64, buf: IoBuf) -> Result<()> {
        self.refuse_snapshots()?;
        let start = self.vm_state_range(offset, buf.len())?;
        self.check_sound()?;
        self.file.event(Event::VmstateSave).await;
        {
            let _alone = self.size_changes.lock().await;
            self.grow_l1_table(start + buf.len() as u64).await?;
        }
        self.write(start, buf, WriteFlags::empty()).await
    }

    /// Guest offset of machine state from `offset` on, all of which lies where L1 tables reach.
    fn vm_state_range(&self, offset: u64, len: usize) -> Result<u64> {
        let start = self.vm_state_start().checked_add(offset);
        start
            .filter(|start| {
                start.checked_add(len as u64).is_some_and(|end| {
                    i64::try_from(end).is_ok()
                        && self.geometry().l1_entries(end) * 8 <= MAX_L1_BYTES
                })
            })
            .ok_or_else(|| self.unsupported("the machine state is too large for this cluster size"))
    }
}

/// An ID that no snapshot has: one more than the largest number among them.
fn next_id(table: &SnapshotTable) -> String {
    let ids = table.snapshots.iter().filter_map(|s| std::str::from_utf8(&s.id).ok()?.parse().ok());
    ids.max().unwrap_or(0u64).saturating_add(1).to_string()
}
