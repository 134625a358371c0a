//! Requests of the transmission phase (section "Transmission").

use crate::MAX_PAYLOAD;
use crate::code::Command;
use crate::error::{Result, WireError};
use crate::flags::CommandFlags;
use crate::read::Reader;

const COMPACT_MAGIC: u32 = 0x2560_9513;
const EXTENDED_MAGIC: u32 = 0x21e4_1c71;

/// One request, without the payload that may follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// How it is to be done.
    pub flags: CommandFlags,
    /// What is to be done.
    pub command: Command,
    /// Chosen by the client, repeated in the reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Length in bytes: of the effect, or of the payload if the flags say so.
    pub len: u64,
}

impl Request {
    /// Bytes of a compact request.
    pub const COMPACT_LEN: usize = 28;
    /// Bytes of an extended request.
    pub const EXTENDED_LEN: usize = 32;

    fn put_head(&self, magic: u32, bytes: &mut [u8; 24]) {
        bytes[..4].copy_from_slice(&magic.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.bits().to_be_bytes());
        bytes[6..8].copy_from_slice(&self.command.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..].copy_from_slice(&self.offset.to_be_bytes());
    }

    /// Encodes a compact request, whose length fits 32 bits.
    pub fn encode_compact(&self) -> Result<[u8; Request::COMPACT_LEN]> {
        let len = u32::try_from(self.len).map_err(|_| WireError::TooLong {
            what: "a compact request",
            len: self.len,
            max: u64::from(u32::MAX),
        })?;
        let mut head = [0; 24];
        self.put_head(COMPACT_MAGIC, &mut head);
        let mut bytes = [0; Request::COMPACT_LEN];
        bytes[..24].copy_from_slice(&head);
        bytes[24..].copy_from_slice(&len.to_be_bytes());
        Ok(bytes)
    }

    /// Encodes an extended request.
    pub fn encode_extended(&self) -> [u8; Request::EXTENDED_LEN] {
        let mut head = [0; 24];
        self.put_head(EXTENDED_MAGIC, &mut head);
        let mut bytes = [0; Request::EXTENDED_LEN];
        bytes[..24].copy_from_slice(&head);
        bytes[24..].copy_from_slice(&self.len.to_be_bytes());
        bytes
    }

    fn decode_head(reader: &mut Reader<'_>, magic: u32) -> Result<Request> {
        reader.magic32(magic)?;
        Ok(Request {
            flags: CommandFlags::from_bits_retain(reader.u16()?),
            command: Command(reader.u16()?),
            cookie: reader.u64()?,
            offset: reader.u64()?,
            len: 0,
        })
    }

    /// Decodes a compact request.
    pub fn decode_compact(bytes: &[u8; Request::COMPACT_LEN]) -> Result<Request> {
        let mut reader = Reader::new("a request", bytes);
        let request = Request::decode_head(&mut reader, COMPACT_MAGIC)?;
        Ok(Request { len: reader.u32()?.into(), ..request })
    }

    /// Decodes an extended request.
    pub fn decode_extended(bytes: &[u8; Request::EXTENDED_LEN]) -> Result<Request> {
        let mut reader = Reader::new("a request", bytes);
        let request = Request::decode_head(&mut reader, EXTENDED_MAGIC)?;
        Ok(Request { len: reader.u64()?, ..request })
    }

    /// Bytes of payload that follow the request; `extended` if extended headers were negotiated. A write
    /// always has one, even if its flags do not say so as they should.
    pub fn payload_len(&self, extended: bool) -> u64 {
        let is_flagged = extended && self.flags.contains(CommandFlags::PAYLOAD_LEN);
        if is_flagged || self.command == Command::WRITE { self.len } else { 0 }
    }
}

/// The payload of a block status request that names contexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusPayload {
    /// Length of the range in bytes.
    pub len: u64,
    /// Numbers of the contexts.
    pub contexts: Vec<u32>,
}

impl StatusPayload {
    /// Encodes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.len.to_be_bytes().to_vec();
        out.extend(self.contexts.iter().flat_map(|id| id.to_be_bytes()));
        out
    }

    /// Decodes it.
    pub fn decode(payload: &[u8]) -> Result<StatusPayload> {
        let what = "the payload of a block status request";
        if payload.len() as u64 > u64::from(MAX_PAYLOAD) {
            let len = payload.len() as u64;
            return Err(WireError::TooLong { what, len, max: MAX_PAYLOAD.into() });
        }
        let mut reader = Reader::new(what, payload);
        let len = reader.u64()?;
        let count = reader.left() / 4;
        let contexts = (0..count).map(|_| reader.u32()).collect::<Result<_>>()?;
        reader.end()?;
        Ok(StatusPayload { len, contexts })
    }
}
