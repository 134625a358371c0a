//! Replies on their way to the client.
//!
//! Whatever is ready at a time leaves in one vectored write, so that many small replies cost one system
//! call. The data of reads is sent from the buffer into which it was read.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use cairn_block::IoBuf;
use cairn_nbd_wire::{
    ChunkFlags, ChunkHeader, ChunkType, DataHeader, ErrorChunk, HeaderStyle, Hole, NbdErrno,
    Request, SimpleReply,
};
use tokio::io::AsyncWrite;
use tokio::sync::OwnedSemaphorePermit;

use crate::stream::BoxStream;

/// Pieces that go into one write at most.
const MAX_SLICES: usize = 128;
/// Pieces that wait when no more requests are taken.
const MAX_SEGMENTS: usize = 512;
/// Most data of a TLS record, in bytes (RFC 8446, section 5.1).
const RECORD: usize = 16 << 10;
/// Longest piece that is stored in place, in bytes: an extended header and a hole behind it.
const SHORT_LEN: usize = ChunkHeader::EXTENDED_LEN + Hole::LEN;

/// The bytes of a piece.
enum Bytes {
    Data(IoBuf),
    Long(Vec<u8>),
    Short([u8; SHORT_LEN], usize),
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Data(data) => data,
            Bytes::Long(bytes) => bytes,
            Bytes::Short(bytes, len) => bytes.get(..*len).unwrap_or_default(),
        }
    }
}

/// A piece of a reply.
struct Segment {
    bytes: Bytes,
    /// Memory that is free again when the piece has been sent.
    _memory: Option<OwnedSemaphorePermit>,
}

/// The pieces that are to be sent, in order.
pub(super) struct Output {
    style: HeaderStyle,
    queue: RefCell<VecDeque<Segment>>,
    /// Bytes of the first piece that were sent.
    sent: Cell<usize>,
    /// Nothing is left in the stream's own buffers.
    is_flushed: Cell<bool>,
    /// Where headers, and pieces of records, are put together.
    scratch: RefCell<Vec<u8>>,
    /// A reply was begun that cannot be completed.
    is_broken: Cell<bool>,
}

impl Output {
    pub(super) fn new(style: HeaderStyle) -> Output {
        Output {
            style,
            queue: RefCell::default(),
            sent: Cell::new(0),
            is_flushed: Cell::new(true),
            scratch: RefCell::default(),
            is_broken: Cell::new(false),
        }
    }

