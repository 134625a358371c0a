//! The binary interchange formats, bfloat16 and the x87 extended format, as bit patterns.

use std::fmt;

use crate::rules::Rules;

/// Layout of a format: sign, biased exponent, significand, from the top down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Width of the exponent in bits.
    pub exponent_bits: u32,
    /// Bits of the significand behind the integer bit.
    pub fraction_bits: u32,
    /// Whether the integer bit of the significand is stored.
    pub explicit_integer: bool,
}

impl Format {
    /// Exponent bias, which is also the largest exponent.
    pub const fn bias(self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    /// Exponent of the smallest normal number.
    pub const fn min_exponent(self) -> i32 {
        1 - self.bias()
    }

    /// Significant bits, with the integer bit.
    pub const fn precision(self) -> u32 {
        self.fraction_bits + 1
    }

    /// Biased exponent of infinities and NaNs.
    pub(crate) const fn special(self) -> u32 {
        (1 << self.exponent_bits) - 1
    }

    /// Bits of the stored significand.
    pub(crate) const fn stored(self) -> u32 {
        self.fraction_bits + self.explicit_integer as u32
    }

    /// Width of the whole format.
    pub(crate) const fn width(self) -> u32 {
        1 + self.exponent_bits + self.stored()
    }

    pub(crate) const fn integer_bit(self) -> u128 {
        if self.explicit_integer { 1 << self.fraction_bits } else { 0 }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A floating-point format. Values are bit patterns: `==` compares bits, so NaNs equal themselves and
/// the zeros differ; [`compare`](crate::compare()) compares numbers.
pub trait Float:
    Copy + Eq + Default + fmt::Debug + Send + Sync + sealed::Sealed + crate::host::Host + 'static
{
    /// The bit pattern.
    type Bits;

    /// The layout.
    const FORMAT: Format;

    /// The value with this bit pattern.
    fn from_bits(bits: Self::Bits) -> Self;

    /// The bit pattern.
    fn to_bits(self) -> Self::Bits;

    /// The value with these lowest bits; the bits above the format's width are dropped.
    fn from_raw(raw: u128) -> Self;

    /// The bit pattern, extended with zeros.
    fn to_raw(self) -> u128;

    /// The value with the opposite sign, of NaNs too.
    fn negated(self) -> Self {
        Self::from_raw(self.to_raw() ^ sign_bit(Self::FORMAT))
    }

    /// The value with a positive sign, of NaNs too.
    fn abs(self) -> Self {
        Self::from_raw(self.to_raw() & !sign_bit(Self::FORMAT))
    }

    /// The value with the sign of `sign`.
    fn copysign(self, sign: Self) -> Self {
        let bit = sign_bit(Self::FORMAT);
        Self::from_raw(self.to_raw() & !bit | sign.to_raw() & bit)
    }

    /// Whether the sign bit is set.
    fn is_sign_negative(self) -> bool {
        self.to_raw() & sign_bit(Self::FORMAT) != 0
    }

    /// Whether this is a zero.
    fn is_zero(self) -> bool {
        self.abs().to_raw() == 0
    }

    /// Whether this is an infinity.
    fn is_infinite(self) -> bool {
        self.abs() == Self::infinity(false)
    }

    /// Whether this is a NaN; in the 80-bit format, an infinity without integer bit counts too.
    fn is_nan(self) -> bool {
        biased(self) == Self::FORMAT.special() && !self.is_infinite()
    }

    /// Whether this is a signaling NaN under `rules`.
    fn is_signaling_nan(self, rules: &Rules) -> bool {
        let quiet_bit = 1 << (Self::FORMAT.fraction_bits - 1);
        self.is_nan() && (self.to_raw() & quiet_bit != 0) == rules.quieting.signaling_bit()
    }

    /// Whether this is a number too small to be normal.
    fn is_denormal(self) -> bool {
        biased(self) == 0 && !self.is_zero()
    }

    /// The infinity with this sign.
    fn infinity(negative: bool) -> Self {
        assemble(negative, Self::FORMAT.special(), Self::FORMAT.integer_bit())
    }

    /// The zero with this sign.
    fn zero(negative: bool) -> Self {
        assemble(negative, 0, 0)
    }
}

const fn sign_bit(format: Format) -> u128 {
    1 << (format.width() - 1)
}

/// The biased exponent.
pub(crate) fn biased<F: Float>(value: F) -> u32 {
    let mask = u128::from(F::FORMAT.special());
    // The mask has at most 15 bits.
    #[allow(clippy::cast_possible_truncation)]
    let biased = (value.to_raw() >> F::FORMAT.stored() & mask) as u32;
    biased
}

/// The stored significand.
pub(crate) fn significand<F: Float>(value: F) -> u128 {
    value.to_raw() & ((1 << F::FORMAT.stored()) - 1)
}

/// The value with these parts; `significand` has no more bits than are stored.
pub(crate) fn assemble<F: Float>(negative: bool, biased: u32, significand: u128) -> F {
    let sign = u128::from(negative) << (F::FORMAT.width() - 1);
    F::from_raw(sign | u128::from(biased) << F::FORMAT.stored() | significand)
}

macro_rules! format {
    ($(#[$doc:meta])* $name:ident, $bits:ty, $exponent:literal, $fraction:literal, $explicit:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub struct $name($bits);

        impl sealed::Sealed for $name {}

        impl Float for $name {
            type Bits = $bits;
            const FORMAT: Format = Format {
                exponent_bits: $exponent,
                fraction_bits: $fraction,
                explicit_integer: $explicit,
            };

            fn from_bits(bits: $bits) -> Self {
                Self::from_raw(bits.into())
            }

            fn to_bits(self) -> $bits {
                self.0
            }

            fn from_raw(raw: u128) -> Self {
                let unused = u128::BITS - Self::FORMAT.width();
                // No more bits than the type has are left.
                #[allow(clippy::cast_possible_truncation)]
                let bits = (raw << unused >> unused) as $bits;
                Self(bits)
            }

            fn to_raw(self) -> u128 {
                self.0.into()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:#x})", stringify!($name), self.0)
            }
        }
    };
}

format!(
    /// binary16
    F16, u16, 5, 10, false
);
format!(
    /// bfloat16: binary32 without its lower half.
    Bf16, u16, 8, 7, false
);
format!(
    /// binary32
    F32, u32, 8, 23, false
);
format!(
    /// binary64
    F64, u64, 11, 52, false
);
format!(
    /// The 80-bit extended format of the x87; its bit pattern is the lower 80 bits of a `u128`.
    F80, u128, 15, 63, true
);
format!(
    /// binary128
    F128, u128, 15, 112, false
);

impl F80 {
    /// The value with this sign and exponent word and this significand.
    pub fn new(sign_exponent: u16, significand: u64) -> F80 {
        F80(u128::from(sign_exponent) << 64 | u128::from(significand))
    }

    /// The sign and exponent word, and the significand.
    #[allow(clippy::cast_possible_truncation)] // The two parts of 80 bits.
    pub fn to_parts(self) -> (u16, u64) {
        ((self.0 >> 64) as u16, self.0 as u64)
    }
}

impl From<f32> for F32 {
    fn from(value: f32) -> F32 {
        F32(value.to_bits())
    }
}

impl From<F32> for f32 {
    fn from(value: F32) -> f32 {
        f32::from_bits(value.0)
    }
}

impl From<f64> for F64 {
    fn from(value: f64) -> F64 {
        F64(value.to_bits())
    }
}

impl From<F64> for f64 {
    fn from(value: F64) -> f64 {
        f64::from_bits(value.0)
    }
}
