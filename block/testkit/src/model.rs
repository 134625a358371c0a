//! What may be read from a disk after a sequence of requests, all done or cut short by a power cut.
//!
//! For every byte the model keeps the history of the requests that touched it. After a crash a byte
//! may have the value that the last flush made durable, or any value written since.

use std::fmt;
use std::ops::Range;

use cairn_block::graph::Backend;
use cairn_block::{IoBufMut, Result};

use crate::range_map::RangeMap;
use crate::value::{Value, sectors};

/// What a request does to the bytes of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Values that a byte may have afterwards.
    values: Vec<Value>,
    /// It may also have the values that it could have before.
    keeps: bool,
    /// It may also show what the disk held at first (a backing file).
    bares: bool,
}

impl Effect {
    /// Sets the bytes.
    pub fn set(value: Value) -> Effect {
        Effect { values: vec![value], ..Effect::default() }
    }

    /// Discards the bytes: zero or as before, and as at first if `bares`.
    pub fn discard(bares: bool) -> Effect {
        Effect { values: vec![Value::Zero], keeps: true, bares }
    }

    /// The effect of such a request that failed: any part of it may be done.
    pub fn uncertain(self) -> Effect {
        Effect { keeps: true, ..self }
    }

    /// This effect, then `next`.
    pub(crate) fn then(&mut self, next: &Effect) {
        if next.keeps {
            let keeps = self.keeps;
            self.or(next);
            self.keeps = keeps;
        } else {
            self.clone_from(next);
        }
    }

    /// Either effect came last.
    pub(crate) fn or(&mut self, other: &Effect) {
        for value in &other.values {
            if !self.values.contains(value) {
                self.values.push(*value);
            }
        }
        self.keeps |= other.keeps;
        self.bares |= other.bares;
    }
}

#[derive(Clone, Debug)]
struct History {
    first: Value,
    /// Number of the step, and what it did.
    effects: Vec<(usize, Effect)>,
}

/// How much is known to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knowledge {
    /// Steps before this one are durable.
    pub durable: usize,
    /// Steps before this one have begun.
    pub begun: usize,
}

/// A place where a disk holds what it must not.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// First byte of a piece of a sector.
    pub offset: u64,
    /// Begin of the content found.
    pub found: Vec<u8>,
    /// Contents allowed.
    pub legal: Vec<Value>,
    /// Steps that touched the place.
    pub steps: Vec<usize>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch { offset, found, legal, steps } = self;
        write!(f, "offset {offset:#x} holds {found:02x?}, not one of {legal:?}; steps {steps:?}")
    }
}

#[derive(Clone, Copy, Debug)]
struct SizeChange {
    step: usize,
    size: u64,
    /// It succeeded.
    certain: bool,
}

/// A disk as it should be. Steps are numbered from 0; each is a request or a set of concurrent ones.
#[derive(Clone, Debug)]
pub struct Model {
    sizes: Vec<SizeChange>,
    content: RangeMap<History>,
    steps: usize,
}

impl Model {
    /// A disk of `size` zero bytes.
    pub fn new(size: u64) -> Model {
        let history = History { first: Value::Zero, effects: Vec::new() };
        let sizes = vec![SizeChange { step: 0, size, certain: true }];
        Model { sizes, content: RangeMap::new(history), steps: 0 }
    }

    /// Declares that `range` holds `value` at first.
    pub fn begin_with(&mut self, range: Range<u64>, value: Value) {
        self.content.update(range, |history| history.first = value);
    }

    /// Number of steps so far.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// What is known when every step is done.
    pub fn all_done(&self) -> Knowledge {
        Knowledge { durable: self.steps, begun: self.steps }
    }

    /// Present size, if no change failed.
    pub fn size(&self) -> u64 {
        self.sizes.last().map_or(0, |change| change.size)
    }

    /// A step of requests that may be concurrent: where they overlap, any may be the last.
    pub fn step(&mut self, requests: &[(Range<u64>, Effect)]) {
        let step = self.begin_step();
        for (range, effect) in requests {
            self.merge(step, range.clone(), effect);
        }
    }

    fn begin_step(&mut self) -> usize {
        self.steps += 1;
        self.steps - 1
    }

    fn merge(&mut self, step: usize, range: Range<u64>, effect: &Effect) {
        self.content.update(range, |history| match history.effects.last_mut() {
            Some((last, before)) if *last == step => before.or(effect),
            _ => history.effects.push((step, effect.clone())),
        });
    }

    /// A change of the size. When it shrinks, what is cut off may go bit by bit, showing what lay
    /// below, before the new size is seen.
    pub fn resize(&mut self, size: u64) {
        self.change_size(size, true);
    }

    /// A change of the size that failed.
    pub fn fail_resize(&mut self, size: u64) {
        self.change_size(size, false);
    }

    fn change_size(&mut self, size: u64, certain: bool) {
        let old = self.size();
        if size < old {
            self.step(&[(size..old, Effect::discard(true))]);
        }
        let step = self.steps;
        let zeroes = Effect { keeps: !certain, ..Effect::set(Value::Zero) };
        self.step(&[(size.min(old)..u64::MAX, zeroes)]);
        self.sizes.push(SizeChange { step, size, certain });
    }

