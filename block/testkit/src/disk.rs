//! The content of a disk: a sparse array of pages that copies of the disk share.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use cairn_block::buf::is_zero;
use cairn_block::num::AsUsize;

/// Bytes of a page.
const PAGE: u64 = 4096;

type Page = [u8; 4096];

const NO_DATA: Page = [0; 4096];

/// A disk's content. A clone shares all pages until one of the two is written to.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    size: u64,
    /// Pages by number; one that is absent reads as zeroes.
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Disk {
    /// A disk of `size` zero bytes.
    pub fn new(size: u64) -> Disk {
        Disk { size, pages: BTreeMap::new() }
    }

    /// The content of a file; pages of zeroes become holes.
    pub fn load(path: &Path) -> io::Result<Disk> {
        let mut file = File::open(path)?;
        let mut disk = Disk::new(file.metadata()?.len());
        let mut offset = 0;
        let mut bytes = vec![0; 1 << 20];
        loop {
            let n = file.read(&mut bytes)?;
            if n == 0 {
                return Ok(disk);
            }
            for (at, piece) in pages(offset, n as u64) {
                let bytes = &bytes[(at - offset).as_usize()..][..piece.as_usize()];
                if !is_zero(bytes) {
                    disk.write(at, bytes);
                }
            }
            offset += n as u64;
        }
    }

    /// Writes the content to a new sparse file.
    pub fn store(&self, path: &Path) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.set_len(self.size)?;
        for (number, page) in &self.pages {
            let offset = number * PAGE;
            let len = PAGE.min(self.size - offset).as_usize();
            file.write_all_at(&page[..len], offset)?;
        }
        file.flush()
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `bytes` from `offset` on; what is beyond the end is zero.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        for (at, len) in pages(offset, bytes.len() as u64) {
            let target = &mut bytes[(at - offset).as_usize()..][..len.as_usize()];
            match self.pages.get(&(at / PAGE)) {
                Some(page) => {
                    target.copy_from_slice(&page[(at % PAGE).as_usize()..][..len.as_usize()]);
                }
                None => target.fill(0),
            }
        }
    }

    /// Puts `bytes` at `offset`; grows if needed.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (at, len) in pages(offset, bytes.len() as u64) {
            let source = &bytes[(at - offset).as_usize()..][..len.as_usize()];
            let page = self.pages.entry(at / PAGE).or_insert_with(|| Arc::new(NO_DATA));
            Arc::make_mut(page)[(at % PAGE).as_usize()..][..len.as_usize()].copy_from_slice(source);
        }
        self.size = self.size.max(offset + bytes.len() as u64);
    }

    /// Zeroes a range without growing.
    pub fn punch(&mut self, offset: u64, len: u64) {
        let end = (offset + len).min(self.size);
        for (at, len) in pages(offset, end.saturating_sub(offset)) {
            if len == PAGE || (at.is_multiple_of(PAGE) && at + len == self.size) {
                self.pages.remove(&(at / PAGE));
            } else if let Some(page) = self.pages.get_mut(&(at / PAGE)) {
                Arc::make_mut(page)[(at % PAGE).as_usize()..][..len.as_usize()].fill(0);
            }
        }
    }

    /// Changes the size. What is cut off does not come back.
    pub fn resize(&mut self, size: u64) {
        if size < self.size {
            let tail = (size.next_multiple_of(PAGE)).min(self.size);
            self.punch(size, tail - size);
            self.pages.split_off(&size.div_ceil(PAGE));
        }
        self.size = size;
    }

    /// Length of the run at `offset` that has, or has not, pages, and which of the two it is.
    pub fn run(&self, offset: u64) -> (u64, bool) {
        let first = offset / PAGE;
        let stored = self.pages.contains_key(&first);
        let end = if stored {
            let mut next = first;
            let run = self.pages.range(first..).take_while(|(number, _)| {
                next += 1;
                **number + 1 == next
            });
            (first + run.count() as u64) * PAGE
        } else {
            self.pages.range(first..).next().map_or(self.size, |(number, _)| number * PAGE)
        };
        (end.min(self.size).saturating_sub(offset), stored)
    }

    /// Bytes of storage in use.
    pub fn allocated(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    /// Offset of the first byte that differs from `other`, or that only one of them has.
    pub fn difference(&self, other: &Disk) -> Option<u64> {
        let numbers = self.pages.keys().chain(other.pages.keys());
        let first = numbers
            .filter_map(|number| {
                let (mut ours, mut theirs) = (NO_DATA, NO_DATA);
                self.read(number * PAGE, &mut ours);
                other.read(number * PAGE, &mut theirs);
                let at = ours.iter().zip(&theirs).position(|(a, b)| a != b)?;
                Some(number * PAGE + at as u64)
            })
            .min();
        first.or((self.size != other.size).then_some(self.size.min(other.size)))
    }
}

/// Cuts a range at the page borders: the offset and length of each piece.
fn pages(offset: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let start = at;
        at = end.min((at / PAGE + 1) * PAGE);
        Some((start, at - start))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_do_not_see_each_other() {
        let mut disk = Disk::new(0);
        disk.write(4000, &[7; 200]);
        let before = disk.clone();
        disk.punch(4000, 50);
        disk.write(9000, &[8]);
        let mut bytes = [0; 100];
        before.read(4000, &mut bytes);
        assert_eq!((before.size(), bytes), (4200, [7; 100]));
        disk.read(4000, &mut bytes);
        assert_eq!((disk.size(), &bytes[..50], &bytes[50..]), (9001, &[0; 50][..], &[7; 50][..]));
        assert_eq!(before.difference(&disk), Some(4000));
        assert_eq!(disk.difference(&disk.clone()), None);
    }

    #[test]
    fn what_is_cut_off_does_not_come_back() {
        let mut disk = Disk::new(0);
        disk.write(0, &[1; 10_000]);
        disk.resize(5_000);
        disk.resize(10_000);
        let mut bytes = [9; 10_000];
        disk.read(0, &mut bytes);
        assert!(bytes[..5_000].iter().all(|&b| b == 1));
        assert!(is_zero(&bytes[5_000..]));
        assert_eq!(disk.run(0), (8_192, true));
        assert_eq!(disk.run(8_192), (1_808, false));
    }

    #[test]
    fn files_are_loaded_and_stored() {
        let dir = std::env::temp_dir().join(format!("cairn-testkit-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut disk = Disk::new(3_000_000);
        disk.write(1_048_000, &[3; 2_000]);
        disk.store(&dir.join("disk")).unwrap();
        let loaded = Disk::load(&dir.join("disk")).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(disk.difference(&loaded), None);
        assert!(loaded.allocated() <= 3 * PAGE);
    }
}
