//! Writing compressed clusters, packed one behind the other.

use std::sync::Arc;

use super::alloc::HostRun;
use super::clusters::Allocation;
use super::compress::compress;
use super::entry::{Cluster, Compressed, Standard};
use super::image::Image;
use super::pending::FreedKind;
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::{Resize, WriteFlags};
use crate::error::Result;
use crate::event::Event;
use crate::num::AsUsize;
use crate::parallel;

/// Clusters of one request that are compressed at once.
const PARALLEL_CLUSTERS: usize = 8;
/// Unit of files' lengths in bytes.
const SECTOR: u64 = 512;

impl Image {
    /// Writes guest data compressed: whole clusters, the last one of the disk possibly short. What does
    /// not get smaller is written as it is.
    pub(super) async fn write_compressed(self: &Arc<Image>, offset: u64, buf: IoBuf) -> Result<()> {
        if self.data_file.is_some() {
            return Err(self.unsupported("data files cannot hold compressed clusters"));
        }
        if self.crypt.is_encrypted() {
            return Err(self.unsupported("encrypted images cannot hold compressed clusters"));
        }
        if buf.is_empty() {
            return self.fill_last_sector().await;
        }
        let size = self.geometry().cluster_size();
        let end = offset + buf.len() as u64;
        if !offset.is_multiple_of(size) || !(end.is_multiple_of(size) || end == self.size()) {
            return Err(self.unsupported("only whole clusters can be written compressed"));
        }
        self.begin_write().await?;
        self.mark_dirty(offset..end);
        let writes = (offset..end).step_by(size.as_usize()).map(|at| {
            let start = (at - offset).as_usize();
            let part = buf.slice(start..buf.len().min(start + size.as_usize()));
            self.write_compressed_cluster(at, part)
        });
        parallel::all(PARALLEL_CLUSTERS, writes).await?;
        self.balance().await
    }

    /// Makes the file end with a whole sector: packed data ends anywhere, but who puts the file into
    /// another one counts in sectors. No requests are under way.
    async fn fill_last_sector(&self) -> Result<()> {
        let _alone = self.size_changes.lock().await;
        let _locked = self.ranges.begin(0..u64::MAX, true).await;
        let (size, end) = (self.file.size(), self.file.size().next_multiple_of(SECTOR));
        if size < end {
            self.file.resize(end, Resize::default()).await?;
        }
        Ok(())
    }

    async fn write_compressed_cluster(self: &Arc<Image>, guest: u64, data: IoBuf) -> Result<()> {
        let size = self.geometry().cluster_size();
        let cluster = if data.len() as u64 == size {
            data.clone()
        } else {
            let mut padded = IoBufMut::zeroed(size.as_usize());
            padded.iter_mut().zip(data.iter()).for_each(|(to, from)| *to = *from);
            padded.freeze()
        };
        let Some(packed) = compress(self.compression, cluster).await else {
            return self.write_mapping(guest, data).await;
        };
        let _locked = self.ranges.begin(guest..guest + size, true).await;
        let slice = self.writable_slice(guest).await?;
        let old = self.cluster(&slice, guest).await?;
        let len = packed.len() as u64;
        let (offset, clusters) = self.allocate_bytes(len).await?;
        let run = HostRun { offset: self.geometry().cluster_start(offset), clusters, fresh: false };
        let allocation = Allocation::new(self, run);
        let checked = self.check_data(offset, len).await;
        self.file.event(Event::WriteCompressed).await;
        let written = match checked {
            Ok(()) => self.file.write(offset, packed, WriteFlags::empty()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            return Err(allocation.give_up(error).await);
        }
        self.file.event(Event::L2UpdateCompressed).await;
        let new = Cluster::Compressed(Compressed { offset, len });
        self.l2.update(&slice, [(self.slice_index(guest), new.encode(&self.geometry()))]);
        allocation.commit();
        if old != Cluster::Standard(Standard::default()) {
            self.unreference(old, FreedKind::Other);
        }
        Ok(())
    }
}
