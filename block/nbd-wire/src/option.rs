//! Options: what a client asks before transmission (section "Option types").

use crate::code::{InfoType, OptionCode};
use crate::error::{Result, WireError};
use crate::handshake::OPTION_MAGIC;
use crate::read::{Reader, len32, put_counted_text, put_text};

/// What every option begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// Which option.
    pub code: OptionCode,
    /// Bytes of payload that follow.
    pub len: u32,
}

impl OptionHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// Decodes a header.
    pub fn decode(bytes: &[u8; OptionHeader::LEN]) -> Result<OptionHeader> {
        let mut reader = Reader::new("an option", bytes);
        reader.magic64(OPTION_MAGIC)?;
        Ok(OptionHeader { code: OptionCode(reader.u32()?), len: reader.u32()? })
    }

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        out.extend_from_slice(&self.code.0.to_be_bytes());
        out.extend_from_slice(&self.len.to_be_bytes());
    }
}

/// What `INFO` and `GO` ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InfoRequest {
    /// Name of the export; empty for the default one.
    pub name: String,
    /// Items that are wanted.
    pub items: Vec<InfoType>,
}

/// What `LIST_META_CONTEXT` and `SET_META_CONTEXT` ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetaRequest {
    /// Name of the export.
    pub name: String,
    /// Names and wildcards of contexts. None at all asks a listing for everything, and a selection
    /// for nothing.
    pub queries: Vec<String>,
}

/// An option with its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionRequest {
    /// Ends the session.
    Abort,
    /// Chooses an export and begins transmission.
    ExportName(String),
    /// Asks for extended headers.
    ExtendedHeaders,
    /// Describes an export and begins transmission.
    Go(InfoRequest),
    /// Describes an export.
    Info(InfoRequest),
    /// Lists the exports.
    List,
    /// Lists metadata contexts.
    ListMetaContext(MetaRequest),
    /// Selects metadata contexts.
    SetMetaContext(MetaRequest),
    /// Begins TLS.
    StartTls,
    /// Asks for structured replies.
    StructuredReply,
    /// An option that this crate does not know, without its payload.
    Unknown(OptionCode),
}

impl OptionRequest {
    /// The option's number.
    pub fn code(&self) -> OptionCode {
        match self {
            OptionRequest::Abort => OptionCode::ABORT,
            OptionRequest::ExportName(_) => OptionCode::EXPORT_NAME,
            OptionRequest::ExtendedHeaders => OptionCode::EXTENDED_HEADERS,
            OptionRequest::Go(_) => OptionCode::GO,
            OptionRequest::Info(_) => OptionCode::INFO,
            OptionRequest::List => OptionCode::LIST,
            OptionRequest::ListMetaContext(_) => OptionCode::LIST_META_CONTEXT,
            OptionRequest::SetMetaContext(_) => OptionCode::SET_META_CONTEXT,
            OptionRequest::StartTls => OptionCode::STARTTLS,
            OptionRequest::StructuredReply => OptionCode::STRUCTURED_REPLY,
            OptionRequest::Unknown(code) => *code,
        }
    }

    /// The option with its header.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut payload = Vec::new();
        match self {
            OptionRequest::ExportName(name) => put_text(&mut payload, "the export name", name)?,
            OptionRequest::Go(request) | OptionRequest::Info(request) => {
                put_counted_text(&mut payload, "the export name", &request.name)?;
                let count = u16::try_from(request.items.len()).map_err(|_| {
                    WireError::invalid("the list of items", "has more than 65535 entries")
                })?;
                payload.extend_from_slice(&count.to_be_bytes());
                for item in &request.items {
                    payload.extend_from_slice(&item.0.to_be_bytes());
                }
            }
            OptionRequest::ListMetaContext(request) | OptionRequest::SetMetaContext(request) => {
                put_counted_text(&mut payload, "the export name", &request.name)?;
                let count = len32("the list of queries", request.queries.len())?;
                payload.extend_from_slice(&count.to_be_bytes());
                for query in &request.queries {
                    put_counted_text(&mut payload, "a query", query)?;
                }
            }
            _ => {}
        }
        let len = len32("the option", payload.len())?;
        let mut out = Vec::with_capacity(OptionHeader::LEN + payload.len());
        OptionHeader { code: self.code(), len }.encode(&mut out);
        out.extend_from_slice(&payload);
        Ok(out)
    }

    /// Decodes the payload of option `code`.
    pub fn decode(code: OptionCode, payload: &[u8]) -> Result<OptionRequest> {
        let mut reader = Reader::new("the option's payload", payload);
        let request = match code {
            OptionCode::ABORT => OptionRequest::Abort,
            OptionCode::EXPORT_NAME => {
                OptionRequest::ExportName(reader.rest_text("the export name")?)
            }
            OptionCode::EXTENDED_HEADERS => OptionRequest::ExtendedHeaders,
            OptionCode::GO => OptionRequest::Go(info_request(&mut reader)?),
            OptionCode::INFO => OptionRequest::Info(info_request(&mut reader)?),
            OptionCode::LIST => OptionRequest::List,
            OptionCode::LIST_META_CONTEXT => {
                OptionRequest::ListMetaContext(meta_request(&mut reader)?)
            }
            OptionCode::SET_META_CONTEXT => {
                OptionRequest::SetMetaContext(meta_request(&mut reader)?)
            }
            OptionCode::STARTTLS => OptionRequest::StartTls,
            OptionCode::STRUCTURED_REPLY => OptionRequest::StructuredReply,
            other => return Ok(OptionRequest::Unknown(other)),
        };
        // A client that aborts may say why.
        if code != OptionCode::ABORT {
            reader.end()?;
        }
        Ok(request)
    }
}

fn info_request(reader: &mut Reader<'_>) -> Result<InfoRequest> {
    let name = reader.counted_text("the export name")?;
    let count = reader.u16()?;
    let items = (0..count).map(|_| reader.u16().map(InfoType)).collect::<Result<_>>()?;
    Ok(InfoRequest { name, items })
}

fn meta_request(reader: &mut Reader<'_>) -> Result<MetaRequest> {
    let name = reader.counted_text("the export name")?;
    let count = reader.u32()?;
    // Every query takes four bytes at least, so that the payload's length bounds the list.
    if usize::try_from(count).is_ok_and(|count| count > reader.left() / 4) {
        return Err(WireError::Truncated { what: "the list of queries" });
    }
    let queries = (0..count).map(|_| reader.counted_text("a query")).collect::<Result<_>>()?;
    Ok(MetaRequest { name, queries })
}
