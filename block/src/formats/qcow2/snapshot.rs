//! The table of internal snapshots (qcow2 specification, "Snapshots").

use super::header::{Header, MAX_SNAPSHOTS};
use super::table_io::Sequential;
use crate::driver::SnapshotInfo;
use crate::error::{Error, Result};
use crate::graph::Edge;
use crate::num::AsUsize;
use crate::snapshot::NewSnapshot;

/// Length of the fixed part of an entry, in bytes.
const FIXED: usize = 40;
/// Longest extra data of an entry, in bytes.
const MAX_EXTRA: u32 = 1024;
/// Extra data that version 3 requires: the large size of the machine state and the disk size.
const REQUIRED_EXTRA: usize = 16;
/// Extra data that entries are written with at least: also the instruction count.
const WRITTEN_EXTRA: usize = 24;
/// Largest table in bytes.
pub(crate) const MAX_TABLE: u64 = 64 << 20;

/// An internal snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Host offset of its L1 table.
    pub(crate) l1_offset: u64,
    /// Entries of its L1 table.
    pub(crate) l1_entries: u32,
    /// Seconds since 1970.
    pub(crate) date_sec: u32,
    /// Nanoseconds of the date.
    pub(crate) date_nsec: u32,
    /// Guest clock in nanoseconds.
    pub(crate) vm_clock_nsec: u64,
    /// Bytes of machine state.
    pub(crate) vm_state_size: u64,
    /// Extra data as stored, at most 1024 bytes.
    pub(crate) extra: Vec<u8>,
    /// Unique number as text.
    pub(crate) id: Vec<u8>,
    /// Name given by the user.
    pub(crate) name: Vec<u8>,
}

/// The table as found.
#[derive(Debug, Default)]
pub(crate) struct SnapshotTable {
    /// The entries.
    pub(crate) snapshots: Vec<Snapshot>,
    /// Length in bytes of what is stored.
    pub(crate) bytes: u64,
    /// Entries that version 3 does not allow so: they lack the disk size. By their position.
    pub(crate) incomplete: Vec<usize>,
    /// Entries whose extra data was cut: position and stored length in bytes.
    pub(crate) cut: Vec<(usize, u32)>,
    /// Entries at the end that were left out.
    pub(crate) overhang: u32,
    /// They were left out since the table takes too much space, not since they are too many.
    pub(crate) too_big: bool,
}

/// What to do about tables beyond the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oversize {
    /// Fail.
    Refuse,
    /// Read only as much as the limits allow.
    Cut,
}

impl SnapshotTable {
    /// The table as it should be stored.
    pub(crate) fn serialise(&self, disk_size: u64) -> Vec<u8> {
        let mut out = Vec::new();
        for snapshot in &self.snapshots {
            snapshot.serialise(disk_size, &mut out);
        }
        out
    }
}

fn be<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
}

impl Snapshot {
    /// The entry of a new snapshot of a disk of `disk_size` bytes, still without its L1 table.
    pub(crate) fn new(new: NewSnapshot, id: String, disk_size: u64) -> Snapshot {
        let icount = new.icount.unwrap_or(u64::MAX);
        let extra = [new.vm_state_size, disk_size, icount].map(u64::to_be_bytes).concat();
        Snapshot {
            date_sec: new.date_sec,
            date_nsec: new.date_nsec,
            vm_clock_nsec: new.vm_clock_nsec,
            vm_state_size: new.vm_state_size,
            extra,
            id: id.into_bytes(),
            name: new.name.into_bytes(),
            ..Snapshot::default()
        }
    }

    /// Size of the disk in bytes, where the entry says it.
    pub(crate) fn disk_size(&self) -> Option<u64> {
        self.extra_word(1)
    }

    /// The word number `index` of the extra data.
    fn extra_word(&self, index: usize) -> Option<u64> {
        let bytes = self.extra.get(index * 8..index * 8 + 8)?;
        Some(u64::from_be_bytes(be(bytes, 0)))
    }

    /// What `info` shows of it.
    pub(crate) fn describe(&self) -> SnapshotInfo {
        self.clone().into_description()
    }

    /// As [`describe`](Self::describe), without copies: an image may have very many snapshots.
    pub(crate) fn into_description(self) -> SnapshotInfo {
        SnapshotInfo {
            icount: self.extra_word(2).filter(|&icount| icount != u64::MAX),
            id: text(self.id),
            name: text(self.name),
            vm_state_size: self.vm_state_size,
            date_sec: self.date_sec,
            date_nsec: self.date_nsec,
            vm_clock_nsec: self.vm_clock_nsec,
        }
    }

