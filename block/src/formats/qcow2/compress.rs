//! Compressing and decompressing clusters (qcow2 specification, "Compressed Clusters Descriptor").
//!
//! The work is done on the threads of [`engine::compute`], each with contexts of its own that it
//! uses again and again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};
use std::thread::available_parallelism;

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use libdeflater::Decompressor;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use zstd::stream::raw::{DParameter, Decoder, Operation};

use super::header::Compression;
use crate::buf::{IoBuf, IoBufMut};
use crate::engine;
use crate::num::AsUsize;

/// Base 2 logarithm of the window with which clusters are deflated: readers need no larger one.
const DEFLATE_WINDOW: u8 = 12;
/// Level of deflate. On clusters of programs and text, level 6 takes 1.5 times as long for 5 % less.
const DEFLATE_LEVEL: u32 = 2;
/// Level of Zstandard. Level 3 takes 1.4 times as long for 2 % less.
const ZSTD_LEVEL: i32 = 2;
/// Largest base 2 logarithm of a Zstandard window that is accepted. Clusters have at most 2 MiB, but
/// a frame may claim a window of gigabytes.
const MAX_ZSTD_WINDOW: u32 = 23;
/// Clusters that may always be decompressed at once: they keep fast storage busy, and the processors while
/// the thread that hands out work is in a long write.
const MIN_DECOMPRESSIONS: usize = 64;
/// Bytes of decompressed clusters that an image keeps.
const CACHE_BYTES: usize = 4 << 20;
/// Clusters that an image keeps, if they are small.
const CACHE_CLUSTERS: usize = 16;

/// Compression state of a thread.
#[derive(Default)]
struct Contexts {
    deflate: Option<Compress>,
    inflate: Option<Decompressor>,
    zstd_compress: Option<zstd::bulk::Compressor<'static>>,
    zstd_decompress: Option<Decoder<'static>>,
}

thread_local! {
    static CONTEXTS: RefCell<Contexts> = RefCell::default();
}

/// Bytes that hold whatever a cluster of `len` bytes becomes. zlib-rs 0.6.8 panics when a context is
/// used again after a stream that did not fit.
fn bound(len: usize) -> usize {
    len + len / 8 + 1024
}

/// Inflates a stream of which only the beginning matters: it goes on behind the cluster, or does not
/// end. Nobody writes such streams on purpose, but they are read everywhere.
fn inflate_beginning(input: &[u8], output: &mut [u8]) -> bool {
    let mut inflate = Decompress::new(false);
    let result = inflate.decompress(input, output, FlushDecompress::Finish);
    result.is_ok() && inflate.total_out() == output.len() as u64
}

impl Contexts {
    /// Compressed length, or `None` if that is not smaller. `output` has at least [`bound`] bytes.
    fn compress(&mut self, method: Compression, input: &[u8], output: &mut [u8]) -> Option<usize> {
        match method {
            Compression::Deflate => {
                let level = flate2::Compression::new(DEFLATE_LEVEL);
                let deflate = self.deflate.get_or_insert_with(|| {
                    Compress::new_with_window_bits(level, false, DEFLATE_WINDOW)
                });
                deflate.reset();
                let status = deflate.compress(input, output, FlushCompress::Finish).ok()?;
                if status != Status::StreamEnd {
                    self.deflate = None;
                    return None;
                }
                Some(deflate.total_out().as_usize())
            }
            Compression::Zstd => {
                if self.zstd_compress.is_none() {
                    self.zstd_compress = zstd::bulk::Compressor::new(ZSTD_LEVEL).ok();
                }
                self.zstd_compress.as_mut()?.compress_to_buffer(input, output).ok()
            }
        }
        .filter(|&len| len < input.len())
    }

    /// Fills `output` with what `input` begins with; `false` if that is damaged or too short.
    fn decompress(&mut self, method: Compression, input: &[u8], output: &mut [u8]) -> bool {
        match method {
            Compression::Deflate => {
                let inflate = self.inflate.get_or_insert_default();
                let whole = inflate.deflate_decompress(input, output);
                whole.is_ok_and(|len| len == output.len()) || inflate_beginning(input, output)
            }
            Compression::Zstd => self.decompress_zstd(input, output).is_some(),
        }
    }

    fn decompress_zstd(&mut self, mut input: &[u8], mut output: &mut [u8]) -> Option<()> {
        if self.zstd_decompress.is_none() {
            let mut decoder = Decoder::new().ok()?;
            decoder.set_parameter(DParameter::WindowLogMax(MAX_ZSTD_WINDOW)).ok()?;
            self.zstd_decompress = Some(decoder);
        }
        let decoder = self.zstd_decompress.as_mut()?;
        decoder.reinit().ok()?;
        while !output.is_empty() {
            let status = decoder.run_on_buffers(input, output).ok()?;
            if status.bytes_read == 0 && status.bytes_written == 0 {
                return None;
            }
            input = input.get(status.bytes_read..)?;
            output = output.get_mut(status.bytes_written..)?;
            if status.remaining == 0 && !output.is_empty() {
                return None;
            }
        }
        Some(())
    }
}

/// Clusters that the process reads and decompresses at once: enough to keep the storage and every
/// processor busy, few enough that the compressed data of long requests does not pile up in memory.
static DECOMPRESSIONS: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = available_parallelism().map_or(1, Into::into);
    Semaphore::new((2 * processors).max(MIN_DECOMPRESSIONS))
});

