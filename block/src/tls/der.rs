//! Reading and writing DER (ITU-T X.690), as far as names in certificates and private keys need it.
//!
//! Only definite lengths below 4 GiB and tags of one byte are read, which is all that these
//! structures use.

/// Tag of an OBJECT IDENTIFIER.
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
/// Tag of an OCTET STRING.
pub(super) const OCTET_STRING: u8 = 0x04;
/// Tag of an INTEGER.
pub(super) const INTEGER: u8 = 0x02;
/// Tag of a SEQUENCE.
pub(super) const SEQUENCE: u8 = 0x30;
/// Tag of a SET.
pub(super) const SET: u8 = 0x31;
/// Tag of the version in a certificate: `[0]`, constructed.
pub(super) const CONTEXT_0: u8 = 0xa0;

/// What is left of a run of DER values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads `bytes` from their beginning.
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes that are left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next value's tag.
    pub(super) fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next value: its tag and content.
    pub(super) fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next value, which has this `tag`.
    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content) = self.any()?;
        (found == tag).then_some(content)
    }

    /// The values inside the next value, which has this `tag`.
    pub(super) fn inside(&mut self, tag: u8) -> Option<Reader<'a>> {
        self.expect(tag).map(Reader)
    }

    /// The next value, an integer that is not negative and fits.
    pub(super) fn unsigned(&mut self) -> Option<u64> {
        let bytes = self.expect(INTEGER)?;
        if bytes.is_empty() || bytes.len() > 9 || bytes.first()? & 0x80 != 0 {
            return None;
        }
        let fits = bytes.len() < 9 || bytes.first() == Some(&0);
        fits.then(|| bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }
}

/// A value with this `tag`.
pub(super) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut out = vec![tag];
    if let Ok(short @ 0..=0x7f) = u8::try_from(len) {
        out.push(short);
    } else {
        let bytes = len.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let digits = bytes.get(zeros..).unwrap_or_default();
        out.push(0x80 | u8::try_from(digits.len()).unwrap_or(0x7f));
        out.extend_from_slice(digits);
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_read_in_order() {
        let mut reader = Reader::new(&[0x30, 5, 0x02, 1, 7, 0x04, 0, 0x06, 0x81, 1, 9]);
        let mut inside = reader.inside(SEQUENCE).expect("a sequence");
        assert_eq!(inside.unsigned(), Some(7));
        assert_eq!(inside.expect(OCTET_STRING), Some(&[][..]));
        assert!(inside.is_empty());
        assert_eq!(reader.expect(OBJECT_IDENTIFIER), Some(&[9][..]));
        assert!(reader.is_empty());
    }

    #[test]
    fn lengths_beyond_the_end_are_refused() {
        for bytes in [&[0x30, 2, 0][..], &[0x30, 0x85, 0, 0, 0, 0, 0], &[0x30, 0x80], &[0x30]] {
            assert!(Reader::new(bytes).any().is_none(), "{bytes:?}");
        }
        assert_eq!(Reader::new(&[2, 1, 0x80]).unsigned(), None);
    }

    #[test]
    fn what_is_written_is_read() {
        for len in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![7; len];
            let der = value(OCTET_STRING, &content);
            assert_eq!(Reader::new(&der).expect(OCTET_STRING), Some(&content[..]));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled(bytes in any::<Vec<u8>>()) {
            let mut reader = Reader::new(&bytes);
            while reader.any().is_some() {}
        }
    }
}
