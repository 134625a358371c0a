//! Integer arithmetic on significands: products, quotients and roots of 128-bit numbers.

/// An unsigned integer of 256 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct U256 {
    pub(crate) hi: u128,
    pub(crate) lo: u128,
}

impl U256 {
    /// `self << count`, for `count` below 256; bits that leave are lost.
    fn shl(self, count: u32) -> U256 {
        match count {
            0 => self,
            1..=127 => {
                U256 { hi: self.hi << count | self.lo >> (128 - count), lo: self.lo << count }
            }
            _ => U256 { hi: self.lo << (count - 128), lo: 0 },
        }
    }

    /// `self >> count`; the lowest bit is set if any bit that leaves is.
    pub(crate) fn shr_sticky(self, count: u32) -> U256 {
        let sticky = |lost: bool| u128::from(lost);
        match count {
            0 => self,
            1..=127 => U256 {
                hi: self.hi >> count,
                lo: self.hi << (128 - count)
                    | self.lo >> count
                    | sticky(self.lo << (128 - count) != 0),
            },
            _ => {
                let lo = shift_right_sticky(self.hi, count - 128);
                U256 { hi: 0, lo: lo | sticky(self.lo != 0) }
            }
        }
    }

    /// The sum, and whether it carries out.
    pub(crate) fn add(self, other: U256) -> (U256, bool) {
        let (lo, carry) = self.lo.overflowing_add(other.lo);
        let (hi, first) = self.hi.overflowing_add(other.hi);
        let (hi, second) = hi.overflowing_add(carry.into());
        (U256 { hi, lo }, first || second)
    }

    /// The difference; `other` must not be larger.
    pub(crate) fn sub(self, other: U256) -> U256 {
        let (lo, borrow) = self.lo.overflowing_sub(other.lo);
        let hi = self.hi.wrapping_sub(other.hi).wrapping_sub(borrow.into());
        U256 { hi, lo }
    }

    /// The value shifted left until its highest bit is set, and by how much; `None` if it is zero.
    pub(crate) fn normalize(self) -> Option<(U256, u32)> {
        let zeros = match (self.hi, self.lo) {
            (0, 0) => return None,
            (0, lo) => 128 + lo.leading_zeros(),
            (hi, _) => hi.leading_zeros(),
        };
        Some((self.shl(zeros), zeros))
    }

    /// The upper half, with the lower one as sticky bit.
    pub(crate) fn high_sticky(self) -> u128 {
        self.hi | u128::from(self.lo != 0)
    }
}

/// `value >> count`; the lowest bit is set if any bit that leaves is.
pub(crate) fn shift_right_sticky(value: u128, count: u32) -> u128 {
    match count {
        0 => value,
        1..=127 => value >> count | u128::from(value << (128 - count) != 0),
        _ => u128::from(value != 0),
    }
}

/// The upper and the lower 64 bits.
#[allow(clippy::cast_possible_truncation)]
fn halves(value: u128) -> (u64, u64) {
    ((value >> 64) as u64, value as u64)
}

