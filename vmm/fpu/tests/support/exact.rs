//! Exact values of floats, and their rounding by the words of the standard.

use std::cmp::Ordering;

use super::big::Big;
use cairn_fpu::{Env, Flags, Float, Rounding, Tininess};

/// `± magnitude × 2^exp`
#[derive(Clone, Debug)]
pub(crate) struct Exact {
    pub(crate) negative: bool,
    pub(crate) magnitude: Big,
    pub(crate) exp: i64,
}

impl Exact {
    /// The value of a finite float.
    pub(crate) fn new<F: Float>(value: F) -> Exact {
        let format = F::FORMAT;
        let stored = format.fraction_bits + u32::from(format.explicit_integer);
        let raw = value.abs().to_raw();
        let (biased, significand) = (raw >> stored, raw & ((1 << stored) - 1));
        let implicit = if format.explicit_integer || biased == 0 { 0 } else { 1 << stored };
        let exp = i64::try_from(biased.max(1)).unwrap()
            - i64::from(format.bias())
            - i64::from(format.fraction_bits);
        let magnitude = Big::new(significand | implicit);
        Exact { negative: value.is_sign_negative(), magnitude, exp }
    }

    pub(crate) fn negated(mut self) -> Exact {
        self.negative = !self.negative;
        self
    }

    /// The magnitude in units of `2^exp`, which must divide it.
    pub(crate) fn in_units(&self, exp: i64) -> Big {
        self.magnitude.shl(usize::try_from(self.exp - exp).unwrap())
    }

    pub(crate) fn mul(&self, other: &Exact) -> Exact {
        Exact {
            negative: self.negative ^ other.negative,
            magnitude: self.magnitude.mul(&other.magnitude),
            exp: self.exp + other.exp,
        }
    }

    pub(crate) fn add(&self, other: &Exact) -> Exact {
        let exp = self.exp.min(other.exp);
        let (a, b) = (self.in_units(exp), other.in_units(exp));
        if self.negative == other.negative {
            return Exact { negative: self.negative, magnitude: a.add(&b), exp };
        }
        match a.compare(&b) {
            Ordering::Less => Exact { negative: other.negative, magnitude: b.sub(&a), exp },
            _ => Exact { negative: self.negative, magnitude: a.sub(&b), exp },
        }
    }

    /// The quotient to 200 bits, the last of which stands for all that follow.
    pub(crate) fn div(&self, other: &Exact) -> Exact {
        let extra = (200 + other.magnitude.bits() - self.magnitude.bits()).max(0);
        let dividend = self.magnitude.shl(usize::try_from(extra).unwrap());
        let (quotient, rest) = dividend.div(&other.magnitude);
        let sticky = Big::new((!rest.is_zero()).into());
        Exact {
            negative: self.negative ^ other.negative,
            magnitude: quotient.shl(1).add(&sticky),
            exp: self.exp - extra - other.exp - 1,
        }
    }

    /// The root to 130 bits, the last of which stands for all that follow.
    pub(crate) fn sqrt(&self) -> Exact {
        let extra = (260 - self.magnitude.bits()).max(0) + (self.exp & 1);
        let extra = extra + ((self.exp - extra) & 1);
        let radicand = self.magnitude.shl(usize::try_from(extra).unwrap());
        let root = radicand.sqrt();
        let sticky = Big::new((root.mul(&root) != radicand).into());
        Exact {
            negative: false,
            magnitude: root.shl(1).add(&sticky),
            exp: (self.exp - extra) / 2 - 1,
        }
    }

    /// The magnitude in units of `2^unit` rounded to an integer, and whether it is inexact.
    pub(crate) fn integer(&self, unit: i64, rounding: Rounding) -> (Big, bool) {
        if self.exp >= unit {
            return (self.in_units(unit), false);
        }
        let count = usize::try_from(unit - self.exp).unwrap();
        let (value, inexact) = self.magnitude.shr(count);
        let twice = self.magnitude.shl(1);
        let half = value.shl(1).add(&Big::new(1)).shl(count);
        let odd = !value.is_zero() && value.shr(1).1;
        let up = match rounding {
            Rounding::NearestEven => match twice.compare(&half) {
                Ordering::Less => false,
                Ordering::Equal => odd,
                Ordering::Greater => true,
            },
            Rounding::NearestAway => twice.compare(&half) != Ordering::Less,
            Rounding::TowardZero => false,
            Rounding::Up => inexact && !self.negative,
            Rounding::Down => inexact && self.negative,
            Rounding::Odd => inexact && !odd,
        };
        (if up { value.add(&Big::new(1)) } else { value }, inexact)
    }

    /// The float nearest to this under the modes of `env`, with the flags of its rounding.
    pub(crate) fn round<F: Float>(&self, env: &Env) -> (F, Flags) {
        let format = F::FORMAT;
        let precision = i64::from(format.precision());
        let (min, max) = (i64::from(format.min_exponent()), i64::from(format.bias()));
        if self.magnitude.is_zero() {
            return (F::zero(self.negative), Flags::empty());
        }
        let exp = self.magnitude.bits() - 1 + self.exp;
        let mut flags = Flags::empty();
        let unit = exp.max(min) - (precision - 1);
        let (value, inexact) = self.integer(unit, env.rounding);
        // The exponent of the result, if it has as many bits as there are.
        let top = value.bits() - 1 + unit;
        if top > max {
            let nearest = matches!(env.rounding, Rounding::NearestEven | Rounding::NearestAway);
            let away = match env.rounding {
                Rounding::Up => !self.negative,
                Rounding::Down => self.negative,
                _ => nearest,
            };
            let infinity = F::infinity(self.negative);
            // The largest finite value stands right before infinity, but for a stored integer bit.
            let largest = super::build(
                self.negative,
                2 * u64::try_from(max).unwrap(),
                (1 << format.fraction_bits) - 1,
            );
            let result = if away { infinity } else { largest };
            return (result, Flags::OVERFLOW | Flags::INEXACT);
        }
        if inexact {
            flags |= Flags::INEXACT;
            let (unbounded, _) = self.integer(exp - (precision - 1), env.rounding);
            let after = unbounded.bits() - 1 + exp - (precision - 1);
            let tiny = match env.rules.tininess {
                Tininess::BeforeRounding => exp < min,
                Tininess::AfterRounding => after < min,
            };
            if tiny {
                flags |= Flags::UNDERFLOW;
            }
        }
        let significand = value.shr(usize::try_from((value.bits() - precision).max(0)).unwrap()).0;
        let significand = significand.to_u128();
        let fraction = significand & ((1 << format.fraction_bits) - 1);
        let normal = significand >> format.fraction_bits != 0;
        let biased = if normal { u64::try_from(top + max).unwrap() } else { 0 };
        (super::build(self.negative, biased, fraction), flags)
    }
}
