//! What is known of guest ranges without reading their data.

use std::sync::Arc;

use super::image::Image;
use super::map::{MAX_RUNS, Place, Run};
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
        let coverage = self.l2.slice_entries() << self.geometry.cluster_bits;
        let len = len.min(coverage * MAX_SLICES);
        // Two runs, to know that the first one is complete; compressed clusters do not join by
        // themselves.
        let mut runs = self.map(offset, len, 2).await?;
        if matches!(runs.first(), Some(Run { place: Place::Compressed(_), .. })) {
            runs = self.map(offset, len, MAX_RUNS).await?;
        }
        let Some(first) = runs.first() else {
            return Ok(Extent { len, status: Status::empty(), map: None });
        };
        let (mut status, host) = describe(first);
        let same = |run: &&Run| host.is_none() && describe(run) == (status, host);
        let len = first.len + runs.iter().skip(1).take_while(same).map(|run| run.len).sum::<u64>();
        if precise
            && status.contains(Status::DATA | Status::OFFSET_VALID)
            && self.is_preallocated().await?
        {
            status |= Status::RECURSE;
        }
        Ok(Extent { len, status, map: host.map(|host| (Arc::clone(self.data()), host)) })
    }

    /// Whether the image looks as if its metadata were allocated in advance: noticeably more clusters
    /// are counted as used than its file has storage for. Then its file knows more about zeroes.
    async fn is_preallocated(&self) -> Result<bool> {
        self.preallocated.get_or_try_init(|| self.detect_preallocation()).await.copied()
    }

    async fn detect_preallocation(&self) -> Result<bool> {
        let node = self.file.node();
        let Some(stored) = node.driver().allocated_size().await? else { return Ok(false) };
        let stored = stored / self.geometry.cluster_size();
        // A tenth more, or a few clusters in small images, may be metadata or chance.
        let threshold = (stored.saturating_mul(10) / 9).max(stored + 2);
        let end = self.geometry.clusters(self.file.size());
        let entries = 1 << self.geometry.refblock_bits();
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
