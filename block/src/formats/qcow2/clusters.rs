//! Allocating and releasing host clusters, with the I/O that the allocator needs for it.

use super::alloc::{AllocError, Allocator, HostRun};
use super::image::Image;
use super::overlap::Structure;
use super::pending::{Freed, FreedKind};
use super::refblocks::Unavailable;
use crate::buf::IoBufMut;
use crate::error::{Error, Op, Result};
use crate::event::Event;
use crate::num::AsUsize;

use super::entry::EntryError;
use super::image::hex;

impl Image {
    /// Runs `op` on the allocator, reading what it finds missing.
    pub(super) async fn with_allocator<T>(
        &self,
        mut op: impl FnMut(&mut Allocator) -> Result<T, AllocError>,
    ) -> Result<T> {
        loop {
            let (result, created) = {
                let mut alloc = self.alloc.lock();
                (op(&mut alloc), alloc.refs.take_created())
            };
            for (structure, offset, len) in created {
                self.metadata.add(structure, offset, len);
            }
            match result {
                Ok(value) => return Ok(value),
                Err(AllocError::Unavailable(cause)) => self.load_refcounts(cause).await?,
                Err(AllocError::Full) => {
                    let source = std::io::Error::from_raw_os_error(libc::EFBIG);
                    return Err(Error::os(Op::Write, self.label.clone(), None, source));
                }
                Err(AllocError::Overflow { offset }) => {
                    return Err(self.unsupported(&format!(
                        "the cluster at {offset:#x} has as many references as its refcount of {} \
                         bits can count; amend refcount_bits to have more snapshots",
                        1u64 << self.geometry().refcount_order
                    )));
                }
                Err(AllocError::Underflow { offset }) => {
                    let detail =
                        format!("the cluster at {offset:#x} is in use but counted as free");
                    return Err(self.corrupt(detail).await);
                }
            }
        }
    }

    async fn load_refcounts(&self, cause: Unavailable) -> Result<()> {
        let _loads = self.refcount_loads.lock().await;
        let cluster_size = self.geometry().cluster_size();
        match cause {
            Unavailable::Table => {
                let (offset, clusters) = {
                    let alloc = self.alloc.lock();
                    if alloc.refs.table_len() > 0 {
                        return Ok(());
                    }
                    alloc.refs.place()
                };
                // The header's limits keep this at 8 MiB.
                let len = u64::from(clusters) * cluster_size;
                self.file.event(Event::ReftableLoad).await;
                let bytes = self.file.read(offset, IoBufMut::new(len.as_usize())).await?;
                let mut alloc = self.alloc.lock();
                alloc.refs.fill_table(&bytes);
                for block in alloc.refs.block_offsets() {
                    self.metadata.add(Structure::REFCOUNT_BLOCK, block, cluster_size);
                }
                Ok(())
            }
            Unavailable::Block(index, offset) => {
                if !matches!(self.alloc.lock().refs.block(index), Err(Unavailable::Block(..))) {
                    return Ok(());
                }
                let buf = IoBufMut::new(cluster_size.as_usize());
                let bytes = self.file.read(offset, buf).await?;
                self.file.event(Event::RefblockLoad).await;
                self.alloc.lock().refs.fill_block(index, bytes.to_vec());
                Ok(())
            }
            Unavailable::Entry(index, EntryError::Unaligned(raw)) => {
                let (offset, index) = (hex(raw), hex(index));
                let detail =
                    format!("Refblock offset {offset} unaligned (reftable index: {index})");
                Err(self.corrupt(detail).await)
            }
            Unavailable::Entry(index, error) => {
                Err(self.corrupt(format!("in entry {index} of the refcount table, {error}")).await)
            }
        }
    }

    /// Allocates a run of one to `max` clusters for `what`, checked not to hold metadata.
    pub(super) async fn allocate(&self, max: u64, what: &str) -> Result<HostRun> {
        self.file.event(Event::ClusterAlloc).await;
        self.begin_allocation().await?;
        let run = self.with_allocator(|alloc| alloc.allocate(max)).await?;
        self.file.event(Event::RefblockAlloc).await;
        self.check_new(run, what).await
    }

    /// Allocates exactly `clusters` clusters in a row for `what`, checked not to hold metadata.
    pub(super) async fn allocate_contiguous(&self, clusters: u64, what: &str) -> Result<HostRun> {
        self.file.event(Event::ClusterAlloc).await;
        self.begin_allocation().await?;
        let mut search = None;
        let run =
            self.with_allocator(|alloc| alloc.allocate_contiguous(clusters, &mut search)).await?;
        self.file.event(Event::RefblockAlloc).await;
        self.check_new(run, what).await
    }

