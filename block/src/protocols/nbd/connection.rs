//! One connection to a server: a queue that any thread may fill, and one task that empties it into
//! the stream and hands out the replies.
//!
//! The task lives on the I/O thread that made the connection. It takes all that is queued at once, so
//! that requests made in one turn of the thread go out in one system call, and it reads replies while
//! it writes, so that neither waits for the other. When it ends, for whatever reason, every request
//! that has no reply fails with [`Failure::Lost`].

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use cairn_nbd_wire::{Command, CommandFlags, HeaderStyle, Request as WireRequest};
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};

use super::handshake::Export;
use super::replies::{self, Fault};
use super::request::{Body, Coverage, Done, Expected, Failure, Outcome, Pending, Request, Table};
use super::stream::Stream;
use crate::buf::IoBuf;

/// Requests that go out at once at most; a system call takes 1024 pieces.
const MAX_BATCH: usize = 256;
/// Bytes of data that go out at once at most, so that requests of other tasks are not held up.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// Data up to this length is copied behind its header, which costs less than a piece of its own.
const COPY_LIMIT: usize = 1024;
/// The same where pieces cannot be sent together (TLS): a record's length.
const COPY_LIMIT_WHOLE: usize = 16 << 10;
/// A server that does not take the farewell within this time does not get it.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection, seen by those who use it.
pub(super) struct Connection {
    /// The I/O thread that made it.
    thread: ThreadId,
    state: Mutex<State>,
    /// Tells the task that there is something to send, or that it is to end.
    wake: Notify,
    closing: AtomicBool,
    /// The task is gone.
    ended: AtomicBool,
    gone: Notify,
    /// Sum of the weights of requests under way.
    load: AtomicUsize,
    /// Requests for long reads under way: the reader then leaves their data in the socket.
    pub(super) long_reads: AtomicUsize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Outgoing>,
    table: Table,
    /// No requests are taken any more.
    lost: bool,
}

/// A request that has not been sent.
struct Outgoing {
    request: WireRequest,
    payload: Option<IoBuf>,
}

