//! Packets (Debugging with GDB, appendix E.1): `$data#checksum`, acknowledged by `+` unless both sides have agreed not to.

use std::io::{self, BufRead, Write};

/// Bytes of data in a packet, which is told to GDB.
pub(crate) const SIZE: usize = 0x4000;

/// What comes from GDB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// A packet with the right checksum.
    Packet(Vec<u8>),
    /// A packet that is damaged, or too long.
    Damaged,
    /// Ctrl-C.
    Interrupt,
    /// A packet that was sent was damaged.
    Again,
}

/// The next thing that comes; `None` at the end.
pub(crate) fn read(from: &mut impl BufRead) -> io::Result<Option<Incoming>> {
    loop {
        match byte(from)? {
            None => return Ok(None),
            Some(b'$') => return packet(from),
            Some(b'-') => return Ok(Some(Incoming::Again)),
            Some(3) => return Ok(Some(Incoming::Interrupt)),
            // `+`, and what was left of a damaged packet.
            Some(_) => {}
        }
    }
}

fn byte(from: &mut impl BufRead) -> io::Result<Option<u8>> {
    let Some(byte) = from.fill_buf()?.first().copied() else { return Ok(None) };
    from.consume(1);
    Ok(Some(byte))
}

fn packet(from: &mut impl BufRead) -> io::Result<Option<Incoming>> {
    let (mut data, mut sum) = (Vec::new(), 0_u8);
    let mut escaped = false;
    loop {
        let Some(byte) = byte(from)? else { return Ok(None) };
        match byte {
            b'#' => break,
            // The last one was not finished.
            b'$' => (data, sum, escaped) = (Vec::new(), 0, false),
            _ => {
                sum = sum.wrapping_add(byte);
                if byte == b'}' && !escaped {
                    escaped = true;
                    continue;
                }
                // One more than fits is enough to know that it is too long.
                if data.len() <= 2 * SIZE {
                    data.push(if escaped { byte ^ 0x20 } else { byte });
                }
                escaped = false;
            }
        }
    }
    let (Some(high), Some(low)) = (byte(from)?, byte(from)?) else { return Ok(None) };
    let wanted = unhex(&[high, low]);
    let fine = wanted.as_deref() == Some(&[sum]) && data.len() <= 2 * SIZE;
    Ok(Some(if fine { Incoming::Packet(data) } else { Incoming::Damaged }))
}

/// Sends a packet.
pub(crate) fn write(to: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let mut out = vec![b'$'];
    for byte in data {
        if matches!(byte, b'#' | b'$' | b'}' | b'*') {
            out.extend([b'}', byte ^ 0x20]);
        } else {
            out.push(*byte);
        }
    }
    let sum = out[1..].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    out.push(b'#');
    out.extend(hex(&[sum]).bytes());
    to.write_all(&out)?;
    to.flush()
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The reverse of [`hex`].
pub(crate) fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

/// A number in hexadecimal digits.
pub(crate) fn number(text: &str) -> Option<u64> {
    // The standard function takes a sign.
    if text.starts_with(['+', '-']) { None } else { u64::from_str_radix(text, 16).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut bytes: &[u8]) -> Vec<Incoming> {
        std::iter::from_fn(|| read(&mut bytes).unwrap()).collect()
    }

    #[test]
    fn packets_survive_the_way() {
        let data: Vec<u8> = (0..=255).collect();
        let mut sent = Vec::new();
        write(&mut sent, &data).unwrap();
        assert_eq!(all(&sent), [Incoming::Packet(data)]);
    }

    #[test]
    fn damage_is_noticed() {
        assert_eq!(
            all(b"+$m0,4#00\x03-"),
            [Incoming::Damaged, Incoming::Interrupt, Incoming::Again]
        );
        assert_eq!(all(b"$m0,4"), []);
        assert_eq!(all(b"$half$?#3f"), [Incoming::Packet(b"?".to_vec())]);
        let long = [b"$".to_vec(), vec![b'0'; 3 * SIZE], b"#00".to_vec()].concat();
        assert_eq!(all(&long), [Incoming::Damaged]);
    }
}
