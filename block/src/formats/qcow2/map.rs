//! From guest ranges to host ranges.

use smallvec::SmallVec;

use super::entry::{Cluster, Compressed, EntryError, Standard};
use super::image::Image;
use super::l2::Slice;
use crate::error::Result;

/// Runs that a request is cut into at once.
pub(super) const MAX_RUNS: usize = 512;

/// How a run of guest bytes is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Not in this image. `host` is set if the cluster has storage nonetheless.
    Unallocated {
        /// Host offset of the first byte.
        host: Option<u64>,
    },
    /// Zeroes. `host` is set if storage is reserved.
    Zero {
        /// Host offset of the first byte.
        host: Option<u64>,
    },
    /// Data.
    Data {
        /// Host offset of the first byte.
        host: u64,
        /// Nothing else refers to the clusters: they may be written in place.
        exclusive: bool,
    },
    /// A compressed cluster, or part of one.
    Compressed(Compressed),
}

/// A run of guest bytes stored in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First guest byte.
    pub(super) guest: u64,
    /// Length in bytes.
    pub(super) len: u64,
    /// Where it is.
    pub(super) place: Place,
}

/// The runs of one request.
pub(super) type Runs = SmallVec<[Run; 4]>;

impl Run {
    /// Appends `next`, which follows in the guest, if the two make one run.
    fn join(&mut self, next: &Run) -> bool {
        let follows = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => a.checked_add(self.len) == Some(b),
            (None, None) => true,
            _ => false,
        };
        let joins = match (self.place, next.place) {
            (Place::Unallocated { host: a }, Place::Unallocated { host: b })
            | (Place::Zero { host: a }, Place::Zero { host: b }) => follows(a, b),
            (Place::Data { host: a, exclusive: x }, Place::Data { host: b, exclusive: y }) => {
                x == y && follows(Some(a), Some(b))
            }
            _ => false,
        };
        if joins {
            self.len += next.len;
        }
        joins
    }
}

fn push(runs: &mut Runs, run: Run) {
    if !runs.last_mut().is_some_and(|last| last.join(&run)) {
        runs.push(run);
    }
}

impl Standard {
    /// How subcluster `index` is stored, if the byte looked at is `within` the cluster, and the number
    /// of subclusters from there on that are stored likewise.
    fn place(&self, index: u32, within: u64) -> (Place, u32) {
        let host = self.host.map(|host| host + within);
        let allocated = self.allocated >> index;
        let zero = self.zero >> index;
        match host {
            Some(host) if allocated & 1 == 1 => {
                (Place::Data { host, exclusive: self.copied }, allocated.trailing_ones())
            }
            _ if zero & 1 == 1 => (Place::Zero { host }, zero.trailing_ones()),
            _ => (Place::Unallocated { host }, (allocated | zero).trailing_zeros()),
        }
    }
}

impl Image {
    /// Decodes entry `index` of `slice`, which describes guest offset `guest`.
    pub(super) async fn cluster(&self, slice: &Slice, guest: u64) -> Result<Cluster> {
        match self.decode(slice, guest) {
            Ok(cluster) => Ok(cluster),
            Err(error) => {
                let table = self.geometry().cluster_start(slice.offset());
                Err(self.bad_l2_entry(table, self.geometry().l2_index(guest), error).await)
            }
        }
    }

    fn decode(&self, slice: &Slice, guest: u64) -> Result<Cluster, EntryError> {
        let raw = slice.get(self.slice_index(guest));
        match Cluster::decode(raw, &self.geometry())? {
            // A data file holds every guest cluster at its own offset.
            Cluster::Standard(Standard { host: Some(host), .. })
                if self.data_file.is_some() && host != self.geometry().cluster_start(guest) =>
            {
                Err(EntryError::NotIdentity { entry: raw.descriptor, guest })
            }
            cluster => Ok(cluster),
        }
    }

    /// Where the clusters from `at` on end that are all of one kind, at most at `end`. Clusters without
    /// an L2 table count as [`Cluster::default`]. A damaged entry ends the run.
    pub(super) async fn run_end(
        &self,
        mut at: u64,
        end: u64,
        is_of_kind: impl Fn(&Cluster) -> bool,
    ) -> Result<u64> {
        while at < end {
            let slice = match self.cached_slice(at) {
                Some(slice) => Some(slice),
                None => self.slice(at).await?,
            };
            let Some(slice) = slice else {
                if !is_of_kind(&Cluster::default()) {
                    return Ok(at);
                }
                at = self.untabled_end(at, end);
                continue;
            };
            let slice_end = end.min(self.slice_end(at));
            while at < slice_end {
                if !self.decode(&slice, at).is_ok_and(|cluster| is_of_kind(&cluster)) {
                    return Ok(at);
                }
                at = slice_end
                    .min(self.geometry().cluster_start(at) + self.geometry().cluster_size());
            }
        }
        Ok(end)
    }

    /// Appends the runs of one cluster between `guest` and `end`.
    fn map_cluster(&self, cluster: Cluster, guest: u64, end: u64, runs: &mut Runs) {
        let geometry = &self.geometry();
        let standard = match cluster {
            Cluster::Compressed(data) => {
                let place = Place::Compressed(data);
                runs.push(Run { guest, len: end - guest, place });
                return;
            }
            Cluster::Standard(standard) => standard,
        };
        let mut at = guest;
        while at < end {
            let index = geometry.subcluster_index(at);
            let (place, count) = standard.place(index, geometry.in_cluster(at));
            let last = (index + count).min(geometry.subclusters());
            let run_end =
                geometry.cluster_start(at) + (u64::from(last) << geometry.subcluster_bits());
            let len = run_end.min(end) - at;
            push(runs, Run { guest: at, len, place });
            at += len;
        }
    }

    /// The runs of the `len` guest bytes at `offset`. Stops early, after at least one run, when it has
    /// found `max_runs`.
    pub(super) async fn map(&self, offset: u64, len: u64, max_runs: usize) -> Result<Runs> {
        let mut runs = Runs::new();
        let end = offset + len;
        let mut at = offset;
        while at < end && runs.len() < max_runs {
            let slice = match self.cached_slice(at) {
                Some(slice) => Some(slice),
                None => self.slice(at).await?,
            };
            let Some(slice) = slice else {
                let next = self.untabled_end(at, end);
                let place = Place::Unallocated { host: None };
                push(&mut runs, Run { guest: at, len: next - at, place });
                at = next;
                continue;
            };
            let slice_end = end.min(self.slice_end(at));
            while at < slice_end && runs.len() < max_runs {
                let cluster_end =
                    self.geometry().cluster_start(at) + self.geometry().cluster_size();
                let next = slice_end.min(cluster_end);
                let cluster = self.cluster(&slice, at).await?;
                self.map_cluster(cluster, at, next, &mut runs);
                at = next;
            }
        }
        Ok(runs)
    }
}
