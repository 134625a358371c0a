//! Extents that the server told of without being asked for each.
//!
//! Tools walk through an image's status from its beginning to its end. A server answers a question
//! about a long range with many extents, so that such a walk need not wait for the network at every
//! one. What is kept is forgotten after a moment, since others may write, and with every write of
//! ours.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn_nbd_wire::Extent;
use parking_lot::Mutex;

/// For how long extents are believed.
const LIFETIME: Duration = Duration::from_secs(1);

/// Extents of one stretch of an export.
#[derive(Default)]
pub(super) struct Extents {
    known: Mutex<Known>,
    /// Counts writes, at their start and at their end.
    writes: AtomicU64,
}

#[derive(Default)]
struct Known {
    /// Offset of the first extent.
    start: u64,
    /// Ends of the extents, in order, with their flags.
    ends: Vec<(u64, u64)>,
    since: Option<Instant>,
    /// Where the last extent that was handed out ended.
    last_end: u64,
}

/// What to ask the server.
pub(super) enum Lookup {
    /// Nothing: this is known.
    Known(Extent),
    /// One extent will do.
    One,
    /// As many as there are.
    Many,
}

impl Extents {
    /// What is known at `offset`.
    pub(super) fn lookup(&self, offset: u64) -> Lookup {
        let mut known = self.known.lock();
        if let Some(extent) = known.at(offset) {
            known.last_end = offset + extent.len;
            return Lookup::Known(extent);
        }
        // A walk has gone on where it was.
        if offset != 0 && offset == known.last_end { Lookup::Many } else { Lookup::One }
    }

    /// A moment before which no write of ours counts for what the server is about to say.
    pub(super) fn now(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// Keeps what the server has said of the range from `offset` on, asked at the moment `asked`.
    pub(super) fn keep(&self, offset: u64, extents: &[Extent], asked: u64) {
        let mut known = self.known.lock();
        let first = extents.first().map_or(0, |extent| extent.len);
        known.last_end = offset.saturating_add(first);
        if self.now() == asked {
            let mut end = offset;
            known.start = offset;
            known.ends.clear();
            known.ends.extend(extents.iter().map(|extent| {
                end = end.saturating_add(extent.len);
                (end, extent.flags)
            }));
            known.since = Some(Instant::now());
        }
    }

    /// A write begins, which ends when the result is dropped: nothing is known any more.
    pub(super) fn writing(&self) -> Writing<'_> {
        self.forget();
        Writing(self)
    }

    fn forget(&self) {
        self.writes.fetch_add(1, Ordering::AcqRel);
        self.known.lock().since = None;
    }
}

/// A write of ours.
pub(super) struct Writing<'e>(&'e Extents);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.forget();
    }
}

impl Known {
    /// The rest of the extent at `offset`.
    fn at(&self, offset: u64) -> Option<Extent> {
        self.since.filter(|since| since.elapsed() < LIFETIME)?;
        let at = self.ends.partition_point(|(end, _)| *end <= offset);
        let (end, flags) = *self.ends.get(at).filter(|_| offset >= self.start)?;
        Some(Extent { len: end - offset, flags })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(extents: &Extents, offset: u64) -> Option<(u64, u64)> {
        match extents.lookup(offset) {
            Lookup::Known(extent) => Some((extent.len, extent.flags)),
            Lookup::One | Lookup::Many => None,
        }
    }

    #[test]
    fn what_was_told_is_known_until_a_write() {
        let extents = Extents::default();
        let told = [Extent { len: 10, flags: 0 }, Extent { len: 5, flags: 3 }];
        extents.keep(100, &told, extents.now());
        assert_eq!(known(&extents, 99), None);
        assert_eq!(known(&extents, 100), Some((10, 0)));
        assert_eq!(known(&extents, 112), Some((3, 3)));
        assert_eq!(known(&extents, 115), None);
        let asked = extents.now();
        extents.forget();
        assert_eq!(known(&extents, 100), None);
        extents.keep(100, &told, asked);
        assert_eq!(known(&extents, 100), None, "asked before the write");
    }

    #[test]
    fn a_walk_is_noticed() {
        let extents = Extents::default();
        assert!(matches!(extents.lookup(0), Lookup::One));
        extents.keep(0, &[Extent { len: 10, flags: 0 }], extents.now());
        assert!(matches!(extents.lookup(50), Lookup::One));
        assert!(matches!(extents.lookup(10), Lookup::Many));
    }
}
