//! Writing guest data: in place where the clusters are ours alone, else into newly mapped ones.
//!
//! A write that changes the mapping holds the guest clusters it touches, so that copy-on-write,
//! discards and zero writes of one cluster never mix. The L2 entry changes only when all data is
//! written.

use std::sync::Arc;

use smallvec::SmallVec;

use super::clusters::Allocation;
use super::entry::{Cluster, RawEntry, Standard};
use super::image::Image;
use super::l2::Slice;
use super::map::{MAX_RUNS, Place, Run};
use super::pending::{Freed, FreedKind};
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::WriteFlags;
use crate::error::Result;
use crate::event::Event;
use crate::graph::rejoin;
use crate::num::AsUsize;
use crate::parallel;

/// Pieces of a request that are written at once.
const PARALLEL_WRITES: usize = 16;
/// With copied data around it, a write up to this length in bytes becomes one; above, the copying of
/// guest data in memory would cost more than another request does.
const MAX_MERGED: u64 = 256 << 10;

/// Part of a request that can be written without further look-ups, or that needs a new mapping.
enum Segment {
    InPlace { guest: u64, host: u64, len: u64 },
    Map { guest: u64, len: u64 },
}

fn segments(runs: &[Run]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::with_capacity(runs.len());
    for run in runs {
        match (run.place, segments.last_mut()) {
            (Place::Data { host, exclusive: true }, _) => {
                segments.push(Segment::InPlace { guest: run.guest, host, len: run.len });
            }
            (_, Some(Segment::Map { len, .. })) => *len += run.len,
            _ => segments.push(Segment::Map { guest: run.guest, len: run.len }),
        }
    }
    segments
}

/// Neighbouring clusters of one L2 slice that are written in one go.
struct Group {
    /// First guest byte written, and the one behind the last.
    start: u64,
    end: u64,
    /// What the entries say now, from the cluster of `start` on.
    old: SmallVec<[Cluster; 8]>,
    /// Host offset of the first cluster if the clusters keep their storage.
    host: Option<u64>,
}

impl Image {
    /// Writes guest data.
    pub(super) async fn write(
        self: &Arc<Image>,
        offset: u64,
        buf: IoBuf,
        flags: WriteFlags,
    ) -> Result<()> {
        self.begin_write().await?;
        let end = offset + buf.len() as u64;
        self.mark_dirty(offset..end);
        let part = |from: u64, len: u64| {
            let start = (from - offset).as_usize();
            buf.slice(start..start + len.as_usize())
        };
        let mut at = offset;
        let (mut mapped, mut reclaimed) = (false, false);
        while at < end {
            let inside = self.epochs.enter();
            let runs = self.map(at, end - at, MAX_RUNS).await?;
            let start = at;
            at += runs.iter().map(|run| run.len).sum::<u64>();
            if let [Run { guest, len, place: Place::Data { host, exclusive: true } }] = runs[..] {
                self.write_in_place(guest, host, part(guest, len), flags).await?;
                continue;
            }
            let segments = segments(&runs);
            let maps = segments.iter().any(|s| matches!(s, Segment::Map { .. }));
            if maps && !reclaimed && self.wants_reclaim().await? {
                // Space that was given up is used again before the file grows. It cannot be while
                // requests are inside that may still use it.
                drop(inside);
                reclaimed = true;
                self.write_back().await?;
                at = start;
                continue;
            }
            mapped |= maps;
            let (image, part) = (self, &part);
            let writes = segments.into_iter().map(|segment| async move {
                match segment {
                    Segment::InPlace { guest, host, len } => {
                        image.write_in_place(guest, host, part(guest, len), flags).await
                    }
                    Segment::Map { guest, len } => {
                        image.write_mapping(guest, part(guest, len)).await
                    }
                }
            });
            parallel::all(PARALLEL_WRITES, writes).await?;
            drop(inside);
            self.balance().await?;
        }
        if mapped && flags.contains(WriteFlags::FUA) {
            self.write_back().await?;
            self.barrier().await?;
        }
        Ok(())
    }

