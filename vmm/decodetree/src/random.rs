//! Random instructions, for comparing translators with each other and with other implementations.

use crate::bits::{ones, shl};
use crate::model::{Bits, Decoder, Extract, Pattern};

/// Attempts to find free bits that make a pattern the first match and pass the constraint.
const ATTEMPTS: usize = 256;

/// A random instruction.
#[derive(Clone, Copy, Debug)]
pub struct Insn<'a> {
    /// The pattern it was made from, which is the first accepted one that matches it.
    pub pattern: &'a Pattern,
    /// The decoder's word: left-justified if widths are variable, with zeros below the instruction.
    pub word: u64,
}

impl Insn<'_> {
    /// The instruction's own bits, right-justified.
    pub fn bits(&self) -> u64 {
        self.pattern.insn(self.word)
    }
}

/// Makes random instructions, each allowed pattern as often as any other.
///
/// Field bits are random, and sometimes all zeros or all ones, since the ends of the ranges are where
/// errors live.
///
/// ```
/// # use cairn_decodetree::{compile, random, Source, Widths};
/// let text = "inc  01 rd:6\n hlt 11111111";
/// let unit = compile(&[Source::new("tiny.decode", text, "decode", Widths::fixed(8))])?;
/// let mut generator = random::Generator::new(&unit.decoders()[0], 1)
///     .include(|pattern| pattern.name() != "hlt");
/// let insn = generator.next().unwrap();
/// assert_eq!((insn.pattern.name(), insn.word >> 6), ("inc", 1));
/// # Ok::<(), cairn_decodetree::Errors>(())
/// ```
pub struct Generator<'a> {
    decoder: &'a Decoder,
    /// Which patterns the decoder is taken to have, by index.
    included: Vec<bool>,
    /// The included patterns that are not given up.
    live: Vec<&'a Pattern>,
    constraint: Box<dyn FnMut(&Insn<'_>) -> bool + 'a>,
    ignored_as_zero: bool,
    random: SplitMix,
}

impl<'a> Generator<'a> {
    /// A generator over all patterns of `decoder`; equal seeds make equal sequences.
    pub fn new(decoder: &'a Decoder, seed: u64) -> Generator<'a> {
        Generator {
            decoder,
            included: vec![true; decoder.patterns.len()],
            live: decoder.patterns.iter().collect(),
            constraint: Box::new(|_| true),
            ignored_as_zero: false,
            random: SplitMix(seed),
        }
    }

    /// Leaves out the patterns for which `keep` is false, as if the decoder did not have them.
    pub fn include(mut self, keep: impl Fn(&Pattern) -> bool) -> Generator<'a> {
        for (included, pattern) in self.included.iter_mut().zip(&self.decoder.patterns) {
            *included &= keep(pattern);
        }
        let included = &self.included;
        self.live.retain(|pattern| included.get(pattern.index) == Some(&true));
        self
    }

    /// Leaves out instructions for which `keep` is false, such as stores through a wild register.
    pub fn constrain(mut self, keep: impl FnMut(&Insn<'_>) -> bool + 'a) -> Generator<'a> {
        self.constraint = Box::new(keep);
        self
    }

    /// Makes ignored (`-`) bits zero instead of random.
    pub fn ignored_as_zero(mut self) -> Generator<'a> {
        self.ignored_as_zero = true;
        self
    }

    /// A word that matches `pattern`.
    fn fill(&mut self, pattern: &Pattern) -> u64 {
        let free = shl(ones(pattern.width), pattern.unused) & !pattern.mask;
        let ignored = if self.ignored_as_zero { 0 } else { self.random.next() & pattern.ignored };
        let mut fields = self.random.next();
        for extract in &pattern.extracts {
            let Extract::Field { parts, .. } = extract else { continue };
            let fill = match self.random.next() % 8 {
                0 => 0,
                1 => u64::MAX,
                _ => continue,
            };
            for part in parts {
                let Bits::Insn(position) = part.source else { continue };
                let bits = shl(ones(part.len), position);
                fields = fields & !bits | fill & bits;
            }
        }
        pattern.value | fields & free & !pattern.ignored | ignored & free
    }

    fn attempt(&mut self, pattern: &'a Pattern) -> Option<Insn<'a>> {
        let word = self.fill(pattern);
        let included = |candidate: &Pattern| self.included.get(candidate.index) == Some(&true);
        let first = self.decoder.decode_with(word, self.decoder.widths.max, included);
        let insn = Insn { pattern, word };
        let own = first.pattern().is_some_and(|first| first.index == pattern.index);
        (own && (self.constraint)(&insn)).then_some(insn)
    }
}

impl<'a> Iterator for Generator<'a> {
    type Item = Insn<'a>;

    /// The next instruction. A pattern that yields none, because earlier ones cover it or the constraint
    /// refuses it, is given up; `None` when no pattern is left.
    fn next(&mut self) -> Option<Insn<'a>> {
        while !self.live.is_empty() {
            let count = u64::try_from(self.live.len()).unwrap_or(u64::MAX);
            let index = usize::try_from(self.random.next().checked_rem(count)?).ok()?;
            let pattern = *self.live.get(index)?;
            let found = (0..ATTEMPTS).find_map(|_| self.attempt(pattern));
            if found.is_some() {
                return found;
            }
            self.live.swap_remove(index);
        }
        None
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
