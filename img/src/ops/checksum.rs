//! `checksum`: a digest of what an image shows, whatever its format and allocation.
//!
//! The content, its length rounded up to whole sectors, is cut into blocks of [`BLOCK`] bytes, the last
//! of which may be short. The digests of the blocks are the leaves of a tree: up to [`FANOUT`] digests
//! in a row, one behind the other, are hashed to a digest of the next level, until one is left. That
//! one and the length (8 bytes, little endian) are hashed once more.
//!
//! So blocks are read and hashed on all processors, and ranges of zeroes cost next to nothing: the
//! digests of zero blocks, and of trees of them, are computed once.

use std::fmt::Write as _;
use std::sync::Arc;

use cairn_block::IoBufMut;
use cairn_block::driver::Status;
use cairn_block::engine::{EngineConfig, IoThread};
use cairn_block::graph::Backend;
use cairn_block::num::AsUsize as _;
use futures_util::{FutureExt as _, TryStreamExt, stream};
use sha2::{Digest as _, Sha256, Sha512};

use super::convert::Notice;
use crate::error::{Error, Result};

/// Bytes of a block.
pub const BLOCK: u64 = 1 << 20;
/// Digests that one digest of the next level stands for.
const FANOUT: u64 = 1024;
/// Sizes of images are counted in sectors of this many bytes, as conversions do.
const SECTOR: u64 = 512;
/// Bytes read at a time within a block, so that they are hashed while they are in the processor's
/// cache.
const READ: usize = 256 << 10;
/// Threads at most.
const MAX_THREADS: usize = 8;
/// Blocks in flight for each thread.
const PER_THREAD: usize = 2;
/// Images below this size in bytes are hashed by one thread.
const SMALL: u64 = 16 << 20;

cairn_block::option_words! {
    /// A hash function.
    pub enum Algorithm {
        /// BLAKE3.
        Blake3 = "blake3",
        /// SHA-256 (FIPS 180-4).
        Sha256 = "sha256",
        /// SHA-512 (FIPS 180-4).
        Sha512 = "sha512",
    }
}

/// A hash under way.
enum Hasher {
    Blake3(Box<blake3::Hasher>),
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Blake3 => Hasher::Blake3(Box::default()),
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Blake3(hasher) => {
                hasher.update(bytes);
            }
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Hasher::Blake3(hasher) => hasher.finalize().as_bytes().to_vec(),
            Hasher::Sha256(hasher) => hasher.finalize().to_vec(),
            Hasher::Sha512(hasher) => hasher.finalize().to_vec(),
        }
    }
}

fn hash(algorithm: Algorithm, bytes: &[u8]) -> Vec<u8> {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

/// The tree above the digests of blocks, as far as it is known.
struct Tree {
    algorithm: Algorithm,
    levels: Vec<Level>,
    /// Digest of a subtree of each level with nothing but zero blocks; the first is that of a block.
    zero: Vec<Vec<u8>>,
}

/// Digests of a level that are not part of a digest of the next level yet.
#[derive(Default)]
struct Level {
    digests: Vec<u8>,
    count: u64,
}

impl Tree {
    fn new(algorithm: Algorithm) -> Tree {
        let zeroes = vec![0; BLOCK.as_usize()];
        Tree { algorithm, levels: Vec::new(), zero: vec![hash(algorithm, &zeroes)] }
    }

    /// Adds the digest of the next block.
    fn push(&mut self, digest: &[u8]) {
        self.push_at(0, digest);
    }

    fn push_at(&mut self, level: usize, digest: &[u8]) {
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Level::default);
        }
        let Some(here) = self.levels.get_mut(level) else { return };
        here.digests.extend_from_slice(digest);
        here.count += 1;
        if here.count == FANOUT {
            let full = std::mem::take(here);
            let digest = hash(self.algorithm, &full.digests);
            self.push_at(level + 1, &digest);
        }
    }

    /// Adds `blocks` blocks of zeroes.
    fn push_zeroes(&mut self, blocks: u64) {
        self.push_zeroes_at(0, blocks);
    }

    fn push_zeroes_at(&mut self, level: usize, mut count: u64) {
        let digest = self.zero_digest(level);
        while count > 0 && (count < FANOUT || self.levels.get(level).is_some_and(|l| l.count > 0)) {
            self.push_at(level, &digest);
            count -= 1;
        }
        if count > 0 {
            // Nothing waits here: whole subtrees can be added one level up.
            self.push_zeroes_at(level + 1, count / FANOUT);
            self.push_zeroes_at(level, count % FANOUT);
        }
    }

    fn zero_digest(&mut self, level: usize) -> Vec<u8> {
        while self.zero.len() <= level {
            let below = self.zero.last().cloned().unwrap_or_default();
            let digest = hash(self.algorithm, &below.repeat(FANOUT.as_usize()));
            self.zero.push(digest);
        }
        self.zero.get(level).cloned().unwrap_or_default()
    }

    /// The digest of content of `size` bytes, all blocks of which were added.
    fn finish(mut self, size: u64) -> Vec<u8> {
        let mut level = 0;
        let mut top = Vec::new();
        while level < self.levels.len() {
            let is_last = level + 1 == self.levels.len();
            let Some(here) = self.levels.get_mut(level).map(std::mem::take) else { break };
            match here.count {
                0 => {}
                1 if is_last => top = here.digests,
                _ => {
                    let digest = hash(self.algorithm, &here.digests);
                    self.push_at(level + 1, &digest);
                }
            }
            level += 1;
        }
        top.extend_from_slice(&size.to_le_bytes());
        hash(self.algorithm, &top)
    }
}

