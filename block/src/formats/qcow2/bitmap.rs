//! The directory of persistent dirty bitmaps (qcow2 specification, "Bitmaps extension").

use bitflags::bitflags;

use super::extension::BitmapsExtension;
use super::table_io::Sequential;
use crate::error::{Error, Result};
use crate::graph::Edge;
use crate::num::AsUsize;

/// Length of the fixed part of a directory entry, in bytes.
const FIXED: usize = 24;
/// Longest name of a bitmap, in bytes.
pub(crate) const MAX_NAME: usize = 1023;
/// Largest directory in bytes: 64 MiB.
pub(crate) const MAX_DIRECTORY: u64 = 64 << 20;
/// The only type of bitmap there is.
const DIRTY_TRACKING: u8 = 1;
/// Smallest and largest base 2 logarithm of a granularity.
const GRANULARITY_BITS: std::ops::RangeInclusive<u8> = 9..=31;

bitflags! {
    /// Flags of a bitmap.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct BitmapFlags: u32 {
        /// Not saved since it was last changed; the content is worthless.
        const IN_USE = 1;
        /// Records changes as soon as the image is opened.
        const AUTO = 1 << 1;
        /// Programs that do not know the extra data may use the bitmap.
        const EXTRA_DATA_COMPATIBLE = 1 << 2;
        const _ = !0;
    }
}

/// An entry of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BitmapEntry {
    /// Host offset of the bitmap's table.
    pub(crate) table_offset: u64,
    /// Entries of the table.
    pub(crate) table_entries: u32,
    /// Flags.
    pub(crate) flags: BitmapFlags,
    /// Base 2 logarithm of the bytes that one bit stands for.
    pub(crate) granularity_bits: u8,
    /// Name.
    pub(crate) name: String,
    /// Extra data, kept as it is.
    pub(crate) extra: Vec<u8>,
}

impl BitmapEntry {
    /// Bytes that the entry takes in a directory, without extra data.
    pub(crate) fn stored_len(&self) -> u64 {
        (FIXED as u64 + self.name.len() as u64).next_multiple_of(8)
    }

    /// The entry as stored.
    fn serialise(&self, out: &mut Vec<u8>) {
        out.extend(self.table_offset.to_be_bytes());
        out.extend(self.table_entries.to_be_bytes());
        out.extend(self.flags.bits().to_be_bytes());
        out.extend([DIRTY_TRACKING, self.granularity_bits]);
        // Both lengths were checked when they were read or given.
        out.extend(u16::try_from(self.name.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(u32::try_from(self.extra.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(&self.extra);
        out.extend(self.name.as_bytes());
        out.resize(out.len().next_multiple_of(8), 0);
    }
}

/// The directory as stored.
pub(crate) fn serialise(entries: &[BitmapEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        entry.serialise(&mut out);
    }
    out
}

fn be<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
}

/// Reads the directory. `label` is what messages call the image.
pub(crate) async fn read_directory(
    file: &Edge,
    extension: &BitmapsExtension,
    label: &str,
) -> Result<Vec<BitmapEntry>> {
    let broken = |what: &str| Error::corrupt(label, format!("the bitmap directory {what}"));
    let BitmapsExtension { count, directory_offset: start, directory_size } = *extension;
    if directory_size > MAX_DIRECTORY {
        return Err(broken("is larger than 64 MiB"));
    }
    let end = start.checked_add(directory_size).ok_or_else(|| broken("has no valid place"))?;
    let mut input = Sequential::new(file, start, end);
    let mut entries = Vec::new();
    while input.position() < end {
        let entry = read_entry(&mut input).await?;
        entries.push(entry.ok_or_else(|| broken("has an entry that is not valid"))?);
    }
    if entries.len() as u64 != u64::from(count) {
        return Err(broken("does not have as many entries as the header says"));
    }
    Ok(entries)
}

/// `None` if the entry is malformed.
async fn read_entry(input: &mut Sequential<'_>) -> Result<Option<BitmapEntry>> {
    let start = input.position();
    let Some(fixed) = input.take(FIXED).await? else { return Ok(None) };
    let [kind] = be(fixed, 16);
    let [granularity_bits] = be(fixed, 17);
    let name_len = usize::from(u16::from_be_bytes(be(fixed, 18)));
    let extra_len = u32::from_be_bytes(be(fixed, 20));
    let mut entry = BitmapEntry {
        table_offset: u64::from_be_bytes(be(fixed, 0)),
        table_entries: u32::from_be_bytes(be(fixed, 8)),
        flags: BitmapFlags::from_bits_retain(u32::from_be_bytes(be(fixed, 12))),
        granularity_bits,
        name: String::new(),
        extra: Vec::new(),
    };
    let valid = kind == DIRTY_TRACKING
        && GRANULARITY_BITS.contains(&granularity_bits)
        && (1..=MAX_NAME).contains(&name_len);
    if !valid {
        return Ok(None);
    }
    let Some(extra) = input.take(extra_len.as_usize()).await? else { return Ok(None) };
    entry.extra = extra.to_vec();
    let Some(name) = input.take(name_len).await? else { return Ok(None) };
    let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
    name.clone_into(&mut entry.name);
    let length = input.position() - start;
    let padding = length.next_multiple_of(8) - length;
    Ok(input.skip(padding).map(|()| entry))
}
