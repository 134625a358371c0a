//! Natural numbers of any size, as simply as can be.

use std::cmp::Ordering;

/// Digits in base 2^32, the lowest first, without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Big(Vec<u32>);

#[allow(clippy::cast_possible_truncation)]
fn digit(value: u64) -> u32 {
    value as u32
}

impl Big {
    fn trimmed(mut digits: Vec<u32>) -> Big {
        while digits.last() == Some(&0) {
            digits.pop();
        }
        Big(digits)
    }

    #[allow(clippy::cast_possible_truncation)]
    pub(crate) fn new(value: u128) -> Big {
        Big::trimmed((0..4).map(|index| (value >> (32 * index)) as u32).collect())
    }

    pub(crate) fn to_u128(&self) -> u128 {
        assert!(self.0.len() <= 4, "too large");
        self.0.iter().rev().fold(0, |value, digit| value << 32 | u128::from(*digit))
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of bits without leading zeros.
    pub(crate) fn bits(&self) -> i64 {
        let top = self.0.last().map_or(0, |top| 32 - i64::from(top.leading_zeros()));
        top + 32 * (i64::try_from(self.0.len()).unwrap() - 1).max(0)
    }

    pub(crate) fn shl(&self, count: usize) -> Big {
        let mut digits = vec![0; count / 32];
        let mut carry = 0;
        for value in &self.0 {
            let shifted = u64::from(*value) << (count % 32) | carry;
            digits.push(digit(shifted));
            carry = shifted >> 32;
        }
        digits.push(digit(carry));
        Big::trimmed(digits)
    }

    /// The quotient by `2^count`, and whether bits are lost.
    pub(crate) fn shr(&self, count: usize) -> (Big, bool) {
        let whole = (count / 32).min(self.0.len());
        let lost = self.0[..whole].iter().any(|value| *value != 0);
        let mut digits = self.0[whole..].to_vec();
        let mut carry = 0;
        for value in digits.iter_mut().rev() {
            let wide = carry << 32 | u64::from(*value);
            *value = digit(wide >> (count % 32));
            carry = wide & ((1 << (count % 32)) - 1);
        }
        (Big::trimmed(digits), lost || carry != 0)
    }

    pub(crate) fn add(&self, other: &Big) -> Big {
        let mut digits = Vec::new();
        let mut carry = 0;
        for index in 0..=self.0.len().max(other.0.len()) {
            let at = |big: &Big| big.0.get(index).copied().map_or(0, u64::from);
            let sum = at(self) + at(other) + carry;
            digits.push(digit(sum));
            carry = sum >> 32;
        }
        Big::trimmed(digits)
    }

    /// The difference; `other` must not be larger.
    pub(crate) fn sub(&self, other: &Big) -> Big {
        let mut digits = Vec::new();
        let mut borrow = false;
        for (index, value) in self.0.iter().enumerate() {
            let other = other.0.get(index).copied().unwrap_or(0);
            let (value, first) = value.overflowing_sub(other);
            let (value, second) = value.overflowing_sub(borrow.into());
            borrow = first || second;
            digits.push(value);
        }
        Big::trimmed(digits)
    }

    pub(crate) fn mul(&self, other: &Big) -> Big {
        let mut digits = vec![0_u32; self.0.len() + other.0.len() + 1];
        for (i, a) in self.0.iter().enumerate() {
            let mut carry = 0;
            for (j, b) in other.0.iter().enumerate() {
                let sum = u64::from(*a) * u64::from(*b) + u64::from(digits[i + j]) + carry;
                digits[i + j] = digit(sum);
                carry = sum >> 32;
            }
            digits[i + other.0.len()] = digit(carry);
        }
        Big::trimmed(digits)
    }

    /// Quotient and remainder, bit by bit.
    pub(crate) fn div(&self, other: &Big) -> (Big, Big) {
        let mut rest = self.clone();
        let mut quotient = Big::new(0);
        for shift in (0..=(self.bits() - other.bits()).max(0)).rev() {
            let shift = usize::try_from(shift).unwrap();
            let part = other.shl(shift);
            if part.compare(&rest) != Ordering::Greater {
                rest = rest.sub(&part);
                quotient = quotient.add(&Big::new(1).shl(shift));
            }
        }
        (quotient, rest)
    }

    /// The largest number whose square is not larger.
    pub(crate) fn sqrt(&self) -> Big {
        let mut root = Big::new(0);
        for shift in (0..=self.bits() / 2).rev() {
            let next = root.add(&Big::new(1).shl(usize::try_from(shift).unwrap()));
            if next.mul(&next).compare(self) != Ordering::Greater {
                root = next;
            }
        }
        root
    }

    pub(crate) fn compare(&self, other: &Big) -> Ordering {
        let length = self.0.len().cmp(&other.0.len());
        length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }
}
