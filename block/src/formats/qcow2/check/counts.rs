//! Counts of the references to each host cluster.
//!
//! Memory follows the clusters that are referred to, not the length of the file: counts lie in small
//! pieces that exist only where something was counted. A count is one byte; the few that are larger
//! are kept aside.

use std::collections::BTreeMap;

use crate::num::AsUsize;

/// Clusters in a piece.
pub(super) const PIECE: u64 = PIECE_LEN as u64;
const PIECE_LEN: usize = 512;
/// Pieces below this number are found by index, those above by search.
const INDEXED: u64 = 1 << 20;
/// The byte that says that the count is kept aside.
const LARGE: u8 = u8::MAX;

type Piece = Box<[u8; PIECE_LEN]>;

/// References to host clusters.
#[derive(Default)]
pub(super) struct Counts {
    indexed: Vec<Option<Piece>>,
    others: BTreeMap<u64, Piece>,
    large: BTreeMap<u64, u64>,
    /// One more than the highest cluster with a reference.
    end: u64,
}

impl Counts {
    fn piece(&self, number: u64) -> Option<&Piece> {
        if number < INDEXED {
            self.indexed.get(number.as_usize())?.as_ref()
        } else {
            self.others.get(&number)
        }
    }

    fn piece_mut(&mut self, number: u64) -> &mut Piece {
        let empty = || Box::new([0; PIECE_LEN]);
        if number >= INDEXED {
            return self.others.entry(number).or_insert_with(empty);
        }
        let index = number.as_usize();
        if index >= self.indexed.len() {
            self.indexed.resize_with(index + 1, || None);
        }
        self.indexed[index].get_or_insert_with(empty)
    }

    /// Adds `times` references to each of `clusters` clusters from `first` on.
    pub(super) fn add(&mut self, first: u64, clusters: u64, times: u64) {
        if clusters == 0 || times == 0 {
            return;
        }
        let end = first.saturating_add(clusters);
        self.end = self.end.max(end);
        let mut at = first;
        while at < end {
            let number = at / PIECE;
            let next = end.min((number + 1) * PIECE);
            let from = (at % PIECE).as_usize();
            let len = (next - at).as_usize();
            let mut overflowing = Vec::new();
            for (cluster, count) in (at..next).zip(&mut self.piece_mut(number)[from..from + len]) {
                match u8::try_from(times).ok().and_then(|times| count.checked_add(times)) {
                    Some(sum) if sum != LARGE && *count != LARGE => *count = sum,
                    _ => {
                        overflowing.push((cluster, u64::from(*count)));
                        *count = LARGE;
                    }
                }
            }
            for (cluster, before) in overflowing {
                let count = self.large.entry(cluster).or_insert(before);
                *count = count.saturating_add(times);
            }
            at = next;
        }
    }

    /// References to `cluster`.
    pub(super) fn get(&self, cluster: u64) -> u64 {
        let piece = self.piece(cluster / PIECE);
        match piece.map_or(0, |piece| piece[(cluster % PIECE).as_usize()]) {
            LARGE => self.large.get(&cluster).copied().unwrap_or(0),
            count => u64::from(count),
        }
    }

    /// One more than the highest cluster with a reference.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The first cluster at or after `from`, and before `to`, that may have references: nothing is
    /// referred to before it.
    pub(super) fn next_present(&self, from: u64, to: u64) -> Option<u64> {
        let first = from / PIECE;
        let last = to.checked_sub(1)? / PIECE;
        let indexed = self.indexed.len() as u64;
        let number = (first..indexed.min(last + 1))
            .find(|&number| self.piece(number).is_some())
            .or_else(|| self.others.range(first..=last).next().map(|(&number, _)| number))?;
        Some(from.max(number * PIECE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn far_clusters_cost_little() {
        let mut counts = Counts::default();
        for n in 0..1000 {
            counts.add(n << 40, 1, 300);
        }
        assert_eq!((counts.get(5 << 40), counts.get((5 << 40) + 1)), (300, 0));
        assert_eq!(counts.others.len(), 999);
        assert_eq!(counts.next_present(1, u64::MAX), Some(1));
        assert_eq!(counts.next_present(PIECE, u64::MAX), Some(1 << 40));
    }

    proptest! {
        #[test]
        fn counts_are_exact(
            adds in prop::collection::vec((0u64..1500, 0u64..600, 0u64..300), 1..20)
        ) {
            let mut counts = Counts::default();
            let mut model = vec![0u64; 2200];
            for (first, clusters, times) in adds {
                counts.add(first, clusters, times);
                let (from, to) = (first.as_usize(), (first + clusters).as_usize());
                model[from..to].iter_mut().for_each(|count| *count += times);
            }
            for (cluster, &count) in (0u64..).zip(&model) {
                prop_assert_eq!(counts.get(cluster), count);
            }
            let end = model.iter().rposition(|&count| count != 0).map_or(0, |at| at + 1);
            prop_assert!(counts.end() >= end as u64);
        }
    }
}
