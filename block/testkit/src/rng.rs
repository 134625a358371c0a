//! A small seeded random number generator (SplitMix64), the same on every machine.

/// A seeded generator.
#[derive(Clone, Debug)]
pub struct Rng(u64);

/// `seed`, or another one made from it and the number in the environment variable `CAIRN_SEED`, with
/// which a test goes other ways than it usually does.
pub fn seeded(seed: u64) -> u64 {
    match std::env::var("CAIRN_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(other) => Rng::for_part(seed, &[other]).bits(),
        None => seed,
    }
}

impl Rng {
    /// A generator whose numbers depend on `seed` alone.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// A generator for one of many parts of a test, independent of the others.
    pub fn for_part(seed: u64, part: &[u64]) -> Rng {
        Rng(part.iter().fold(mix(seed), |state, &word| mix(state ^ mix(word))))
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "there is no number below 0");
        self.bits() % end
    }

    /// A number in `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True `percent` times out of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Spreads the bits of `word` (the output function of SplitMix64).
pub(crate) fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
