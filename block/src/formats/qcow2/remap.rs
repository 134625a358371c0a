//! Zero writes and discards: changes of the mapping that write no data.

use std::sync::Arc;

use smallvec::SmallVec;

use super::entry::{Cluster, RawEntry, Standard};
use super::image::Image;
use super::l2::Slice;
use super::pending::FreedKind;
use crate::driver::{Status, WriteFlags};
use crate::error::Result;

/// What a range is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Zeroes, whatever the backing file has.
    Zero {
        /// Storage may be given back.
        unmap: bool,
        /// Where the range ends within a subcluster, the backing file has zeroes in the rest of that.
        over_zeroes: bool,
    },
    /// Zeroes, where the format can say so, without storage.
    Discard,
    /// As if never written: the backing file shows through.
    Forget,
}

impl Change {
    /// Whether storage is not needed any more.
    fn unmaps(self) -> bool {
        !matches!(self, Change::Zero { unmap: false, .. })
    }
}

impl Image {
    /// Makes guest data zero by metadata. Fails as unsupported if the range ends within a subcluster
    /// that has other data.
    pub(super) async fn write_zeroes(
        self: &Arc<Image>,
        offset: u64,
        len: u64,
        flags: WriteFlags,
    ) -> Result<()> {
        self.begin_write().await?;
        self.mark_dirty(offset..offset + len);
        let unmap = flags.contains(WriteFlags::MAY_UNMAP);
        let end = offset + len;
        let size = self.geometry().subcluster_size();
        let aligned =
            offset.is_multiple_of(size) && (end.is_multiple_of(size) || end == self.size());
        // Without a backing file what is not allocated is zero. No other zeroes can be had there without
        // writing them, so storage is given back whatever the flags say.
        if !self.geometry().zero_flag && self.backing.is_some() {
            return Err(self.unsupported("images of version 2 cannot mark clusters as zero"));
        }
        if !aligned && offset / size != (end - 1) / size {
            return Err(self.unsupported("the range is not aligned to subclusters"));
        }
        if self.has_raw_data_file() {
            let pass = flags & (WriteFlags::MAY_UNMAP | WriteFlags::FUA);
            self.data().write_zeroes(offset, len, pass).await?;
        }
        let change = if self.geometry().zero_flag {
            let (start, rest) = (offset / size * size, end.next_multiple_of(size));
            let over_zeroes = aligned
                || (self.backing_is_zero(start, offset - start).await?
                    && self.backing_is_zero(end, rest - end).await?);
            Change::Zero { unmap, over_zeroes }
        } else {
            Change::Discard
        };
        self.remap(offset, end, change).await?;
        if flags.contains(WriteFlags::FUA) {
            self.write_back().await?;
            self.barrier().await?;
        }
        Ok(())
    }

    /// Whether the backing file is known to have nothing but zeroes in a range.
    async fn backing_is_zero(&self, start: u64, len: u64) -> Result<bool> {
        let Some(backing) = &self.backing else { return Ok(true) };
        let end = (start + len).min(backing.size());
        let mut at = start;
        while at < end {
            let extent = backing.block_status(at, end - at, false).await?;
            if !extent.status.contains(Status::ZERO) {
                return Ok(false);
            }
            at += extent.len;
        }
        Ok(true)
    }

    /// Gives the storage of the clusters that lie in the range back.
    pub(super) async fn discard(self: &Arc<Image>, offset: u64, len: u64) -> Result<()> {
        self.begin_write().await?;
        self.mark_dirty(offset..offset + len);
        if !self.geometry().zero_flag && self.backing.is_some() {
            return Err(self.unsupported("a discard would bring back old data of the backing file"));
        }
        let start = self.cluster_end(offset);
        let end = match offset + len {
            end if end == self.size() => end,
            end => self.geometry().cluster_start(end),
        };
        if start >= end {
            return Ok(());
        }
        if self.has_raw_data_file() {
            // Readers of the raw file must see what readers of the image see.
            self.data().write_zeroes(start, end - start, WriteFlags::MAY_UNMAP).await?;
        }
        self.remap(start, end, Change::Discard).await
    }

    /// Changes the mapping of the range.
    pub(super) async fn remap(
        self: &Arc<Image>,
        start: u64,
        end: u64,
        change: Change,
    ) -> Result<()> {
        let mut at = start;
        while at < end {
            let next = end.min(self.slice_end(at));
            let locked = self
                .ranges
                .begin(self.geometry().cluster_start(at)..self.cluster_end(next), true)
                .await;
            if self.l1_entry(at).await?.table.is_none() && self.is_void(change) {
                // Nothing is mapped there, and that is as good.
                drop(locked);
                at = self.untabled_end(at, end);
                continue;
            }
            let slice = self.writable_slice(at).await?;
            self.remap_slice(&slice, at, next, change).await?;
            drop(locked);
            self.balance().await?;
            at = next;
        }
        Ok(())
    }

    /// Whether `change` leaves unallocated clusters as they are.
    fn is_void(&self, change: Change) -> bool {
        match change {
            Change::Zero { .. } => false,
            Change::Discard => self.backing.is_none(),
            Change::Forget => true,
        }
    }

