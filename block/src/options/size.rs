//! Sizes and integers in text: `64k`, `1.5G`, `0x200`, and sizes for people: `1.21 MiB`.

use std::fmt;

use super::number::format_general;

/// Why a text is not a size or an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// Not the form of a number.
    NotANumber,
    /// A number, but negative or too large.
    OutOfRange,
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NumberError::NotANumber => "not a number",
            NumberError::OutOfRange => "out of range",
        })
    }
}

impl std::error::Error for NumberError {}

/// Parses a size in bytes: decimal digits with an optional fraction and an optional binary suffix
/// (b, k, m, g, t, p, e in either case), or `0x` and hexadecimal digits without a suffix.
///
/// Leading white space and `+` are accepted, nothing may follow. A fraction other than zero needs a
/// suffix above `b`; the result is rounded to the nearest byte. Exponents are not a notation for
/// sizes: `1e` is one exbibyte and `1e3` is refused.
pub fn parse_size(text: &str) -> Result<u64, NumberError> {
    let (negative, text) = split_sign(text);
    if let Some(digits) = strip_hex_prefix(text) {
        return integer(negative, digits, 16);
    }
    let whole_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole_digits, rest) = text.split_at(whole_end);
    let whole = if whole_digits.is_empty() {
        None
    } else {
        match integer(negative, whole_digits, 10) {
            Ok(whole) => Some(whole),
            // Junk behind a number that is out of range makes it no number at all.
            Err(error) if rest.is_empty() => return Err(error),
            Err(_) => return Err(NumberError::NotANumber),
        }
    };
    let (fraction, suffix) = match rest.strip_prefix('.') {
        None => (None, rest),
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (digits, suffix) = rest.split_at(end);
            (Some(digits), suffix)
        }
    };
    if negative || (whole.is_none() && fraction.is_none_or(str::is_empty)) {
        return Err(NumberError::NotANumber);
    }
    let multiplier = suffix_multiplier(suffix).ok_or(NumberError::NotANumber)?;
    let fraction = fraction_bits(fraction.unwrap_or(""));
    if multiplier == 1 && fraction != 0 {
        return Err(NumberError::NotANumber);
    }
    let multiplier = u128::from(multiplier);
    let fractional_bytes = (u128::from(fraction) * multiplier + (1 << 63)) >> 64;
    let bytes = u128::from(whole.unwrap_or(0)) * multiplier + fractional_bytes;
    u64::try_from(bytes).map_err(|_| NumberError::OutOfRange)
}

/// Parses an unsigned integer as C does: decimal, `0x` hexadecimal, or octal after a leading `0`.
pub fn parse_u64(text: &str) -> Result<u64, NumberError> {
    let (negative, text) = split_sign(text);
    let (digits, radix) = split_radix(text);
    integer(negative, digits, radix)
}

/// Parses a signed integer as C does: decimal, `0x` hexadecimal, or octal after a leading `0`.
pub fn parse_i64(text: &str) -> Result<i64, NumberError> {
    let (negative, text) = split_sign(text);
    let (digits, radix) = split_radix(text);
    let magnitude = i128::from(integer(false, digits, radix)?);
    i64::try_from(if negative { -magnitude } else { magnitude })
        .map_err(|_| NumberError::OutOfRange)
}

/// A size for people: three significant digits and a binary unit, as `64 MiB`, `1.21 MiB`, `0 B`.
pub fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    // The next unit is used from 1000 on, since "1000 KiB" would have four digits.
    let mut unit = 0;
    while unit + 1 < UNITS.len() && u128::from(bytes) >= 1000 << (10 * unit) {
        unit += 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
    let value = bytes as f64 / (1u64 << (10 * unit)) as f64;
    format!("{} {}", format_general(value, 3), UNITS[unit])
}

/// Cuts white space and a sign off the front; tells whether the sign was a minus.
fn split_sign(text: &str) -> (bool, &str) {
    let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn strip_hex_prefix(text: &str) -> Option<&str> {
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))
}

fn split_radix(text: &str) -> (&str, u32) {
    if let Some(digits) = strip_hex_prefix(text) {
        (digits, 16)
    } else if text.len() > 1 && text.starts_with('0') {
        (text, 8)
    } else {
        (text, 10)
    }
}

/// Digits only. Negative numbers, `-0` among them, are out of range.
fn integer(negative: bool, digits: &str, radix: u32) -> Result<u64, NumberError> {
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(NumberError::NotANumber);
    }
    // All characters are digits, so overflow is the only way to fail.
    let value = u64::from_str_radix(digits, radix).map_err(|_| NumberError::OutOfRange)?;
    if negative { Err(NumberError::OutOfRange) } else { Ok(value) }
}

fn suffix_multiplier(suffix: &str) -> Option<u64> {
    let power = match suffix {
        "" | "b" | "B" => 0,
        "k" | "K" => 1,
        "m" | "M" => 2,
        "g" | "G" => 3,
        "t" | "T" => 4,
        "p" | "P" => 5,
        "e" | "E" => 6,
        _ => return None,
    };
    Some(1 << (10 * power))
}

