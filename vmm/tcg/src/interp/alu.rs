//! Integer operations as functions; the optimiser folds constants with them.

// Truncation to the type of the operation is what the operations are about.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

use crate::ir::{Op, Ty};

/// `op a`; `None` if the operation is of another shape.
#[inline]
pub fn unary(op: Op, ty: Ty, a: u64) -> Option<u64> {
    let narrow = ty == Ty::I32;
    let low = a as u32;
    Some(match op {
        Op::Mov => a,
        Op::Not => !a,
        Op::Clz if narrow => u64::from(low.leading_zeros()),
        Op::Clz => u64::from(a.leading_zeros()),
        Op::Ctz if narrow => u64::from(low.trailing_zeros()),
        Op::Ctz => u64::from(a.trailing_zeros()),
        Op::Popcnt if narrow => u64::from(low.count_ones()),
        Op::Popcnt => u64::from(a.count_ones()),
        Op::Bswap if narrow => u64::from(low.swap_bytes()),
        Op::Bswap => a.swap_bytes(),
        Op::Sext => {
            let shift = 64 - ty.bits();
            ((a << shift) as i64 >> shift) as u64
        }
        Op::Zext => a & ty.mask(),
        Op::BoxNan => a | !ty.mask(),
        Op::UnboxNan if a & !ty.mask() == !ty.mask() => a & ty.mask(),
        Op::UnboxNan if ty == Ty::F16 => 0x7e00,
        Op::UnboxNan => 0x7fc0_0000,
        _ => return None,
    })
}

/// `a op b`; `None` if the operation is of another shape.
#[inline]
pub fn binary(op: Op, ty: Ty, a: u64, b: u64) -> Option<u64> {
    if ty == Ty::I32 { binary32(op, a as u32, b as u32).map(u64::from) } else { binary64(op, a, b) }
}

macro_rules! integer {
    ($name:ident, $u:ty, $i:ty, $wide_u:ty, $wide_i:ty) => {
        #[inline]
        fn $name(op: Op, a: $u, b: $u) -> Option<$u> {
            let (sa, sb) = (a as $i, b as $i);
            let amount = (b % <$u>::BITS as $u) as u32;
            Some(match op {
                Op::Add => a.wrapping_add(b),
                Op::Sub => a.wrapping_sub(b),
                Op::Mul => a.wrapping_mul(b),
                Op::MulHiS => ((sa as $wide_i * sb as $wide_i) >> <$u>::BITS) as $u,
                Op::MulHiU => ((a as $wide_u * b as $wide_u) >> <$u>::BITS) as $u,
                Op::MulHiSU => ((sa as $wide_i * b as $wide_i) >> <$u>::BITS) as $u,
                Op::ClMul => carryless(u64::from(a), u64::from(b)) as $u,
                Op::ClMulHi => (carryless(u64::from(a), u64::from(b)) >> <$u>::BITS) as $u,
                Op::DivS if b == 0 => <$u>::MAX,
                Op::DivS => sa.wrapping_div(sb) as $u,
                Op::DivU => a.checked_div(b).unwrap_or(<$u>::MAX),
                Op::RemS if b == 0 => a,
                Op::RemS => sa.wrapping_rem(sb) as $u,
                Op::RemU => a.checked_rem(b).unwrap_or(a),
                Op::And => a & b,
                Op::AndNot => a & !b,
                Op::Or => a | b,
                Op::Xor => a ^ b,
                Op::Shl => a << amount,
                Op::Shr => a >> amount,
                Op::Sar => (sa >> amount) as $u,
                Op::Rotl => a.rotate_left(amount),
                Op::Rotr => a.rotate_right(amount),
                Op::MinS => sa.min(sb) as $u,
                Op::MinU => a.min(b),
                Op::MaxS => sa.max(sb) as $u,
                Op::MaxU => a.max(b),
                Op::SetEq => (a == b).into(),
                Op::SetNe => (a != b).into(),
                Op::SetLt => (sa < sb).into(),
                Op::SetGe => (sa >= sb).into(),
                Op::SetLtU => (a < b).into(),
                Op::SetGeU => (a >= b).into(),
                _ => return None,
            })
        }
    };
}
integer!(binary32, u32, i32, u64, i64);
integer!(binary64, u64, i64, u128, i128);

/// The product of two polynomials over the field of two elements.
fn carryless(a: u64, b: u64) -> u128 {
    (0..64).filter(|bit| b >> bit & 1 != 0).fold(0, |sum, bit| sum ^ (u128::from(a) << bit))
}
