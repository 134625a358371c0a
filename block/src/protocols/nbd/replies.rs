//! Receiving replies (sections "Simple reply message", "Structured reply chunk message" and
//! "Extended reply chunk message" of the protocol document).
//!
//! The server is not trusted: lengths are bounded, data must be what was asked for, each byte once,
//! and what does not fit ends the connection.

use std::io;

use cairn_nbd_wire::{
    BlockStatus, ChunkFlags, ChunkHeader, ChunkType, DataHeader, ErrorChunk, HeaderStyle, Hole,
    MAX_EXTENTS, NbdErrno, ReplyHeader, SimpleReply, WireError,
};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::connection::Connection;
use super::handshake::Export;
use super::request::{Expected, Pending, Refusal};
use crate::num::AsUsize;

/// Reads up to this length come through the buffer of the connection, many at a time. The data of
/// longer ones goes straight to where it is wanted.
pub(super) const SHORT_READ: usize = 16 << 10;
/// Bytes of that buffer.
const BUFFER: usize = 64 << 10;
/// Bytes read at once while long reads are under way: headers, and little of their data.
const SIP: usize = 256;
/// Longest payload of a block status chunk in bytes.
const MAX_STATUS: u64 = 8 + 16 * MAX_EXTENTS as u64;
/// Longest payload of an error chunk in bytes.
const MAX_ERROR: u64 = 16 << 10;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Fault {
    /// It broke.
    Io(io::Error),
    /// The server does not keep to the protocol.
    Protocol(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Fault {
        Fault::Protocol(error.to_string())
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("closed the connection")
            }
            Fault::Io(error) => write!(f, "is lost: {error}"),
            Fault::Protocol(problem) => write!(f, "does not keep to the protocol: {problem}"),
        }
    }
}

fn broken(problem: impl Into<String>) -> Fault {
    Fault::Protocol(problem.into())
}

/// Receives replies until the connection ends.
pub(super) async fn receive(
    connection: &Connection,
    reader: impl AsyncRead + Unpin,
    export: &Export,
) -> Fault {
    let input = Input { reader, buffer: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0 };
    let mut receiver = Receiver { connection, input, export };
    loop {
        if let Err(fault) = receiver.reply().await {
            return fault;
        }
    }
}

/// What comes from the server.
struct Input<R> {
    reader: R,
    buffer: Box<[u8]>,
    /// Unread bytes of the buffer.
    start: usize,
    end: usize,
}

impl<R: AsyncRead + Unpin> Input<R> {
    fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Waits until `len` bytes are unread; at most the buffer's length. Reads `sip` bytes at a time, or
    /// what is missing if that is more.
    async fn want(&mut self, len: usize, sip: usize) -> io::Result<()> {
        while self.end - self.start < len {
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            let most = sip.max(len - self.end);
            let end = self.buffer.len().min(self.end + most);
            let room = self.buffer.get_mut(self.end..end).unwrap_or_default();
            match self.reader.read(room).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.end += read,
            }
        }
        Ok(())
    }

    fn consume(&mut self, len: usize) {
        self.start = self.end.min(self.start + len);
    }

    /// Fills `to`: from the buffer first, then from the stream itself.
    async fn fill(&mut self, to: &mut [u8]) -> io::Result<()> {
        let buffered = self.unread().len().min(to.len());
        let (head, mut rest) = to.split_at_mut(buffered);
        head.copy_from_slice(self.unread().get(..buffered).unwrap_or_default());
        self.consume(buffered);
        while !rest.is_empty() {
            if rest.len() < SHORT_READ {
                // More replies may be there by now.
                self.want(1, BUFFER).await?;
                let buffered = self.unread().len().min(rest.len());
                let (head, tail) = rest.split_at_mut(buffered);
                head.copy_from_slice(self.unread().get(..buffered).unwrap_or_default());
                self.consume(buffered);
                rest = tail;
                continue;
            }
            match self.reader.read(rest).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => rest = rest.split_off_mut(read..).unwrap_or_default(),
            }
        }
        Ok(())
    }

    /// The next `len` bytes, which the caller has bounded.
    async fn payload(&mut self, len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len.as_usize()];
        self.fill(&mut bytes).await?;
        Ok(bytes)
    }
}

struct Receiver<'c, R> {
    connection: &'c Connection,
    input: Input<R>,
    export: &'c Export,
}

