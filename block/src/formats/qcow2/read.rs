//! Reading guest data.

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::compress::{decompress, decompression_slot};
use super::entry::Compressed;
use super::image::Image;
use super::map::{MAX_RUNS, Place, Run, Runs};
use crate::buf::{IoBuf, IoBufMut};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::graph::rejoin;
use crate::num::AsUsize;

/// Pieces of a request that are read at once.
const PARALLEL_READS: usize = 32;

impl Image {
    /// Reads guest data into all of `buf`.
    pub(super) async fn read(&self, offset: u64, buf: IoBufMut) -> Result<IoBufMut> {
        let _inside = self.epochs.enter();
        let mut at = offset;
        let mut rest = buf;
        let mut done = rest.split_to(0);
        while !rest.is_empty() {
            let runs = self.map(at, rest.len() as u64, MAX_RUNS).await?;
            let len: u64 = runs.iter().map(|run| run.len).sum();
            let piece = rest.split_to(len.as_usize());
            let piece = match runs[..] {
                [run] => self.read_run(run, piece).await?,
                _ => self.read_runs(runs, piece).await?,
            };
            done = if done.is_empty() { piece } else { rejoin(done, piece) };
            at += len;
        }
        Ok(done)
    }

    async fn read_runs(&self, runs: Runs, buf: IoBufMut) -> Result<IoBufMut> {
        // Pieces come back in any order and are put together at the end.
        let mut done: Vec<Option<IoBufMut>> = Vec::new();
        done.resize_with(runs.len(), || None);
        let mut first_error = Ok(());
        let mut reading = FuturesUnordered::new();
        let mut rest = buf;
        let mut runs = runs.into_iter().enumerate();
        loop {
            while reading.len() < PARALLEL_READS
                && let Some((number, run)) = runs.next()
            {
                let piece = rest.split_to(run.len.as_usize());
                reading.push(async move { (number, self.read_run(run, piece).await) });
            }
            match reading.next().await {
                None => break,
                Some((number, Ok(piece))) => {
                    if let Some(place) = done.get_mut(number) {
                        *place = Some(piece);
                    }
                }
                Some((_, Err(error))) => first_error = first_error.and(Err(error)),
            }
        }
        first_error?;
        Ok(done.into_iter().flatten().reduce(rejoin).unwrap_or(rest))
    }

    async fn read_run(&self, run: Run, mut buf: IoBufMut) -> Result<IoBufMut> {
        match run.place {
            Place::Data { host, .. } => {
                self.file.event(Event::ReadAio).await;
                self.read_data(run.guest, host, buf).await
            }
            Place::Compressed(data) => self.read_compressed(data, run.guest, buf).await,
            Place::Unallocated { .. } | Place::Zero { .. } => match &self.backing {
                // Beyond its end a backing file reads as zeroes.
                Some(backing) if !matches!(run.place, Place::Zero { .. }) => {
                    self.file.event(Event::ReadBackingAio).await;
                    backing.read(run.guest, buf).await
                }
                _ => {
                    buf.fill(0);
                    Ok(buf)
                }
            },
        }
    }

    /// Reads part of a compressed cluster, beginning at guest offset `guest`.
    async fn read_compressed(
        &self,
        data: Compressed,
        guest: u64,
        mut buf: IoBufMut,
    ) -> Result<IoBufMut> {
        let size = self.geometry().cluster_size().as_usize();
        if buf.len() == size {
            if let Some(cluster) = self.decompressed.get(data.offset) {
                buf.copy_from_slice(&cluster);
                return Ok(buf);
            }
            return self.decompress(data, guest, buf).await;
        }
        let entry = self.decompressed.entry(data.offset, size);
        let cluster: Result<&IoBuf> = entry
            .get_or_try_init(|| async {
                let cluster = self.decompress(data, guest, IoBufMut::new(size)).await?;
                Ok(cluster.freeze())
            })
            .await;
        let start = self.geometry().in_cluster(guest).as_usize();
        let part = cluster?.slice(start..start + buf.len());
        buf.copy_from_slice(&part);
        Ok(buf)
    }

    /// Decompresses a cluster into `buf`, which has its size.
    async fn decompress(&self, data: Compressed, guest: u64, buf: IoBufMut) -> Result<IoBufMut> {
        let _slot = decompression_slot().await;
        self.file.event(Event::ReadCompressed).await;
        let stored = self.file.read(data.offset, IoBufMut::new(data.len.as_usize())).await?;
        decompress(self.compression, stored, buf).await.ok_or_else(|| {
            let detail =
                format!("the compressed cluster for guest offset {guest:#x} is unreadable");
            Error::corrupt(self.label.clone(), detail)
        })
    }
}
