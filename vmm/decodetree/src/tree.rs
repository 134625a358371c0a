//! The decision tree that finds the patterns of an instruction.
//!
//! A decoder's patterns are one list in order of priority; groups matter to the checks only. Of the bits
//! that all remaining patterns fix, the run that tells most of them apart becomes a switch, after a check
//! of those outside of it that are alike in all. Where no bit is fixed in all, the list is divided. No
//! pattern stands in the tree twice, so the tree is as large as the file.

use crate::bits::{ones, shl, shr};
use crate::model::Pattern;
use crate::source::Widths;

/// A step of decoding. A step that finds nothing, or whose patterns refuse, hands on to what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Offers the instruction to the pattern with this index; all its fixed bits have been tested.
    Try(usize),
    /// Goes on only if the bits under `mask` have the value `value`.
    Check {
        /// Bits to test.
        mask: u64,
        /// What they must be.
        value: u64,
        /// What to do then.
        then: Box<Node>,
    },
    /// Goes on with the arm of the value of `len` bits from bit `shift` up.
    Switch {
        /// Position of the lowest bit.
        shift: u32,
        /// Number of bits.
        len: u32,
        /// Arms by value, ascending.
        arms: Vec<(u64, Node)>,
    },
    /// Makes sure that the word holds its highest `width` bits, then goes on.
    Fetch {
        /// Bits needed from here on.
        width: u32,
        /// What to do then.
        then: Box<Node>,
    },
    /// One after the other.
    Seq(Vec<Node>),
}

/// Builds the tree of `patterns`, which have passed the overlap checks.
pub(crate) fn build(patterns: &[Pattern], widths: Widths) -> Node {
    let candidates = patterns.iter().enumerate().collect();
    let mut steps: Vec<u32> = patterns.iter().map(|pattern| pattern.width).collect();
    steps.sort_unstable();
    steps.dedup();
    Builder { max: widths.max, widths: steps }.node(candidates, 0, widths.min)
}

type Candidates<'a> = Vec<(usize, &'a Pattern)>;

struct Builder {
    /// Width of the word.
    max: u32,
    /// All widths of patterns, ascending.
    widths: Vec<u32>,
}

impl Builder {
    /// A tree for `rest`, given that the bits in `known` are tested and `have` bits are fetched.
    ///
    /// The recursion is bounded: every level tests or gives up at least one bit, or fetches more.
    fn node(&self, mut rest: Candidates<'_>, known: u64, have: u32) -> Node {
        let here = shl(ones(have), self.max.saturating_sub(have));
        let open = |pattern: &Pattern| pattern.mask & !known & here;
        let mut steps = Vec::new();
        while let Some((index, first)) = rest.first().copied() {
            if first.mask & !known == 0 && first.width <= have {
                steps.push(Node::Try(index));
                rest.remove(0);
                continue;
            }
            let common = rest.iter().fold(u64::MAX, |all, (_, pattern)| all & open(pattern));
            if common != 0 {
                steps.push(self.test(rest, common, known, have));
                break;
            }
            if rest.iter().all(|(_, pattern)| open(pattern) == 0) {
                steps.push(self.fetch(rest, known, have));
                break;
            }
            let (now, later) = divide(rest, open);
            steps.push(self.node(now, known, have));
            rest = later;
        }
        match <[Node; 1]>::try_from(steps) {
            Ok([only]) => only,
            Err(steps) => Node::Seq(steps),
        }
    }

