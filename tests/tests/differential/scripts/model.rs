//! What an image must hold after the operations so far.

use std::collections::HashSet;
use std::ops::Range;

use super::config::{BACKING, Config};

/// Bytes of the disk that [`Model::tells_zeroes`] answers for as one: no file has larger clusters where
/// that matters.
const GRAIN: usize = 64 << 10;
/// Bytes that the tools compare as one, at least.
const SECTOR: usize = 512;

/// Bytes of everything that can be read.
pub(crate) struct Model {
    config: Config,
    /// The disk.
    pub(crate) disk: Vec<u8>,
    /// Snapshots by name, and what they hold.
    pub(crate) snapshots: Vec<(&'static str, Vec<u8>)>,
    /// Names of the bitmaps.
    pub(crate) bitmaps: HashSet<&'static str>,
    /// What the files of [`BACKING`] hold, if there are any.
    pub(crate) backing: Vec<Vec<u8>>,
    /// The one of them that is below the disk.
    below: Option<usize>,
    /// Clusters that may have been allocated at some time.
    touched: HashSet<u64>,
    /// Numbers of the [`GRAIN`]s whose zeroes one tool may keep as data and the other one without storage.
    loose_zeroes: HashSet<usize>,
    /// Version 2 of the format, which knows no clusters that read as zeroes.
    version_2: bool,
}

impl Model {
    /// A new image over the files with the content `backing`.
    pub(crate) fn new(config: Config, backing: Vec<Vec<u8>>) -> Self {
        let size = usize_of(config.size);
        let mut disk = backing.first().cloned().unwrap_or_default();
        disk.resize(size, 0);
        let below = config.chain.then_some(0);
        Model {
            config,
            disk,
            snapshots: Vec::new(),
            bitmaps: HashSet::new(),
            backing,
            below,
            touched: HashSet::new(),
            loose_zeroes: HashSet::new(),
            version_2: config.is_version_2(),
        }
    }

    /// Size of the disk in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.disk.len() as u64
    }

    /// Replaces bytes with those of `content`, again and again.
    pub(crate) fn write(&mut self, offset: u64, len: u64, content: &[u8]) {
        for part in self.range(offset, len).chunks_mut(content.len()) {
            part.copy_from_slice(&content[..part.len()]);
        }
    }

    /// Replaces bytes with `byte`.
    pub(crate) fn fill(&mut self, offset: u64, len: u64, byte: u8) {
        self.range(offset, len).fill(byte);
    }

    fn range(&mut self, offset: u64, len: u64) -> &mut [u8] {
        &mut self.disk[usize_of(offset)..][..usize_of(len)]
    }

    /// Gives a range back, which reads as zeroes then: all of a raw image's, whole clusters of others.
    pub(crate) fn discard(&mut self, offset: u64, len: u64) {
        let (mut start, mut end) = (offset, offset + len);
        if self.config.format != "raw" {
            // What is below would show.
            if self.version_2 && self.below.is_some() {
                return;
            }
            start = start.next_multiple_of(self.config.cluster);
            if end != self.size() {
                end = end / self.config.cluster * self.config.cluster;
            }
        }
        if start < end {
            self.fill(start, end - start, 0);
        }
    }

    /// Notes that a request goes to a range.
    pub(crate) fn touch(&mut self, offset: u64, len: u64) {
        let cluster = self.config.cluster;
        self.touched.extend(offset / cluster..(offset + len).div_ceil(cluster));
    }

    /// Whether stock can write the cluster at `offset` compressed, which it cannot where there is one.
    pub(crate) fn is_compressible(&self, offset: u64) -> bool {
        !self.touched.contains(&(offset / self.config.cluster))
    }

    /// Number of bytes from `offset` on, at most `len`, that equal the first one.
    pub(crate) fn run(&self, offset: u64, len: u64) -> (u8, u64) {
        let range = &self.disk[usize_of(offset)..][..usize_of(len)];
        let byte = range[0];
        (byte, range.iter().take_while(|other| **other == byte).count() as u64)
    }

    /// Remembers the disk as it is.
    pub(crate) fn create_snapshot(&mut self, name: &'static str) {
        self.snapshots.push((name, self.disk.clone()));
    }

    /// Goes back to the snapshot `name`.
    pub(crate) fn apply_snapshot(&mut self, name: &str) {
        let content = self.snapshots.iter().find(|(other, _)| *other == name);
        self.disk.clone_from(&content.expect("the snapshot that was applied").1);
    }

    /// Forgets the snapshot `name`.
    pub(crate) fn delete_snapshot(&mut self, name: &str) {
        self.snapshots.retain(|(other, _)| *other != name);
    }

    /// Changes the size; what is new is zero.
    pub(crate) fn resize(&mut self, size: u64) {
        self.disk.resize(usize_of(size), 0);
    }

    /// Changes the version of the format.
    pub(crate) fn amend(&mut self, options: &str) {
        match options {
            "compat=0.10" => {
                self.version_2 = true;
                // Where nothing shows through, ours drops clusters that are marked as zero, and stock
                // those that have no storage and no backing file, however short, below them.
                let shown = self.below.map_or(0, |below| self.backing[below].len());
                self.loosen(|sector| sector >= shown / SECTOR);
            }
            "compat=1.1" => self.version_2 = false,
            _ => {}
        }
    }

    /// Moves the content into the file below, which grows if need be.
    pub(crate) fn commit(&mut self) {
        // Stock works in units of 64 KiB, and stores zeroes as data in those that have data, too, or that
        // the disk ends in.
        self.loosen(|_| true);
        let below = &mut self.backing[self.below.expect("a file that was committed to")];
        if below.len() < self.disk.len() {
            below.resize(self.disk.len(), 0);
        }
        below[..self.disk.len()].copy_from_slice(&self.disk);
    }

    /// Puts `name` below the disk.
    pub(crate) fn rebase(&mut self, name: Option<&str>) {
        // What differs is copied.
        self.touch(0, self.size());
        self.below = name.and_then(|name| BACKING.iter().position(|other| *other == name));
        // Where zeroes of the old backing file hide data of the new one, stock stores them as data.
        let shown = self.below.map_or(Vec::new(), |below| self.backing[below].clone());
        let shown: Vec<bool> = shown.chunks(SECTOR).map(|sector| !is_zero(sector)).collect();
        self.loosen(|sector| shown.get(sector) == Some(&true));
    }

    /// From now on the tools need not agree on how zeroes are kept in those sectors that are `of_kind`.
    fn loosen(&mut self, of_kind: impl Fn(usize) -> bool) {
        let sectors = self.disk.chunks(SECTOR).enumerate();
        let zeroes = sectors.filter(|(sector, content)| of_kind(*sector) && is_zero(content));
        self.loose_zeroes.extend(zeroes.map(|(sector, _)| sector * SECTOR / GRAIN));
    }

    /// Whether a map of the image must tell zeroes in `range` from data. It need not after commands in
    /// which stock turns some zeroes into data that ours keeps without storage, in less time and space,
    /// nor beside a raw data file, which has all zeroes whether clusters are marked or not.
    pub(crate) fn tells_zeroes(&self, range: Range<u64>) -> bool {
        let range = usize_of(range.start)..usize_of(range.end);
        let mut grains = range.start / GRAIN..range.end.div_ceil(GRAIN);
        let is_loose = self.config.data_file || grains.all(|g| self.loose_zeroes.contains(&g));
        !is_loose || !is_zero(&self.disk[range])
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// A length in memory.
pub(crate) fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).expect("the disk fits in memory")
}
