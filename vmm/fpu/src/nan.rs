//! NaN results (IEEE 754-2019, 6.2).

use crate::env::{Env, Flags};
use crate::parts::{Class, Parts};
use crate::rules::{DefaultNan, NanOrder, Order, Quieting};

/// The highest fraction bit.
const HIGHEST: u128 = 1 << 126;

/// The NaN that invalid operations make.
pub(crate) fn default_nan(env: &Env) -> Parts {
    let all = HIGHEST | (HIGHEST - 1);
    let (negative, frac) = match env.rules.default_nan {
        DefaultNan::HighestBit { negative } => (negative, HIGHEST),
        DefaultNan::AllOnes { negative } => (negative, all),
        DefaultNan::AllButHighest => (false, all & !HIGHEST),
        DefaultNan::SecondBit => (false, HIGHEST >> 1),
    };
    Parts::nan(Class::QuietNan, negative, frac)
}

/// Signals an invalid operation for `reason`; the result of such an operation.
pub(crate) fn invalid(reason: Flags, env: &mut Env) -> Parts {
    env.raise(Flags::INVALID | reason);
    default_nan(env)
}

/// Signals invalid if one of `operands` is signaling or not a valid encoding at all.
///
/// Returns whether all are valid encodings.
fn signal(operands: &[&Parts], env: &mut Env) -> bool {
    if operands.iter().any(|operand| operand.class == Class::SignalingNan) {
        env.raise(Flags::INVALID | Flags::INVALID_SNAN);
    }
    let unsupported = operands.iter().any(|operand| operand.class == Class::Unsupported);
    if unsupported {
        env.raise(Flags::INVALID);
    }
    !unsupported
}

/// The result that is made from `nan`.
fn quieted(nan: Parts, env: &Env) -> Parts {
    if env.default_nan || !nan.is_nan() {
        return default_nan(env);
    }
    let frac = match (nan.class, env.rules.quieting) {
        (Class::SignalingNan, Quieting::SetHighest) => nan.frac | HIGHEST,
        (Class::SignalingNan, Quieting::ClearHighest) => nan.frac & !HIGHEST | HIGHEST >> 1,
        (Class::SignalingNan, Quieting::Replace) => return default_nan(env),
        _ => nan.frac,
    };
    Parts::nan(Class::QuietNan, nan.negative, frac)
}

/// The result of an operation on the NaN `a` alone.
pub(crate) fn propagate(a: Parts, env: &mut Env) -> Parts {
    if signal(&[&a], env) { quieted(a, env) } else { default_nan(env) }
}

/// The result of an operation on two operands, of which at least one is a NaN.
pub(crate) fn propagate2(a: Parts, b: Parts, env: &mut Env) -> Parts {
    if !signal(&[&a, &b], env) {
        return default_nan(env);
    }
    let nan = match (a.is_nan(), b.is_nan()) {
        (true, false) => a,
        (false, true) => b,
        _ => match env.rules.nan_order {
            NanOrder::First => a,
            NanOrder::Second => b,
            NanOrder::SignalingThenFirst => signaling_or_first(a, b),
            NanOrder::SignalingThenSecond => signaling_or_first(b, a),
            NanOrder::LargerSignificand => x87(a, b),
        },
    };
    quieted(nan, env)
}

fn signaling_or_first(first: Parts, second: Parts) -> Parts {
    let signaling = |nan: &Parts| nan.class == Class::SignalingNan;
    if !signaling(&first) && signaling(&second) { second } else { first }
}

/// Intel SDM vol. 1, table 4-7: rules for handling NaNs.
fn x87(a: Parts, b: Parts) -> Parts {
    match (a.class, b.class) {
        (Class::QuietNan, Class::SignalingNan) => return a,
        (Class::SignalingNan, Class::QuietNan) => return b,
        _ => {}
    }
    match a.frac.cmp(&b.frac) {
        std::cmp::Ordering::Greater => a,
        std::cmp::Ordering::Less => b,
        std::cmp::Ordering::Equal => {
            if a.negative {
                b
            } else {
                a
            }
        }
    }
}

/// The result of `a × b + c`, of which at least one is a NaN; `inf_zero` says that `a × b` is `∞ × 0`.
pub(crate) fn propagate3(a: Parts, b: Parts, c: Parts, inf_zero: bool, env: &mut Env) -> Parts {
    let valid = signal(&[&a, &b, &c], env);
    let rule = env.rules.inf_times_zero;
    let signaling = c.class == Class::SignalingNan;
    if inf_zero && (signaling || rule.invalid_if_quiet) {
        env.raise(Flags::INVALID | Flags::INVALID_INF_MUL);
    }
    let replaced = if signaling { rule.default_if_signaling } else { rule.default_if_quiet };
    if !valid || inf_zero && replaced {
        return default_nan(env);
    }
    let operands = match env.rules.fused_nan.order {
        Order::Abc => [a, b, c],
        Order::Acb => [a, c, b],
        Order::Cab => [c, a, b],
        Order::Cba => [c, b, a],
    };
    let signaling = operands.iter().find(|operand| operand.class == Class::SignalingNan);
    let preferred = signaling.filter(|_| env.rules.fused_nan.signaling_first);
    let nan = preferred.or_else(|| operands.iter().find(|operand| operand.is_nan()));
    nan.map_or_else(|| default_nan(env), |nan| quieted(*nan, env))
}
