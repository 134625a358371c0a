//! Decoding at run time, for disassemblers, coverage reports and tests.
//!
//! This walks the same tree that generated code is made from.

use crate::bits::{extend, ones, shl, shr};
use crate::model::{Bits, Decoder, Extract, Part, Pattern, Unit};
use crate::tree::Node;

/// The functions that fields apply, for run-time decoding.
pub trait Functions {
    /// The value of function `name` for the bits of a field (`None`: the field has no bits).
    ///
    /// `None` if the function is not known; decoding the arguments then fails.
    fn call(&self, name: &str, value: Option<i64>) -> Option<i64>;
}

/// For pattern files without functions.
impl Functions for () {
    fn call(&self, _name: &str, _value: Option<i64>) -> Option<i64> {
        None
    }
}

impl<F: Fn(&str, Option<i64>) -> Option<i64>> Functions for F {
    fn call(&self, name: &str, value: Option<i64>) -> Option<i64> {
        self(name, value)
    }
}

/// The outcome of decoding a word.
#[derive(Clone, Copy, Debug)]
pub enum Decoded<'a> {
    /// The first pattern that matches and was accepted.
    Pattern(&'a Pattern),
    /// No accepted pattern matches.
    Undefined,
    /// The instruction cannot be told from the bits at hand: it has at least this many.
    Needs(u32),
}

impl<'a> Decoded<'a> {
    /// The pattern, if one was found.
    pub fn pattern(self) -> Option<&'a Pattern> {
        match self {
            Decoded::Pattern(pattern) => Some(pattern),
            Decoded::Undefined | Decoded::Needs(_) => None,
        }
    }
}

impl Decoder {
    /// The first pattern that matches `word`, which has all bits of the widest instruction.
    pub fn decode(&self, word: u64) -> Decoded<'_> {
        self.decode_with(word, self.widths.max, |_| true)
    }

    /// The first matching pattern for which `accept` holds, given the `have` highest bits of `word`.
    ///
    /// `accept` plays the part of the translator, which may refuse a pattern (say, because an
    /// extension is off) so that the next one that overlaps it is tried.
    pub fn decode_with(
        &self,
        word: u64,
        have: u32,
        mut accept: impl FnMut(&Pattern) -> bool,
    ) -> Decoded<'_> {
        if have < self.widths.min {
            return Decoded::Needs(self.widths.min);
        }
        self.walk(&self.tree, word, have, &mut accept).unwrap_or(Decoded::Undefined)
    }

    /// `None` hands on to the next step.
    fn walk<'a>(
        &'a self,
        node: &'a Node,
        word: u64,
        have: u32,
        accept: &mut dyn FnMut(&Pattern) -> bool,
    ) -> Option<Decoded<'a>> {
        match node {
            Node::Try(index) => {
                let pattern = self.patterns.get(*index)?;
                accept(pattern).then_some(Decoded::Pattern(pattern))
            }
            Node::Check { mask, value, then } if word & mask == *value => {
                self.walk(then, word, have, accept)
            }
            Node::Check { .. } => None,
            Node::Switch { shift, len, arms } => {
                let value = shr(word, *shift) & ones(*len);
                let at = arms.binary_search_by_key(&value, |(arm, _)| *arm).ok()?;
                let (_, arm) = arms.get(at)?;
                self.walk(arm, word, have, accept)
            }
            Node::Fetch { width, .. } if have < *width => Some(Decoded::Needs(*width)),
            Node::Fetch { then, .. } => self.walk(then, word, have, accept),
            Node::Seq(steps) => steps.iter().find_map(|step| self.walk(step, word, have, accept)),
        }
    }
}

impl Unit {
    /// The arguments of `pattern` in `word`, by name, in the order of the argument set.
    ///
    /// `None` if `functions` does not know a function that a field applies.
    pub fn arguments<'a>(
        &'a self,
        pattern: &Pattern,
        word: u64,
        functions: &impl Functions,
    ) -> Option<Vec<(&'a str, i64)>> {
        let set = self.args_of(pattern)?;
        let mut raw = vec![0_i64; pattern.extracts.len()];
        for index in &pattern.order {
            let value = match pattern.extracts.get(*index)? {
                Extract::Const(value) => *value,
                Extract::Field { parts, function: None } => join(parts, word, &raw),
                Extract::Field { parts, function: Some(function) } => {
                    let value = (!parts.is_empty()).then(|| join(parts, word, &raw));
                    functions.call(function, value)?
                }
            };
            *raw.get_mut(*index)? = value;
        }
        let named = |((name, ty), raw): (&'a (String, crate::ArgType), i64)| {
            (name.as_str(), ty.convert(raw))
        };
        Some(set.elements.iter().zip(raw).map(named).collect())
    }
}

/// The concatenation of `parts`.
fn join(parts: &[Part], word: u64, raw: &[i64]) -> i64 {
    let part = |all: u64, part: &Part| {
        let bits = match part.source {
            Bits::Insn(position) => shr(word, position),
            Bits::Argument(other) => raw.get(other).copied().unwrap_or(0).cast_unsigned(),
        };
        shl(all, part.len) | extend(bits, part.len, part.signed).cast_unsigned()
    };
    parts.iter().fold(0, part).cast_signed()
}
