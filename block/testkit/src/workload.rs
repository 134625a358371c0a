//! Seeded sequences of requests.

use std::fmt;

use cairn_block::num::AsUsize;

use crate::Rng;

/// One request, or a set of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes the content `Value::Tag(tag)`.
    Write {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
        /// What to write.
        tag: u32,
        /// Durable on completion. Given only when nothing else is in the cache.
        fua: bool,
    },
    /// Writes one compressed cluster with the content `Value::Tag(tag)`.
    Compressed {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
        /// What to write.
        tag: u32,
    },
    /// Writes zeroes.
    Zero {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
        /// Storage may be given back.
        unmap: bool,
    },
    /// Gives storage back.
    Discard {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// Data requests that are all under way at once.
    Parallel(Vec<Op>),
    /// Makes all of it durable.
    Flush,
    /// Changes the size.
    Resize(u64),
    /// Closes the image, which makes all of it durable, and opens it again.
    Reopen,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:x?}")
    }
}

/// What kind of workload to make. Sizes are in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// Size of the disk at first.
    pub size: u64,
    /// Cluster size of the format under test.
    pub cluster: u64,
    /// Offsets and lengths are multiples of this, a power of two.
    pub align: u64,
    /// Longest request, in clusters.
    pub max_clusters: u64,
    /// Number of operations.
    pub ops: usize,
    /// Compressed writes (to clusters not written before) in percent of the data requests.
    pub compressed: u64,
    /// Zero writes in percent of the data requests.
    pub zeroes: u64,
    /// Discards in percent of the data requests.
    pub discards: u64,
    /// Changes of the size in percent of the operations; the largest size is twice the first.
    pub resizes: u64,
}

impl Profile {
    /// Writes, zero writes and discards of up to two and a half clusters.
    pub fn new(size: u64, cluster: u64, ops: usize) -> Profile {
        Profile {
            size,
            cluster,
            align: SMALLEST_ALIGN,
            max_clusters: 3,
            ops,
            compressed: 0,
            zeroes: 15,
            discards: 15,
            resizes: 0,
        }
    }
}

/// Alignment of requests unless a profile says otherwise.
const SMALLEST_ALIGN: u64 = 512;

/// A seeded sequence of requests.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The requests, in order.
    pub ops: Vec<Op>,
}

impl Workload {
    /// The workload that `seed` and `profile` determine.
    pub fn generate(seed: u64, profile: &Profile) -> Workload {
        let clusters = (2 * profile.size).div_ceil(profile.cluster);
        let mut maker = Maker {
            rng: Rng::new(seed),
            profile: *profile,
            size: profile.size,
            tag: 0,
            untouched: vec![true; clusters.as_usize()],
        };
        let mut ops = Vec::with_capacity(profile.ops);
        while ops.len() < profile.ops {
            match maker.rng.below(100) {
                0..5 => ops.push(Op::Reopen),
                5..20 => {
                    ops.push(Op::Flush);
                    if maker.rng.chance(25) {
                        ops.push(maker.write(true));
                    }
                }
                20..40 => {
                    let count = maker.rng.between(2, 4);
                    ops.push(Op::Parallel((0..count).map(|_| maker.data()).collect()));
                }
                choice if choice < 40 + profile.resizes => ops.push(maker.resize()),
                _ => ops.push(maker.data()),
            }
        }
        Workload { ops }
    }
}

struct Maker {
    rng: Rng,
    profile: Profile,
    size: u64,
    tag: u32,
    /// For each cluster up to twice the first size, whether no request was made to it.
    untouched: Vec<bool>,
}

impl Maker {
    fn next_tag(&mut self) -> u32 {
        self.tag += 1;
        self.tag
    }

    fn clusters_of(&self, offset: u64, len: u64) -> std::ops::Range<usize> {
        let cluster = self.profile.cluster;
        (offset / cluster).as_usize()..(offset + len).div_ceil(cluster).as_usize()
    }

    /// A range inside the disk; often whole clusters, often the edge of one.
    fn range(&mut self) -> (u64, u64) {
        let Profile { cluster, align, max_clusters, .. } = self.profile;
        let cluster_start = self.rng.below(self.size.div_ceil(cluster)) * cluster;
        let (offset, len) = match self.rng.below(3) {
            0 => (cluster_start, self.rng.between(1, max_clusters) * cluster),
            1 => (cluster_start, self.rng.between(1, cluster.div_ceil(align)) * align),
            _ => {
                let skip = self.rng.below((cluster / align).max(1)) * align;
                let longest = (max_clusters * cluster / align).max(1);
                (cluster_start + skip, self.rng.between(1, longest) * align)
            }
        };
        let offset = offset.min((self.size - 1) / align * align);
        let len = len.min(self.size - offset);
        let touched = self.clusters_of(offset, len);
        for cluster in self.untouched.get_mut(touched).into_iter().flatten() {
            *cluster = false;
        }
        (offset, len)
    }

    fn data(&mut self) -> Op {
        let choice = self.rng.below(100);
        let Profile { compressed, zeroes, discards, .. } = self.profile;
        if choice < compressed {
            return self.compressed().unwrap_or(Op::Flush);
        }
        if choice < compressed + zeroes {
            let (offset, len) = self.range();
            return Op::Zero { offset, len, unmap: self.rng.chance(50) };
        }
        if choice < compressed + zeroes + discards {
            let (offset, len) = self.range();
            return Op::Discard { offset, len };
        }
        self.write(false)
    }

    fn write(&mut self, fua: bool) -> Op {
        let (offset, len) = self.range();
        Op::Write { offset, len, tag: self.next_tag(), fua }
    }

    /// A compressed write to a cluster that no request was made to, if there is one.
    fn compressed(&mut self) -> Option<Op> {
        let cluster = self.profile.cluster;
        let inside = (self.size / cluster).as_usize();
        let free: Vec<_> = (0..inside).filter(|&at| self.untouched[at]).collect();
        let at = *free.get(self.rng.below(free.len().max(1) as u64).as_usize())?;
        self.untouched[at] = false;
        Some(Op::Compressed { offset: at as u64 * cluster, len: cluster, tag: self.next_tag() })
    }

    fn resize(&mut self) -> Op {
        let Profile { size, align, .. } = self.profile;
        let unit = align.max(SMALLEST_ALIGN);
        self.size = self.rng.between((size / 2 / unit).max(1), 2 * size / unit) * unit;
        Op::Resize(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_stay_inside_the_disk() {
        let profile = Profile { resizes: 10, compressed: 20, ..Profile::new(1 << 20, 65_536, 400) };
        let mut size = profile.size;
        let mut flat = Vec::new();
        for op in Workload::generate(3, &profile).ops {
            match op {
                Op::Parallel(ops) => flat.extend(ops),
                op => flat.push(op),
            }
        }
        for op in flat {
            match op {
                Op::Write { offset, len, .. }
                | Op::Compressed { offset, len, .. }
                | Op::Zero { offset, len, .. }
                | Op::Discard { offset, len } => {
                    assert!(len > 0 && offset + len <= size, "{op} beyond {size:#x}");
                }
                Op::Resize(new) => size = new,
                Op::Flush | Op::Reopen => {}
                Op::Parallel(_) => panic!("nested {op}"),
            }
        }
    }
}
