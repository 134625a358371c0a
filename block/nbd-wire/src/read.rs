//! Taking a message apart.

use crate::MAX_STRING;
use crate::error::{Result, WireError};

/// The rest of a message that is being decoded.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// What the message is called in errors.
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, what }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) =
            self.rest.split_first_chunk().ok_or(WireError::Truncated { what: self.what })?;
        self.rest = tail;
        Ok(*head)
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Checks a magic number.
    pub(crate) fn magic32(&mut self, magic: u32) -> Result<()> {
        match self.u32()? {
            found if found == magic => Ok(()),
            found => Err(WireError::Magic { what: self.what, found: found.into() }),
        }
    }

    /// Checks a magic number.
    pub(crate) fn magic64(&mut self, magic: u64) -> Result<()> {
        match self.u64()? {
            found if found == magic => Ok(()),
            found => Err(WireError::Magic { what: self.what, found }),
        }
    }

    /// Bytes left.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// `len` bytes of text called `what`.
    pub(crate) fn text(&mut self, what: &'static str, len: usize) -> Result<String> {
        let (head, tail) = self.rest.split_at_checked(len).ok_or(WireError::Truncated { what })?;
        let text = text(what, head)?;
        self.rest = tail;
        Ok(text)
    }

    /// Text behind its length of 32 bits.
    pub(crate) fn counted_text(&mut self, what: &'static str) -> Result<String> {
        let len = self.u32()?;
        self.text(what, usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// The rest as text.
    pub(crate) fn rest_text(&mut self, what: &'static str) -> Result<String> {
        text(what, std::mem::take(&mut self.rest))
    }

    /// Says that nothing more is expected.
    pub(crate) fn end(self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(WireError::Trailing { what: self.what, extra }),
        }
    }
}

/// A string of the protocol: at most [`MAX_STRING`] bytes of UTF-8 without NUL.
fn text(what: &'static str, bytes: &[u8]) -> Result<String> {
    check_len(what, bytes.len())?;
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(WireError::Text { what }),
    }
}

fn check_len(what: &'static str, len: usize) -> Result<()> {
    if len > MAX_STRING {
        return Err(WireError::TooLong { what, len: len as u64, max: MAX_STRING as u64 });
    }
    Ok(())
}

/// Appends a string of the protocol.
pub(crate) fn put_text(out: &mut Vec<u8>, what: &'static str, text: &str) -> Result<()> {
    check_len(what, text.len())?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Appends a string of the protocol behind its length of 32 bits.
pub(crate) fn put_counted_text(out: &mut Vec<u8>, what: &'static str, text: &str) -> Result<()> {
    out.extend_from_slice(&len32(what, text.len())?.to_be_bytes());
    put_text(out, what, text)
}

/// A length as 32 bits.
pub(crate) fn len32(what: &'static str, len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|_| WireError::TooLong {
        what,
        len: len as u64,
        max: u64::from(u32::MAX),
    })
}