/// Decimal digits behind the point as a multiple of 2^-64. The detour over a double gives the same
/// bytes for the same text as the reference.
fn fraction_bits(digits: &str) -> u64 {
    let fraction: f64 = format!("0.{digits}0").parse().unwrap_or(0.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast saturates, which rounds 1.0 (many nines) correctly in the end"
    )]
    let bits = (fraction * 2f64.powi(64)) as u64;
    bits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Texts and what `qemu-img create -f raw FILE TEXT` 10.0.2 made of them.
    #[test]
    fn sizes_as_the_reference_reads_them() {
        const KIB: u64 = 1024;
        for (text, bytes) in [
            ("1", 1),
            ("1b", 1),
            ("1B", 1),
            ("1k", KIB),
            ("1K", KIB),
            ("1.5k", 1536),
            ("1.k", KIB),
            (".5k", 512),
            ("00.5k", 512),
            ("1.0", 1),
            ("1.0b", 1),
            (".0", 0),
            ("0x10", 16),
            ("0X1f", 31),
            ("0x10b", 267),
            ("0x1e3", 483),
            ("08", 8),
            ("010", 10),
            ("+1", 1),
            (" +1k", KIB),
            ("\t\n\u{b}\u{c}\r1", 1),
            ("+.5k", 512),
            ("0", 0),
            ("0b", 0),
            ("0x0", 0),
            ("0.1k", 102),
            ("0.0001k", 0),
            ("0.00048828125k", 1),
            ("0.0005k", 1),
            ("1.999999999999k", 2048),
            ("0.99999999999999999999k", 1024),
            ("1t", 1 << 40),
            ("1p", 1 << 50),
            ("1e", 1 << 60),
            ("1.E", 1 << 60),
            ("7e", 7 << 60),
            ("8e", 8 << 60),
            ("0x7fffffffffffffff", i64::MAX.unsigned_abs()),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text:?}");
        }
        // `measure --size` rounds up to 512 bytes.
        for (text, sectors) in [
            ("0.1e", 115_292_150_460_684_800 / 512),
            ("0.7e", 807_045_053_224_793_088 / 512),
            ("7.9e", 9_108_079_886_394_091_520 / 512),
            ("1.999e", 2_304_690_087_709_087_232 / 512),
            ("8388607.99999999t", 9_223_372_036_854_765_056 / 512),
        ] {
            assert_eq!(parse_size(text).map(|b| b.div_ceil(512)), Ok(sectors), "{text:?}");
        }
    }

    #[test]
    fn refusals_as_in_the_reference() {
        for text in [
            "",
            "k",
            ".",
            ".k",
            "-",
            "-x",
            "1 ",
            "1.5",
            "1.5b",
            "0.5",
            "0x",
            "0xg",
            "0x10k",
            "0x1.8",
            "0x1p",
            "0x 1",
            "0x-1",
            "1e3",
            "1e+3",
            "1.5e1k",
            "1.e5",
            "1e.5",
            "nan",
            "inf",
            "1kk",
            "1kb",
            "1_000",
            "1..k",
            "1.5.5k",
            "1. k",
            "1.+5k",
            "1.-5k",
            "+ 1",
            "+-1",
            "++1",
            "-1.5k",
            "-.5k",
            "-1junk",
            "-0x1k",
            "99999999999999999999999k",
            "18446744073709551616junk",
            "0o7",
        ] {
            assert_eq!(parse_size(text), Err(NumberError::NotANumber), "{text:?}");
        }
        for text in [
            "-1",
            " -1",
            "-0",
            "-99999999999999999999",
            "18446744073709551616",
            "99e",
            "0x1ffffffffffffffff",
        ] {
            assert_eq!(parse_size(text), Err(NumberError::OutOfRange), "{text:?}");
        }
    }

    #[test]
    fn integers_take_their_base_from_the_prefix() {
        assert_eq!(parse_u64("020"), Ok(16));
        assert_eq!(parse_u64(" 0x1F"), Ok(31));
        assert_eq!(parse_u64("0"), Ok(0));
        assert_eq!(parse_u64("08"), Err(NumberError::NotANumber));
        assert_eq!(parse_u64("16k"), Err(NumberError::NotANumber));
        assert_eq!(parse_u64("-1"), Err(NumberError::OutOfRange));
        assert_eq!(parse_i64("-0x10"), Ok(-16));
        assert_eq!(parse_i64("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_i64("9223372036854775808"), Err(NumberError::OutOfRange));
    }

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.977 KiB"),
            (1024, "1 KiB"),
            (197_120, "192 KiB"),
            (1_047_552, "0.999 MiB"),
            (1_023_897, "1e+03 KiB"),
            (1_268_736, "1.21 MiB"),
            (64 << 20, "64 MiB"),
            (1 << 60, "1 EiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(format_size(bytes), text, "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_handled(text in any::<String>()) {
            let _ = (parse_size(&text), parse_u64(&text), parse_i64(&text));
        }

        #[test]
        fn number_like_text_is_handled(text in "[ +-]?[0-9x.]{0,25}[bkmgtpeKMGE.]?") {
            let _ = (parse_size(&text), parse_u64(&text), parse_i64(&text));
        }

        #[test]
        fn plain_numbers_are_themselves(bytes in any::<u64>()) {
            prop_assert_eq!(parse_size(&bytes.to_string()), Ok(bytes));
            prop_assert_eq!(parse_size(&format!("{bytes:#x}")), Ok(bytes));
        }
    }
}