    /// The entry as stored, with all that version 3 requires. `disk_size` is the size of the disk where
    /// the entry does not know it.
    fn serialise(&self, disk_size: u64, out: &mut Vec<u8>) {
        let mut extra = self.extra.clone();
        if extra.len() < WRITTEN_EXTRA {
            let disk_size = self.disk_size().unwrap_or(disk_size);
            extra = [self.vm_state_size, disk_size, u64::MAX].map(u64::to_be_bytes).concat();
        }
        // The large size stands in the extra data. The lengths were read from such fields.
        let small_size = u32::try_from(self.vm_state_size).unwrap_or(0);
        out.extend(self.l1_offset.to_be_bytes());
        out.extend(self.l1_entries.to_be_bytes());
        out.extend(u16::try_from(self.id.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(u16::try_from(self.name.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(self.date_sec.to_be_bytes());
        out.extend(self.date_nsec.to_be_bytes());
        out.extend(self.vm_clock_nsec.to_be_bytes());
        out.extend(small_size.to_be_bytes());
        out.extend(u32::try_from(extra.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(extra);
        out.extend(&self.id);
        out.extend(&self.name);
        out.resize(out.len().next_multiple_of(8), 0);
    }

    /// What messages call it.
    pub(crate) fn label(&self) -> String {
        let SnapshotInfo { id, name, .. } = self.describe();
        format!("{} ({})", id.escape_debug(), name.escape_debug())
    }
}

/// Text as it is, but for bytes that are not Unicode, and only up to the first zero byte: where it was
/// written, text ends there.
fn text(mut bytes: Vec<u8>) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Reads the snapshot table that `header` names. `label` is what messages call the image.
pub(crate) async fn read_table(
    file: &Edge,
    header: &Header,
    label: &str,
    oversize: Oversize,
) -> Result<SnapshotTable> {
    let excess = |detail: String, excess: String| {
        Err(Error::Excess { node: label.to_owned(), detail, excess })
    };
    let start = header.snapshots_offset;
    // The limit is on what is kept of the table, not on what it takes in the file.
    let mut input = Sequential::new(file, start, u64::MAX);
    let mut table = SnapshotTable::default();
    let mut kept = 0;
    let count = header.snapshot_count.min(MAX_SNAPSHOTS);
    if count < header.snapshot_count && oversize == Oversize::Refuse {
        let over = header.snapshot_count - count;
        let detail = format!("{} internal snapshots", header.snapshot_count);
        return excess(detail, format!("all {over} overhanging snapshots"));
    }
    for number in 0..count {
        let Some((snapshot, extra_len, size)) = read_entry(&mut input, MAX_TABLE - kept).await?
        else {
            table.overhang = count - number;
            table.too_big = true;
            break;
        };
        let position = table.snapshots.len();
        if extra_len > MAX_EXTRA {
            if oversize == Oversize::Refuse {
                let detail = format!(
                    "{extra_len} bytes of extra data in entry {number} of the snapshot table"
                );
                return excess(detail, "this extra metadata".to_owned());
            }
            table.cut.push((position, extra_len));
        }
        if header.version >= 3 && snapshot.extra.len() < REQUIRED_EXTRA {
            table.incomplete.push(position);
        }
        kept += size;
        table.snapshots.push(snapshot);
        table.bytes = input.position() - start;
    }
    if table.overhang > 0 && oversize == Oversize::Refuse {
        let detail = "a snapshot table of more than 64 MiB".to_owned();
        return excess(detail, format!("all {} overhanging snapshots", table.overhang));
    }
    table.overhang += header.snapshot_count - count;
    Ok(table)
}

/// Reads an entry: returns it with its extra data cut to what is allowed, the length of that data as
/// stored, and the bytes that the entry takes without what was cut. `None` if these are more than
/// `room`.
async fn read_entry(input: &mut Sequential<'_>, room: u64) -> Result<Option<(Snapshot, u32, u64)>> {
    let Some(fixed) = input.take(FIXED).await? else { return Ok(None) };
    let id_len = usize::from(u16::from_be_bytes(be(fixed, 12)));
    let name_len = usize::from(u16::from_be_bytes(be(fixed, 14)));
    let extra_len = u32::from_be_bytes(be(fixed, 36));
    let mut snapshot = Snapshot {
        l1_offset: u64::from_be_bytes(be(fixed, 0)),
        l1_entries: u32::from_be_bytes(be(fixed, 8)),
        date_sec: u32::from_be_bytes(be(fixed, 16)),
        date_nsec: u32::from_be_bytes(be(fixed, 20)),
        vm_clock_nsec: u64::from_be_bytes(be(fixed, 24)),
        vm_state_size: u64::from(u32::from_be_bytes(be(fixed, 32))),
        ..Snapshot::default()
    };
    let kept = extra_len.min(MAX_EXTRA);
    let length = |extra: u32| (FIXED + id_len + name_len) as u64 + u64::from(extra);
    let size = length(kept).next_multiple_of(8);
    if size > room {
        return Ok(None);
    }
    let Some(extra) = input.take(kept.as_usize()).await? else { return Ok(None) };
    snapshot.extra = extra.to_vec();
    if input.skip(u64::from(extra_len - kept)).is_none() {
        return Ok(None);
    }
    if let Some(large) = snapshot.extra_word(0) {
        snapshot.vm_state_size = large;
    }
    let Some(text) = input.take(id_len + name_len).await? else { return Ok(None) };
    let (id, name) = text.split_at(id_len.min(text.len()));
    (snapshot.id, snapshot.name) = (id.to_vec(), name.to_vec());
    let stored = length(extra_len);
    let padding = stored.next_multiple_of(8) - stored;
    Ok(input.skip(padding).map(|()| (snapshot, extra_len, size)))
}