/// Takes the weight of a request off its connection.
struct Load<'c>(&'c Connection, usize, bool);

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.load.fetch_sub(self.1, Ordering::Relaxed);
        if self.2 {
            self.0.long_reads.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Connection {
    /// A connection that belongs to the current thread.
    pub(super) fn new() -> Arc<Connection> {
        Arc::new(Connection {
            thread: std::thread::current().id(),
            state: Mutex::default(),
            wake: Notify::new(),
            closing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            gone: Notify::new(),
            load: AtomicUsize::new(0),
            long_reads: AtomicUsize::new(0),
        })
    }

    /// The I/O thread that made it.
    pub(super) fn thread(&self) -> ThreadId {
        self.thread
    }

    /// Sum of the weights of requests under way.
    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Sends a request and waits for its reply.
    pub(super) async fn request(&self, request: Request) -> Outcome {
        let weight = request.weight();
        let long = matches!(&request.body, Body::Read(buf) if buf.len() > replies::SHORT_READ);
        self.load.fetch_add(weight, Ordering::Relaxed);
        if long {
            self.long_reads.fetch_add(1, Ordering::Relaxed);
        }
        let _load = Load(self, weight, long);
        let (answer, reply) = oneshot::channel();
        let Request { command, flags, offset, len, body } = request;
        let (expected, payload) = match body {
            Body::None => (Expected::Nothing, None),
            Body::Write(buf) => (Expected::Nothing, Some(buf)),
            Body::Read(buf) => (Expected::Data { offset, buf, covered: Coverage::default() }, None),
            Body::Status => (Expected::Extents(Vec::new()), None),
        };
        let pending = Pending { expected, refusal: None, answer };
        {
            let mut state = self.state.lock();
            if state.lost {
                drop(state);
                pending.lose();
            } else {
                let cookie = state.table.add(pending);
                let request = WireRequest { flags, command, cookie, offset, len };
                state.queue.push_back(Outgoing { request, payload });
                drop(state);
                self.wake.notify_one();
            }
        }
        // If the task is dropped while it works on the reply, so is the sender.
        reply.await.unwrap_or(Err(Failure::Lost(None)))
    }

    /// Has the task say goodbye to the server and end.
    pub(super) fn begin_close(&self) {
        self.closing.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Has the task say goodbye to the server and waits until it is gone.
    pub(super) async fn close(&self) {
        self.begin_close();
        loop {
            let gone = self.gone.notified();
            if self.ended.load(Ordering::Acquire) {
                return;
            }
            gone.await;
        }
    }

    /// Runs the connection over `stream` until it is lost or closed. Tells why it ended, if that was
    /// not by [`Connection::close`].
    pub(super) async fn run(
        self: Arc<Connection>,
        stream: Box<dyn Stream>,
        export: Arc<Export>,
    ) -> Option<Fault> {
        let _end = End(&self);
        let (reader, mut writer) = tokio::io::split(stream);
        let extended = export.style == HeaderStyle::Extended;
        let fault = {
            let replies = replies::receive(&self, reader, &export);
            let requests = self.send_all(&mut writer, extended);
            tokio::select! {
                biased;
                fault = replies => Some(fault),
                sent = requests => sent.err().map(Fault::Io),
            }
        };
        if fault.is_none() {
            // The server need not hear it.
            let _ = tokio::time::timeout(FAREWELL, farewell(&mut writer, extended)).await;
        }
        fault
    }

    /// Sends what is queued, until the connection is to be closed.
    async fn send_all(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        extended: bool,
    ) -> io::Result<()> {
        let mut batch = Batch::default();
        loop {
            self.take_batch(&mut batch, extended, writer.is_write_vectored())?;
            if batch.pieces.is_empty() {
                if self.closing.load(Ordering::Acquire) {
                    return Ok(());
                }
                self.wake.notified().await;
                continue;
            }
            batch.send(writer).await?;
        }
    }

    /// Makes the next batch out of what is queued.
    fn take_batch(&self, batch: &mut Batch, extended: bool, vectored: bool) -> io::Result<()> {
        let limit = if vectored { COPY_LIMIT } else { COPY_LIMIT_WHOLE };
        batch.clear();
        let mut state = self.state.lock();
        let State { queue, table, .. } = &mut *state;
        let mut requests = 0;
        while requests < MAX_BATCH && batch.bytes < MAX_BATCH_BYTES {
            let Some(Outgoing { mut request, payload }) = queue.pop_front() else { break };
            // What nobody waits for any more need not be done.
            if !table.is_wanted(request.cookie) {
                table.take(request.cookie);
                table.release(request.cookie);
                continue;
            }
            requests += 1;
            if extended {
                if payload.is_some() {
                    request.flags |= CommandFlags::PAYLOAD_LEN;
                }
                batch.copy(&request.encode_extended());
            } else {
                batch.copy(&request.encode_compact().map_err(io::Error::other)?);
            }
            match payload {
                Some(payload) if payload.len() <= limit => batch.copy(&payload),
                Some(payload) => batch.attach(payload),
                None => {}
            }
        }
        Ok(())
    }

    /// The request with this cookie, whose reply comes now.
    pub(super) fn take(&self, cookie: u64) -> Option<Pending> {
        self.state.lock().table.take(cookie)
    }

    /// More of the reply follows.
    pub(super) fn put_back(&self, cookie: u64, pending: Pending) {
        self.state.lock().table.put_back(cookie, pending);
    }

    /// The reply is complete.
    pub(super) fn finish(&self, cookie: u64, pending: Pending) {
        self.state.lock().table.release(cookie);
        let outcome = match (pending.refusal, pending.expected) {
            (Some(refusal), _) => Err(Failure::Refused(refusal)),
            (None, Expected::Nothing) => Ok(Done::Nothing),
            (None, Expected::Data { buf, .. }) => Ok(Done::Data(buf)),
            (None, Expected::Extents(extents)) => Ok(Done::Extents(extents)),
        };
        // Nobody may be interested any more.
        let _ = pending.answer.send(outcome);
    }
}

/// Says goodbye to the server.
async fn farewell(writer: &mut (impl AsyncWrite + Unpin), extended: bool) -> io::Result<()> {
    let request = WireRequest {
        flags: CommandFlags::empty(),
        command: Command::DISC,
        cookie: 0,
        offset: 0,
        len: 0,
    };
    if extended {
        writer.write_all(&request.encode_extended()).await?;
    } else {
        writer.write_all(&request.encode_compact().map_err(io::Error::other)?).await?;
    }
    writer.shutdown().await
}

/// Fails what is left when the task of a connection ends or is dropped.
struct End<'c>(&'c Connection);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let lost = {
            let mut state = self.0.state.lock();
            state.lost = true;
            state.queue.clear();
            state.table.drain()
        };
        lost.into_iter().for_each(Pending::lose);
        self.0.ended.store(true, Ordering::Release);
        self.0.gone.notify_waiters();
    }
}

/// Bytes to be sent together.
#[derive(Default)]
struct Batch {
    /// Headers and short data.
    copied: Vec<u8>,
    pieces: Vec<Piece>,
    bytes: usize,
}

enum Piece {
    /// That many bytes of `copied`, behind those of earlier pieces.
    Copied(usize),
    Attached(IoBuf),
}

impl Batch {
    fn clear(&mut self) {
        self.copied.clear();
        self.pieces.clear();
        self.bytes = 0;
    }

    fn copy(&mut self, bytes: &[u8]) {
        self.copied.extend_from_slice(bytes);
        self.bytes += bytes.len();
        match self.pieces.last_mut() {
            Some(Piece::Copied(len)) => *len += bytes.len(),
            _ => self.pieces.push(Piece::Copied(bytes.len())),
        }
    }

    fn attach(&mut self, buf: IoBuf) {
        self.bytes += buf.len();
        self.pieces.push(Piece::Attached(buf));
    }

    async fn send(&self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut copied = self.copied.as_slice();
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            slices.push(IoSlice::new(match piece {
                Piece::Copied(len) => copied.split_off(..*len).unwrap_or_default(),
                Piece::Attached(buf) => buf,
            }));
        }
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            match writer.write_vectored(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => IoSlice::advance_slices(&mut rest, sent),
            }
        }
        writer.flush().await
    }
}
