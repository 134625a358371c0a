//! What is mapped where: the list behind `/proc/self/maps`, and the search for free addresses.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use cairn_tcg::softmmu::Protection;

/// What is behind a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Zeros, with a name in brackets or none.
    Anonymous(&'static str),
    /// A file.
    File {
        path: Arc<str>,
        /// Device and inode number.
        identity: (u64, u64),
        /// Where in the file the mapping begins.
        offset: u64,
    },
}

/// A mapping with the same rights and content throughout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vma {
    pub(crate) end: u64,
    pub(crate) protection: Protection,
    pub(crate) shared: bool,
    pub(crate) content: Content,
}

impl Vma {
    /// The part from `by` bytes behind the beginning on.
    fn skip(&self, by: u64) -> Vma {
        let mut rest = self.clone();
        if let Content::File { offset, .. } = &mut rest.content {
            *offset += by;
        }
        rest
    }

    /// Whether `next`, which begins where this ends, goes on with the same.
    fn continues(&self, start: u64, next: &Vma) -> bool {
        let goes_on = match (&self.content, &next.content) {
            (Content::Anonymous(mine), Content::Anonymous(theirs)) => mine == theirs,
            (
                Content::File { path, identity, offset },
                Content::File { path: other, identity: same, offset: next },
            ) => path == other && identity == same && offset + (self.end - start) == *next,
            _ => false,
        };
        goes_on && self.protection == next.protection && self.shared == next.shared
    }
}

/// The mappings, by their first address. They do not overlap.
#[derive(Debug, Default)]
pub(crate) struct Vmas(BTreeMap<u64, Vma>);

impl Vmas {
    /// All mappings, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Vma)> {
        self.0.iter().map(|(start, vma)| (*start, vma))
    }

    /// The mapping that `address` is in, and its beginning.
    pub(crate) fn at(&self, address: u64) -> Option<(u64, &Vma)> {
        let (start, vma) = self.0.range(..=address).next_back()?;
        (address < vma.end).then_some((*start, vma))
    }

    /// Whether nothing is mapped in `range`.
    pub(crate) fn is_free(&self, range: Range<u64>) -> bool {
        self.0.range(..range.end).next_back().is_none_or(|(_, vma)| vma.end <= range.start)
    }

    /// Whether all of `range` is mapped.
    pub(crate) fn is_mapped(&self, range: Range<u64>) -> bool {
        let mut at = range.start;
        while at < range.end {
            let Some((_, vma)) = self.at(at) else { return false };
            at = vma.end;
        }
        true
    }

    /// The highest free place of `len` bytes within `bounds`.
    pub(crate) fn highest_free(&self, len: u64, bounds: Range<u64>) -> Option<u64> {
        let mut top = bounds.end;
        for (start, vma) in self.0.range(..bounds.end).rev() {
            if vma.end <= bounds.start {
                break;
            }
            if vma.end < top && top - vma.end >= len {
                return Some(top - len);
            }
            top = top.min(*start);
        }
        let room = top.checked_sub(bounds.start)?;
        (room >= len).then(|| top - len)
    }

    /// Cuts the mapping that goes over `address` in two there.
    fn split(&mut self, address: u64) {
        if let Some((&start, vma)) = self.0.range_mut(..address).next_back()
            && vma.end > address
        {
            let rest = vma.skip(address - start);
            vma.end = address;
            self.0.insert(address, rest);
        }
    }

    /// Forgets what is mapped in `range`, and returns it.
    pub(crate) fn remove(&mut self, range: Range<u64>) -> Vec<(u64, Vma)> {
        self.split(range.start);
        self.split(range.end);
        let starts: Vec<u64> = self.0.range(range).map(|(start, _)| *start).collect();
        starts.into_iter().filter_map(|start| Some((start, self.0.remove(&start)?))).collect()
    }

    /// Maps `start .. vma.end`, over what was there.
    pub(crate) fn insert(&mut self, start: u64, vma: Vma) {
        self.remove(start..vma.end);
        let (mut start, mut vma) = (start, vma);
        if let Some((&before, other)) = self.0.range(..start).next_back()
            && other.end == start
            && other.continues(before, &vma)
        {
            let end = vma.end;
            vma = Vma { end, ..other.clone() };
            start = before;
        }
        if let Some(next) = self.0.get(&vma.end)
            && vma.continues(start, next)
        {
            let end = next.end;
            self.0.remove(&vma.end);
            vma.end = end;
        }
        self.0.insert(start, vma);
    }

    /// Changes what `range` allows.
    pub(crate) fn protect(&mut self, range: Range<u64>, protection: Protection) {
        for (start, vma) in self.remove(range) {
            self.insert(start, Vma { protection, ..vma });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anonymous(end: u64, protection: Protection) -> Vma {
        Vma { end, protection, shared: false, content: Content::Anonymous("") }
    }

    fn ranges(vmas: &Vmas) -> Vec<(u64, u64)> {
        vmas.iter().map(|(start, vma)| (start, vma.end)).collect()
    }

    #[test]
    fn neighbours_of_the_same_kind_become_one() {
        let mut vmas = Vmas::default();
        vmas.insert(0x1000, anonymous(0x2000, Protection::READ));
        vmas.insert(0x3000, anonymous(0x4000, Protection::READ));
        vmas.insert(0x2000, anonymous(0x3000, Protection::READ));
        assert_eq!(ranges(&vmas), [(0x1000, 0x4000)]);
        vmas.protect(0x2000..0x3000, Protection::WRITE);
        assert_eq!(ranges(&vmas), [(0x1000, 0x2000), (0x2000, 0x3000), (0x3000, 0x4000)]);
        vmas.protect(0x2000..0x3000, Protection::READ);
        assert_eq!(ranges(&vmas), [(0x1000, 0x4000)]);
    }

    #[test]
    fn a_part_of_a_file_knows_its_offset() {
        let mut vmas = Vmas::default();
        let content = Content::File { path: "/x".into(), identity: (1, 2), offset: 0x10000 };
        let vma = Vma { end: 0x5000, protection: Protection::READ, shared: true, content };
        vmas.insert(0x1000, vma);
        vmas.remove(0x2000..0x3000);
        let (start, rest) = vmas.at(0x3fff).unwrap();
        assert_eq!(start, 0x3000);
        assert!(matches!(rest.content, Content::File { offset: 0x12000, .. }));
        assert!(vmas.at(0x2000).is_none());
    }

    #[test]
    fn free_places_are_found_from_the_top() {
        let mut vmas = Vmas::default();
        assert_eq!(vmas.highest_free(0x1000, 0x1000..0x9000), Some(0x8000));
        vmas.insert(0x8000, anonymous(0xa000, Protection::READ));
        vmas.insert(0x5000, anonymous(0x6000, Protection::READ));
        assert_eq!(vmas.highest_free(0x1000, 0x1000..0x9000), Some(0x7000));
        assert_eq!(vmas.highest_free(0x3000, 0x1000..0x9000), Some(0x2000));
        assert_eq!(vmas.highest_free(0x5000, 0x1000..0x9000), None);
        assert!(vmas.is_free(0x6000..0x8000));
        assert!(!vmas.is_free(0x5fff..0x8000));
    }
}