/// A digest, and what it is one of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// The hash function.
    pub algorithm: Algorithm,
    /// The digest is one of the whole content, not of a tree.
    pub whole: bool,
    /// Bytes of content.
    pub size: u64,
    /// The digest.
    pub digest: Vec<u8>,
}

impl Checksum {
    /// The digest in hexadecimal digits.
    pub fn hex(&self) -> String {
        self.digest.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// A part of an image.
enum Part {
    /// So many blocks of zeroes.
    Zeroes(u64),
    /// One block, from this byte to that.
    Block(u64, u64),
}

/// The digest of the tree described above.
pub async fn tree_checksum(
    image: &Arc<Backend>,
    algorithm: Algorithm,
    notice: &dyn Notice,
) -> Result<Checksum> {
    let size = image.size().next_multiple_of(SECTOR);
    notice.total(size);
    let wanted = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let wanted = if size < SMALL { 1 } else { wanted };
    // More threads are a gain, not a need.
    let helpers: Vec<IoThread> = (1..wanted)
        .filter_map(|_| IoThread::spawn("checksum", EngineConfig::default()).ok())
        .collect();
    let mut tree = Tree::new(algorithm);
    let hashed = add_blocks(image, &mut tree, size, &helpers, notice).await;
    helpers.into_iter().for_each(IoThread::join);
    hashed?;
    Ok(Checksum { algorithm, whole: false, size, digest: tree.finish(size) })
}

async fn add_blocks(
    image: &Arc<Backend>,
    tree: &mut Tree,
    size: u64,
    helpers: &[IoThread],
    notice: &dyn Notice,
) -> Result<()> {
    let algorithm = tree.algorithm;
    let parts = stream::try_unfold(0, |at| async move {
        if at >= size {
            return Ok(None);
        }
        let part = next_part(image, at, size).await?;
        let end = match part {
            Part::Zeroes(blocks) => at + blocks * BLOCK,
            Part::Block(_, end) => end,
        };
        Ok::<_, Error>(Some((part, end)))
    });
    let hashed = parts.map_ok(|part| match part {
        Part::Zeroes(blocks) => async move { Ok((blocks, Vec::new())) }.boxed_local(),
        Part::Block(start, end) => {
            let image = Arc::clone(image);
            let turn = (start / BLOCK).as_usize() % (helpers.len() + 1);
            let work = move || async move { block_digest(&image, algorithm, start, end).await };
            let digest = match turn.checked_sub(1).and_then(|index| helpers.get(index)) {
                None => work().boxed_local(),
                Some(helper) => helper.run(work).boxed_local(),
            };
            async move { Ok((end - start, digest.await?)) }.boxed_local()
        }
    });
    let mut hashed = std::pin::pin!(hashed.try_buffered(PER_THREAD * (helpers.len() + 1)));
    while let Some((amount, digest)) = hashed.try_next().await? {
        if digest.is_empty() {
            tree.push_zeroes(amount);
            notice.copied(amount * BLOCK);
        } else {
            tree.push(&digest);
            notice.copied(amount);
        }
    }
    Ok(())
}

/// The next block, or the blocks in a row that are known to be zero.
async fn next_part(image: &Backend, at: u64, size: u64) -> Result<Part> {
    let present = image.size();
    let mut zero_to = at;
    while zero_to < present {
        let found = image.content_above(None, zero_to, present - zero_to).await?.extent;
        if !found.status.contains(Status::ZERO) {
            break;
        }
        zero_to += found.len;
    }
    match (zero_to - at) / BLOCK {
        0 => Ok(Part::Block(at, size.min(at + BLOCK))),
        blocks => Ok(Part::Zeroes(blocks)),
    }
}

async fn block_digest(
    image: &Backend,
    algorithm: Algorithm,
    start: u64,
    end: u64,
) -> Result<Vec<u8>> {
    let mut hasher = Hasher::new(algorithm);
    read_through(image, start, end, |bytes| hasher.update(bytes)).await?;
    Ok(hasher.finish())
}

/// Reads a range and hands it on in order; behind the end of the image it is zero.
async fn read_through(
    image: &Backend,
    start: u64,
    end: u64,
    mut each: impl FnMut(&[u8]),
) -> Result<()> {
    let mut buf = IoBufMut::new(READ);
    let mut at = start;
    let present = end.min(image.size());
    while at < present {
        let len = READ.min((present - at).as_usize());
        if buf.len() != len {
            buf = IoBufMut::new(len);
        }
        buf = image.read(at, buf).await?;
        each(&buf);
        at += len as u64;
    }
    if at < end {
        each(&vec![0; (end - at).as_usize()]);
    }
    Ok(())
}

/// The digest of the whole content as it is, which other tools compute of a raw image.
pub async fn whole_checksum(
    image: &Backend,
    algorithm: Algorithm,
    notice: &dyn Notice,
) -> Result<Checksum> {
    let size = image.size();
    notice.total(size);
    let mut hasher = Hasher::new(algorithm);
    let mut at = 0;
    while at < size {
        let end = size.min(at + BLOCK);
        read_through(image, at, end, |bytes| hasher.update(bytes)).await?;
        notice.copied(end - at);
        at = end;
    }
    Ok(Checksum { algorithm, whole: true, size, digest: hasher.finish() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, without any of the short cuts.
    fn plain(blocks: &[Vec<u8>], size: u64) -> Vec<u8> {
        let mut digests: Vec<Vec<u8>> =
            blocks.iter().map(|block| hash(Algorithm::Sha256, block)).collect();
        while digests.len() > 1 {
            digests = digests
                .chunks(FANOUT.as_usize())
                .map(|row| hash(Algorithm::Sha256, &row.concat()))
                .collect();
        }
        let mut top = digests.concat();
        top.extend(size.to_le_bytes());
        hash(Algorithm::Sha256, &top)
    }

    fn tree(runs: &[(u64, bool)]) -> Vec<u8> {
        let mut tree = Tree::new(Algorithm::Sha256);
        for &(blocks, zero) in runs {
            if zero {
                tree.push_zeroes(blocks);
            } else {
                (0..blocks).for_each(|_| tree.push(&hash(Algorithm::Sha256, b"data")));
            }
        }
        tree.finish(7)
    }

    #[test]
    fn short_cuts_for_zeroes_change_nothing() {
        let zero = vec![0; BLOCK.as_usize()];
        for runs in [
            &[][..],
            &[(1, false)],
            &[(1, true)],
            &[(1, false), (1, true)],
            &[(3, false), (20, true), (1, false)],
        ] {
            let blocks: Vec<Vec<u8>> = runs
                .iter()
                .flat_map(|&(count, is_zero)| {
                    let block = if is_zero { zero.clone() } else { b"data".to_vec() };
                    std::iter::repeat_n(block, count.as_usize())
                })
                .collect();
            assert_eq!(tree(runs), plain(&blocks, 7), "{runs:?}");
        }
    }

    #[test]
    fn zeroes_may_come_in_any_pieces() {
        let many = 3 * FANOUT + 5;
        let whole = tree(&[(2, false), (many, true), (1, false)]);
        for cut in [1, 7, FANOUT - 2, FANOUT, 2 * FANOUT + 1] {
            let cut = tree(&[(2, false), (cut, true), (many - cut, true), (1, false)]);
            assert_eq!(cut, whole);
        }
        let mut one_by_one = vec![(2, false)];
        one_by_one.extend(std::iter::repeat_n((1, true), many.as_usize()));
        one_by_one.push((1, false));
        assert_eq!(tree(&one_by_one), whole);
    }

    #[test]
    fn an_enormous_hole_takes_no_time() {
        assert_ne!(tree(&[(1 << 43, true)]), tree(&[((1 << 43) - 1, true)]));
    }
}