impl<R: AsyncRead + Unpin> Receiver<'_, R> {
    /// Takes one simple reply, or one chunk of a structured one.
    async fn reply(&mut self) -> Result<(), Fault> {
        let long = self.connection.long_reads.load(std::sync::atomic::Ordering::Relaxed) > 0;
        let sip = if long { SIP } else { BUFFER };
        self.input.want(ReplyHeader::MIN_LEN, sip).await?;
        let magic = *self.input.unread().first_chunk().unwrap_or(&[0; 4]);
        let len = ReplyHeader::len_of(magic, self.export.style)?;
        self.input.want(len, sip).await?;
        let header = ReplyHeader::decode(self.input.unread().get(..len).unwrap_or_default())?;
        self.input.consume(len);
        match header {
            ReplyHeader::Simple(reply) => self.simple(reply).await,
            ReplyHeader::Chunk(chunk) => self.chunk(chunk).await,
        }
    }

    fn pending(&self, cookie: u64) -> Result<Pending, Fault> {
        let unknown = || broken(format!("it answers a request that was never made ({cookie:#x})"));
        self.connection.take(cookie).ok_or_else(unknown)
    }

    async fn simple(&mut self, reply: SimpleReply) -> Result<(), Fault> {
        let mut pending = self.pending(reply.cookie)?;
        if reply.error != 0 {
            let errno = NbdErrno::from_code(reply.error);
            pending.refusal = Some(Refusal { errno, message: String::new() });
            self.connection.finish(reply.cookie, pending);
            return Ok(());
        }
        let received = match &mut pending.expected {
            Expected::Nothing => Ok(()),
            Expected::Data { buf, .. } if self.export.style == HeaderStyle::Simple => {
                self.input.fill(buf).await.map_err(Fault::from)
            }
            Expected::Data { .. } | Expected::Extents(_) => {
                Err(broken("it sends a simple reply where a structured one was agreed on"))
            }
        };
        match received {
            Ok(()) => {
                self.connection.finish(reply.cookie, pending);
                Ok(())
            }
            Err(fault) => {
                pending.lose();
                Err(fault)
            }
        }
    }

    async fn chunk(&mut self, header: ChunkHeader) -> Result<(), Fault> {
        let mut pending = self.pending(header.cookie)?;
        let done = header.flags.contains(ChunkFlags::DONE);
        let received = async {
            self.content(&header, &mut pending).await?;
            if done { check_complete(&pending) } else { Ok(()) }
        };
        match received.await {
            Ok(()) if done => self.connection.finish(header.cookie, pending),
            Ok(()) => self.connection.put_back(header.cookie, pending),
            Err(fault) => {
                pending.lose();
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Takes the payload of a chunk.
    async fn content(&mut self, header: &ChunkHeader, pending: &mut Pending) -> Result<(), Fault> {
        let len = header.len;
        match header.kind {
            ChunkType::NONE => {
                let last = header.flags.contains(ChunkFlags::DONE);
                if len == 0 && last {
                    Ok(())
                } else {
                    Err(broken("an empty chunk is not the last, or not empty"))
                }
            }
            ChunkType::OFFSET_DATA => self.data(len, pending).await,
            ChunkType::OFFSET_HOLE => self.hole(len, pending).await,
            ChunkType::BLOCK_STATUS | ChunkType::BLOCK_STATUS_EXT => {
                self.status(header.kind == ChunkType::BLOCK_STATUS_EXT, len, pending).await
            }
            kind if kind.is_error() => {
                if len > MAX_ERROR {
                    return Err(broken(format!("an error is described in {len} bytes")));
                }
                let payload = self.input.payload(len).await?;
                let error = ErrorChunk::decode(kind, &payload)?;
                let errno = NbdErrno::from_code(error.error);
                let refusal = Refusal { errno, message: error.message };
                pending.refusal.get_or_insert(refusal);
                Ok(())
            }
            kind => Err(broken(format!("a chunk has the unknown {kind}"))),
        }
    }

    async fn data(&mut self, len: u64, pending: &mut Pending) -> Result<(), Fault> {
        let Some(len) = len.checked_sub(DataHeader::LEN as u64) else {
            return Err(broken("a data chunk has no offset"));
        };
        self.input.want(DataHeader::LEN, SIP).await?;
        let head = self.input.unread().first_chunk().map(DataHeader::decode);
        self.input.consume(DataHeader::LEN);
        let offset = head.map_or(u64::MAX, |head| head.offset);
        let range = part(pending, offset, len)?;
        self.input.fill(range).await?;
        Ok(())
    }

    async fn hole(&mut self, len: u64, pending: &mut Pending) -> Result<(), Fault> {
        if len != Hole::LEN as u64 {
            return Err(broken(format!("a hole is described in {len} bytes")));
        }
        let hole = Hole::decode(&self.input.payload(len).await?)?;
        part(pending, hole.offset, hole.len.into())?.fill(0);
        Ok(())
    }

    async fn status(
        &mut self,
        extended: bool,
        len: u64,
        pending: &mut Pending,
    ) -> Result<(), Fault> {
        if len > MAX_STATUS {
            return Err(broken(format!("a block status has {len} bytes")));
        }
        let Expected::Extents(extents) = &mut pending.expected else {
            return Err(broken("it sends a block status that was not asked for"));
        };
        let payload = self.input.payload(len).await?;
        let status = BlockStatus::decode(extended, &payload)?;
        if Some(status.context) != self.export.context || !extents.is_empty() {
            return Err(broken("it sends a block status that was not asked for"));
        }
        *extents = status.extents;
        Ok(())
    }
}

/// The part of a read's buffer that a chunk is about.
fn part(pending: &mut Pending, offset: u64, len: u64) -> Result<&mut [u8], Fault> {
    let Expected::Data { offset: first, buf, covered } = &mut pending.expected else {
        return Err(broken("it sends data that was not asked for"));
    };
    let wrong = || broken(format!("it sends {len} bytes at {offset} that were not asked for"));
    let start = offset.checked_sub(*first).ok_or_else(wrong)?;
    let end = start.checked_add(len).filter(|end| *end <= buf.len() as u64).ok_or_else(wrong)?;
    if len == 0 || !covered.add(start, end) {
        return Err(broken("it sends parts of a read twice, or in too many pieces"));
    }
    buf.get_mut(start.as_usize()..end.as_usize()).ok_or_else(wrong)
}

/// Whether a reply that ends has all that was asked for.
fn check_complete(pending: &Pending) -> Result<(), Fault> {
    let complete = pending.refusal.is_some()
        || match &pending.expected {
            Expected::Nothing => true,
            Expected::Data { buf, covered, .. } => covered.is_complete(buf.len() as u64),
            Expected::Extents(extents) => !extents.is_empty(),
        };
    if complete { Ok(()) } else { Err(broken("a reply ends without all that was asked for")) }
}
