//! Requests on their way in.
//!
//! One read of the socket takes in many small requests. The data of a long write goes straight into the
//! buffer from which it is written; what is longer still is written in pieces while it arrives. What a
//! client makes the server keep in memory comes out of one budget: while that is spent, nothing more is
//! read from its socket.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use cairn_block::num::AsUsize;
use cairn_block::{IoBuf, IoBufMut};
use cairn_nbd_wire::{
    Command, CommandFlags, HeaderStyle, MAX_PAYLOAD, NbdErrno, Request, StatusPayload,
};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::rules::{Refusal, check};
use super::{PIECE, STATUS_MEMORY, WHOLE};
use crate::session::Session;
use crate::stream::BoxStream;

/// Bytes that are read ahead.
const BUFFER: usize = 64 << 10;
/// What is missing of a payload is read straight into its buffer if it is at least so long, in bytes.
const DIRECT: usize = 4 << 10;
/// After a write of this length, in bytes, only the next header is read ahead: most likely another such
/// write follows, whose data is not to be copied.
const BULK: u64 = 32 << 10;
/// Longest payload of a block status request, in bytes.
const STATUS_PAYLOAD: u64 = 4 << 10;

/// Memory that a request may fill.
pub(super) enum Memory {
    /// Reserved before the request began.
    Reserved(OwnedSemaphorePermit),
    /// Reserved piece by piece, while nothing is held.
    AsNeeded(Arc<Semaphore>),
}

impl Memory {
    /// Room for `len` bytes.
    pub(super) async fn take(&mut self, len: u64) -> Option<OwnedSemaphorePermit> {
        let wanted = usize::try_from(len).unwrap_or(usize::MAX);
        match self {
            Memory::Reserved(all) => all.split(wanted.min(all.num_permits())),
            Memory::AsNeeded(budget) => {
                let wanted = u32::try_from(len).unwrap_or(u32::MAX);
                Arc::clone(budget).acquire_many_owned(wanted).await.ok()
            }
        }
    }
}

/// A write that is done in pieces.
pub(super) struct LongWrite {
    pub(super) request: Request,
    /// Bytes that are not written yet.
    left: Cell<u64>,
    failure: Cell<Option<NbdErrno>>,
}

impl LongWrite {
    pub(super) fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    /// Notes that a piece is done; tells the result of the whole after the last one.
    pub(super) fn finish(
        &self,
        len: u64,
        result: Result<(), NbdErrno>,
    ) -> Option<Result<(), NbdErrno>> {
        if let Err(error) = result {
            self.failure.set(Some(self.failure.get().unwrap_or(error)));
        }
        let left = self.left.get().saturating_sub(len);
        self.left.set(left);
        (left == 0).then(|| self.failure.get().map_or(Ok(()), Err))
    }
}

/// Something to be done.
pub(super) enum Arrived {
    /// A request without a payload.
    Request { request: Request, memory: Memory },
    /// A block status request for these contexts.
    Status { request: Request, contexts: Vec<u32>, memory: Memory },
    /// A write with all of its data.
    Write { request: Request, data: IoBuf, memory: OwnedSemaphorePermit },
    /// A part of a write.
    Piece { write: Rc<LongWrite>, offset: u64, data: IoBuf, memory: OwnedSemaphorePermit },
    /// A request that cannot be done.
    Refused { request: Request, refusal: Refusal },
}

/// What comes next on the stream.
enum State {
    /// A header.
    Header,
    /// Nothing until there is room for this request.
    Admission(Request),
    /// Data of a write.
    Payload { request: Request, buf: IoBufMut, at: usize, memory: OwnedSemaphorePermit },
    /// Data of a long write, from `at` on.
    Pieces { write: Rc<LongWrite>, at: u64 },
    /// Data of a piece of a long write.
    Piece {
        write: Rc<LongWrite>,
        start: u64,
        buf: IoBufMut,
        at: usize,
        memory: OwnedSemaphorePermit,
    },
    /// The payload of a block status request.
    Contexts { request: Request, buf: IoBufMut, at: usize },
    /// A payload that nobody needs.
    Skip { left: u64, request: Request, refusal: Refusal },
    /// Nothing: no more requests are taken.
    Closed,
}

/// The client's side of a session.
pub(super) struct Intake {
    budget: Arc<Semaphore>,
    buffer: Vec<u8>,
    /// The part of the buffer that is filled and not used yet.
    start: usize,
    end: usize,
    state: State,
    /// Only headers are read ahead.
    is_bulk: bool,
    /// The next request has to wait until all before are done, and the one after for it.
    is_alone: bool,
}

impl Intake {
    pub(super) fn new(budget: Arc<Semaphore>) -> Intake {
        Intake {
            budget,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            state: State::Header,
            is_bulk: false,
            is_alone: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed)
    }

    /// Takes no more requests.
    pub(super) fn close(&mut self) {
        self.state = State::Closed;
    }