/// Waits until a compressed cluster may be read; it may be held until the result is dropped.
pub(super) async fn decompression_slot() -> Option<SemaphorePermit<'static>> {
    // The semaphore is never closed.
    DECOMPRESSIONS.acquire().await.ok()
}

/// Compresses a cluster. `None` if that does not make it smaller.
pub(super) async fn compress(method: Compression, cluster: IoBuf) -> Option<IoBuf> {
    let mut output = IoBufMut::new(bound(cluster.len()));
    // The input comes back, so that its memory is used again by the thread that reads.
    let (output, _cluster) = engine::compute(move || {
        let len = CONTEXTS.with_borrow_mut(|c| c.compress(method, &cluster, &mut output));
        (len.map(|len| (output, len)), cluster)
    })
    .await;
    let (mut output, len) = output?;
    output.truncate(len);
    Some(output.freeze())
}

/// Decompresses `input` into all of `output`; `None` if the data is damaged.
pub(super) async fn decompress(
    method: Compression,
    input: IoBufMut,
    mut output: IoBufMut,
) -> Option<IoBufMut> {
    // The input comes back, so that its memory is used again by the thread that reads.
    let (output, _input) = engine::compute(move || {
        let done = CONTEXTS.with_borrow_mut(|c| c.decompress(method, &input, &mut output));
        (done.then_some(output), input)
    })
    .await;
    output
}

type CachedCluster = Arc<OnceCell<IoBuf>>;

/// The clusters that were decompressed last, by host offset of the compressed data, so that small
/// reads do not decompress a cluster again and again.
#[derive(Default)]
pub(crate) struct ClusterCache(Mutex<VecDeque<(u64, CachedCluster)>>);

impl ClusterCache {
    /// The place for the cluster of `size` bytes stored at `offset`, which the caller fills if it is
    /// empty.
    pub(super) fn entry(&self, offset: u64, size: usize) -> CachedCluster {
        let mut clusters = self.0.lock();
        if let Some((_, cluster)) = clusters.iter().find(|(o, _)| *o == offset) {
            return Arc::clone(cluster);
        }
        clusters.truncate((CACHE_BYTES / size).clamp(2, CACHE_CLUSTERS) - 1);
        let cluster = CachedCluster::default();
        clusters.push_front((offset, Arc::clone(&cluster)));
        cluster
    }

    /// The cluster stored at `offset`, if it is there.
    pub(super) fn get(&self, offset: u64) -> Option<IoBuf> {
        let clusters = self.0.lock();
        clusters.iter().find(|(o, _)| *o == offset).and_then(|(_, c)| c.get().cloned())
    }

    /// Drops what was stored in the `len` bytes at `offset`.
    pub(super) fn forget(&self, offset: u64, len: u64) {
        self.0.lock().retain(|(o, _)| !(offset..offset + len).contains(o));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|i| b"a qcow2 cluster "[(i / 100 + i % 13) % 16]).collect()
    }

    #[test]
    fn both_methods_restore_what_they_compressed() {
        let mut contexts = Contexts::default();
        let mut noise = 1u32;
        for method in [Compression::Deflate, Compression::Zstd] {
            for len in [512, 65_536, 2 << 20] {
                let input = text(len);
                let mut output = vec![0; bound(len)];
                let size = contexts.compress(method, &input, &mut output).expect("shrinks");
                // Sectors are read whole, so something else follows.
                let mut stored = output[..size].to_vec();
                stored.extend([0xa5; 300]);
                let mut restored = vec![0; len];
                assert!(contexts.decompress(method, &stored, &mut restored));
                assert_eq!(restored, input);
                assert!(!contexts.decompress(method, &stored[..size / 2], &mut restored));
            }
            let input: Vec<u8> = std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .take(4096)
            .collect();
            assert_eq!(contexts.compress(method, &input, &mut vec![0; bound(4096)]), None);
            assert!(!contexts.decompress(method, &input, &mut vec![0; 65_536]));
        }
    }

    #[test]
    fn a_deflated_stream_may_go_on_behind_the_cluster() {
        let mut contexts = Contexts::default();
        let input = text(65_536);
        let mut output = vec![0; bound(input.len())];
        let size = contexts.compress(Compression::Deflate, &input, &mut output).expect("shrinks");
        let mut beginning = vec![0; 4096];
        assert!(contexts.decompress(Compression::Deflate, &output[..size], &mut beginning));
        assert_eq!(beginning, input[..4096]);
    }

    #[test]
    fn small_clusters_of_noise_are_refused() {
        let mut contexts = Contexts::default();
        let mut noise = 1u64;
        for method in [Compression::Deflate, Compression::Zstd] {
            for len in [512, 1024, 4096, 65_536] {
                for _ in 0..50 {
                    let input: Vec<u8> = std::iter::repeat_with(|| {
                        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        noise.to_be_bytes()[0]
                    })
                    .take(len)
                    .collect();
                    assert_eq!(contexts.compress(method, &input, &mut vec![0; bound(len)]), None);
                }
            }
        }
    }

    #[test]
    fn the_cache_keeps_the_newest_clusters() {
        let cache = ClusterCache::default();
        for n in 0..40u64 {
            let entry = cache.entry(n << 16, 65_536);
            entry.set(IoBuf::zeroed(1)).expect("new");
        }
        assert!(cache.get(39 << 16).is_some());
        assert!(cache.get(0).is_none());
        cache.forget(39 << 16, 65_536);
        assert!(cache.get(39 << 16).is_none());
    }
}