    async fn remap_slice(
        &self,
        slice: &Arc<Slice>,
        start: u64,
        end: u64,
        change: Change,
    ) -> Result<()> {
        let mut changed: SmallVec<[(usize, RawEntry); 8]> = SmallVec::new();
        let mut removed: SmallVec<[Cluster; 8]> = SmallVec::new();
        let mut given_back: SmallVec<[u64; 8]> = SmallVec::new();
        let mut result = Ok(());
        let mut at = start;
        while at < end {
            let next = end.min(self.geometry().cluster_start(at) + self.geometry().cluster_size());
            let old = self.cluster(slice, at).await?;
            let new = match self.changed(old, at, next, change) {
                Ok(new) => new,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            };
            if new != old {
                changed.push((self.slice_index(at), new.encode(&self.geometry())));
                match (host_of(old), host_of(new)) {
                    (Some(_), None) => removed.push(old),
                    // Kept, but nothing in it is needed by us, nor by a snapshot.
                    (Some(host), Some(_))
                        if change.unmaps() && is_exclusive(old) && !has_data(new) =>
                    {
                        given_back.push(host);
                    }
                    _ => {}
                }
            }
            at = next;
        }
        if !changed.is_empty() {
            self.l2.update(slice, changed);
        }
        for old in removed {
            self.remove(old).await;
        }
        for host in given_back {
            self.give_back(host).await;
        }
        result
    }

    /// What the entry of a cluster says after `change` of the guest bytes from `from` to `to` in it.
    fn changed(&self, old: Cluster, from: u64, to: u64, change: Change) -> Result<Cluster> {
        let geometry = &self.geometry();
        let all = geometry.all_subclusters();
        let empty = Standard::default();
        let zeroes = Standard { zero: all, ..empty };
        let is_compressed = matches!(old, Cluster::Compressed(_));
        let host = host_of(old);
        // A raw data file has its storage anyway.
        let keep = (self.tuning().discard_no_unref && !is_compressed) || self.has_raw_data_file();
        let emptied = |zero| match old {
            Cluster::Standard(s) => Standard { allocated: 0, zero, ..s },
            Cluster::Compressed(_) => Standard { zero, ..empty },
        };
        let whole =
            geometry.in_cluster(from) == 0 && (geometry.in_cluster(to) == 0 || to == self.size());
        let new = match change {
            Change::Forget => empty,
            Change::Discard if host.is_none() && self.backing.is_none() => return Ok(old),
            Change::Discard if !whole => {
                return Err(self.unsupported("part of a cluster cannot be given back"));
            }
            Change::Discard if !geometry.zero_flag => empty,
            Change::Discard if keep => emptied(all),
            Change::Discard => zeroes,
            Change::Zero { unmap, over_zeroes } => match old {
                Cluster::Standard(_) if whole && unmap && host.is_some() && !keep => zeroes,
                _ if whole => emptied(all),
                Cluster::Standard(s) => self.zero_part(s, from, to, over_zeroes)?,
                Cluster::Compressed(_) => {
                    return Err(self.unsupported("part of a compressed cluster cannot be zeroed"));
                }
            },
        };
        Ok(Cluster::Standard(new))
    }

    /// Zeroes part of a cluster: whole subclusters, or a part of one whose rest is zero. `over_zeroes`
    /// tells whether what is not allocated there reads as zero.
    fn zero_part(&self, old: Standard, from: u64, to: u64, over_zeroes: bool) -> Result<Standard> {
        let size = self.geometry().subcluster_size();
        let mask = self.subclusters_between(from, to);
        let aligned = from.is_multiple_of(size) && (to.is_multiple_of(size) || to == self.size());
        let rest_is_zero = old.zero & mask == mask || (old.allocated & mask == 0 && over_zeroes);
        if !aligned && !rest_is_zero {
            return Err(self.unsupported("the range ends within a subcluster that has other data"));
        }
        Ok(Standard { allocated: old.allocated & !mask, zero: old.zero | mask, ..old })
    }

    /// The storage behind an entry that is gone is to be freed.
    async fn remove(&self, old: Cluster) {
        if self.data_file.is_some() {
            if let Some(host) = host_of(old) {
                self.give_back(host).await;
            }
        } else if is_exclusive(old) && self.tuning().pass_discard {
            self.unreference(old, FreedKind::Discarded);
        } else {
            self.unreference(old, FreedKind::Other);
        }
    }

    /// Gives the storage of a cluster back that stays mapped, or that needs no reference.
    async fn give_back(&self, host: u64) {
        if self.tuning().pass_discard && !self.has_raw_data_file() {
            // Advice: the entry says already that nothing is there.
            let _ = self.data().discard(host, self.geometry().cluster_size()).await;
        }
    }
}

/// Host offset of what an entry refers to.
fn host_of(cluster: Cluster) -> Option<u64> {
    match cluster {
        Cluster::Compressed(data) => Some(data.offset),
        Cluster::Standard(s) => s.host,
    }
}

/// Whether nothing else refers to the storage of a cluster.
fn is_exclusive(cluster: Cluster) -> bool {
    matches!(cluster, Cluster::Standard(Standard { copied: true, .. }))
}

/// Whether any guest data is in the storage of a cluster.
fn has_data(cluster: Cluster) -> bool {
    !matches!(cluster, Cluster::Standard(Standard { allocated: 0, .. }))
}