    /// Whether everything was sent.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty() && self.is_flushed.get()
    }

    /// Whether the client is so far behind that no more requests are to be taken.
    pub(super) fn is_full(&self) -> bool {
        self.queue.borrow().len() >= MAX_SEGMENTS
    }

    /// Notes that the client waits for the rest of a reply that will not come: all that is left is to
    /// hang up.
    pub(super) fn give_up(&self) {
        self.is_broken.set(true);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.get()
    }

    fn push(&self, bytes: Bytes, memory: Option<OwnedSemaphorePermit>) {
        self.queue.borrow_mut().push_back(Segment { bytes, _memory: memory });
    }

    fn push_short(&self, bytes: &[u8], memory: Option<OwnedSemaphorePermit>) {
        let mut short = [0; SHORT_LEN];
        match short.get_mut(..bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.push(Bytes::Short(short, bytes.len()), memory);
            }
            None => self.push(Bytes::Long(bytes.to_vec()), memory),
        }
    }

    /// Queues the header of a chunk with `head`, the first bytes of its payload of `len` bytes.
    fn push_chunk(
        &self,
        request: &Request,
        kind: ChunkType,
        is_last: bool,
        len: u64,
        head: &[u8],
        memory: Option<OwnedSemaphorePermit>,
    ) {
        let mut flags = ChunkFlags::empty();
        flags.set(ChunkFlags::DONE, is_last);
        let Request { cookie, offset, .. } = *request;
        let header = ChunkHeader { flags, kind, cookie, offset, len };
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        if header.encode(self.style == HeaderStyle::Extended, &mut scratch).is_err() {
            // No payload of this server is that long.
            self.give_up();
            return;
        }
        scratch.extend_from_slice(head);
        self.push_short(&scratch, memory);
    }

    /// Answers a request that succeeded and has no result.
    pub(super) fn done(&self, request: &Request) {
        if self.style == HeaderStyle::Extended {
            self.push_chunk(request, ChunkType::NONE, true, 0, &[], None);
        } else {
            let reply = SimpleReply { error: 0, cookie: request.cookie };
            self.push_short(&reply.encode(), None);
        }
    }

    /// Ends the reply to a request that has no more data.
    pub(super) fn end(&self, request: &Request) {
        self.push_chunk(request, ChunkType::NONE, true, 0, &[], None);
    }

    /// Answers a request that failed.
    pub(super) fn fail(&self, request: &Request, error: NbdErrno, message: &str) {
        if self.style == HeaderStyle::Simple {
            let reply = SimpleReply { error: error.code(), cookie: request.cookie };
            self.push_short(&reply.encode(), None);
            return;
        }
        let message = message.to_owned();
        let chunk = ErrorChunk { error: error.code(), message, offset: None };
        let mut payload = Vec::new();
        if chunk.encode(&mut payload).is_err() {
            self.give_up();
            return;
        }
        self.push_chunk(request, chunk.kind(), true, payload.len() as u64, &[], None);
        self.push(Bytes::Long(payload), None);
    }

    /// Begins the answer to a read without chunks; all of the data has to follow.
    pub(super) fn begin_simple(&self, request: &Request) {
        self.push_short(&SimpleReply { error: 0, cookie: request.cookie }.encode(), None);
    }

    /// Begins a chunk of `len` bytes of data at `offset`; all of it has to follow.
    pub(super) fn begin_data(&self, request: &Request, offset: u64, len: u64, is_last: bool) {
        let head = DataHeader { offset }.encode();
        let len = len + head.len() as u64;
        self.push_chunk(request, ChunkType::OFFSET_DATA, is_last, len, &head, None);
    }

    /// Queues data that a header announced.
    pub(super) fn data(&self, data: IoBuf, memory: OwnedSemaphorePermit) {
        self.push(Bytes::Data(data), Some(memory));
    }

    /// Queues a chunk of `len` zeroes at `offset`.
    pub(super) fn hole(
        &self,
        request: &Request,
        offset: u64,
        len: u32,
        is_last: bool,
        memory: Option<OwnedSemaphorePermit>,
    ) {
        let hole = Hole { offset, len }.encode();
        let kind = ChunkType::OFFSET_HOLE;
        self.push_chunk(request, kind, is_last, hole.len() as u64, &hole, memory);
    }

    /// Queues a chunk with the status of a range.
    pub(super) fn status(
        &self,
        request: &Request,
        payload: Vec<u8>,
        is_last: bool,
        memory: OwnedSemaphorePermit,
    ) {
        let kind = match self.style {
            HeaderStyle::Extended => ChunkType::BLOCK_STATUS_EXT,
            HeaderStyle::Simple | HeaderStyle::Structured => ChunkType::BLOCK_STATUS,
        };
        self.push_chunk(request, kind, is_last, payload.len() as u64, &[], None);
        self.push(Bytes::Long(payload), Some(memory));
    }

    /// Sends what the stream takes. Returns whether that was anything at all.
    pub(super) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        stream: &mut BoxStream,
    ) -> Poll<io::Result<bool>> {
        let mut queue = self.queue.borrow_mut();
        let mut any = false;
        while !queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            let mut skip = self.sent.get();
            for (slice, segment) in slices.iter_mut().zip(queue.iter()) {
                let bytes = segment.bytes.as_slice();
                *slice = IoSlice::new(bytes.get(skip..).unwrap_or_default());
                skip = 0;
                count += 1;
            }
            let slices = slices.get(..count).unwrap_or_default();
            let sent = match self.poll_write(cx, stream, slices) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(sent)) => sent,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if any => return Poll::Ready(Ok(true)),
                Poll::Pending => return Poll::Pending,
            };
            any = true;
            self.is_flushed.set(false);
            self.advance(&mut queue, sent);
        }
        // TLS may have kept something back.
        if !self.is_flushed.get() {
            match Pin::new(&mut *stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.is_flushed.set(true),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if any => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(any))
    }

    /// Writes the beginning of `slices`. For streams that take one piece at a time, small ones are put
    /// together: each write would become a record of its own.
    fn poll_write(
        &self,
        cx: &mut Context<'_>,
        stream: &mut BoxStream,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut *stream);
        if stream.is_write_vectored() {
            return stream.poll_write_vectored(cx, slices);
        }
        let first = slices.first().map_or(&[][..], |slice| slice);
        if first.len() >= RECORD {
            return stream.poll_write(cx, first);
        }
        let mut scratch = self.scratch.borrow_mut();
        scratch.clear();
        for slice in slices {
            let room = RECORD - scratch.len();
            scratch.extend_from_slice(slice.get(..room).unwrap_or(slice));
            if scratch.len() == RECORD {
                break;
            }
        }
        stream.poll_write(cx, &scratch)
    }

    /// Takes notice of `sent` more bytes that are gone.
    fn advance(&self, queue: &mut VecDeque<Segment>, sent: usize) {
        let mut left = self.sent.get() + sent;
        while let Some(first) = queue.front() {
            let len = first.bytes.as_slice().len();
            if left < len {
                break;
            }
            left -= len;
            queue.pop_front();
        }
        self.sent.set(left);
    }
}
