//! How often each byte of the file is claimed by tables that may overlap.
//!
//! A damaged or hostile image can name the same bytes as a table thousands of times. Instead of
//! reading them as often, the check reads each byte once and multiplies.

/// Claims of byte ranges.
#[derive(Default)]
pub(super) struct Claims {
    /// Where the number of claims changes, and by how much.
    changes: Vec<(u64, i64)>,
}

/// A range of bytes that are claimed equally often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    /// First byte.
    pub(super) start: u64,
    /// One behind the last byte.
    pub(super) end: u64,
    /// Number of claims; not 0.
    pub(super) times: u64,
}

impl Claims {
    /// Claims the bytes from `start` to `end`, `times` times.
    pub(super) fn add(&mut self, start: u64, end: u64, times: u64) {
        let times = i64::try_from(times).unwrap_or(i64::MAX);
        if start < end && times > 0 {
            self.changes.push((start, times));
            self.changes.push((end, -times));
        }
    }

    /// The claimed ranges in ascending order.
    pub(super) fn ranges(mut self) -> impl Iterator<Item = Claimed> {
        self.changes.sort_unstable();
        let mut changes = self.changes.into_iter().peekable();
        let mut times = 0i128;
        std::iter::from_fn(move || {
            loop {
                let (start, change) = changes.next()?;
                times += i128::from(change);
                let &(end, _) = changes.peek()?;
                if times > 0 && end > start {
                    let times = u64::try_from(times).unwrap_or(u64::MAX);
                    return Some(Claimed { start, end, times });
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_claims_add_up() {
        let mut claims = Claims::default();
        claims.add(10, 30, 1);
        claims.add(20, 40, 2);
        claims.add(50, 60, 1);
        claims.add(50, 50, 9);
        let claimed = |start, end, times| Claimed { start, end, times };
        let ranges: Vec<_> = claims.ranges().collect();
        assert_eq!(
            ranges,
            [claimed(10, 20, 1), claimed(20, 30, 3), claimed(30, 40, 2), claimed(50, 60, 1)]
        );
    }
}
