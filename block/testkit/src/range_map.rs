//! A map from every offset to a value, stored as runs.

use std::collections::BTreeMap;
use std::ops::Range;

/// Offsets from 0 to the largest, in runs that share a value.
#[derive(Clone, Debug)]
pub struct RangeMap<T> {
    /// The value from each key up to the next. Invariant: key 0 is present.
    runs: BTreeMap<u64, T>,
}

impl<T: Clone> RangeMap<T> {
    /// A map with `value` everywhere.
    pub fn new(value: T) -> RangeMap<T> {
        RangeMap { runs: BTreeMap::from([(0, value)]) }
    }

    fn split(&mut self, at: u64) {
        if let Some((&start, value)) = self.runs.range(..=at).next_back()
            && start != at
        {
            let value = value.clone();
            self.runs.insert(at, value);
        }
    }

    /// Applies `change` to every run in `range`; runs are cut at its ends.
    pub fn update(&mut self, range: Range<u64>, mut change: impl FnMut(&mut T)) {
        if range.is_empty() {
            return;
        }
        self.split(range.start);
        if range.end != u64::MAX {
            self.split(range.end);
        }
        self.runs.range_mut(range).for_each(|(_, value)| change(value));
    }

    /// The runs that touch `range`, cut to it.
    pub fn runs(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, &T)> {
        let first =
            self.runs.range(..=range.start).next_back().map_or(range.start, |(&start, _)| start);
        let mut runs = self.runs.range(first..range.end.max(first)).peekable();
        std::iter::from_fn(move || {
            let (&start, value) = runs.next()?;
            let end = runs.peek().map_or(range.end, |(next, _)| **next);
            Some((start.max(range.start)..end.min(range.end), value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_cut_runs_where_needed() {
        let mut map = RangeMap::new(0);
        map.update(10..20, |v| *v += 1);
        map.update(15..30, |v| *v += 10);
        map.update(5..5, |v| *v += 100);
        let runs: Vec<_> = map.runs(12..40).map(|(range, &v)| (range, v)).collect();
        assert_eq!(runs, [(12..15, 1), (15..20, 11), (20..30, 10), (30..40, 0)]);
        map.update(40..u64::MAX, |v| *v = 5);
        assert_eq!(map.runs(39..50).map(|(_, &v)| v).collect::<Vec<_>>(), [0, 5]);
    }
}
