//! Replies of the transmission phase: simple ones, and structured ones, which consist of chunks
//! (sections "Simple reply message", "Structured reply chunk message", "Extended reply chunk message").

use crate::code::ChunkType;
use crate::error::{Result, WireError};
use crate::flags::ChunkFlags;
use crate::read::{Reader, put_text};

const SIMPLE_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_MAGIC: u32 = 0x668e_33ef;
const EXTENDED_MAGIC: u32 = 0x6e8a_278c;

/// What the two sides have agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeaderStyle {
    /// Compact requests, simple replies.
    #[default]
    Simple,
    /// Compact requests; simple replies, but structured ones to reads and block status.
    Structured,
    /// Extended requests and replies.
    Extended,
}

/// A reply without chunks. The data of a read follows if there was no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimpleReply {
    /// 0, or the number of the error.
    pub error: u32,
    /// That of the request.
    pub cookie: u64,
}

impl SimpleReply {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// Encodes it.
    pub fn encode(&self) -> [u8; SimpleReply::LEN] {
        let mut bytes = [0; SimpleReply::LEN];
        bytes[..4].copy_from_slice(&SIMPLE_MAGIC.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.error.to_be_bytes());
        bytes[8..].copy_from_slice(&self.cookie.to_be_bytes());
        bytes
    }
}

/// What every chunk begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Whether more chunks follow.
    pub flags: ChunkFlags,
    /// What the payload is.
    pub kind: ChunkType,
    /// That of the request.
    pub cookie: u64,
    /// Offset of the request; extended headers only.
    pub offset: u64,
    /// Bytes of payload that follow.
    pub len: u64,
}

impl ChunkHeader {
    /// Bytes of a structured header.
    pub const STRUCTURED_LEN: usize = 20;
    /// Bytes of an extended header.
    pub const EXTENDED_LEN: usize = 32;

    /// Appends the header to `out`. Fails if the payload is too long for a structured header.
    pub fn encode(&self, extended: bool, out: &mut Vec<u8>) -> Result<()> {
        let magic = if extended { EXTENDED_MAGIC } else { STRUCTURED_MAGIC };
        let short = u32::try_from(self.len);
        if !extended && short.is_err() {
            return Err(WireError::TooLong {
                what: "a chunk",
                len: self.len,
                max: u64::from(u32::MAX),
            });
        }
        out.extend_from_slice(&magic.to_be_bytes());
        out.extend_from_slice(&self.flags.bits().to_be_bytes());
        out.extend_from_slice(&self.kind.0.to_be_bytes());
        out.extend_from_slice(&self.cookie.to_be_bytes());
        match short {
            Ok(len) if !extended => out.extend_from_slice(&len.to_be_bytes()),
            _ => {
                out.extend_from_slice(&self.offset.to_be_bytes());
                out.extend_from_slice(&self.len.to_be_bytes());
            }
        }
        Ok(())
    }
}

/// The header of any reply, for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyHeader {
    /// A chunk of a structured reply.
    Chunk(ChunkHeader),
    /// A simple reply.
    Simple(SimpleReply),
}

impl ReplyHeader {
    /// Bytes that every reply header has at least: as many are to be read first.
    pub const MIN_LEN: usize = SimpleReply::LEN;

    /// Bytes of the header that begins with `magic`, its first four bytes. Fails if such a reply was
    /// not agreed on.
    pub fn len_of(magic: [u8; 4], style: HeaderStyle) -> Result<usize> {
        match (u32::from_be_bytes(magic), style) {
            (SIMPLE_MAGIC, HeaderStyle::Simple | HeaderStyle::Structured) => Ok(SimpleReply::LEN),
            (STRUCTURED_MAGIC, HeaderStyle::Structured) => Ok(ChunkHeader::STRUCTURED_LEN),
            (EXTENDED_MAGIC, HeaderStyle::Extended) => Ok(ChunkHeader::EXTENDED_LEN),
            (found, _) => Err(WireError::Magic { what: "a reply", found: found.into() }),
        }
    }

    /// Decodes a header of the length that [`ReplyHeader::len_of`] told.
    pub fn decode(bytes: &[u8]) -> Result<ReplyHeader> {
        let mut reader = Reader::new("a reply", bytes);
        let magic = reader.u32()?;
        let header = match magic {
            SIMPLE_MAGIC => {
                ReplyHeader::Simple(SimpleReply { error: reader.u32()?, cookie: reader.u64()? })
            }
            STRUCTURED_MAGIC | EXTENDED_MAGIC => {
                let extended = magic == EXTENDED_MAGIC;
                ReplyHeader::Chunk(ChunkHeader {
                    flags: ChunkFlags::from_bits_retain(reader.u16()?),
                    kind: ChunkType(reader.u16()?),
                    cookie: reader.u64()?,
                    offset: if extended { reader.u64()? } else { 0 },
                    len: if extended { reader.u64()? } else { reader.u32()?.into() },
                })
            }
            found => return Err(WireError::Magic { what: "a reply", found: found.into() }),
        };
        reader.end()?;
        Ok(header)
    }
}

/// The beginning of a data chunk's payload; the data follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// Offset of the data in the export.
    pub offset: u64,
}

