//! Reads the persistent bitmaps of a qcow2 file.
//!
//! Follows the format's published description ("The QCOW2 image format", Bitmaps) and shares nothing
//! with the driver under test. Meant for small images that a tool has just written: a file that breaks
//! the format ends the test.

use crate::qcow2::field;

/// Header extension that leads to the bitmap directory.
const EXTENSION: u32 = 0x2385_2875;
/// Directory entries: the bitmap was not stored by its last user.
const IN_USE: u32 = 1;
/// Directory entries: the bitmap records writes.
const AUTO: u32 = 2;
/// Bits of a bitmap table's entry that hold the offset of a cluster.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// One bitmap, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bitmap {
    /// Its name.
    pub name: String,
    /// Bytes of the disk that one bit stands for.
    pub granularity: u64,
    /// Whether it records writes.
    pub enabled: bool,
    /// Whether it was left in use, so that its bits say nothing.
    pub inconsistent: bool,
    /// Ranges of the disk whose bits are set, in bytes: start and end.
    pub dirty: Vec<(u64, u64)>,
}

/// All bitmaps of the qcow2 file `image`, sorted by name.
pub fn bitmaps(image: &[u8]) -> Vec<Bitmap> {
    let Some(extension) = find_extension(image) else { return Vec::new() };
    let count = field::<u32>(image, extension);
    let mut at = offset(field::<u64>(image, extension + 16));
    let mut found = Vec::new();
    for _ in 0..count {
        let (bitmap, len) = entry(image, at);
        found.push(bitmap);
        at += len;
    }
    found.sort();
    found
}

/// Where the data of the bitmaps extension is.
fn find_extension(image: &[u8]) -> Option<usize> {
    if field::<u32>(image, 4) < 3 {
        return None;
    }
    let mut at = offset(field::<u32>(image, 100).into());
    loop {
        let len = offset(field::<u32>(image, at + 4).into());
        match field::<u32>(image, at) {
            0 => return None,
            EXTENSION => return Some(at + 8),
            _ => at += 8 + len.next_multiple_of(8),
        }
    }
}

/// The bitmap of the directory entry at `at`, and the length of the entry.
fn entry(image: &[u8], at: usize) -> (Bitmap, usize) {
    let table = offset(field::<u64>(image, at));
    let clusters = offset(field::<u32>(image, at + 8).into());
    let flags = field::<u32>(image, at + 12);
    let granularity = 1_u64 << image[at + 17];
    let name_len = usize::from(field::<u16>(image, at + 18));
    let extra = offset(field::<u32>(image, at + 20).into());
    let name = &image[at + 24 + extra..][..name_len];
    let bitmap = Bitmap {
        name: String::from_utf8_lossy(name).into_owned(),
        granularity,
        enabled: flags & AUTO != 0,
        inconsistent: flags & IN_USE != 0,
        dirty: dirty(image, table, clusters, granularity),
    };
    (bitmap, (24 + extra + name_len).next_multiple_of(8))
}

/// The ranges whose bits are set; bits behind the end of the disk stand for nothing.
fn dirty(image: &[u8], table: usize, clusters: usize, granularity: u64) -> Vec<(u64, u64)> {
    let cluster = 1_usize << field::<u32>(image, 20);
    let size = field::<u64>(image, 24);
    let bits = offset(size.div_ceil(granularity));
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for index in 0..clusters {
        let word = field::<u64>(image, table + 8 * index);
        let data = match offset(word & OFFSET) {
            0 if word & 1 == 0 => continue,
            0 => &vec![0xff; cluster],
            at => &image[at..at + cluster],
        };
        let first = index * cluster * 8;
        let here = bits.saturating_sub(first).min(cluster * 8);
        for bit in (0..here).filter(|bit| data[bit / 8] & 1 << (bit % 8) != 0) {
            let start = (first + bit) as u64 * granularity;
            let end = (start + granularity).min(size);
            match ranges.last_mut() {
                Some((_, last)) if *last == start => *last = end,
                _ => ranges.push((start, end)),
            }
        }
    }
    ranges
}

fn offset(number: u64) -> usize {
    usize::try_from(number).expect("a small image")
}