    /// Tests bits of `common`, which all of `rest` fix.
    fn test(&self, rest: Candidates<'_>, common: u64, known: u64, have: u32) -> Node {
        let one = rest.iter().fold(u64::MAX, |all, (_, pattern)| all & pattern.value);
        let zero = rest.iter().fold(u64::MAX, |all, (_, pattern)| all & !pattern.value);
        let alike = common & (one | zero);
        let (shift, len) = best_run(&rest, common);
        let run = if alike == common { 0 } else { shl(ones(len), shift) };
        let check = alike & !run;
        if check != 0 {
            let then = Box::new(self.node(rest, known | check, have));
            return Node::Check { mask: check, value: one & check, then };
        }
        let mut arms: Vec<(u64, Candidates<'_>)> = Vec::new();
        for (index, pattern) in rest {
            let value = shr(pattern.value, shift) & ones(len);
            match arms.binary_search_by_key(&value, |(arm, _)| *arm) {
                Ok(at) => {
                    if let Some((_, arm)) = arms.get_mut(at) {
                        arm.push((index, pattern));
                    }
                }
                Err(at) => arms.insert(at, (value, vec![(index, pattern)])),
            }
        }
        let known = known | run;
        let arm = |(value, arm)| (value, self.node(arm, known, have));
        Node::Switch { shift, len, arms: arms.into_iter().map(arm).collect() }
    }

    /// Fetches as far as the next wider instruction goes: nothing is left to test in the bits at hand.
    ///
    /// An instruction is never fetched beyond its end, where memory may be missing. It differs from each
    /// longer one that comes earlier in a bit of its own (the checks see to that), and all bits at hand
    /// are tested before the next step.
    fn fetch(&self, rest: Candidates<'_>, known: u64, have: u32) -> Node {
        let width = self.widths.iter().copied().find(|width| *width > have).unwrap_or(self.max);
        match self.node(rest, known, width) {
            // Nothing was tested between the two.
            fetch @ Node::Fetch { .. } => fetch,
            then => Node::Fetch { width, then: Box::new(then) },
        }
    }
}

/// The run of bits in `common` with the most different values; the highest one of equals.
fn best_run(rest: &Candidates<'_>, common: u64) -> (u32, u32) {
    let mut best = (0, 0, 0);
    let mut left = common;
    while left != 0 {
        let high = left.ilog2();
        let len = shl(left, left.leading_zeros()).leading_ones();
        let shift = high.saturating_add(1).saturating_sub(len);
        let value = |(_, pattern): &(usize, &Pattern)| shr(pattern.value, shift) & ones(len);
        let mut values: Vec<u64> = rest.iter().map(value).collect();
        values.sort_unstable();
        values.dedup();
        if values.len() > best.0 {
            best = (values.len(), shift, len);
        }
        left &= !shl(ones(len), shift);
    }
    (best.1, best.2)
}

/// Divides a list that has no commonly open bit in two parts, to be decoded one after the other.
///
/// Preferred is "all that fix the most often fixed bit" against the others, in either order, if no
/// overlapping patterns change places by it; else a beginning of the list that has something in common.
fn divide(
    rest: Candidates<'_>,
    open: impl Fn(&Pattern) -> u64,
) -> (Candidates<'_>, Candidates<'_>) {
    let users =
        |bit: u32| rest.iter().filter(|(_, pattern)| open(pattern) & shl(1, bit) != 0).count();
    let bit = (0..64).max_by_key(|bit| users(*bit)).unwrap_or(0);
    let fixes = |pattern: &Pattern| open(pattern) & shl(1, bit) != 0;
    // Whether a pattern of the kind `late` stands before an overlapping one of the other kind.
    let disturbed = |late: bool| {
        rest.iter().enumerate().any(|(at, (_, first))| {
            fixes(first) == late
                && rest
                    .iter()
                    .skip(at)
                    .any(|(_, second)| fixes(second) != late && first.overlaps(second))
        })
    };
    if !disturbed(false) {
        return rest.into_iter().partition(|(_, pattern)| fixes(pattern));
    }
    if !disturbed(true) {
        return rest.into_iter().partition(|(_, pattern)| !fixes(pattern));
    }
    // The beginning shares open bits, or has none at all and can only fetch.
    let mut common = rest.first().map_or(0, |(_, pattern)| open(pattern));
    let fetching = common == 0;
    let length = rest.iter().take_while(|(_, pattern)| {
        common &= open(pattern);
        if fetching { open(pattern) == 0 } else { common != 0 }
    });
    let length = length.count();
    let mut now = rest;
    let later = now.split_off(length);
    (now, later)
}
