//! What is known of guest ranges without reading their data.

use std::sync::Arc;

use super::entry::{Cluster, Standard};
use super::image::Image;
use super::map::{Place, Run};
use crate::driver::{Extent, Status};
use crate::error::Result;
use crate::num::AsUsize;

/// Slices that one query looks at, at most.
const MAX_SLICES: u64 = 1024;

impl Image {
    /// Status of the first run of a range.
    pub(super) async fn block_status(
        &self,
        offset: u64,
        len: u64,
        precise: bool,
    ) -> Result<Extent> {
        let _inside = self.epochs.enter();
        let len = self.query_len(offset, len).await?;
        // Two runs, to know that the first one is complete.
        let runs = self.map(offset, len, 2).await?;
        let Some(first) = runs.first() else {
            return Ok(Extent { len, status: Status::empty(), map: None });
        };
        let (mut status, host) = self.describe(first);
        let mut end = offset + first.len;
        if let Place::Compressed(_) = first.place {
            let is_compressed = |cluster: &Cluster| matches!(cluster, Cluster::Compressed(_));
            end = self.run_end(end, offset + len, is_compressed).await?;
        }
        let len = end - offset;
        if precise
            && status.contains(Status::DATA | Status::OFFSET_VALID)
            && self.is_preallocated().await?
        {
            status |= Status::RECURSE;
        }
        Ok(Extent { len, status, map: host.map(|host| (Arc::clone(self.data()), host)) })
    }

    /// What the first run of a range holds, wherever it is stored.
    pub(super) async fn content_status(&self, offset: u64, len: u64) -> Result<Extent> {
        let _inside = self.epochs.enter();
        let len = self.query_len(offset, len).await?;
        let cluster_end = self.geometry().cluster_start(offset) + self.geometry().cluster_size();
        let in_cluster = len.min(cluster_end - offset);
        let runs = self.map(offset, in_cluster, 2).await?;
        let Some(first) = runs.first() else {
            return Ok(Extent { len, status: Status::empty(), map: None });
        };
        let holds = self.describe(first).0;
        if holds.contains(Status::DATA) && self.is_preallocated().await? {
            // What the file knows of zeroes goes by place.
            return self.block_status(offset, len, true).await;
        }
        let all = self.geometry().all_subclusters();
        let status = holds & (Status::DATA | Status::ZERO);
        let mut end = offset + first.len;
        if first.len == in_cluster {
            let holds_the_same = |cluster: &Cluster| match cluster {
                Cluster::Compressed(_) => status == Status::DATA,
                Cluster::Standard(Standard { allocated, .. }) if *allocated == all => {
                    status == Status::DATA
                }
                Cluster::Standard(Standard { zero, .. }) if *zero == all => status == Status::ZERO,
                Cluster::Standard(Standard { allocated: 0, zero: 0, .. }) => status.is_empty(),
                Cluster::Standard(_) => false,
            };
            end = self.run_end(end, offset + len, holds_the_same).await?;
        }
        Ok(Extent { len: end - offset, status, map: None })
    }

    /// Bytes that one query looks at, of the `len` at `offset`: what has no L2 tables costs nothing.
    async fn query_len(&self, offset: u64, len: u64) -> Result<u64> {
        let most = (self.l2.slice_entries() << self.geometry().cluster_bits) * MAX_SLICES;
        if len <= most || self.l1_entry(offset).await?.table.is_some() {
            return Ok(len.min(most));
        }
        Ok(len.min(self.untabled_end(offset, offset + len) - offset + most))
    }

    /// Whether the image looks as if its metadata were allocated in advance: noticeably more clusters
    /// are counted as used than its file has storage for. Then its file knows more about zeroes.
    async fn is_preallocated(&self) -> Result<bool> {
        self.preallocated.get_or_try_init(|| self.detect_preallocation()).await.copied()
    }

    async fn detect_preallocation(&self) -> Result<bool> {
        let node = self.file.node();
        let Some(stored) = node.driver().allocated_size().await? else { return Ok(false) };
        let stored = stored / self.geometry().cluster_size();
        // A tenth more, or a few clusters in small images, may be metadata or chance.
        let threshold = (stored.saturating_mul(10) / 9).max(stored + 2);
        let end = self.geometry().clusters(self.file.size());
        let entries = 1 << self.geometry().refblock_bits();
        let mut used = 0;
        for index in 0..end.div_ceil(entries) {
            let len = entries.min(end - index * entries).as_usize();
            used += self.with_allocator(|alloc| Ok(alloc.refs.used(index, len)?)).await?;
            if used >= threshold {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is known of a run, and where it is stored as the guest sees it.
    fn describe(&self, run: &Run) -> (Status, Option<u64>) {
        let (status, host) = describe(run);
        if self.crypt.is_encrypted() {
            return (status - Status::OFFSET_VALID, None);
        }
        (status, host)
    }
}

fn describe(run: &Run) -> (Status, Option<u64>) {
    match run.place {
        Place::Unallocated { host: None } => (Status::empty(), None),
        Place::Unallocated { host } => (Status::OFFSET_VALID, host),
        Place::Zero { host: None } => (Status::ZERO, None),
        Place::Zero { host } => (Status::ZERO | Status::OFFSET_VALID, host),
        Place::Data { host, .. } => (Status::DATA | Status::OFFSET_VALID, Some(host)),
        Place::Compressed(_) => (Status::DATA | Status::COMPRESSED, None),
    }
}
