//! The distinguished name of a certificate's owner as text (RFC 4514), as access rules name peers.

use std::fmt::Write;

use super::der::{CONTEXT_0, OBJECT_IDENTIFIER, Reader, SEQUENCE, SET};

/// Attribute types (their OIDs in DER) with short names: those of RFC 4514, section 3, and `EMAIL`
/// as GnuTLS writes it.
const SHORT_NAMES: &[(&[u8], &str)] = &[
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "EMAIL"),
];

/// The owner named by a certificate in DER, the most specific part first; `None` if it cannot be
/// read.
pub(super) fn subject(certificate: &[u8]) -> Option<String> {
    // RFC 5280, section 4.1: version, serial number, signature, issuer, validity, subject.
    let mut whole = Reader::new(certificate).inside(SEQUENCE)?;
    let mut signed = whole.inside(SEQUENCE)?;
    if signed.peek() == Some(CONTEXT_0) {
        signed.any()?;
    }
    for _ in 0..4 {
        signed.any()?;
    }
    let mut name = signed.inside(SEQUENCE)?;
    let mut parts = Vec::new();
    while !name.is_empty() {
        parts.push(relative_name(name.inside(SET)?)?);
    }
    parts.reverse();
    Some(parts.join(","))
}

fn relative_name(mut set: Reader<'_>) -> Option<String> {
    let mut attributes = Vec::new();
    while !set.is_empty() {
        let mut attribute = set.inside(SEQUENCE)?;
        let kind = attribute.expect(OBJECT_IDENTIFIER)?;
        let (_, value) = attribute.any()?;
        attributes.push(format!("{}={}", kind_name(kind), escaped(value)));
    }
    Some(attributes.join("+"))
}

fn kind_name(oid: &[u8]) -> String {
    match SHORT_NAMES.iter().find(|(known, _)| *known == oid) {
        Some((_, name)) => (*name).to_owned(),
        None => dotted(oid),
    }
}

/// An object identifier in its dotted form (X.690, section 8.19).
fn dotted(oid: &[u8]) -> String {
    let mut text = String::new();
    let mut arc = 0u64;
    for byte in oid {
        arc = arc.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        // Writing to a string cannot fail.
        let _ = if text.is_empty() {
            let first = (arc / 40).min(2);
            write!(text, "{first}.{}", arc - first * 40)
        } else {
            write!(text, ".{arc}")
        };
        arc = 0;
    }
    text
}

/// A value with the escapes of RFC 4514, section 2.4.
fn escaped(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let mut out = String::with_capacity(text.len());
    let last = text.chars().count().saturating_sub(1);
    for (at, c) in text.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=')
            || (at == 0 && matches!(c, ' ' | '#'))
            || (at == last && c == ' ');
        if special {
            out.push('\\');
        }
        if c == '\0' { out.push_str("\\00") } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
        let content = parts.concat();
        let mut out = vec![tag, u8::try_from(content.len()).expect("short")];
        out.extend(content);
        out
    }

    fn attribute(oid: &[u8], value: &str) -> Vec<u8> {
        let value = der(0x0c, &[value.as_bytes().to_vec()]);
        der(SET, &[der(SEQUENCE, &[der(OBJECT_IDENTIFIER, &[oid.to_vec()]), value])])
    }

    fn certificate(name: &[Vec<u8>]) -> Vec<u8> {
        let empty = || der(SEQUENCE, &[]);
        let version = der(CONTEXT_0, &[der(0x02, &[vec![2]])]);
        let serial = der(0x02, &[vec![1]]);
        let signed =
            der(SEQUENCE, &[version, serial, empty(), empty(), empty(), der(SEQUENCE, name)]);
        der(SEQUENCE, &[signed])
    }

    #[test]
    fn the_most_specific_part_comes_first() {
        let name = [
            attribute(&[0x55, 4, 6], "GB"),
            attribute(&[0x55, 4, 3], "a, b"),
            attribute(&[0x2a, 3], "x"),
        ];
        assert_eq!(subject(&certificate(&name)).as_deref(), Some("1.2.3=x,CN=a\\, b,C=GB"));
    }

    #[test]
    fn a_short_certificate_has_no_owner() {
        let whole = certificate(&[attribute(&[0x55, 4, 3], "a")]);
        for end in 0..whole.len() {
            assert_eq!(subject(&whole[..end]), None);
        }
    }
}
