//! Answers to options (section "Option reply types").

use crate::code::{OptionCode, ReplyCode};
use crate::error::Result;
use crate::info::InfoItem;
use crate::read::{Reader, len32, put_counted_text, put_text};

const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// What every answer to an option begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionReplyHeader {
    /// The option that is answered.
    pub option: OptionCode,
    /// The kind of answer.
    pub code: ReplyCode,
    /// Bytes of payload that follow.
    pub len: u32,
}

impl OptionReplyHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 20;

    /// Decodes a header.
    pub fn decode(bytes: &[u8; OptionReplyHeader::LEN]) -> Result<OptionReplyHeader> {
        let mut reader = Reader::new("the answer to an option", bytes);
        reader.magic64(REPLY_MAGIC)?;
        Ok(OptionReplyHeader {
            option: OptionCode(reader.u32()?),
            code: ReplyCode(reader.u32()?),
            len: reader.u32()?,
        })
    }
}

/// An answer to an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionReply {
    /// Done; no more answers follow.
    Ack,
    /// Refused; no more answers follow.
    Error {
        /// The reason.
        code: ReplyCode,
        /// The reason for people.
        message: String,
    },
    /// An item of information on an export.
    Info(InfoItem),
    /// A metadata context.
    MetaContext {
        /// Its number in this session; 0 in listings.
        id: u32,
        /// Its name.
        name: String,
    },
    /// An export.
    Server {
        /// Its name.
        name: String,
        /// What it is, for people; may be empty.
        description: String,
    },
    /// An answer that this crate does not know.
    Unknown(ReplyCode),
}

impl OptionReply {
    /// The kind of answer.
    pub fn code(&self) -> ReplyCode {
        match self {
            OptionReply::Ack => ReplyCode::ACK,
            OptionReply::Error { code, .. } | OptionReply::Unknown(code) => *code,
            OptionReply::Info(_) => ReplyCode::INFO,
            OptionReply::MetaContext { .. } => ReplyCode::META_CONTEXT,
            OptionReply::Server { .. } => ReplyCode::SERVER,
        }
    }

    /// Appends the answer to `option`, with its header, to `out`.
    pub fn encode(&self, option: OptionCode, out: &mut Vec<u8>) -> Result<()> {
        let mut payload = Vec::new();
        match self {
            OptionReply::Ack | OptionReply::Unknown(_) => {}
            OptionReply::Error { message, .. } => put_text(&mut payload, "the message", message)?,
            OptionReply::Info(item) => item.encode(&mut payload)?,
            OptionReply::MetaContext { id, name } => {
                payload.extend_from_slice(&id.to_be_bytes());
                put_text(&mut payload, "the name of the context", name)?;
            }
            OptionReply::Server { name, description } => {
                put_counted_text(&mut payload, "the export name", name)?;
                put_text(&mut payload, "the description", description)?;
            }
        }
        let len = len32("the answer", payload.len())?;
        out.extend_from_slice(&REPLY_MAGIC.to_be_bytes());
        for word in [option.0, self.code().0, len] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        out.extend_from_slice(&payload);
        Ok(())
    }

    /// Decodes the payload of an answer of kind `code`.
    pub fn decode(code: ReplyCode, payload: &[u8]) -> Result<OptionReply> {
        let mut reader = Reader::new("the answer to an option", payload);
        let reply = match code {
            ReplyCode::ACK => OptionReply::Ack,
            ReplyCode::SERVER => OptionReply::Server {
                name: reader.counted_text("the export name")?,
                description: reader.rest_text("the description")?,
            },
            ReplyCode::INFO => return InfoItem::decode(payload).map(OptionReply::Info),
            ReplyCode::META_CONTEXT => OptionReply::MetaContext {
                id: reader.u32()?,
                name: reader.rest_text("the name of the context")?,
            },
            code if code.is_error() => {
                OptionReply::Error { code, message: reader.rest_text("the message")? }
            }
            other => return Ok(OptionReply::Unknown(other)),
        };
        reader.end()?;
        Ok(reply)
    }
}
