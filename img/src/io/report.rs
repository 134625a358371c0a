//! What is printed after a request: the statistics, and the bytes that were read.

use std::fmt::Write as _;
use std::time::Duration;

/// Bytes shown in one line of a dump.
const DUMP_WIDTH: usize = 16;

/// The two lines after a request, or with `machine` the one line of numbers: `operation` moved
/// `total` bytes at `offset` in `elapsed`, `count` having been asked for.
pub(super) fn statistics(
    operation: &str,
    offset: u64,
    count: u64,
    total: u64,
    elapsed: Duration,
    machine: bool,
) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let bytes = total as f64;
    let (rate, operations) = (per_second(bytes, elapsed), per_second(1.0, elapsed));
    if machine {
        return format!("{total},1,{},{rate:.3},{operations:.3}\n", clock(elapsed));
    }
    let time = if elapsed.as_secs() == 0 { seconds(elapsed) } else { clock(elapsed) };
    format!(
        "{operation} {total}/{count} bytes at offset {offset}\n\
         {}, 1 ops; {time} ({}/sec and {operations:.4} ops/sec)\n",
        amount(bytes),
        amount(rate),
    )
}

fn per_second(value: f64, elapsed: Duration) -> f64 {
    // A clock that did not move would make the rate infinite.
    value / elapsed.max(Duration::from_nanos(1)).as_secs_f64()
}

/// The form of times below a second.
fn seconds(elapsed: Duration) -> String {
    format!("{:05.2} sec", elapsed.as_secs_f64())
}

/// Hours, minutes and seconds.
fn clock(elapsed: Duration) -> String {
    let whole = elapsed.as_secs();
    format!("{}:{:02}:{:05.2}", whole / 3600, whole / 60 % 60, within_minute(elapsed))
}

fn within_minute(elapsed: Duration) -> f64 {
    let seconds = Duration::new(elapsed.as_secs() % 60, elapsed.subsec_nanos());
    seconds.as_secs_f64()
}

/// A number of bytes with a binary unit and three digits after the point, which are left out if they
/// are zeroes: `64 KiB`, `1.500 KiB`, `512 bytes`.
pub(super) fn amount(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut unit, mut scale) = (None, 1.0);
    for name in UNITS {
        if bytes.trunc() < scale * 1024.0 {
            break;
        }
        scale *= 1024.0;
        unit = Some(name);
    }
    let number = match unit {
        Some(_) => format!("{:.3}", bytes / scale),
        None => format!("{bytes:.6}"),
    };
    let short = number.find(".000").map_or(number.as_str(), |at| &number[..at]);
    format!("{short} {}", unit.unwrap_or("bytes"))
}

/// [`amount`] of a whole number.
pub(super) fn whole_amount(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
    amount(bytes as f64)
}

/// `bytes`, which were read at `offset`, as a table.
pub(super) fn dump(bytes: &[u8], offset: u64) -> String {
    let mut text = String::new();
    let mut at = offset;
    for row in bytes.chunks(DUMP_WIDTH) {
        let _ = write!(text, "{at:08x}:  ");
        for byte in row {
            let _ = write!(text, "{byte:02x} ");
        }
        text.push(' ');
        text.extend(
            row.iter().map(
                |byte| {
                    if byte.is_ascii_alphanumeric() { char::from(*byte) } else { '.' }
                },
            ),
        );
        text.push('\n');
        at = at.saturating_add(DUMP_WIDTH as u64);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_lose_zeroes_after_the_point() {
        for (bytes, text) in [
            (0.0, "0 bytes"),
            (33.0, "33 bytes"),
            (782.400_909, "782.400909 bytes"),
            (1023.9, "1023.900000 bytes"),
            (1024.0, "1 KiB"),
            (1536.0, "1.500 KiB"),
            (65536.0, "64 KiB"),
            (4_063_232.0, "3.875 MiB"),
            (1_152_921_504_606_846_976.0, "1 EiB"),
            (4e21, "3469.447 EiB"),
        ] {
            assert_eq!(amount(bytes), text);
        }
    }

    #[test]
    fn statistics_come_in_two_forms() {
        let text = statistics("read", 512, 2048, 2048, Duration::from_millis(500), false);
        assert_eq!(
            text,
            "read 2048/2048 bytes at offset 512\n\
             2 KiB, 1 ops; 00.50 sec (4 KiB/sec and 2.0000 ops/sec)\n"
        );
        let text = statistics("read", 512, 2048, 2048, Duration::from_millis(500), true);
        assert_eq!(text, "2048,1,0:00:00.50,4096.000,2.000\n");
        let text = statistics("wrote", 0, 1, 1, Duration::from_secs(2 * 3600 + 61), false);
        assert!(text.contains("; 2:01:01.00 ("), "{text}");
    }

    #[test]
    fn dumps_show_letters_and_digits() {
        assert_eq!(
            dump(b" !~A\x7f\x80z9_\n0123456", 65535),
            "0000ffff:  20 21 7e 41 7f 80 7a 39 5f 0a 30 31 32 33 34 35  ...A..z9..012345\n\
             0001000f:  36  6\n"
        );
        assert_eq!(dump(b"", 0), "");
    }
}