    /// Sizes that the disk may have.
    pub fn sizes(&self, known: Knowledge) -> Vec<u64> {
        let mut legal = Vec::new();
        for change in self.sizes.iter().filter(|c| c.step < known.begun || c.step == 0) {
            if change.certain && change.step < known.durable {
                legal.clear();
            }
            legal.push(change.size);
        }
        legal
    }

    /// Compares all that `disk` holds with the model.
    pub async fn verify(&self, disk: &Backend, known: Knowledge) -> Result<Vec<Mismatch>> {
        const CHUNK: u64 = 1 << 20;
        let size = disk.size();
        let mut found = Vec::new();
        let mut offset = 0;
        while offset < size {
            let len = CHUNK.min(size - offset);
            let buf = IoBufMut::new(usize::try_from(len).unwrap_or(0));
            let buf = disk.read(offset, buf).await?;
            found.extend(self.compare(offset, &buf, known));
            offset += len;
        }
        Ok(found)
    }

    /// Compares `bytes`, read at `offset`, with the model; at most one mismatch a run is told.
    pub fn compare(&self, offset: u64, bytes: &[u8], known: Knowledge) -> Vec<Mismatch> {
        let end = offset + bytes.len() as u64;
        let mut mismatches = Vec::new();
        for (range, history) in self.content.runs(offset..end) {
            let from = usize::try_from(range.start - offset).unwrap_or(usize::MAX);
            let to = usize::try_from(range.end - offset).unwrap_or(usize::MAX);
            let run = bytes.get(from..to).unwrap_or_default();
            let legal = history.legal(known);
            if let [Value::Zero] = legal[..]
                && Value::Zero.matches(range.start, run)
            {
                continue;
            }
            let wrong = sectors(range.start, run.len())
                .find(|(at, piece)| !legal.iter().any(|v| v.matches(*at, &run[piece.clone()])));
            if let Some((at, piece)) = wrong {
                mismatches.push(Mismatch {
                    offset: at,
                    found: run[piece].iter().copied().take(16).collect(),
                    legal,
                    steps: history.effects.iter().map(|(step, _)| *step).collect(),
                });
            }
        }
        mismatches
    }
}

impl Effect {
    /// Whether `after`, found at `offset` and within one sector, may be what became of `before`.
    pub(crate) fn explains(&self, offset: u64, before: &[u8], after: &[u8]) -> bool {
        (self.keeps && before == after) || self.values.iter().any(|v| v.matches(offset, after))
    }

    pub(crate) fn values(&self) -> &[Value] {
        &self.values
    }
}

impl History {
    fn legal(&self, known: Knowledge) -> Vec<Value> {
        let mut legal = vec![self.first];
        let begun = self.effects.iter().take_while(|(step, _)| *step < known.begun);
        for (step, effect) in begun {
            if !effect.keeps && *step < known.durable {
                legal.clear();
            }
            let first = effect.bares.then_some(self.first);
            for value in effect.values.iter().copied().chain(first) {
                if !legal.contains(&value) {
                    legal.push(value);
                }
            }
        }
        legal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legal(model: &Model, offset: u64, durable: usize, begun: usize) -> Vec<Value> {
        let known = Knowledge { durable, begun };
        let (_, history) = model.content.runs(offset..offset + 1).next().unwrap();
        history.legal(known)
    }

    #[test]
    fn only_the_durable_value_and_later_ones_are_legal() {
        use Value::{Tag, Zero};
        let mut model = Model::new(4096);
        model.step(&[(0..1024, Effect::set(Tag(1)))]);
        model.step(&[(512..2048, Effect::set(Tag(2)))]);
        model.step(&[(0..4096, Effect::discard(false))]);
        assert_eq!(legal(&model, 600, 0, 0), [Zero]);
        assert_eq!(legal(&model, 600, 0, 2), [Zero, Tag(1), Tag(2)]);
        assert_eq!(legal(&model, 600, 1, 2), [Tag(1), Tag(2)]);
        assert_eq!(legal(&model, 600, 2, 2), [Tag(2)]);
        assert_eq!(legal(&model, 600, 3, 3), [Tag(2), Zero]);
        assert_eq!(legal(&model, 100, 2, 3), [Tag(1), Zero]);
    }

    #[test]
    fn what_was_cut_off_reads_as_zeroes_when_the_disk_grows_again() {
        let mut model = Model::new(4096);
        model.begin_with(0..4096, Value::Tag(9));
        model.step(&[(2048..4096, Effect::set(Value::Tag(1)))]);
        model.resize(1024);
        model.resize(8192);
        assert_eq!(legal(&model, 3000, model.steps(), model.steps()), [Value::Zero]);
        assert_eq!(legal(&model, 512, model.steps(), model.steps()), [Value::Tag(9)]);
        assert_eq!(model.sizes(model.all_done()), [8192]);
        assert_eq!(model.sizes(Knowledge { durable: 1, begun: 3 }), [4096, 1024]);
    }
}
