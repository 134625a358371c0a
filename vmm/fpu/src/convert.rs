//! Conversion between formats, rounding to integral values, scaling (IEEE 754-2019, 5.4.2, 5.3.1, 5.3.3).

use crate::env::{Env, Flags, Rounding};
use crate::format::Float;
use crate::nan::propagate;
use crate::parts::{Class, Parts, consume};
use crate::round::{finish_full, round_at};

/// The value of `a` in another format.
///
/// The payload of a NaN keeps its highest bits.
pub fn convert<A: Float, B: Float>(a: A, env: &mut Env) -> B {
    let a = Parts::unpack(a, env);
    let value = if a.is_nan() { propagate(a, env) } else { a };
    consume([&value], env);
    finish_full(value, env)
}

/// `a` rounded to an integral value; never signals inexact (`roundToIntegralTiesToEven` and the like).
pub fn round_to_int<F: Float>(a: F, rounding: Rounding, env: &mut Env) -> F {
    integral(a, rounding, env).0
}

/// `a` rounded to an integral value; signals inexact if that changes it (`roundToIntegralExact`).
pub fn round_to_int_exact<F: Float>(a: F, rounding: Rounding, env: &mut Env) -> F {
    let (value, inexact) = integral(a, rounding, env);
    if inexact {
        env.raise(Flags::INEXACT);
    }
    value
}

fn integral<F: Float>(a: F, rounding: Rounding, env: &mut Env) -> (F, bool) {
    let a = Parts::unpack(a, env);
    let (value, inexact) = match a.class {
        _ if a.is_nan() => (propagate(a, env), false),
        Class::Number if a.exp < 127 => {
            // All magnitudes below 1/4 round alike.
            let exp = a.exp.max(-2);
            let shift = 127_i32.abs_diff(exp).min(128);
            let frac = if exp < -1 { 1 } else { a.frac };
            let rounded = round_at(frac, shift, a.negative, rounding);
            (Parts::number(a.negative, 127, rounded.value), rounded.inexact)
        }
        _ => (a, false),
    };
    consume([&a], env);
    (finish_full(value, env), inexact)
}

/// `a × 2^n`, rounded once.
pub fn scalbn<F: Float>(a: F, n: i32, env: &mut Env) -> F {
    let a = Parts::unpack(a, env);
    let value = match a.class {
        _ if a.is_nan() => propagate(a, env),
        // Exponents span less than 2^16: beyond, the result is all overflow or underflow.
        Class::Number => Parts { exp: a.exp + n.clamp(-0x20000, 0x20000), ..a },
        _ => a,
    };
    consume([&a], env);
    finish_full(value, env)
}