impl DataHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 8;

    /// Encodes it.
    pub fn encode(&self) -> [u8; DataHeader::LEN] {
        self.offset.to_be_bytes()
    }

    /// Decodes it.
    pub fn decode(bytes: &[u8; DataHeader::LEN]) -> DataHeader {
        DataHeader { offset: u64::from_be_bytes(*bytes) }
    }
}

/// A hole chunk's payload: zeroes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Offset in the export.
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
}

impl Hole {
    /// Bytes on the wire.
    pub const LEN: usize = 12;

    /// Encodes it.
    pub fn encode(&self) -> [u8; Hole::LEN] {
        let mut bytes = [0; Hole::LEN];
        bytes[..8].copy_from_slice(&self.offset.to_be_bytes());
        bytes[8..].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }

    /// Decodes it.
    pub fn decode(payload: &[u8]) -> Result<Hole> {
        let mut reader = Reader::new("a hole", payload);
        let hole = Hole { offset: reader.u64()?, len: reader.u32()? };
        reader.end()?;
        Ok(hole)
    }
}

/// A run of one status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes.
    pub len: u64,
    /// What the context says of it.
    pub flags: u64,
}

/// A block status chunk's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockStatus {
    /// Number of the context.
    pub context: u32,
    /// Runs from the request's offset on.
    pub extents: Vec<Extent>,
}

impl BlockStatus {
    /// Appends the payload to `out`: with lengths of 64 bits if `extended`, else of 32 bits, into which
    /// they have to fit.
    pub fn encode(&self, extended: bool, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&self.context.to_be_bytes());
        if extended {
            let count = crate::read::len32("the list of extents", self.extents.len())?;
            out.extend_from_slice(&count.to_be_bytes());
        }
        for extent in &self.extents {
            if extended {
                out.extend_from_slice(&extent.len.to_be_bytes());
                out.extend_from_slice(&extent.flags.to_be_bytes());
                continue;
            }
            for value in [extent.len, extent.flags] {
                let value = u32::try_from(value).map_err(|_| {
                    WireError::invalid("an extent", "does not fit into 32 bits".to_owned())
                })?;
                out.extend_from_slice(&value.to_be_bytes());
            }
        }
        Ok(())
    }

    /// Bytes that [`BlockStatus::encode`] appends.
    pub fn encoded_len(&self, extended: bool) -> u64 {
        let (head, each) = if extended { (8, 16) } else { (4, 8) };
        head + each * self.extents.len() as u64
    }

    /// Decodes a payload. There is at least one extent, and none is empty.
    pub fn decode(extended: bool, payload: &[u8]) -> Result<BlockStatus> {
        let what = "a block status";
        let mut reader = Reader::new(what, payload);
        let context = reader.u32()?;
        let each = if extended { 16 } else { 8 };
        let present = if extended {
            let count = reader.u32()?;
            let present = reader.left() / each;
            if u64::from(count) != present as u64 {
                return Err(WireError::invalid(
                    what,
                    format!("announces {count} extents and has {present}"),
                ));
            }
            present
        } else {
            reader.left() / each
        };
        if present == 0 {
            return Err(WireError::invalid(what, "has no extents"));
        }
        let extents = (0..present)
            .map(|_| {
                let extent = if extended {
                    Extent { len: reader.u64()?, flags: reader.u64()? }
                } else {
                    Extent { len: reader.u32()?.into(), flags: reader.u32()?.into() }
                };
                if extent.len == 0 {
                    return Err(WireError::invalid(what, "has an empty extent"));
                }
                Ok(extent)
            })
            .collect::<Result<_>>()?;
        reader.end()?;
        Ok(BlockStatus { context, extents })
    }
}

/// An error chunk's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorChunk {
    /// Number of the error; not 0.
    pub error: u32,
    /// What happened, for people; may be empty.
    pub message: String,
    /// Where it happened.
    pub offset: Option<u64>,
}

impl ErrorChunk {
    /// The chunk's number.
    pub fn kind(&self) -> ChunkType {
        if self.offset.is_some() { ChunkType::ERROR_OFFSET } else { ChunkType::ERROR }
    }

    /// Appends the payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        out.extend_from_slice(&self.error.to_be_bytes());
        let len = u16::try_from(self.message.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&len.to_be_bytes());
        put_text(out, "the message", &self.message)?;
        if let Some(offset) = self.offset {
            out.extend_from_slice(&offset.to_be_bytes());
        }
        Ok(())
    }

    /// Decodes the payload of a chunk of `kind`. Of kinds of errors that are unknown only the number
    /// and the message are looked at.
    pub fn decode(kind: ChunkType, payload: &[u8]) -> Result<ErrorChunk> {
        let mut reader = Reader::new("an error", payload);
        let error = reader.u32()?;
        if error == 0 {
            return Err(WireError::invalid("an error", "has the number 0"));
        }
        let len = reader.u16()?;
        let message = reader.text("the message", len.into())?;
        let offset = match kind {
            ChunkType::ERROR_OFFSET => Some(reader.u64()?),
            _ => None,
        };
        if matches!(kind, ChunkType::ERROR | ChunkType::ERROR_OFFSET) {
            reader.end()?;
        }
        Ok(ErrorChunk { error, message, offset })
    }
}
