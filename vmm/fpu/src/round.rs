//! Rounding and packing of results (IEEE 754-2019, 4.3 and 7.4 to 7.6).

use crate::env::{Env, Flags, Precision, Rounding};
use crate::format::{Float, Format, assemble};
use crate::parts::{Class, Parts};
use crate::rules::Tininess;
use crate::wide::shift_right_sticky;

/// The upper part of a significand cut at a bit, rounded.
pub(crate) struct Rounded {
    /// The part above the cut. It may have carried into one more bit.
    pub(crate) value: u128,
    /// Whether any bit below was set.
    pub(crate) inexact: bool,
}

/// Cuts the `shift` lowest bits (0 to 128) of `frac` and rounds what is left.
pub(crate) fn round_at(frac: u128, shift: u32, negative: bool, rounding: Rounding) -> Rounded {
    let (value, rest, half) = match shift {
        0 => return Rounded { value: frac, inexact: false },
        1..=127 => (frac >> shift, frac & ((1 << shift) - 1), 1 << (shift - 1)),
        _ => (0, frac, 1 << 127),
    };
    let inexact = rest != 0;
    let up = match rounding {
        Rounding::NearestEven => rest > half || rest == half && value & 1 == 1,
        Rounding::NearestAway => rest >= half,
        Rounding::TowardZero => false,
        Rounding::Up => inexact && !negative,
        Rounding::Down => inexact && negative,
        Rounding::Odd => inexact && value & 1 == 0,
    };
    Rounded { value: value + u128::from(up), inexact }
}

/// The precision of arithmetic results in the format `F`.
pub(crate) fn precision<F: Float>(env: &Env) -> u32 {
    match env.precision {
        Precision::Single if F::FORMAT.explicit_integer => 24,
        Precision::Double if F::FORMAT.explicit_integer => 53,
        _ => F::FORMAT.precision(),
    }
}

/// Packs the result of an arithmetic operation.
pub(crate) fn finish<F: Float>(result: Parts, env: &mut Env) -> F {
    pack(result, precision::<F>(env), env)
}

/// Packs the result of an operation that takes no part in precision control.
pub(crate) fn finish_full<F: Float>(result: Parts, env: &mut Env) -> F {
    pack(result, F::FORMAT.precision(), env)
}

fn pack<F: Float>(result: Parts, precision: u32, env: &mut Env) -> F {
    let format = F::FORMAT;
    let negative = result.negative;
    match result.class {
        Class::Zero => F::zero(negative),
        Class::Infinity => F::infinity(negative),
        Class::Number => number(negative, result.exp, result.frac, precision, env),
        Class::QuietNan | Class::SignalingNan | Class::Unsupported => {
            let mut fraction = result.frac >> (127 - format.fraction_bits);
            if fraction == 0 {
                // A payload that does not fit must not leave an infinity.
                fraction = crate::nan::default_nan(env).frac >> (127 - format.fraction_bits);
            }
            assemble(negative, format.special(), fraction | format.integer_bit())
        }
    }
}

/// Rounds the number `frac / 2^127 × 2^exp` to `precision` bits and the range of the format.
fn number<F: Float>(negative: bool, exp: i32, frac: u128, precision: u32, env: &mut Env) -> F {
    let format = F::FORMAT;
    let min = format.min_exponent();
    let cut = 128 - precision;
    if exp < min {
        return denormal(negative, exp, frac, precision, env);
    }
    let mut exp = exp;
    let mut rounded = round_at(frac, cut, negative, env.rounding);
    if rounded.value >> precision != 0 {
        // All bits were ones: the carry leaves a power of two.
        rounded.value >>= 1;
        exp += 1;
    }
    if exp > format.bias() {
        return overflow(negative, precision, env);
    }
    if rounded.inexact {
        env.raise(Flags::INEXACT);
    }
    // Biased exponents of numbers lie between 1 and twice the bias.
    let biased = (exp + format.bias()).cast_unsigned();
    assemble(negative, biased, stored(rounded.value << cut, format))
}

/// A significand with its integer bit in bit 127, as it is stored.
fn stored(frac: u128, format: Format) -> u128 {
    let implicit = if format.explicit_integer { 0 } else { 1 << 127 };
    (frac & !implicit) >> (127 - format.fraction_bits)
}

fn overflow<F: Float>(negative: bool, precision: u32, env: &mut Env) -> F {
    env.raise(Flags::OVERFLOW | Flags::INEXACT);
    let infinite = match env.rounding {
        Rounding::NearestEven | Rounding::NearestAway => true,
        Rounding::TowardZero | Rounding::Odd => false,
        Rounding::Up => !negative,
        Rounding::Down => negative,
    };
    if infinite {
        return F::infinity(negative);
    }
    let ones = u128::MAX << (128 - precision);
    assemble(negative, F::FORMAT.special() - 1, stored(ones, F::FORMAT))
}

fn denormal<F: Float>(negative: bool, exp: i32, frac: u128, precision: u32, env: &mut Env) -> F {
    let format = F::FORMAT;
    let min = format.min_exponent();
    let cut = 128 - precision;
    let tiny = |tininess: Tininess, env: &Env| match tininess {
        Tininess::BeforeRounding => true,
        // Rounded with an unbounded exponent it is still small unless it carries to 2^min.
        Tininess::AfterRounding => {
            exp < min - 1 || round_at(frac, cut, negative, env.rounding).value >> precision == 0
        }
    };
    if env.flush_outputs && tiny(env.rules.flush, env) {
        env.raise(Flags::OUTPUT_FLUSHED | env.rules.flush_flags);
        return F::zero(negative);
    }
    let shifted = shift_right_sticky(frac, min.abs_diff(exp));
    let rounded = round_at(shifted, cut, negative, env.rounding);
    if rounded.inexact {
        env.raise(Flags::INEXACT);
        if tiny(env.rules.tininess, env) {
            env.raise(Flags::UNDERFLOW);
        }
    }
    // Rounding may have made the smallest normal number.
    let frac = rounded.value << cut;
    assemble(negative, u32::from(frac >> 127 != 0), stored(frac, format))
}
