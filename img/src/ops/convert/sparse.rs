//! Where in a piece of data the zeroes are.

use std::ops::Range;

use cairn_block::buf::is_zero;
use cairn_block::num::AsUsize as _;

/// A part of a piece of data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Where in the piece it is.
    pub(super) range: Range<usize>,
    /// All of it is zero.
    pub(super) zero: bool,
}

/// How zeroes in data are looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Detection {
    /// Runs begin and end at multiples of this (a power of two), counted from offset 0 of the target;
    /// anything finer would make the target read, modify and write.
    pub(super) unit: usize,
    /// Zeroes count as such in runs of at least this many bytes.
    pub(super) shortest: usize,
}

impl Detection {
    /// Cuts `data`, which belongs at `offset` of the target, into runs that are zero or not. Runs of
    /// zeroes that are too short belong to the data around them, unless they are all there is.
    pub(super) fn runs(self, offset: u64, data: &[u8]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut at = 0;
        while at < data.len() {
            let misaligned = ((offset + at as u64) % self.unit as u64).as_usize();
            let end = (at + self.unit - misaligned).min(data.len());
            let zero = data.get(at..end).is_some_and(is_zero);
            push(&mut runs, Run { range: at..end, zero });
            at = end;
        }
        if self.shortest <= self.unit || runs.len() < 2 {
            return runs;
        }
        let mut kept: Vec<Run> = Vec::with_capacity(runs.len());
        for run in runs {
            let zero = run.zero && run.range.len() >= self.shortest;
            push(&mut kept, Run { zero, ..run });
        }
        kept
    }
}

/// Adds a run, joined with the last one if they are of one kind.
fn push(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.zero == run.zero => last.range.end = run.range.end,
        _ => runs.push(run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `d` is a unit of data, `z` one of zeroes.
    fn runs(detection: Detection, offset: u64, units: &str) -> Vec<(Range<usize>, bool)> {
        let mut data = Vec::new();
        for unit in units.chars() {
            data.extend(vec![u8::from(unit == 'd'); 512]);
        }
        let runs = detection.runs(offset, &data);
        runs.into_iter().map(|run| (run.range, run.zero)).collect()
    }

    #[test]
    fn runs_alternate() {
        let detection = Detection { unit: 512, shortest: 512 };
        assert_eq!(
            runs(detection, 0, "ddzd"),
            [(0..1024, false), (1024..1536, true), (1536..2048, false)]
        );
        assert_eq!(runs(detection, 0, "zz"), [(0..1024, true)]);
        assert_eq!(runs(detection, 0, ""), []);
    }

    #[test]
    fn boundaries_are_aligned_in_the_target() {
        let detection = Detection { unit: 1024, shortest: 1024 };
        assert_eq!(runs(detection, 512, "zzdd"), [(0..512, true), (512..2048, false)]);
        assert_eq!(
            runs(detection, 512, "dzzd"),
            [(0..512, false), (512..1536, true), (1536..2048, false)]
        );
    }

    #[test]
    fn short_runs_of_zeroes_are_data() {
        let detection = Detection { unit: 512, shortest: 1024 };
        assert_eq!(runs(detection, 0, "dzd"), [(0..1536, false)]);
        assert_eq!(runs(detection, 0, "zd"), [(0..1024, false)]);
        assert_eq!(
            runs(detection, 0, "dzzd"),
            [(0..512, false), (512..1536, true), (1536..2048, false)]
        );
        assert_eq!(runs(detection, 0, "z"), [(0..512, true)]);
    }
}