fn product(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

/// The whole product.
pub(crate) fn mul(a: u128, b: u128) -> U256 {
    let ((a1, a0), (b1, b0)) = (halves(a), halves(b));
    if a0 == 0 && b0 == 0 {
        // Significands of up to 64 bits.
        return U256 { hi: product(a1, b1), lo: 0 };
    }
    let (middle, carry) = product(a1, b0).overflowing_add(product(a0, b1));
    let (lo, low_carry) = product(a0, b0).overflowing_add(middle << 64);
    let hi = product(a1, b1) + (u128::from(carry) << 64) + (middle >> 64) + u128::from(low_carry);
    U256 { hi, lo }
}

/// `floor(n × 2^128 / d)` with the lowest bit set if the division leaves a remainder.
///
/// Needs `n < d` and the highest bit of `d` set.
pub(crate) fn div(n: u128, d: u128) -> u128 {
    let (high, rest) = div_digit(n, d);
    let (low, rest) = div_digit(rest, d);
    u128::from(high) << 64 | u128::from(low) | u128::from(rest != 0)
}

/// One step of long division in base 2^64: quotient and remainder of `rest × 2^64 / d`.
fn div_digit(rest: u128, d: u128) -> (u64, u128) {
    let (d1, d0) = halves(d);
    // The estimate from the upper digits is at most 2 too large, since the highest bit of `d` is set
    // (Knuth, The Art of Computer Programming vol. 2, 4.3.1, theorem B).
    let mut digit = u64::try_from(rest / u128::from(d1)).unwrap_or(u64::MAX);
    let mut left = rest - product(digit, d1);
    while let (0, low) = halves(left)
        && product(digit, d0) > u128::from(low) << 64
    {
        digit -= 1;
        left += u128::from(d1);
    }
    // The true remainder is below `d`, so arithmetic modulo 2^128 gives it.
    let rest = (rest << 64).wrapping_sub(d.wrapping_mul(digit.into()));
    (digit, rest)
}

/// `floor(sqrt(n × 2^128))` with the lowest bit set if the root is not exact.
///
/// Needs `n` at least 2^126, so that the highest bit of the result is set.
pub(crate) fn sqrt(n: u128) -> u128 {
    // Zimmermann, Karatsuba Square Root (INRIA RR-3805), one level: the root of the upper half, then a
    // division for the lower digit, which is at most 1 too large.
    let s1 = n.isqrt();
    let r1 = n - s1 * s1;
    // r1 is at most 2 s1 < 2^65, so that r1 2^63 does not overflow: (r1 2^64) / (2 s1) without the factor 2.
    let numerator = r1 << 63;
    let digit = (numerator / s1).min(u64::MAX.into());
    let rest = (numerator - digit * s1) * 2;
    let root = s1 << 64 | digit;
    let square = digit * digit;
    if rest >> 64 != 0 {
        // rest 2^64 is larger than any square of a digit.
        return root | 1;
    }
    let rest = rest << 64;
    if rest >= square {
        return root | u128::from(rest != square);
    }
    // The digit was 1 too large. What is left then is 2 root - 1 - (square - rest).
    let excess = square - rest;
    let exact = excess & 1 == 1 && excess / 2 + 1 == root;
    (root - 1) | u128::from(!exact)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers whose digits are all ones, all zeros or near a power of two, where carries happen.
    fn samples() -> Vec<u128> {
        let mut samples = vec![0x1234_5678_9abc_def0_fedc_ba98_7654_3210];
        for shift in [0, 1, 15, 63, 64, 65, 126, 127] {
            let bit = 1_u128 << shift;
            samples.extend([bit, bit - 1, !bit, u128::MAX << shift, u128::MAX >> shift]);
        }
        samples
    }

    #[test]
    fn quotients_times_divisors_give_dividends() {
        for n in samples() {
            for d in samples().into_iter().map(|d| d | 1 << 127).filter(|d| n < *d) {
                let q = div(n, d);
                // n 2^128 = q' d + r with r < d, where q' is q, or q - 1 if the lowest bit is only sticky.
                let fits = |q: u128| {
                    let product = mul(q, d);
                    let dividend = U256 { hi: n, lo: 0 };
                    if product > dividend {
                        return None;
                    }
                    let rest = dividend.sub(product);
                    (rest.hi == 0 && rest.lo < d).then_some(rest.lo)
                };
                let rest = fits(q).or_else(|| fits(q - 1));
                let fits = rest.is_some_and(|rest| rest == 0 || q & 1 == 1);
                assert!(fits, "{n:#x} / {d:#x}");
            }
        }
    }

    #[test]
    fn squares_of_roots_enclose_the_radicand() {
        for n in samples().into_iter().map(|n| n | 1 << 126) {
            let radicand = U256 { hi: n, lo: 0 };
            let root = sqrt(n);
            let floor = if mul(root, root) > radicand { root - 1 } else { root };
            assert!(mul(floor, floor) <= radicand);
            if floor != u128::MAX {
                assert!(mul(floor + 1, floor + 1) > radicand, "{n:#x}");
            }
            assert_eq!(root, floor | u128::from(mul(floor, floor) != radicand), "{n:#x}");
        }
        assert_eq!(sqrt(1 << 126), 1 << 127);
    }

    #[test]
    fn shifts_keep_what_leaves_as_sticky_bit() {
        let one = U256 { hi: 1 << 127, lo: 1 };
        assert_eq!(one.shr_sticky(1), U256 { hi: 1 << 126, lo: 1 });
        assert_eq!(one.shr_sticky(127), U256 { hi: 1, lo: 1 });
        assert_eq!(one.shr_sticky(128), U256 { hi: 0, lo: 1 << 127 | 1 });
        assert_eq!(one.shr_sticky(255), U256 { hi: 0, lo: 1 });
        assert_eq!(one.shr_sticky(9999), U256 { hi: 0, lo: 1 });
        assert_eq!(U256 { hi: 0, lo: 3 }.normalize(), Some((U256 { hi: 3 << 126, lo: 0 }, 254)));
    }
}
