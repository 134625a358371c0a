//! What one L2 entry refers to, even where it is damaged.

use super::super::entry::{
    COMPRESSED, COPIED, Cluster, Compressed, EntryError, OFFSET, RawEntry, ZERO,
};
use super::super::geometry::Geometry;

/// The storage that an entry refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// None.
    None,
    /// A cluster at this host offset.
    Cluster(u64),
    /// Compressed data.
    Compressed(Compressed),
}

/// What a look at an entry brought up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Storage that is in use because of the entry.
    pub(super) reference: Reference,
    /// The entry has `COPIED` set.
    pub(super) copied: bool,
    /// What is wrong.
    pub(super) problem: Option<&'static str>,
    /// What the entry should be, where that is certain.
    pub(super) correction: Option<RawEntry>,
}

/// Looks at an entry.
pub(super) fn examine(raw: RawEntry, geometry: &Geometry) -> Verdict {
    match Cluster::decode(raw, geometry) {
        Ok(Cluster::Standard(cluster)) => Verdict {
            reference: cluster.host.map_or(Reference::None, Reference::Cluster),
            copied: cluster.copied,
            problem: None,
            correction: None,
        },
        Ok(Cluster::Compressed(data)) => Verdict {
            reference: Reference::Compressed(data),
            copied: false,
            problem: (raw.bitmap != 0).then_some("compressed cluster with a subcluster bitmap"),
            correction: None,
        },
        Err(error) => examine_damaged(raw, error, geometry),
    }
}

fn examine_damaged(raw: RawEntry, error: EntryError, geometry: &Geometry) -> Verdict {
    let host = raw.descriptor & OFFSET;
    let damaged = |reference, problem, correction| Verdict {
        reference,
        copied: raw.descriptor & COPIED != 0,
        problem: Some(problem),
        correction,
    };
    // Storage is kept wherever the entry may mean it: too little is freed rather than too much.
    let cluster = if host == 0 { Reference::None } else { Reference::Cluster(host) };
    match error {
        EntryError::Compressed(_) => {
            damaged(Reference::None, "compressed cluster in an image with a data file", None)
        }
        EntryError::Contradiction(bitmap) | EntryError::NoStorage(bitmap) => {
            // Where it is not clear which holds, zeroes do not show data that may be stale.
            let own = geometry.external_data && raw.descriptor & COPIED != 0;
            let without_storage = host == 0 && !own;
            let allocated = bitmap & u64::from(u32::MAX);
            let kept = if without_storage { 0 } else { allocated & !(bitmap >> 32) };
            let zero = if without_storage { bitmap >> 32 | allocated } else { bitmap >> 32 };
            let correction = RawEntry { bitmap: zero << 32 | kept, ..raw };
            damaged(cluster, "subcluster bitmap contradicts itself", Some(correction))
        }
        EntryError::Unaligned(_) => {
            let has_data = if geometry.extended_l2 {
                raw.bitmap & u64::from(u32::MAX) != 0
            } else {
                raw.descriptor & ZERO == 0
            };
            if has_data {
                damaged(cluster, "data cluster is not aligned to a cluster", None)
            } else {
                let zero = if geometry.extended_l2 { 0 } else { ZERO };
                let correction = RawEntry { descriptor: zero, ..raw };
                let problem = "preallocated cluster is not aligned to a cluster";
                damaged(cluster, problem, Some(correction))
            }
        }
        EntryError::Range(_) => {
            damaged(Reference::None, "compressed data lies in the image header", None)
        }
        EntryError::Reserved(descriptor) if descriptor & COMPRESSED != 0 => {
            let correction = RawEntry { descriptor: descriptor & !COPIED, ..raw };
            let reference = match Cluster::decode(correction, geometry) {
                Ok(Cluster::Compressed(data)) => Reference::Compressed(data),
                _ => Reference::None,
            };
            let fixable = reference != Reference::None;
            damaged(
                reference,
                "compressed cluster has a flag that is not allowed",
                fixable.then_some(correction),
            )
        }
        EntryError::Reserved(_) | EntryError::NotIdentity { .. } => {
            damaged(cluster, "entry has reserved bits set", None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(extended_l2: bool) -> Geometry {
        Geometry {
            cluster_bits: 16,
            refcount_order: 4,
            extended_l2,
            external_data: false,
            zero_flag: true,
        }
    }

    fn look(descriptor: u64) -> Verdict {
        examine(RawEntry { descriptor, bitmap: 0 }, &geometry(false))
    }

    #[test]
    fn damaged_entries_still_hold_their_storage() {
        let reserved = look(COPIED | 0x5_0000 | 1 << 57);
        assert_eq!(reserved.reference, Reference::Cluster(0x5_0000));
        assert!(reserved.problem.is_some() && reserved.correction.is_none());
        let unaligned = look(COPIED | 0x5_0200);
        assert_eq!(unaligned.reference, Reference::Cluster(0x5_0200));
        assert!(unaligned.correction.is_none());
        let copied = look(COPIED | COMPRESSED | 0x5_0200);
        assert!(matches!(copied.reference, Reference::Compressed(_)));
        assert_eq!(copied.correction.map(|raw| raw.descriptor), Some(COMPRESSED | 0x5_0200));
    }

    #[test]
    fn unaligned_preallocation_is_dropped() {
        let verdict = look(COPIED | 0x5_0200 | ZERO);
        assert_eq!(verdict.correction, Some(RawEntry { descriptor: ZERO, bitmap: 0 }));
    }

    #[test]
    fn corrected_bitmaps_are_valid() {
        let g = geometry(true);
        for descriptor in [0, 0x5_0000, COPIED | 0x5_0000] {
            for bitmap in [0b11 | 0b10 << 32, u64::MAX, 1, 1 | 1 << 32] {
                let verdict = examine(RawEntry { descriptor, bitmap }, &g);
                if let Some(correction) = verdict.correction {
                    assert_eq!(
                        examine(correction, &g).problem,
                        None,
                        "{descriptor:#x} {bitmap:#x}"
                    );
                }
            }
        }
    }
}
