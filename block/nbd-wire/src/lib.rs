//! The NBD protocol's messages, for servers and clients.
//!
//! Encoding and decoding only: no I/O, no state. The source is the protocol document (`doc/proto.md` of
//! the NetworkBlockDevice project), to whose sections the items refer. All integers on the wire are
//! big-endian. What is decoded comes from an untrusted peer: every length is checked, and memory is
//! bounded by the length of the message that the caller chose to read.

mod chunk;
mod code;
mod context;
mod errno;
mod error;
mod flags;
mod handshake;
mod info;
mod option;
mod option_reply;
mod read;
mod request;

pub use chunk::{
    BlockStatus, ChunkHeader, DataHeader, ErrorChunk, Extent, HeaderStyle, Hole, ReplyHeader,
    SimpleReply,
};
pub use code::{ChunkType, Command, InfoType, OptionCode, ReplyCode};
pub use context::{
    ALLOCATION_DEPTH, BASE_ALLOCATION, DIRTY, DIRTY_BITMAP, HOLE, MetaContext, MetaQuery, ZERO,
};
pub use errno::NbdErrno;
pub use error::{Result, WireError};
pub use flags::{ChunkFlags, ClientFlags, CommandFlags, ExportFlags, HandshakeFlags};
pub use handshake::{ExportNameReply, GREETING_LEN, GREETING_MAGIC_LEN, Greeting, OldstyleExport};
pub use info::{BlockSizes, InfoItem};
pub use option::{InfoRequest, MetaRequest, OptionHeader, OptionRequest};
pub use option_reply::{OptionReply, OptionReplyHeader};
pub use request::{Request, StatusPayload};

/// Port that IANA assigned to NBD.
pub const DEFAULT_PORT: u16 = 10809;

/// Longest name, description or message, in bytes (section "Values", "string length").
pub const MAX_STRING: usize = 4096;

/// Longest payload of a read or write where the server announces nothing else, in bytes (section
/// "Block size constraints").
pub const MAX_PAYLOAD: u32 = 32 << 20;

/// Longest option payload that servers need to take: a name, and as many queries of full length as
/// anybody asks at once. In bytes.
pub const MAX_OPTION: u32 = 256 << 10;

/// Most extents in one block status reply: what keeps the reply within 2 MiB.
pub const MAX_EXTENTS: usize = 131_072;
