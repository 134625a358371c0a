//! Numbers to text as C's `printf("%.*g")` does, which the reference uses for sizes and JSON.

use std::fmt::Write;

/// Formats a finite `value` with `precision` (at least 1) significant digits like C's `%.{precision}g`:
/// without trailing zeros, in scientific notation for very small and very large numbers.
pub(super) fn format_general(value: f64, precision: usize) -> String {
    let scientific = format!("{value:.*e}", precision - 1);
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits_after_point = i64::try_from(precision).unwrap_or(i64::MAX) - 1 - i64::from(exponent);
    match usize::try_from(digits_after_point) {
        Ok(digits) if exponent >= -4 => {
            let fixed = format!("{value:.digits$}");
            trim_zeros(&fixed).to_owned()
        }
        _ => {
            let mut text = trim_zeros(mantissa).to_owned();
            let sign = if exponent < 0 { '-' } else { '+' };
            // Writing to a String cannot fail.
            let _ = write!(text, "e{sign}{:02}", exponent.unsigned_abs());
            text
        }
    }
}

fn trim_zeros(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_printf() {
        for (value, precision, text) in [
            (0.0, 3, "0"),
            (-0.0, 17, "-0"),
            (64.0, 3, "64"),
            (1.214_843_75, 3, "1.21"),
            (999.9, 3, "1e+03"),
            (0.976_562_5, 3, "0.977"),
            (0.000_012_345, 3, "1.23e-05"),
            (0.000_123_45, 3, "0.000123"),
            (1e300, 17, "1.0000000000000001e+300"),
            (0.1, 17, "0.10000000000000001"),
            (1e20, 17, "1e+20"),
            (100_000.0, 17, "100000"),
            (1e16, 17, "10000000000000000"),
            (1e17, 17, "1e+17"),
            (-2.5, 17, "-2.5"),
        ] {
            assert_eq!(format_general(value, precision), text);
        }
    }
}