    async fn write_in_place(
        &self,
        guest: u64,
        host: u64,
        buf: IoBuf,
        flags: WriteFlags,
    ) -> Result<()> {
        self.check_data(host, buf.len() as u64).await?;
        self.file.event(Event::WriteAio).await;
        self.write_data(guest, host, buf, flags & WriteFlags::FUA).await
    }

    /// Writes guest data to clusters of which some need a new mapping.
    pub(super) async fn write_mapping(self: &Arc<Image>, offset: u64, buf: IoBuf) -> Result<()> {
        let end = offset + buf.len() as u64;
        let mut at = offset;
        while at < end {
            let next = end.min(self.slice_end(at));
            let first = self.geometry().cluster_start(at);
            self.free_old_tables().await?;
            let _locked = self.ranges.begin(first..self.cluster_end(next), true).await;
            let slice = self.writable_slice(at).await?;
            while at < next {
                let start = (at - offset).as_usize();
                let group = self.group(&slice, at, next).await?;
                let data = buf.slice(start..start + (group.end - group.start).as_usize());
                at = self.write_group(&slice, group, data).await?;
            }
        }
        Ok(())
    }

    /// End of the cluster that ends at or behind `offset`.
    pub(super) fn cluster_end(&self, offset: u64) -> u64 {
        let size = self.geometry().cluster_size();
        offset.div_ceil(size).saturating_mul(size)
    }

    /// The clusters from `start` on, up to `end`, that can be treated alike.
    async fn group(&self, slice: &Slice, start: u64, end: u64) -> Result<Group> {
        let cluster_size = self.geometry().cluster_size();
        let mut group = Group { start, end: start, old: SmallVec::new(), host: None };
        while group.end < end {
            let cluster = self.cluster(slice, group.end).await?;
            let kept = match cluster {
                Cluster::Standard(Standard { host, copied: true, .. }) => host,
                _ => None,
            };
            if group.old.is_empty() {
                group.host = kept;
            } else {
                let expected =
                    group.host.map(|first| first + group.old.len() as u64 * cluster_size);
                if kept != expected {
                    break;
                }
            }
            group.old.push(cluster);
            group.end = end.min(self.geometry().cluster_start(group.end) + cluster_size);
        }
        Ok(group)
    }

    /// Writes `data` to the clusters of `group`, or to the first of them, as allocation allows.
    /// Returns the first guest offset that was not written.
    async fn write_group(&self, slice: &Arc<Slice>, mut group: Group, data: IoBuf) -> Result<u64> {
        let geometry = &self.geometry();
        let first = geometry.cluster_start(group.start);
        let mut allocation = None;
        let (host, fresh) = match group.host {
            Some(host) => (host, false),
            // A data file has every cluster in the same place. Beyond its end it has zeroes.
            None if self.data_file.is_some() => (first, first >= self.data().size()),
            None => {
                let run = self.allocate(group.old.len() as u64, "data cluster").await?;
                allocation = Some(Allocation::new(self, run));
                group.old.truncate(run.clusters.as_usize());
                group.end = group.end.min(first + run.clusters * geometry.cluster_size());
                (run.offset, run.fresh)
            }
        };
        let data = data.slice(..(group.end - group.start).as_usize());
        let (fill_start, fill_end) = self.fill_range(&group);
        let written = self.write_filled(&group, (fill_start, fill_end), host, fresh, data).await;
        if let Err(error) = written {
            return Err(match allocation {
                Some(allocation) => allocation.give_up(error).await,
                None => error,
            });
        }
        let cluster_size = geometry.cluster_size();
        let mut guest = first;
        let mut changed: SmallVec<[(usize, RawEntry); 8]> = SmallVec::new();
        for (n, old) in group.old.iter().enumerate() {
            let from = fill_start.max(guest);
            let to = fill_end.min(guest + cluster_size);
            let now_allocated = self.subclusters_between(from, to);
            let (kept, zero) = match old {
                Cluster::Standard(s) if group.host.is_some() => (s.allocated, s.zero),
                Cluster::Standard(s) => (0, s.zero),
                Cluster::Compressed(_) => (0, 0),
            };
            let new = Cluster::Standard(Standard {
                host: Some(host + n as u64 * cluster_size),
                copied: true,
                allocated: kept | now_allocated,
                zero: zero & !now_allocated,
            });
            if new != *old {
                changed.push((self.slice_index(guest), new.encode(geometry)));
            }
            guest += cluster_size;
        }
        if !changed.is_empty() {
            self.l2.update(slice, changed);
        }
        if group.host.is_none() {
            for old in &group.old {
                self.unreference(*old, FreedKind::Other);
            }
        }
        if let Some(allocation) = allocation {
            allocation.commit();
        }
        Ok(group.end)
    }

