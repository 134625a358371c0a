//! Comparison, minimum and maximum (IEEE 754-2019, 5.11 and 9.6; IEEE 754-2008, 5.3.1).

use std::cmp::Ordering;

use crate::env::{Env, Flags};
use crate::format::Float;
use crate::nan::{invalid, propagate, propagate2};
use crate::parts::{Class, Parts, consume};
use crate::round::finish_full;

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// `a < b`
    Less,
    /// `a = b`; the zeros are equal.
    Equal,
    /// `a > b`
    Greater,
    /// At least one is a NaN.
    Unordered,
}

impl From<Ordering> for Relation {
    fn from(order: Ordering) -> Relation {
        match order {
            Ordering::Less => Relation::Less,
            Ordering::Equal => Relation::Equal,
            Ordering::Greater => Relation::Greater,
        }
    }
}

/// Compares; any NaN signals invalid (`<`, `≤` and the like).
pub fn compare<F: Float>(a: F, b: F, env: &mut Env) -> Relation {
    relation(a, b, true, env)
}

/// Compares; only signaling NaNs signal invalid (`=` and the like).
pub fn compare_quiet<F: Float>(a: F, b: F, env: &mut Env) -> Relation {
    relation(a, b, false, env)
}

fn relation<F: Float>(a: F, b: F, signaling: bool, env: &mut Env) -> Relation {
    if let Some(order) = order_of_encodings(a, b) {
        return order.into();
    }
    let (a, b) = (Parts::unpack(a, env), Parts::unpack(b, env));
    if a.is_nan() || b.is_nan() {
        let quiet = |nan: Parts| matches!(nan.class, Class::QuietNan) || !nan.is_nan();
        if !quiet(a) || !quiet(b) {
            // For its flags; there is no result to keep.
            propagate2(a, b, env);
        }
        if signaling {
            env.raise(Flags::INVALID | Flags::INVALID_COMPARE);
        }
        return Relation::Unordered;
    }
    consume([&a, &b], env);
    order(a, b).into()
}

/// Orders two values that need no flag, by their encodings; `None` if they may need one.
///
/// The interchange formats are ordered as integers of sign and magnitude, from zero to infinity. NaNs and
/// denormal numbers are left to the general case, and so is the 80-bit format with its undefined encodings.
fn order_of_encodings<F: Float>(a: F, b: F) -> Option<Ordering> {
    let infinity = F::infinity(false).to_raw();
    let (left, right) = (a.abs().to_raw(), b.abs().to_raw());
    let plain = |value: F, magnitude: u128| {
        !F::FORMAT.explicit_integer && magnitude <= infinity && !value.is_denormal()
    };
    if !plain(a, left) || !plain(b, right) {
        return None;
    }
    Some(match (a.is_sign_negative(), b.is_sign_negative()) {
        _ if left | right == 0 => Ordering::Equal,
        (false, false) => left.cmp(&right),
        (true, true) => right.cmp(&left),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    })
}

/// Orders two values that are no NaNs.
fn order(a: Parts, b: Parts) -> Ordering {
    match (a.class == Class::Zero, b.class == Class::Zero) {
        (true, true) => return Ordering::Equal,
        (true, false) => return if b.negative { Ordering::Greater } else { Ordering::Less },
        (false, true) => return if a.negative { Ordering::Less } else { Ordering::Greater },
        (false, false) => {}
    }
    match (a.negative, b.negative) {
        (false, false) => magnitude(a, b),
        (true, true) => magnitude(b, a),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
    }
}

/// Orders the magnitudes of two values that are no NaNs.
fn magnitude(a: Parts, b: Parts) -> Ordering {
    let rank = |parts: Parts| match parts.class {
        Class::Zero => 0,
        Class::Infinity => 2,
        _ => 1,
    };
    (rank(a), a.exp, a.frac).cmp(&(rank(b), b.exp, b.frac))
}

/// Which of two values to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extremum {
    /// The smaller one.
    Min,
    /// The larger one.
    Max,
}

/// What becomes of NaNs and zeros in [`min_max`]. But for [`MinMaxRule::X86`], −0 is less than +0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinMaxRule {
    /// `minNum` of IEEE 754-2008: the number, if the other one is a quiet NaN.
    Number2008,
    /// `minNumMag` of IEEE 754-2008: as `Number2008`, but compares magnitudes first.
    Magnitude2008,
    /// `minimumNumber` of IEEE 754-2019: the number, if the other one is any NaN.
    Number2019,
    /// `minimumMagnitudeNumber` of IEEE 754-2019.
    Magnitude2019,
    /// `minimum` of IEEE 754-2019: NaNs propagate.
    Propagate2019,
    /// `MINSS` and the like: the second operand, unchanged, if one is a NaN or both are zeros; any NaN
    /// signals invalid.
    X86,
}

/// The smaller or larger of `a` and `b`.
pub fn min_max<F: Float>(a: F, b: F, extremum: Extremum, rule: MinMaxRule, env: &mut Env) -> F {
    let (left, right) = (Parts::unpack(a, env), Parts::unpack(b, env));
    if left.is_nan() || right.is_nan() {
        if rule == MinMaxRule::X86 {
            invalid(Flags::empty(), env);
            return b;
        }
        let result = nan_extremum(left, right, rule, env);
        return finish_full(result, env);
    }
    consume([&left, &right], env);
    let by_sign = || right.negative.cmp(&left.negative);
    let order = match rule {
        MinMaxRule::X86 => order(left, right),
        MinMaxRule::Magnitude2008 | MinMaxRule::Magnitude2019 => {
            magnitude(left, right).then_with(|| order(left, right)).then_with(by_sign)
        }
        _ => order(left, right).then_with(by_sign),
    };
    let first = match extremum {
        Extremum::Min => order == Ordering::Less,
        Extremum::Max => order == Ordering::Greater,
    };
    let (value, parts) = if first { (a, left) } else { (b, right) };
    // An operand that was flushed stays flushed.
    if parts.class == Class::Zero { F::zero(parts.negative) } else { value }
}

fn nan_extremum(a: Parts, b: Parts, rule: MinMaxRule, env: &mut Env) -> Parts {
    let number = match (a.is_nan(), b.is_nan()) {
        (true, false) => Some((b, a)),
        (false, true) => Some((a, b)),
        _ => None,
    };
    match (rule, number) {
        (MinMaxRule::Number2019 | MinMaxRule::Magnitude2019, Some((number, nan))) => {
            // For its flags: a signaling NaN still signals.
            propagate(nan, env);
            number
        }
        (MinMaxRule::Number2008 | MinMaxRule::Magnitude2008, Some((number, nan)))
            if nan.class == Class::QuietNan =>
        {
            number
        }
        _ => propagate2(a, b, env),
    }
}
