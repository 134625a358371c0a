//! Unpacked operands.

use crate::env::{Env, Flags};
use crate::format::{Float, biased, significand};

/// What kind of value it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Zero,
    /// Normal or denormal in its format; normalised here.
    Number,
    Infinity,
    QuietNan,
    SignalingNan,
    /// An 80-bit encoding that the x87 refuses: its integer bit contradicts its exponent.
    Unsupported,
}

/// An unpacked value.
///
/// A number is `frac / 2^127 × 2^exp` with the highest bit of `frac` set. At most 113 bits are
/// significant, so an operand's 15 lowest bits are zero; in a result the lowest one is *sticky*: set if any
/// bit below it would be. A NaN keeps its fraction from bit 126 downwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    pub(crate) class: Class,
    pub(crate) negative: bool,
    pub(crate) exp: i32,
    pub(crate) frac: u128,
    /// Whether the operand was denormal.
    pub(crate) denormal: bool,
}

impl Parts {
    pub(crate) fn new(class: Class, negative: bool) -> Parts {
        Parts { class, negative, exp: 0, frac: 0, denormal: false }
    }

    pub(crate) fn zero(negative: bool) -> Parts {
        Parts::new(Class::Zero, negative)
    }

    pub(crate) fn infinity(negative: bool) -> Parts {
        Parts::new(Class::Infinity, negative)
    }

    pub(crate) fn nan(class: Class, negative: bool, frac: u128) -> Parts {
        Parts { frac, ..Parts::new(class, negative) }
    }

    /// The number `frac / 2^127 × 2^exp`, normalised; a zero if `frac` is 0.
    pub(crate) fn number(negative: bool, exp: i32, frac: u128) -> Parts {
        if frac == 0 {
            return Parts::zero(negative);
        }
        let shift = frac.leading_zeros();
        let exp = exp - shift.cast_signed();
        Parts { exp, frac: frac << shift, ..Parts::new(Class::Number, negative) }
    }

    /// Unpacks an operand, flushing it if it is denormal and the modes say so.
    pub(crate) fn unpack<F: Float>(value: F, env: &mut Env) -> Parts {
        let format = F::FORMAT;
        let negative = value.is_sign_negative();
        let (biased, stored) = (biased(value), significand(value));
        let aligned = stored << (127 - format.fraction_bits);
        if biased == format.special() {
            let fraction = aligned & (u128::MAX >> 1);
            let class = match (fraction == 0, stored & format.integer_bit() == format.integer_bit())
            {
                (_, false) => Class::Unsupported,
                (true, true) => Class::Infinity,
                (false, true) if value.is_signaling_nan(env.rules) => Class::SignalingNan,
                (false, true) => Class::QuietNan,
            };
            return Parts::nan(class, negative, fraction);
        }
        if biased == 0 {
            if stored == 0 {
                return Parts::zero(negative);
            }
            if env.flush_inputs {
                env.raise(Flags::INPUT_FLUSHED);
                return Parts::zero(negative);
            }
            // A pseudo-denormal of the 80-bit format, with its integer bit set, has this value too.
            return Parts {
                denormal: true,
                ..Parts::number(negative, format.min_exponent(), aligned)
            };
        }
        let frac = if format.explicit_integer { aligned } else { aligned | 1 << 127 };
        if frac >> 127 == 0 {
            return Parts::new(Class::Unsupported, negative);
        }
        let exp = biased.cast_signed() - format.bias();
        Parts { exp, frac, ..Parts::new(Class::Number, negative) }
    }

    pub(crate) fn is_nan(&self) -> bool {
        matches!(self.class, Class::QuietNan | Class::SignalingNan | Class::Unsupported)
    }

    pub(crate) fn negated_if(self, negate: bool) -> Parts {
        Parts { negative: self.negative ^ negate, ..self }
    }
}

/// Notes that operands are used in arithmetic.
pub(crate) fn consume<const N: usize>(operands: [&Parts; N], env: &mut Env) {
    if operands.iter().any(|operand| operand.denormal) {
        env.raise(Flags::INPUT_DENORMAL);
    }
}
