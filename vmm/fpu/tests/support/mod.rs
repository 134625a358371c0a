//! Random operands, and exact arithmetic as reference.
#![allow(dead_code, reason = "each test file uses a part of this")]

pub(crate) mod big;
pub(crate) mod exact;

use cairn_fpu::{Env, Flags, Float, Rounding, Rules, Tininess};

pub(crate) const ROUNDINGS: [Rounding; 6] = [
    Rounding::NearestEven,
    Rounding::NearestAway,
    Rounding::TowardZero,
    Rounding::Up,
    Rounding::Down,
    Rounding::Odd,
];

/// The five exceptions of IEEE 754.
pub(crate) const IEEE: Flags = Flags::INVALID
    .union(Flags::DIVIDE_BY_ZERO)
    .union(Flags::OVERFLOW)
    .union(Flags::UNDERFLOW)
    .union(Flags::INEXACT);

/// How many cases to run where `base` are run by default: `CAIRN_FPU_CASES` multiplies them.
pub(crate) fn cases(base: u32) -> u32 {
    let factor = std::env::var("CAIRN_FPU_CASES").ok().and_then(|text| text.parse().ok());
    base * factor.unwrap_or(1)
}

/// Rules with quiet results and this tininess.
pub(crate) fn rules(tininess: Tininess) -> &'static Rules {
    match tininess {
        Tininess::BeforeRounding => &Rules::S390X,
        Tininess::AfterRounding => &Rules::LOONGARCH,
    }
}

pub(crate) fn env(rounding: Rounding, tininess: Tininess) -> Env {
    Env { rounding, ..Env::new(rules(tininess)) }
}

/// A xorshift generator.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn wide(&mut self) -> u128 {
        u128::from(self.bits()) << 64 | u128::from(self.bits())
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.bits() >> 11) % bound
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    pub(crate) fn rounding(&mut self) -> Rounding {
        self.pick(&ROUNDINGS)
    }

    pub(crate) fn tininess(&mut self) -> Tininess {
        self.pick(&[Tininess::BeforeRounding, Tininess::AfterRounding])
    }

    /// A number of any kind: interesting ones, any bits, or near 1 so that operands meet.
    pub(crate) fn float<F: Float>(&mut self) -> F {
        let format = F::FORMAT;
        let bias = u64::from(format.bias().cast_unsigned());
        let range = 2 * bias + 1;
        let biased = match self.below(8) {
            0 => 0,
            1 => self.below(3),
            2 => range - self.below(3),
            3 => self.below(range),
            _ => bias - 4.min(bias / 2) + self.below(9),
        };
        let negative = self.below(2) == 1;
        let significand = self.significand(format.fraction_bits);
        build(negative, biased, significand)
    }

    /// A finite number that is not zero.
    pub(crate) fn finite<F: Float>(&mut self) -> F {
        loop {
            let value: F = self.float();
            if !value.is_zero() && !value.is_nan() && !value.is_infinite() {
                return value;
            }
        }
    }

    /// Random bits, or long runs of equal ones.
    pub(crate) fn significand(&mut self, bits: u32) -> u128 {
        let mask = (1_u128 << bits) - 1;
        let run = |random: &mut Random| mask >> random.below(u64::from(bits) + 1);
        let value = match self.below(8) {
            0 => 0,
            1 => mask,
            2 => run(self),
            3 => !run(self),
            4 => run(self) ^ 1,
            5 => run(self) ^ run(self),
            _ => self.wide(),
        };
        value & mask
    }
}

/// A float of these fields, with the integer bit that its exponent asks for.
pub(crate) fn build<F: Float>(negative: bool, biased: u64, fraction: u128) -> F {
    let format = F::FORMAT;
    let stored = format.fraction_bits + u32::from(format.explicit_integer);
    let integer =
        if format.explicit_integer && biased != 0 { 1 << format.fraction_bits } else { 0 };
    let sign = u128::from(negative) << (format.exponent_bits + stored);
    F::from_raw(sign | u128::from(biased) << stored | integer | fraction)
}

/// The ends of the ranges, in both signs.
pub(crate) fn specials<F: Float>() -> Vec<F> {
    let format = F::FORMAT;
    let bias = u64::from(format.bias().cast_unsigned());
    let ones = (1_u128 << format.fraction_bits) - 1;
    let mut values = Vec::new();
    for negative in [false, true] {
        for (biased, fraction) in [
            (0, 0),
            (0, 1),
            (0, ones),
            (1, 0),
            (1, 1),
            (bias - 1, ones),
            (bias, 0),
            (bias, 1),
            (bias + 1, 0),
            (bias + u64::from(format.fraction_bits), 1),
            (2 * bias, 0),
            (2 * bias, ones),
            (2 * bias + 1, 0),
            (2 * bias + 1, 1),
            (2 * bias + 1, ones / 2 + 1),
            (2 * bias + 1, ones),
        ] {
            values.push(build(negative, biased, fraction));
        }
    }
    values
}
