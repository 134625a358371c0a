//! Modes and flags: the part of a floating-point status register that operations read and write.

use bitflags::bitflags;

use crate::rules::Rules;

/// How a result that does not fit is rounded (IEEE 754-2019, 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest value, ties to the even one.
    #[default]
    NearestEven,
    /// To the nearest value, ties away from zero.
    NearestAway,
    /// Toward zero.
    TowardZero,
    /// Toward positive infinity.
    Up,
    /// Toward negative infinity.
    Down,
    /// An inexact result gets an odd significand, so that a second rounding to fewer digits is as good
    /// as one rounding; overflow gives the largest finite value.
    Odd,
}

bitflags! {
    /// Exceptions that were signalled, and details that some architectures show.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u16 {
        /// No meaningful result.
        const INVALID = 1 << 0;
        /// An exact infinity from finite operands.
        const DIVIDE_BY_ZERO = 1 << 1;
        /// The rounded result is too large.
        const OVERFLOW = 1 << 2;
        /// The result is tiny and inexact, or flushed where the rules say so.
        const UNDERFLOW = 1 << 3;
        /// The result was rounded.
        const INEXACT = 1 << 4;
        /// A denormal operand was used as it is.
        const INPUT_DENORMAL = 1 << 5;
        /// A denormal operand was taken for zero.
        const INPUT_FLUSHED = 1 << 6;
        /// A tiny result became zero.
        const OUTPUT_FLUSHED = 1 << 7;
        /// With `INVALID`: a signaling NaN operand.
        const INVALID_SNAN = 1 << 8;
        /// With `INVALID`: ∞ − ∞.
        const INVALID_INF_SUB = 1 << 9;
        /// With `INVALID`: ∞ ÷ ∞.
        const INVALID_INF_DIV = 1 << 10;
        /// With `INVALID`: 0 ÷ 0.
        const INVALID_ZERO_DIV = 1 << 11;
        /// With `INVALID`: ∞ × 0.
        const INVALID_INF_MUL = 1 << 12;
        /// With `INVALID`: square root of a negative number.
        const INVALID_SQRT = 1 << 13;
        /// With `INVALID`: conversion to an integer that cannot hold the value.
        const INVALID_CONVERSION = 1 << 14;
        /// With `INVALID`: ordered comparison of a NaN.
        const INVALID_COMPARE = 1 << 15;
    }
}

/// Precision to which results in [`F80`](crate::F80) are rounded (x87 precision control).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 24 bits, with the exponent range of the 80-bit format.
    Single,
    /// 53 bits, with the exponent range of the 80-bit format.
    Double,
    /// All 64 bits.
    #[default]
    Extended,
}

/// Modes and collected flags. Operations only ever add flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Env {
    /// Rounding of results.
    pub rounding: Rounding,
    /// Flags signalled so far.
    pub flags: Flags,
    /// Takes denormal operands for zeros.
    pub flush_inputs: bool,
    /// Makes tiny results zero.
    pub flush_outputs: bool,
    /// Makes every NaN result the default NaN.
    pub default_nan: bool,
    /// Precision of arithmetic in the 80-bit format.
    pub precision: Precision,
    /// The architecture's choices.
    pub rules: &'static Rules,
}

impl Env {
    /// Round to nearest even, no flags, nothing flushed.
    pub fn new(rules: &'static Rules) -> Env {
        Env {
            rounding: Rounding::NearestEven,
            flags: Flags::empty(),
            flush_inputs: false,
            flush_outputs: false,
            default_nan: rules.always_default_nan,
            precision: Precision::Extended,
            rules,
        }
    }

    /// The flags collected so far, which are cleared.
    pub fn take_flags(&mut self) -> Flags {
        std::mem::take(&mut self.flags)
    }

    pub(crate) fn raise(&mut self, flags: Flags) {
        self.flags |= flags;
    }
}
