//! Remainders (IEEE 754-2019, 5.3.1; C `fmod`).

use crate::env::{Env, Flags};
use crate::format::Float;
use crate::nan::{invalid, propagate2};
use crate::parts::{Class, Parts, consume};
use crate::round::finish_full;

/// How the quotient of a remainder is rounded to an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quotient {
    /// To the nearest one, ties to even: the remainder of IEEE 754.
    Nearest,
    /// Toward zero: C's `fmod`.
    Truncated,
}

/// Significands are brought to this many bits, which leaves 15 bits for one step of the division.
const ALIGNED: u32 = 113;

/// `a − n × b`, always exact, and the 64 lowest bits of the magnitude of the integral quotient `n`.
pub fn remainder<F: Float>(a: F, b: F, rounding: Quotient, env: &mut Env) -> (F, u64) {
    let (a, b) = (Parts::unpack(a, env), Parts::unpack(b, env));
    let (rest, quotient) = if a.is_nan() || b.is_nan() {
        (propagate2(a, b, env), 0)
    } else {
        consume([&a, &b], env);
        match (a.class, b.class) {
            (Class::Infinity, _) | (_, Class::Zero) => (invalid(Flags::empty(), env), 0),
            (Class::Zero, _) | (_, Class::Infinity) => (a, 0),
            _ => divide(a, b, rounding),
        }
    };
    (finish_full(rest, env), quotient)
}

fn divide(a: Parts, b: Parts, rounding: Quotient) -> (Parts, u64) {
    let cut = 128 - ALIGNED;
    let (mut rest, mut divisor) = (a.frac >> cut, b.frac >> cut);
    let mut left = match a.exp - b.exp {
        difference @ 0.. => difference.cast_unsigned(),
        // |a| lies between |b|/4 and |b|: compare both in units of `a`.
        -1 => {
            divisor <<= 1;
            0
        }
        // |a| is less than |b|/2.
        _ => return (a, 0),
    };
    let unit = a.exp.min(b.exp);
    let mut quotient = low(rest / divisor);
    rest %= divisor;
    while left > 0 {
        let step = left.min(cut);
        rest <<= step;
        quotient = quotient << step | low(rest / divisor);
        rest %= divisor;
        left -= step;
    }
    let mut negative = a.negative;
    let doubled = rest * 2;
    let up = doubled > divisor || doubled == divisor && quotient & 1 == 1;
    if rounding == Quotient::Nearest && up {
        rest = divisor - rest;
        negative = !negative;
        quotient = quotient.wrapping_add(1);
    }
    if rest == 0 {
        // A zero remainder has the sign of the dividend.
        return (Parts::zero(a.negative), quotient);
    }
    // `rest` counts units of the lowest of the aligned bits.
    (Parts::number(negative, unit + cut.cast_signed(), rest), quotient)
}

/// The 64 lowest bits.
#[allow(clippy::cast_possible_truncation)]
fn low(value: u128) -> u64 {
    value as u64
}