    /// The reference from an L2 entry that said `old` is gone.
    pub(super) fn unreference(&self, old: Cluster, kind: FreedKind) {
        match old {
            Cluster::Compressed(data) => {
                let (offset, clusters) = data.host_clusters(&self.geometry());
                self.pending.push(Freed { offset, clusters, kind: FreedKind::Other });
            }
            Cluster::Standard(Standard { host: Some(offset), .. }) if self.data_file.is_none() => {
                self.pending.push(Freed { offset, clusters: 1, kind });
            }
            Cluster::Standard(_) => {}
        }
    }

    /// Bitmap of the subclusters that overlap the range, which lies within one cluster.
    pub(super) fn subclusters_between(&self, from: u64, to: u64) -> u32 {
        if from >= to {
            return 0;
        }
        let first = self.geometry().subcluster_index(from);
        let last = self.geometry().subcluster_index(to - 1);
        (u32::MAX << first) & (u32::MAX >> (31 - last))
    }

    /// The guest range that must be written for `group`: what the guest writes, and what must be
    /// copied along with it because entries cannot describe less than a subcluster, or because it was
    /// in storage that the cluster gives up.
    fn fill_range(&self, group: &Group) -> (u64, u64) {
        let geometry = &self.geometry();
        let size = geometry.cluster_size();
        let bounds = |cluster: Option<&Cluster>, from: u64, to: u64| {
            let base = geometry.cluster_start(from);
            let touched = self.subclusters_between(from, to.min(base + size));
            let (allocated, moves) = match cluster {
                Some(Cluster::Compressed(_)) => (geometry.all_subclusters(), true),
                Some(Cluster::Standard(s)) => (s.allocated, group.host.is_none()),
                None => (0, false),
            };
            let needed = if moves { touched | allocated } else { touched };
            let low = needed.trailing_zeros();
            let high = needed.checked_ilog2().unwrap_or(0);
            let start = base + (u64::from(low) << geometry.subcluster_bits());
            let end = base + (u64::from(high + 1) << geometry.subcluster_bits());
            // Data that stays where it is needs no copying.
            let stays = |sub: u32| !moves && allocated >> sub & 1 == 1;
            let start = if stays(geometry.subcluster_index(from)) { from } else { start };
            let end = if stays(geometry.subcluster_index(to - 1)) { to } else { end };
            (start, end)
        };
        let last_start = geometry.cluster_start(group.end - 1).max(group.start);
        let first_end = group.end.min(geometry.cluster_start(group.start) + size);
        let (start, _) = bounds(group.old.first(), group.start, first_end);
        let (_, end) = bounds(group.old.last(), last_start, group.end);
        (start, end)
    }

