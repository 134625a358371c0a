//! Bit arithmetic that is defined for every shift count.

/// The lowest `len` bits set.
pub(crate) fn ones(len: u32) -> u64 {
    match len {
        0 => 0,
        1..=63 => u64::MAX.wrapping_shr(64_u32.wrapping_sub(len)),
        _ => u64::MAX,
    }
}

/// `value << count`, zero when all bits leave.
pub(crate) fn shl(value: u64, count: u32) -> u64 {
    value.checked_shl(count).unwrap_or(0)
}

/// `value >> count`, zero when all bits leave.
pub(crate) fn shr(value: u64, count: u32) -> u64 {
    value.checked_shr(count).unwrap_or(0)
}

/// The lowest `len` bits of `value`, extended with zeros or the sign.
pub(crate) fn extend(value: u64, len: u32, signed: bool) -> i64 {
    let low = value & ones(len);
    let sign = shl(1, len.saturating_sub(1));
    if signed && low & sign != 0 { (low | !ones(len)).cast_signed() } else { low.cast_signed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edges_are_defined() {
        assert_eq!((ones(0), ones(1), ones(64), ones(99)), (0, 1, u64::MAX, u64::MAX));
        assert_eq!((shl(1, 64), shr(u64::MAX, 64), shl(1, 63)), (0, 0, 1 << 63));
        assert_eq!(extend(0xff, 8, true), -1);
        assert_eq!(extend(0x17f, 8, true), 0x7f);
        assert_eq!(extend(u64::MAX, 64, true), -1);
        assert_eq!(extend(1, 1, true), -1);
    }
}