    /// Finds room for `len` bytes of compressed data; see [`Allocator::allocate_bytes`].
    pub(super) async fn allocate_bytes(&self, len: u64) -> Result<(u64, u64)> {
        self.file.event(Event::ClusterAllocBytes).await;
        self.begin_allocation().await?;
        let (offset, run) = self.with_allocator(|alloc| alloc.allocate_bytes(len)).await?;
        self.file.event(Event::RefblockAlloc).await;
        if let Some(run) = run {
            self.check_new(run, "compressed cluster").await?;
        }
        let first = self.geometry().cluster_start(offset);
        Ok((offset, self.geometry().clusters(offset + len - first)))
    }

    /// Fails if metadata structures were found to overlap each other.
    pub(super) async fn check_metadata(&self) -> Result<()> {
        match self.metadata.conflict() {
            None => Ok(()),
            Some(conflict) => Err(self.corrupt(conflict).await),
        }
    }

    /// A cluster that is counted as free but holds metadata would be overwritten. The header is never
    /// free, whatever the options say about checks.
    async fn check_new(&self, run: HostRun, what: &str) -> Result<HostRun> {
        self.check_metadata().await?;
        if run.offset == 0 {
            let detail = format!("Preventing invalid allocation of {what} at offset 0");
            return Err(self.corrupt(detail).await);
        }
        self.check_overlap(run.offset, run.clusters * self.geometry().cluster_size()).await?;
        Ok(run)
    }

    /// Checks that writing guest data to `len` bytes of the data node at `host` hits no metadata.
    pub(super) async fn check_data(&self, host: u64, len: u64) -> Result<()> {
        if self.data_file.is_some() { Ok(()) } else { self.check_overlap(host, len).await }
    }

    /// Checks that a write of `len` bytes to the file at `host` hits no metadata.
    async fn check_overlap(&self, host: u64, len: u64) -> Result<()> {
        match self.metadata.hit(host, len) {
            None => Ok(()),
            Some(hit) => {
                let detail = format!("Preventing invalid write on metadata (overlaps with {hit})");
                Err(self.corrupt(detail).await)
            }
        }
    }

    /// Takes a reference away from clusters that no table on disk refers to.
    pub(super) async fn release_now(&self, offset: u64, clusters: u64) -> Result<()> {
        self.release_telling(offset, clusters, |_| {}).await
    }

    /// Like [`Image::release_now`]; tells `freed` the host offsets of clusters that became free.
    pub(super) async fn release_telling(
        &self,
        offset: u64,
        clusters: u64,
        mut freed: impl FnMut(u64),
    ) -> Result<()> {
        self.file.event(Event::ClusterFree).await;
        // Few blocks fit into memory at once.
        let coverage = self.geometry().cluster_size() << self.geometry().refblock_bits();
        let end = offset + clusters * self.geometry().cluster_size();
        let mut at = offset;
        while at < end {
            let next = end.min((at / coverage + 1) * coverage);
            let clusters = (next - at) >> self.geometry().cluster_bits;
            self.with_allocator(|alloc| alloc.release(at, clusters, &mut freed)).await?;
            at = next;
        }
        Ok(())
    }
}

/// Newly allocated clusters until something refers to them. If the request is dropped before that,
/// they stay reserved until the image is closed, since I/O to them may still be under way.
pub(super) struct Allocation<'i> {
    image: &'i Image,
    /// The clusters.
    pub(super) run: HostRun,
    armed: bool,
}

impl<'i> Allocation<'i> {
    /// Guards `run`.
    pub(super) fn new(image: &'i Image, run: HostRun) -> Allocation<'i> {
        Allocation { image, run, armed: true }
    }

    /// Something refers to the clusters now.
    pub(super) fn commit(mut self) -> HostRun {
        self.armed = false;
        self.run
    }

    /// Gives the clusters back and returns `error`, because of which they are not needed. No I/O to
    /// them is under way.
    pub(super) async fn give_up(mut self, error: Error) -> Error {
        self.armed = false;
        // If that fails, too, the clusters are lost until the next check; the first error counts.
        let _ = self.image.release_now(self.run.offset, self.run.clusters).await;
        error
    }
}

impl Drop for Allocation<'_> {
    fn drop(&mut self) {
        if self.armed {
            let HostRun { offset, clusters, .. } = self.run;
            self.image.pending.abandon(Freed { offset, clusters, kind: FreedKind::Other });
        }
    }
}
