//! The greeting, and the answer to `EXPORT_NAME` (sections "Newstyle negotiation", "Oldstyle
//! negotiation").

use crate::error::{Result, WireError};
use crate::flags::{ExportFlags, HandshakeFlags};
use crate::read::Reader;

/// "NBDMAGIC".
const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// "IHAVEOPT": a newstyle greeting, and every option.
pub(crate) const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// An oldstyle greeting.
const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;

/// Zero bytes behind an oldstyle greeting and behind the answer to `EXPORT_NAME`.
const ZEROES: usize = 124;

/// Bytes of the two magic numbers at the beginning of every greeting.
pub const GREETING_MAGIC_LEN: usize = 16;

/// Bytes of a newstyle greeting.
pub const GREETING_LEN: usize = GREETING_MAGIC_LEN + 2;

/// What a greeting's first [`GREETING_MAGIC_LEN`] bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// Handshake flags (2 bytes) follow, then options.
    Newstyle,
    /// The only export follows ([`OldstyleExport::LEN`] bytes), then transmission.
    Oldstyle,
}

impl Greeting {
    /// Tells the style from the first bytes of the server.
    pub fn decode(magic: &[u8; GREETING_MAGIC_LEN]) -> Result<Greeting> {
        let mut reader = Reader::new("the server's greeting", magic);
        reader.magic64(NBD_MAGIC)?;
        match reader.u64()? {
            OPTION_MAGIC => Ok(Greeting::Newstyle),
            OLDSTYLE_MAGIC => Ok(Greeting::Oldstyle),
            found => Err(WireError::Magic { what: "the server's greeting", found }),
        }
    }

    /// A whole newstyle greeting.
    pub fn newstyle(flags: HandshakeFlags) -> [u8; GREETING_LEN] {
        let mut bytes = [0; GREETING_LEN];
        let (nbd, rest) = bytes.split_at_mut(8);
        let (option, word) = rest.split_at_mut(8);
        nbd.copy_from_slice(&NBD_MAGIC.to_be_bytes());
        option.copy_from_slice(&OPTION_MAGIC.to_be_bytes());
        word.copy_from_slice(&flags.bits().to_be_bytes());
        bytes
    }

    /// The beginning of an oldstyle greeting, which [`OldstyleExport::encode`] completes.
    pub fn oldstyle() -> [u8; GREETING_MAGIC_LEN] {
        let mut bytes = [0; GREETING_MAGIC_LEN];
        let (nbd, old) = bytes.split_at_mut(8);
        nbd.copy_from_slice(&NBD_MAGIC.to_be_bytes());
        old.copy_from_slice(&OLDSTYLE_MAGIC.to_be_bytes());
        bytes
    }
}

/// What an oldstyle server says of its export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldstyleExport {
    /// Size in bytes.
    pub size: u64,
    /// What it is and can do.
    pub flags: ExportFlags,
}

impl OldstyleExport {
    /// Bytes on the wire.
    pub const LEN: usize = 8 + 4 + ZEROES;

    /// Encodes it.
    pub fn encode(&self) -> [u8; OldstyleExport::LEN] {
        let mut bytes = [0; OldstyleExport::LEN];
        let (size, rest) = bytes.split_at_mut(8);
        size.copy_from_slice(&self.size.to_be_bytes());
        rest[..4].copy_from_slice(&u32::from(self.flags.bits()).to_be_bytes());
        bytes
    }

    /// Decodes it. The zero bytes are not looked at.
    pub fn decode(bytes: &[u8; OldstyleExport::LEN]) -> Result<OldstyleExport> {
        let mut reader = Reader::new("the server's description of its export", bytes);
        let size = reader.u64()?;
        let flags = reader.u32()?;
        let flags = u16::try_from(flags).map_err(|_| {
            WireError::invalid("the export's flags", format!("are {flags:#x}, which is unknown"))
        })?;
        Ok(OldstyleExport { size, flags: ExportFlags::from_bits_retain(flags) })
    }
}

/// The answer to `EXPORT_NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportNameReply {
    /// Size in bytes.
    pub size: u64,
    /// What the export is and can do.
    pub flags: ExportFlags,
}

impl ExportNameReply {
    /// Bytes on the wire: with `no_zeroes` if both sides have agreed to leave the zeroes out.
    pub const fn len(no_zeroes: bool) -> usize {
        if no_zeroes { 10 } else { 10 + ZEROES }
    }

    /// Appends the answer to `out`.
    pub fn encode(&self, no_zeroes: bool, out: &mut Vec<u8>) {
        let end = out.len() + ExportNameReply::len(no_zeroes);
        out.extend_from_slice(&self.size.to_be_bytes());
        out.extend_from_slice(&self.flags.bits().to_be_bytes());
        out.resize(end, 0);
    }

    /// Decodes the first 10 bytes of the answer.
    pub fn decode(bytes: &[u8; ExportNameReply::len(true)]) -> Result<ExportNameReply> {
        let mut reader = Reader::new("the answer to EXPORT_NAME", bytes);
        Ok(ExportNameReply {
            size: reader.u64()?,
            flags: ExportFlags::from_bits_retain(reader.u16()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_are_told_apart() {
        let newstyle = Greeting::newstyle(HandshakeFlags::FIXED_NEWSTYLE);
        assert_eq!(&newstyle, b"NBDMAGICIHAVEOPT\0\x01");
        let magic = newstyle.first_chunk().expect("18 bytes");
        assert_eq!(Greeting::decode(magic), Ok(Greeting::Newstyle));
        assert_eq!(Greeting::decode(&Greeting::oldstyle()), Ok(Greeting::Oldstyle));
        assert!(Greeting::decode(b"SSH-2.0-OpenSSH_").is_err());
        assert!(Greeting::decode(b"NBDMAGIC????????").is_err());
    }

    #[test]
    fn an_oldstyle_export_is_described() {
        let flags = ExportFlags::HAS_FLAGS | ExportFlags::SEND_FLUSH;
        let export = OldstyleExport { size: 1 << 40, flags };
        let mut bytes = export.encode();
        assert_eq!(OldstyleExport::decode(&bytes), Ok(export));
        bytes[8] = 1;
        assert!(OldstyleExport::decode(&bytes).is_err());
    }

    #[test]
    fn an_export_name_is_answered_with_and_without_zeroes() {
        let flags = ExportFlags::HAS_FLAGS | ExportFlags::READ_ONLY;
        let reply = ExportNameReply { size: 513, flags };
        for no_zeroes in [false, true] {
            let mut bytes = vec![7];
            reply.encode(no_zeroes, &mut bytes);
            assert_eq!(bytes.len(), 1 + ExportNameReply::len(no_zeroes));
            let head = bytes[1..].first_chunk().expect("long enough");
            assert_eq!(ExportNameReply::decode(head), Ok(reply));
        }
    }
}
