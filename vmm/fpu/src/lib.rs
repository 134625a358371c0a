//! Software floating point for translated programs.
//!
//! Binary formats [`F16`], [`Bf16`], [`F32`], [`F64`], [`F80`] and [`F128`] with the operations of IEEE 754-2019:
//! every rounding mode, exception flags, and what the standard leaves to implementations (NaN results,
//! tininess, flushing of denormals, conversion of unrepresentable values) as each architecture has it.
//! An operation takes an [`Env`], which holds the modes and collects the flags; [`Rules`] in it name the
//! architecture's choices. Nothing is kept in thread or host state.
//!
//! One implementation serves all formats: operands are unpacked to a 128-bit significand (`parts`),
//! operated on, and rounded once (`round`). The common case of `f32` and `f64` is computed by the host
//! where that provably gives the same result and flags (`host`).
//!
//! Traps are not taken here: a translator compares [`Env::flags`] before and after.
#![deny(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used
)]

mod arith;
mod compare;
mod convert;
mod env;
mod fma;
mod format;
mod host;
mod int;
mod nan;
mod parts;
mod remainder;
mod round;
mod rules;
mod wide;

pub use arith::{add, div, mul, sqrt, sub};
pub use compare::{Extremum, MinMaxRule, Relation, compare, compare_quiet, min_max};
pub use convert::{convert, round_to_int, round_to_int_exact, scalbn};
pub use env::{Env, Flags, Precision, Rounding};
pub use fma::{Negate, fma, fma_with};
pub use format::{Bf16, F16, F32, F64, F80, F128, Float, Format};
pub use int::{Int, from_int, from_int_scaled, to_int, to_int_modular, to_int_scaled};
pub use remainder::{Quotient, remainder};
pub use rules::{
    DefaultNan, FusedNan, InfTimesZero, IntOverflow, NanOrder, NanToInt, Order, Quieting, Rules,
    Tininess,
};

/// Makes the examples of the documentation page part of the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/fpu.md")]
struct Page;