    /// Writes `data` for `group`, whose first cluster is at `host`, and around it, as far as `fill`
    /// reaches, what the guest sees there now.
    async fn write_filled(
        &self,
        group: &Group,
        fill: (u64, u64),
        host: u64,
        fresh: bool,
        data: IoBuf,
    ) -> Result<()> {
        let base = self.geometry().cluster_start(group.start);
        let (mut start, mut end) = fill;
        let partial = start < group.start || group.end < end;
        if partial && group.host.is_none() && !self.crypt.is_encrypted() {
            let head_is_zero = self.reads_as_zero(start, group.start).await?;
            let tail_is_zero = self.reads_as_zero(group.end, end).await?;
            if head_is_zero && tail_is_zero {
                self.file.event(Event::ClusterAllocSpace).await;
            }
            // Storage that reads as zeroes needs no zeroes written to it.
            if fresh && head_is_zero {
                start = group.start;
            }
            if fresh && tail_is_zero {
                end = group.end;
            }
        }
        self.check_data(host + (start - base), end - start).await?;
        let (head, tail) = self.cuts(group, start, end);
        self.file.event(Event::WriteAio).await;
        let pieces = [(start, head), (head, tail), (tail, end)];
        let writes = pieces.into_iter().filter(|(from, to)| from < to).map(|(from, to)| {
            let data_from = group.start.clamp(from, to);
            let data_to = group.end.clamp(from, to);
            let inside = |at: u64| (at.clamp(group.start, group.end) - group.start).as_usize();
            let data = data.slice(inside(data_from)..inside(data_to));
            async move {
                let bytes = if data.len() as u64 == to - from {
                    data
                } else {
                    let mixed = self.surround(from, to, data_from, &data).await?;
                    self.file.event(Event::CowWrite).await;
                    mixed
                };
                self.write_data(from, host + (from - base), bytes, WriteFlags::empty()).await
            }
        });
        parallel::all(PARALLEL_WRITES, writes).await
    }

    /// Where to cut the write of `start..end` so that only the pieces at its ends mix the guest's data
    /// with copied data.
    fn cuts(&self, group: &Group, start: u64, end: u64) -> (u64, u64) {
        if end - start <= MAX_MERGED {
            return (start, end);
        }
        let head =
            if start < group.start { self.cluster_end(start + 1).min(group.end) } else { start };
        let tail = if group.end < end {
            self.geometry().cluster_start(end - 1).max(group.start).max(head)
        } else {
            end
        };
        (head, tail)
    }

    /// The guest's bytes from `from` to `to`, with `data` laid over them at `at`.
    async fn surround(&self, from: u64, to: u64, at: u64, data: &[u8]) -> Result<IoBuf> {
        let mut head = IoBufMut::new((to - from).as_usize());
        let mut middle = head.split_off((at - from).as_usize());
        let mut tail = middle.split_off(data.len());
        middle.copy_from_slice(data);
        self.file.event(Event::CowRead).await;
        if !head.is_empty() {
            head = self.read(from, head).await?;
        }
        if !tail.is_empty() {
            tail = self.read(at + data.len() as u64, tail).await?;
        }
        Ok(rejoin(rejoin(head, middle), tail).freeze())
    }

    /// Whether the metadata alone says that the range reads as zeroes.
    pub(super) async fn reads_as_zero(&self, from: u64, to: u64) -> Result<bool> {
        if from >= to {
            return Ok(true);
        }
        let runs = self.map(from, to - from, MAX_RUNS).await?;
        let covered: u64 = runs.iter().map(|run| run.len).sum();
        Ok(covered == to - from && runs.iter().all(|run| self.is_zero_run(run)))
    }

    /// Whether a run reads as zeroes without looking at any data.
    pub(super) fn is_zero_run(&self, run: &Run) -> bool {
        match run.place {
            Place::Zero { .. } => true,
            Place::Unallocated { .. } => {
                self.backing.as_ref().is_none_or(|backing| run.guest >= backing.size())
            }
            Place::Data { .. } | Place::Compressed(_) => false,
        }
    }
}