    /// The next thing to do; `None` after the last. `idle` tells that all before is done. What waits for
    /// that, or for memory, has to be asked for again when a request is done or a reply was sent.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut BoxStream,
        session: &Session,
        idle: bool,
    ) -> Poll<io::Result<Option<Arrived>>> {
        if self.is_alone {
            if !idle {
                return Poll::Pending;
            }
            self.is_alone = false;
        }
        loop {
            match &mut self.state {
                State::Closed => return Poll::Ready(Ok(None)),
                State::Header => {
                    let extended = session.style == HeaderStyle::Extended;
                    let Some(request) = self.header(extended)? else {
                        let is_fresh = self.start == self.end;
                        if !ready!(self.poll_fill(cx, stream, header_len(extended)))? {
                            // At the end of a request that is how sessions end too.
                            self.close();
                            let cut = Err(io::ErrorKind::UnexpectedEof.into());
                            return Poll::Ready(if is_fresh { Ok(None) } else { cut });
                        }
                        continue;
                    };
                    if let Some(arrived) = self.admit_header(session, request, extended) {
                        return Poll::Ready(Ok(Some(arrived)));
                    }
                }
                State::Admission(request) => {
                    let request = *request;
                    match self.admit(session, request, idle) {
                        Some(Admitted::Now(arrived)) => {
                            self.state = State::Header;
                            return Poll::Ready(Ok(Some(arrived)));
                        }
                        Some(Admitted::After(state)) => self.state = state,
                        None => return Poll::Pending,
                    }
                }
                State::Pieces { write, at } => {
                    let (write, start) = (Rc::clone(write), *at);
                    let len = PIECE.min(write.request.len - start);
                    let Some(memory) = reserve(&self.budget, len) else { return Poll::Pending };
                    let buf = IoBufMut::new(len.as_usize());
                    self.state = State::Piece { write, start, buf, at: 0, memory };
                }
                State::Payload { .. } | State::Piece { .. } | State::Contexts { .. } => {
                    ready!(self.poll_payload(cx, stream))?;
                    if let Some(arrived) = self.payload_arrived(session) {
                        return Poll::Ready(Ok(Some(arrived)));
                    }
                }
                State::Skip { left, request, refusal } => {
                    let buffered = self.end - self.start;
                    let skipped = buffered.min(usize::try_from(*left).unwrap_or(usize::MAX));
                    self.start += skipped;
                    *left -= skipped as u64;
                    if *left == 0 {
                        let (request, refusal) = (*request, *refusal);
                        self.state = State::Header;
                        return Poll::Ready(Ok(Some(Arrived::Refused { request, refusal })));
                    }
                    if !ready!(self.poll_fill(cx, stream, BUFFER))? {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
    }

    /// Reads ahead. Tells whether there was anything to read.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut BoxStream,
        header: usize,
    ) -> Poll<io::Result<bool>> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let limit = if self.is_bulk { header.max(self.end + 1) } else { BUFFER };
        let mut space = ReadBuf::new(self.buffer.get_mut(self.end..limit).unwrap_or_default());
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut space))?;
        let read = space.filled().len();
        self.end += read;
        Poll::Ready(Ok(read > 0))
    }

    /// Takes a header out of the buffer, if it is there as a whole.
    fn header(&mut self, extended: bool) -> io::Result<Option<Request>> {
        let bytes = self.buffer.get(self.start..self.end).unwrap_or_default();
        let request = if extended {
            bytes.first_chunk().map(Request::decode_extended)
        } else {
            bytes.first_chunk().map(Request::decode_compact)
        };
        let Some(request) = request else { return Ok(None) };
        self.start += header_len(extended);
        let request = request.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some(request))
    }

    /// Decides what follows a header. Returns what is to be done at once.
    fn admit_header(
        &mut self,
        session: &Session,
        request: Request,
        extended: bool,
    ) -> Option<Arrived> {
        if request.command == Command::DISC {
            self.close();
            return None;
        }
        let payload = request.payload_len(extended);
        self.is_bulk = payload >= BULK;
        if payload > u64::from(MAX_PAYLOAD) {
            // It is too much to be skipped, and without that the next header cannot be found.
            self.close();
            let refusal = Refusal::invalid("the payload is longer than 32 MiB");
            return Some(Arrived::Refused { request, refusal });
        }
        let has_flag = request.flags.contains(CommandFlags::PAYLOAD_LEN);
        if extended && has_flag && request.command == Command::BLOCK_STATUS {
            self.state = if payload <= STATUS_PAYLOAD {
                State::Contexts { request, buf: IoBufMut::new(payload.as_usize()), at: 0 }
            } else {
                let refusal = Refusal::invalid("the payload is too long");
                State::Skip { left: payload, request, refusal }
            };
            return None;
        }
        match check(session, &request) {
            Ok(()) => self.state = State::Admission(request),
            Err(refusal) if payload == 0 => return Some(Arrived::Refused { request, refusal }),
            Err(refusal) => self.state = State::Skip { left: payload, request, refusal },
        }
        None
    }

    /// Lets a request begin, if there is room for it.
    fn admit(&mut self, session: &Session, request: Request, idle: bool) -> Option<Admitted> {
        let as_needed = || Memory::AsNeeded(Arc::clone(&self.budget));
        let now = |memory| Some(Admitted::Now(Arrived::Request { request, memory }));
        match request.command {
            Command::WRITE if request.len <= WHOLE => {
                let memory = reserve(&self.budget, request.len)?;
                let buf = IoBufMut::new(request.len.as_usize());
                Some(Admitted::After(State::Payload { request, buf, at: 0, memory }))
            }
            Command::WRITE => {
                let left = Cell::new(request.len);
                let write = Rc::new(LongWrite { request, left, failure: Cell::new(None) });
                Some(Admitted::After(State::Pieces { write, at: 0 }))
            }
            Command::READ if request.len <= WHOLE => {
                now(Memory::Reserved(reserve(&self.budget, request.len)?))
            }
            Command::READ if super::can_be_split(session, &request) => now(as_needed()),
            Command::READ => {
                // No other reply may come between its pieces.
                if !idle {
                    return None;
                }
                self.is_alone = true;
                now(Memory::AsNeeded(Arc::clone(&self.budget)))
            }
            Command::BLOCK_STATUS => {
                let contexts = session.contexts.clone();
                let memory = status_memory(&self.budget, &request)?;
                Some(Admitted::Now(Arrived::Status { request, contexts, memory }))
            }
            _ => now(as_needed()),
        }
    }

    /// Completes the payload that is being received.
    fn poll_payload(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut BoxStream,
    ) -> Poll<io::Result<()>> {
        loop {
            let (State::Payload { buf, at, .. }
            | State::Piece { buf, at, .. }
            | State::Contexts { buf, at, .. }) = &mut self.state
            else {
                return Poll::Ready(Ok(()));
            };
            let missing = buf.get_mut(*at..).unwrap_or_default();
            let buffered = self.buffer.get(self.start..self.end).unwrap_or_default();
            let len = missing.len().min(buffered.len());
            if let (Some(to), Some(from)) = (missing.get_mut(..len), buffered.get(..len)) {
                to.copy_from_slice(from);
            }
            *at += len;
            self.start += len;
            let missing = buf.get_mut(*at..).unwrap_or_default();
            if missing.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let read = if missing.len() >= DIRECT {
                let mut space = ReadBuf::new(missing);
                ready!(Pin::new(&mut *stream).poll_read(cx, &mut space))?;
                let read = space.filled().len();
                *at += read;
                read > 0
            } else {
                ready!(self.poll_fill(cx, stream, BUFFER))?
            };
            if !read {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Hands out what the complete payload belongs to.
    fn payload_arrived(&mut self, session: &Session) -> Option<Arrived> {
        match std::mem::replace(&mut self.state, State::Header) {
            State::Payload { request, buf, memory, .. } => {
                Some(Arrived::Write { request, data: buf.freeze(), memory })
            }
            State::Piece { write, start, buf, memory, .. } => {
                let at = start + buf.len() as u64;
                if at < write.request.len {
                    self.state = State::Pieces { write: Rc::clone(&write), at };
                }
                let offset = write.request.offset + start;
                Some(Arrived::Piece { write, offset, data: buf.freeze(), memory })
            }
            State::Contexts { request, buf, .. } => Some(self.status(session, request, &buf)),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// A block status request that names contexts.
    fn status(&self, session: &Session, mut request: Request, payload: &[u8]) -> Arrived {
        let refused = |refusal| Arrived::Refused { request, refusal };
        let Ok(StatusPayload { len, contexts }) = StatusPayload::decode(payload) else {
            return refused(Refusal::invalid("the payload is malformed"));
        };
        let is_known = |id: &u32| session.contexts.contains(id);
        let is_twice = |at: usize, id: &u32| contexts.iter().take(at).any(|other| other == id);
        let is_wrong = contexts.is_empty()
            || contexts.iter().enumerate().any(|(at, id)| !is_known(id) || is_twice(at, id));
        if is_wrong {
            return refused(Refusal::invalid(
                "the payload names contexts that were not negotiated",
            ));
        }
        request.len = len;
        if let Err(refusal) = check(session, &request) {
            return Arrived::Refused { request, refusal };
        }
        // The order is that of the session, whatever the client's was.
        let contexts =
            session.contexts.iter().copied().filter(|id| contexts.contains(id)).collect();
        Arrived::Status { request, contexts, memory: Memory::AsNeeded(Arc::clone(&self.budget)) }
    }
}

/// What becomes of a request that may begin.
enum Admitted {
    /// It is to be done.
    Now(Arrived),
    /// Its payload comes first.
    After(State),
}

fn header_len(extended: bool) -> usize {
    if extended { Request::EXTENDED_LEN } else { Request::COMPACT_LEN }
}

fn reserve(budget: &Arc<Semaphore>, len: u64) -> Option<OwnedSemaphorePermit> {
    let len = u32::try_from(len).ok()?;
    Arc::clone(budget).try_acquire_many_owned(len).ok()
}

/// Memory for the reply to a block status request.
fn status_memory(budget: &Arc<Semaphore>, request: &Request) -> Option<Memory> {
    let len = if request.flags.contains(CommandFlags::REQ_ONE) { 0 } else { STATUS_MEMORY };
    reserve(budget, len).map(Memory::Reserved)
}
